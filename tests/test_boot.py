# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's command line, and guests that do not come up: whose fault, with what evidence, and nothing left."""

import base64
import contextlib
import errno
import gzip
import io
import os
import signal
import socket
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import paramiko
import pytest

from orchestrator.errors import InfraError, StageFailure
from orchestrator.guest import accel, boot, qemu
from orchestrator.guest.accel import choose_accel, find_accel
from orchestrator.guest.boot import READY, Phase, boot_guest, find_phase
from orchestrator.guest.connection import CommandResult, Guest, Keys, connect
from orchestrator.guest.modules import NO_ROOT
from orchestrator.guest.qemu import Machine, make_argv, make_cmdline
from orchestrator.guest.rootfs import Rootfs
from orchestrator.kernel.build import BuildRequest, Kernel, Toolchain
from orchestrator.kernel.fragment import SymbolRequest
from orchestrator.kernel.kconfig import Config
from orchestrator.process import command
from orchestrator.process.command import Deadline
from orchestrator.project.arch import ARCHES, Arch
from orchestrator.project.guest import Disk, GuestShape, Swap
from orchestrator.store.store import Store
from tests.conftest import LOGS, QuietProgress, find_processes, wait_for
from tests.kernels import SOURCE

GCC = Toolchain("gcc", (), "gcc 12")
PANIC = (
    "print [    0.000000] Linux version 5.10.226\n"
    "print [    0.412345] VFS: Unable to mount root fs on unknown-block(0,0)\n"
    "print [    0.413579] Kernel panic - not syncing: VFS: Unable to mount root fs\n"
)

MakeMachine = Callable[[str], Machine]

# five times as long under emulation: for a pretended QEMU to start on a host that is busy otherwise
LIMIT_S = 2


@pytest.fixture
def make_machine(tmp_path: Path, fakes: Path) -> MakeMachine:
    """``make_machine(steps)``: the fake QEMU goes through the steps."""

    def make(steps: str) -> Machine:
        image = tmp_path / "vmlinux"
        image.write_text(steps)
        (tmp_path / "root.img").write_bytes(bytes(1 << 16))
        config = Config("id", "x86_64", (), "extra=1")
        kernel = Kernel(BuildRequest(SOURCE, config, ARCHES["x86_64"], GCC), tmp_path, image, "0123abcd")
        rootfs = Rootfs("id", tmp_path / "root.img")
        return Machine(kernel, rootfs, GuestShape(2, 512), "tcg", boot_limit_s=LIMIT_S)

    return make


def starts(machine: Machine) -> list[str]:
    path = Path(f"{machine.kernel.image}.starts")
    return path.read_text().splitlines() if path.exists() else []


def boot_once(machine: Machine, folder: Path) -> None:
    with boot_guest(machine, folder):
        pytest.fail("a guest that never was is ready")


def test_cmdline(make_machine: MakeMachine) -> None:
    words = make_cmdline(make_machine("")).split(" ")
    assert {"console=ttyS0", "root=/dev/vda", "panic=-1", "ignore_loglevel", "extra=1"} <= set(words)
    assert "quiet" not in words
    assert words.index("extra=1") < words.index("--"), "after -- the words are init's"
    assert "" not in words
    # emulated x86 has the other CPUs brought up by init; KVM needs no such care
    assert "maxcpus=1" in words
    assert "maxcpus=1" not in make_cmdline(replace(make_machine(""), accel="kvm"))


def test_argv(make_machine: MakeMachine) -> None:
    machine = make_machine("")
    argv = make_argv(machine, "/bin/qemu", Path("/folder"), 7, 8)
    assert argv == make_argv(machine, "/bin/qemu", Path("/folder"), 7, 8)
    options = dict(zip(argv, argv[1:], strict=False))
    assert options["-kernel"] == str(machine.kernel.image)
    assert options["-append"] == make_cmdline(machine)
    assert (options["-serial"], options["-mon"]) == ("chardev:console", "chardev=monitor,mode=control")
    assert {"socket,id=console,fd=7", "socket,id=monitor,fd=8"} <= set(argv)
    assert options["-m"] == "512M"
    assert options["-smp"].startswith("cpus=2,")
    assert (options["-accel"], options["-cpu"]) == ("tcg,thread=multi", "max,cx16=off")
    kvm = make_argv(replace(machine, accel="kvm"), "/bin/qemu", Path("/folder"), 7, 8)
    options = dict(zip(kvm, kvm[1:], strict=False))
    assert (options["-accel"], options["-cpu"]) == ("kvm", "host")
    assert "vmcoreinfo" in argv
    assert "-gdb" not in argv
    waiting = make_argv(replace(machine, gdb=Path("/a,b/gdb")), "/bin/qemu", Path("/folder"), 7, 8)
    options = dict(zip(waiting, waiting[1:], strict=False))
    assert options["-gdb"] == "unix:/a,,b/gdb,server=on,wait=off"


@pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES)
def test_argv_of_every_architecture(make_machine: MakeMachine, arch: Arch) -> None:
    machine = make_machine("")
    request = replace(machine.kernel.request, arch=arch)
    machine = replace(machine, kernel=replace(machine.kernel, request=request))
    for name in ("tcg", "kvm"):
        argv = make_argv(replace(machine, accel=name), "/bin/qemu", Path("/folder"), 7, 8)
        options = dict(zip(argv, argv[1:], strict=False))
        assert (options["-machine"], options["-cpu"]) == (arch.machine, arch.cpus[name])
        assert f"console={arch.console} {arch.earlycon} " in options["-append"]


def test_keys_come_as_an_archive_of_two_files() -> None:
    keys = Keys.make()
    with tarfile.open(fileobj=io.BytesIO(keys.pack())) as archive:
        found = {member.name: member.mode for member in archive}
        host = archive.extractfile("run/host-key")
        client = archive.extractfile("root/.ssh/authorized_keys")
        assert host and host.read() == keys.host_dropbear
        assert client and client.read().decode().split()[1] == keys.client.get_base64()
    assert found == {"run/host-key": 0o600, "root/.ssh/authorized_keys": 0o600}
    assert len(keys.pack()) % 512 == 0, "a disk is of whole sectors"


def test_argv_shuts_the_guest_in(make_machine: MakeMachine) -> None:
    argv = make_argv(make_machine(""), "/bin/qemu", Path("/folder"), 7, 8)
    (net,) = (word for word in argv if word.startswith("user,"))
    parts = net.split(",")
    assert "restrict=on" in parts
    assert [part for part in parts if "fwd" in part] == ["hostfwd=tcp:127.0.0.1:0-10.0.2.15:22"]
    assert argv.count("-netdev") == 1
    assert not {"-nic", "-net", "-virtfs", "-fsdev", "-monitor", "-qmp", "-gdb", "-s", "-vnc"} & set(argv)
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(argv)
    assert "spawn=deny" in dict(zip(argv, argv[1:], strict=False))["-sandbox"]
    drives = [word for word in argv if word.startswith("file=")]
    assert [drive.partition(",")[0] for drive in drives] == [
        "file=/folder/root.qcow2",
        "file=/folder/keys.tar",
    ]
    assert "readonly=on" in drives[1]


def test_time_limits_stretch_under_emulation(make_machine: MakeMachine) -> None:
    machine = make_machine("")
    assert machine.time_scale == 5
    assert replace(machine, accel="kvm").time_scale == 1


def test_keys_are_of_one_boot() -> None:
    one, other = Keys.make(), Keys.make()
    fingerprints = {key.get_fingerprint() for keys in (one, other) for key in (keys.host, keys.client)}
    assert len(fingerprints) == 4
    assert one.host_dropbear[:15] == b"\0\0\0\x0bssh-ed25519"
    assert one.host_dropbear.endswith(one.host.asbytes()[-32:])


def test_keys_are_readable_only_by_the_user(
    make_machine: MakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, modes = tmp_path / "boot" / "keys.tar", list[int]()
    monkeypatch.setattr(command, "on_command", lambda line: modes.append(keys.stat().st_mode & 0o777))
    with pytest.raises(StageFailure):
        boot_once(make_machine("exit 0\n"), keys.parent)
    assert set(modes) == {0o600}
    assert not keys.exists()


def test_qemu_that_does_not_start_is_the_host_s(make_machine: MakeMachine, tmp_path: Path) -> None:
    machine = make_machine("say qemu: could not open disk image root.img: Permission denied\nexit 1\n")
    with pytest.raises(InfraError) as raised:
        boot_once(machine, tmp_path / "boot")
    assert raised.value.what == "QEMU ended with status 1"
    assert raised.value.hint == "qemu: could not open disk image root.img: Permission denied"


def test_qemu_that_is_killed_is_the_host_s(make_machine: MakeMachine, tmp_path: Path) -> None:
    with pytest.raises(InfraError, match="QEMU was killed by signal 9"):
        boot_once(make_machine("print [    0.1] booting\nkill KILL\n"), tmp_path / "boot")


def test_qemu_that_is_missing(
    make_machine: MakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InfraError, match="qemu-system-x86_64 is not installed") as raised:
        boot_once(make_machine(""), tmp_path / "boot")
    assert "qemu-system-x86" in raised.value.hint


def test_panic_is_the_kernel_s_and_shown(make_machine: MakeMachine, tmp_path: Path) -> None:
    with pytest.raises(StageFailure) as raised:
        boot_once(make_machine(f"{PANIC}exit 0\n"), tmp_path / "boot")
    error = raised.value
    assert (error.stage, error.what) == (
        "boot",
        "Kernel panic - not syncing: VFS: Unable to mount root fs "
        "(the kernel started, but did not reach init)",
    )
    assert error.where == "5.10.226, accelerator tcg"
    assert error.hint.splitlines()[-1].endswith("Kernel panic - not syncing: VFS: Unable to mount root fs")
    assert error.log
    assert "Kernel panic" in error.log.read_text()


def test_recorded_console_is_shown_to_its_last_line(make_machine: MakeMachine, tmp_path: Path) -> None:
    recorded = tmp_path / "recorded.log"
    noise = b"".join(b"[ %d.000000] caf\xe9 line %d\r\n" % (i, i) for i in range(2000))
    recorded.write_bytes(noise + b"[ 2000.1] no line end")
    with pytest.raises(StageFailure) as raised:
        boot_once(make_machine(f"replay {recorded}\nexit 0\n"), tmp_path / "boot")
    assert "line 1999" in raised.value.hint
    assert raised.value.hint.endswith("no line end")
    assert "line 1900" not in raised.value.hint


def test_hang_ends_at_the_deadline_and_so_does_qemu(make_machine: MakeMachine, tmp_path: Path) -> None:
    machine = make_machine("print [    0.1] still here\nhang\n")
    began = time.monotonic()
    with pytest.raises(StageFailure, match="the kernel started, but did not reach init within") as raised:
        boot_once(machine, tmp_path / "boot")
    assert 4 * LIMIT_S < time.monotonic() - began < 60
    assert "still here" in raised.value.hint
    assert find_processes(str(machine.kernel.image)) == []


def test_panic_that_does_not_end_the_guest_is_not_waited_for(
    make_machine: MakeMachine, tmp_path: Path
) -> None:
    machine = replace(make_machine(f"{PANIC}hang\n"), accel="kvm", boot_limit_s=60)
    with pytest.raises(StageFailure, match=r"Kernel panic.*did not reach init"):
        boot_once(machine, tmp_path / "boot")


def test_an_image_without_drivers_for_its_root_disk_has_not_crashed(
    make_machine: MakeMachine, tmp_path: Path
) -> None:
    steps = f"print [    1.000000] Run /init as init process\nprint [    1.100000] {NO_ROOT}\nexit 0\n"
    with pytest.raises(StageFailure, match="cannot read the root disk: it lacks virtio_blk") as raised:
        boot_once(make_machine(steps), tmp_path / "boot")
    assert (raised.value.stage, type(raised.value)) == ("setup", StageFailure)


def test_qemu_that_crashes_is_started_once_more(make_machine: MakeMachine, tmp_path: Path) -> None:
    machine = make_machine(f"once say assertion failed\nonce kill ABRT\nprint {READY}\nhang\n")
    with pytest.raises(StageFailure, match="SSH does not answer"):
        boot_once(machine, tmp_path / "boot")
    assert len(starts(machine)) == 2
    assert (tmp_path / "boot" / "qemu.log.1").read_text() == "assertion failed\n"


@pytest.mark.parametrize(
    ("how", "number", "what"), [("tcg", 2, "SSH does not answer"), ("kvm", 1, "Kernel panic")]
)
def test_crash_of_an_emulated_kernel_must_happen_twice(
    make_machine: MakeMachine, tmp_path: Path, how: str, number: int, what: str
) -> None:
    panic = PANIC.replace("print", "once print")
    machine = make_machine(f"{panic}once exit 0\nprint {READY}\nhang\n")
    if how == "kvm":
        machine = replace(machine, accel=how, boot_limit_s=5 * LIMIT_S)
    with pytest.raises(StageFailure, match=what):
        boot_once(machine, tmp_path / "boot")
    assert len(starts(machine)) == number
    assert (tmp_path / "boot/console.log.1").exists() == (number == 2)


def test_splat_that_no_host_causes_is_believed_at_once(make_machine: MakeMachine, tmp_path: Path) -> None:
    bug = "print [    0.200000] kernel BUG at mm/slub.c:305!\n"
    machine = make_machine(f"{bug}{PANIC}exit 0\n")
    with pytest.raises(StageFailure, match="Kernel panic"):
        boot_once(machine, tmp_path / "boot")
    assert len(starts(machine)) == 1


def test_qemu_that_crashes_again_is_the_host_s(make_machine: MakeMachine, tmp_path: Path) -> None:
    machine = make_machine("say assertion failed\nkill ABRT\n")
    with pytest.raises(InfraError, match=r"QEMU crashed \(SIGABRT\)") as raised:
        boot_once(machine, tmp_path / "boot")
    assert raised.value.hint == "assertion failed"
    assert len(starts(machine)) == 2


def test_qemu_that_does_not_answer_is_the_host_s(make_machine: MakeMachine, tmp_path: Path) -> None:
    machine = replace(make_machine("mute\nprint [    0.1] well\nhang\n"), boot_limit_s=0.2)
    with pytest.raises(InfraError, match="monitor did not answer"):
        boot_once(machine, tmp_path / "boot")


@pytest.mark.parametrize("stop", [False, True])
def test_failed_host_is_noticed_before_the_deadline(
    make_machine: MakeMachine, tmp_path: Path, stop: bool
) -> None:
    failure = "" if stop else "io-error No space left on device\n"
    machine = replace(make_machine(f"wait\n{failure}hang\n"), boot_limit_s=20)

    def interfere() -> None:
        wait_for(lambda: find_processes(str(machine.kernel.image)), 60)
        for pid in find_processes(str(machine.kernel.image)):
            os.kill(pid, signal.SIGSTOP)

    if stop:
        threading.Thread(target=interfere, daemon=True).start()
    began = time.monotonic()
    with pytest.raises(InfraError, match="QEMU is stopped" if stop else "No space left on device"):
        boot_once(machine, tmp_path / "boot")
    assert time.monotonic() - began < 30


def test_host_s_io_errors_never_reach_a_guest(make_machine: MakeMachine) -> None:
    machine = make_machine("")
    shape = replace(machine.shape, disks=(Disk(256, 512, "ext4"),), swap=Swap("disk", 64))
    argv = make_argv(replace(machine, shape=shape), "/bin/qemu", Path("/folder"), 7, 8)
    drives = [word for option, word in pairwise(argv) if option == "-drive"]
    assert len(drives) == 4
    assert all("werror=stop,rerror=stop" in drive for drive in drives)


def test_host_out_of_memory(
    make_machine: MakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = make_machine("say qemu: cannot set up guest memory 'ram': Cannot allocate memory\nexit 1\n")
    with pytest.raises(InfraError, match="the host is out of memory"):
        boot_once(machine, tmp_path / "boot")
    monkeypatch.setattr(qemu, "count_oom_kills", lambda: 1 << 60)
    with pytest.raises(InfraError, match="QEMU was killed: the host is out of memory"):
        boot_once(make_machine("kill KILL\n"), tmp_path / "boot")


def test_nothing_that_a_terminal_obeys_is_shown(make_machine: MakeMachine, tmp_path: Path) -> None:
    with pytest.raises(StageFailure) as raised:
        boot_once(make_machine("print \033[2J\033]0;title\007 \x9b2J\nexit 0\n"), tmp_path / "boot")
    assert "title" in raised.value.hint
    assert not set(str(raised.value)) & {"\x1b", "\x07", "\x9b", "\r"}


@pytest.mark.parametrize(
    ("console", "before", "phase"),
    [
        ("", Phase.FIRMWARE, Phase.FIRMWARE),
        ("SeaBIOS", Phase.FIRMWARE, Phase.FIRMWARE),
        ("[    0.0] Linux version 5.10\n", Phase.FIRMWARE, Phase.KERNEL),
        ("[    0.7] Run /bin/busybox as init process\n", Phase.KERNEL, Phase.INIT),
        ("[    0.8] more\n", Phase.INIT, Phase.INIT),
        (f"[    1.0] {READY}\n", Phase.KERNEL, Phase.READY),
    ],
)
def test_phases(console: str, before: Phase, phase: Phase) -> None:
    assert find_phase(console.encode(), before) is phase


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ("hang\n", "the kernel printed nothing within"),
        ("print [    0.1] Linux version 5.10\nhang\n", "did not reach init within"),
        ("print [    0.1] Run /init as init process\nhang\n", "did not finish within"),
    ],
)
def test_phase_that_was_not_reached_is_named(
    make_machine: MakeMachine, tmp_path: Path, steps: str, words: str
) -> None:
    machine = make_machine(steps)
    with pytest.raises(StageFailure, match=words):
        boot_once(machine, tmp_path / "boot")
    assert find_processes(str(machine.kernel.image)) == []


def test_marker_without_ssh_is_no_success(make_machine: MakeMachine, tmp_path: Path) -> None:
    with pytest.raises(StageFailure, match="the guest is up but SSH does not answer"):
        boot_once(make_machine(f"print {READY}\nhang\n"), tmp_path / "boot")


@pytest.mark.parametrize(
    "key", [Keys.make().host, paramiko.ECDSAKey.generate()], ids=["same type", "other type"]
)
def test_other_ssh_server_is_not_taken_for_the_guest(key: paramiko.PKey, tmp_path: Path) -> None:
    """Something else answers on the port: the host key is not the one made for this boot."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer() -> None:
            connection, _ = server.accept()
            transport = paramiko.Transport(connection)
            transport.add_server_key(key)
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                transport.start_server(server=paramiko.ServerInterface())
            transport.join(5)

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(StageFailure, match="SSH does not answer.*[Hh]ost key"):
            connect(port, Keys.make(), tmp_path, Deadline.after(10))


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EMFILE])
def test_connection_that_the_host_cannot_make_is_the_host_s(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: socket.socket, address: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket.socket, "connect", fail)
    with pytest.raises(InfraError, match=f"cannot connect to its guest: {os.strerror(number)}"):
        connect(1, Keys.make(), tmp_path, Deadline.after(10))


@pytest.fixture
def kvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /dev/kvm that opens, on any host."""
    path = tmp_path / "kvm"
    path.write_text("")
    monkeypatch.setattr(accel, "_KVM", path)
    return path


def test_kvm_that_boots_nothing_is_remembered(
    make_machine: MakeMachine, kvm: Path, store: Store, progress: QuietProgress
) -> None:
    machine = make_machine("exit 0\n")
    assert find_accel("auto", machine.arch, store) == ""
    assert choose_accel("auto", machine, store, progress) == "tcg"
    assert len(starts(machine)) == 1
    assert "-accel kvm" in starts(machine)[0]
    assert len(progress.notes) == 1
    assert choose_accel("auto", machine, store, progress) == "tcg"
    assert len(starts(machine)) == 1, "the second time no guest is tried"
    assert len(progress.notes) == 1
    assert find_accel("auto", machine.arch, store).startswith("tcg ")


def test_kernel_that_panics_on_kvm_says_nothing_of_kvm(
    make_machine: MakeMachine, kvm: Path, store: Store, progress: QuietProgress
) -> None:
    machine = make_machine(f"{PANIC}exit 0\n")
    for _ in range(2):
        assert choose_accel("auto", machine, store, progress) == "tcg"
    assert len(starts(machine)) == 2


def test_kvm_by_name_that_does_not_work_is_refused(
    make_machine: MakeMachine, kvm: Path, store: Store, progress: QuietProgress
) -> None:
    machine = make_machine("say qemu: failed to initialize kvm\nexit 1\n")
    for _ in range(2):
        with pytest.raises(
            InfraError, match="KVM does not work on this host: QEMU ended with status 1"
        ) as raised:
            choose_accel("kvm", machine, store, progress)
        assert "ACCEL=tcg" in raised.value.hint
    assert len(starts(machine)) == 1


def test_probe_that_the_host_spoiled_is_not_remembered(
    make_machine: MakeMachine, kvm: Path, store: Store, progress: QuietProgress
) -> None:
    """A QEMU that is killed (out of memory, say) tells nothing of KVM."""
    machine = make_machine("kill KILL\n")
    for _ in range(2):
        try:
            choose_accel("auto", machine, store, progress)
        except InfraError:
            continue
    assert len(starts(machine)) == 2


def test_tcg_needs_no_probe(
    make_machine: MakeMachine, kvm: Path, store: Store, progress: QuietProgress
) -> None:
    machine = make_machine("hang\n")
    assert choose_accel("tcg", machine, store, progress) == "tcg"
    kvm.unlink()
    assert choose_accel("auto", machine, store, progress) == "tcg"
    with pytest.raises(InfraError, match="No such file or directory"):
        choose_accel("kvm", machine, store, progress)
    assert starts(machine) == []


def test_kernel_that_complains_while_booting_has_failed(make_machine: MakeMachine) -> None:
    kernel, healthy = make_machine("").kernel, LOGS / "healthy.log"
    assert boot._check_console(healthy, kernel) == healthy.stat().st_size
    with pytest.raises(StageFailure, match="WARNING") as raised:
        boot._check_console(LOGS / "warning.log", kernel)
    assert raised.value.stage == "boot"


@pytest.fixture
def seen(make_machine: MakeMachine, tmp_path: Path) -> Callable[..., None]:
    """``seen(config text, build id, cpus)``: what a guest of two CPUs says of itself is checked."""

    def check(config_text: str = "CONFIG_SWAP=y\n", build_id: str = "0123abcd", cpus: int = 2) -> None:
        machine = make_machine("")
        asked = Config("id", "x86_64", (SymbolRequest("SWAP", "y", "a.config:2"),), "")
        request = replace(machine.kernel.request, config=asked)
        machine = replace(machine, kernel=replace(machine.kernel, request=request))
        packed = gzip.compress(config_text.encode()) if config_text else b""
        told = base64.encodebytes(packed + b"\x04\0GNU\0" + bytes.fromhex(build_id)).decode()

        class Told(Guest):
            def run(self, line: str, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
                return CommandResult(0, f"{cpus}\nLinux version 5.10\n{told}", "")

        guest = Told(machine, tmp_path, None, None, 1.0, 0, None)  # type: ignore[arg-type]
        boot._check_identity(guest, Deadline.after(1))

    return check


def test_running_kernel_is_the_requested_one(seen: Callable[..., None]) -> None:
    seen()
    seen(config_text="")
    with pytest.raises(StageFailure, match="a different kernel than the one built"):
        seen(build_id="4567cdef")
    with pytest.raises(StageFailure, match=r"2 CPU\(s\) requested, 1 online"):
        seen(cpus=1)


def test_running_kernel_lacks_a_symbol(seen: Callable[..., None]) -> None:
    with pytest.raises(StageFailure) as raised:
        seen(config_text="# CONFIG_SWAP is not set\n")
    assert raised.value.what == "1 requested symbol(s) are not in the running kernel"
    assert raised.value.hint == "a.config:2: SWAP: requested y, got n"
