# SPDX-License-Identifier: GPL-2.0-or-later
"""BOOT=vng: what virtme-ng is asked, what is made of its answer, and the demo row's verdicts by way of it."""

import json
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import InfraError, StageFailure
from orchestrator.guest.qemu import Machine
from orchestrator.guest.rootfs import Rootfs
from orchestrator.guest.vng import ask_vng, find_reason_not, make_vng_argv, read_argv
from orchestrator.kernel.build import BuildRequest, Kernel, Toolchain
from orchestrator.kernel.kconfig import Config
from orchestrator.project.arch import ARCHES, Arch
from orchestrator.project.condition import Version
from orchestrator.project.guest import GuestShape
from orchestrator.source.repository import Source
from tests.conftest import ROOT, cowbell_with_store, find_processes, is_running, wait_for

# a shell would start something at each of these
NASTY = "a b;$(touch pwned)'c"
BOARD = ["-device", "virtio-rng-pci", "-netdev", f"user,id=n{NASTY}", "-serial", "chardev:console"]
PRINTED = (
    "/bin/qemu -serial chardev:console -chardev file,id=console,path=/dev/null -device virtio-serial-pci "
    "-append 'quiet init=/bin/sh -- -c \"a; b\"' -serial chardev:console"
)


def make_machine(folder: Path) -> Machine:
    image = folder / "vmlinux"
    image.write_bytes(b"\x7fELF")
    (folder / "root.img").write_bytes(bytes(1 << 16))
    config = Config("id", "x86_64", (), "extra=1")
    source = Source("s", "fake-5.10", "", Version.parse("5.10.226"), "b", "c", "t")
    request = BuildRequest(source, config, ARCHES["x86_64"], Toolchain("gcc", (), "gcc 12"))
    kernel = Kernel(request, folder, image, "0123abcd")
    return Machine(kernel, Rootfs("id", folder / "root.img"), GuestShape(2, 512), "tcg", 1, boot="vng")


@pytest.fixture
def qemu(tmp_path: Path) -> str:
    """All that vng wants to know of QEMU is its version."""
    folder = tmp_path / NASTY
    folder.mkdir()
    program = folder / "qemu-system-x86_64"
    program.write_text("#!/bin/sh\necho 'QEMU emulator version 7.2.22'\n")
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize("accel", ["tcg", "kvm"])
def test_what_vng_is_asked(tmp_path: Path, accel: str) -> None:
    machine = replace(make_machine(tmp_path), accel=accel)
    argv = make_vng_argv(machine, "/bin/vng", "/bin/qemu", BOARD)
    assert argv == make_vng_argv(machine, "/bin/vng", "/bin/qemu", BOARD)
    # it must start nothing; take KVM only when a guest has booted on it; and share no memory with emulation
    assert {"--dry-run", "--disable-kvm", "--force-9p", "--root-disk"} <= set(argv)
    # vsock, fixed ports, the terminal, the host's own root
    assert not {"--ssh", "--debug", "--pin", "--root", "--rwdir", "--console", "--network"} & set(argv)
    (append,) = (word for word in argv if word.startswith("--append="))
    assert {"ignore_loglevel", "panic=-1", "extra=1"} <= set(append.removeprefix("--append=").split())
    assert ("maxcpus=1" in append) == (accel == "tcg")
    (options,) = (word for word in argv if word.startswith("--qemu-opts="))
    assert shlex.split(options.removeprefix("--qemu-opts="))[-len(BOARD) :] == BOARD


def test_what_vng_answers(qemu: str, tmp_path: Path, home: Path) -> None:
    folder = tmp_path / NASTY
    machine = make_machine(folder)
    argv = ask_vng(machine, qemu, BOARD, folder)
    options = list(zip(argv, argv[1:], strict=False))
    assert argv[0] == qemu
    assert argv[-len(BOARD) :] == BOARD
    assert ("-kernel", str(machine.kernel.image)) in options
    assert ("-set", "drive.virtme-root.snapshot=on") in options
    # one console, and it is ours
    assert [value for option, value in options if option == "-serial"] == ["chardev:console"]
    assert not [value for option, value in options if "id=console" in value]
    (cmdline,) = (value for option, value in options if option == "-append")
    words = cmdline.split()
    assert words.index("quiet") < words.index("ignore_loglevel") < words.index("--")
    assert {"extra=1", "panic=-1", "root=/dev/vda"} <= set(words)
    # of the host's files, vng's own to read
    shared = [value for option, value in options if option in ("-fsdev", "-virtfs")]
    assert len(shared) == 1
    assert "virtme/guest," in shared[0]
    assert "readonly=on" in shared[0]
    assert not [word for word in argv if "kvm" in word or "vsock" in word or "virtiofs" in word]
    assert not list(home.iterdir()), "it keeps out of the user's home"
    assert not list(tmp_path.rglob("pwned")) + list(ROOT.glob("pwned"))


@pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES)
def test_where_vng_boots_nothing_is_said(arch: Arch) -> None:
    reason = find_reason_not(arch)
    assert (reason == "") == (arch.is_native and arch.name == "x86_64")
    assert reason == "" or arch.name in reason


def test_answer_without_a_command_is_the_tools_fault() -> None:
    with pytest.raises(InfraError, match="printed no QEMU command"):
        read_argv("Traceback\nAttributeError", "/bin/qemu")


def test_answer_keeps_our_console() -> None:
    argv = read_argv(f"WARNING: something\n{PRINTED}\n", "/bin/qemu")
    assert argv == ["/bin/qemu", "-device", "virtio-serial-pci", *shlex.split(PRINTED)[7:]]


@pytest.mark.parametrize("gone", ["-serial chardev:console ", "-chardev file,id=console,path=/dev/null "])
def test_console_that_went_elsewhere_is_noticed(gone: str) -> None:
    printed = PRINTED.replace(gone, "", 1).replace(" -serial chardev:console", "")
    with pytest.raises(InfraError, match="is not supported"):
        read_argv(printed, "/bin/qemu")


def test_command_line_that_would_be_cut_off_is_refused() -> None:
    with pytest.raises(StageFailure, match="the limit is 2047"):
        read_argv(PRINTED.replace("quiet", "x" * 2048), "/bin/qemu")


def test_variable_has_two_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "BOOT   = qemu " in cowbell_with_store(tmp_path, "-p").stdout
    done = cowbell_with_store(tmp_path, "test", "BOOT=vgn")
    assert done.returncode == 2
    assert "BOOT: expected qemu or vng, got vgn; did you mean vng?" in done.stderr
    monkeypatch.setenv("BOOT", "vng")
    printed = cowbell_with_store(tmp_path, "-p").stdout
    (shown,) = (line for line in printed.splitlines() if line.startswith("BOOT "))
    assert shown.split() == ["BOOT", "=", "vng", "#", "environment"]


@pytest.mark.kernel
def test_verdicts_are_those_of_qemu(kernel_store_root: Path, setup_kconfig: tuple[str, ...]) -> None:
    words = ("-B", "test", "--json", "ROW=demo", "SERIES=none", f"CONFIG={','.join(setup_kconfig)}")
    ways = [cowbell_with_store(kernel_store_root, *words, f"BOOT={boot}") for boot in ("qemu", "vng")]
    assert [done.returncode for done in ways] == [0, 0], [done.stderr for done in ways]
    reports = [json.loads(done.stdout) for done in ways]
    (ours,), (theirs,) = (report["jobs"] for report in reports)
    assert (ours["boot"], theirs["boot"]) == ("qemu", "vng")
    assert theirs["build_id"] == ours["build_id"]
    verdicts = [{v["name"]: v["raw"] for v in job["verdicts"]} for job in (ours, theirs)]
    assert verdicts[0] == verdicts[1]
    assert {"pass", "fail"} == set(verdicts[0].values())


@pytest.mark.kernel
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind(
    kernel_store_root: Path, setup_kconfig: tuple[str, ...], number: signal.Signals
) -> None:
    words = ["-B", "test", "ROW=demo", "SERIES=none", "TESTS=odirect.rd-control", "BOOT=vng"]
    words += [f"CONFIG={','.join(setup_kconfig)}"]
    with subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *words],
        cwd=ROOT,
        env=os.environ | {"COWBELL_STORE": str(kernel_store_root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        wait_for(lambda: find_processes("virtme.guesttools"), 600)
        guests = find_processes("virtme.guesttools")
        process.send_signal(number)
        assert process.wait(30) == (130 if number == signal.SIGTERM else -number)
    wait_for(lambda: not any(map(is_running, guests)))
