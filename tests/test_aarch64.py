# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole way on another architecture: the row with 64 KiB pages, cross-built and emulated."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import StageFailure
from orchestrator.guest.boot import boot_guest
from orchestrator.guest.qemu import Machine
from orchestrator.guest.rootfs import make_rootfs
from orchestrator.guest.setup import load_setup
from orchestrator.kernel.build import Kernel
from orchestrator.kernel.kconfig import make_config, parse_config
from orchestrator.plan import plan, steps
from orchestrator.plan.declarations import load_declarations
from orchestrator.plan.workspace import Workspace
from orchestrator.process.command import Deadline
from orchestrator.project.arch import ARCHES
from orchestrator.store.store import Store
from tests.conftest import ROOT, QuietProgress, cowbell_with_store

pytestmark = pytest.mark.kernel

DECLARED = load_declarations(ROOT)
ROW = DECLARED.rows["aarch64-64k"]


@pytest.fixture(scope="session")
def kernel(kernel_store: Store) -> Kernel:
    place = Workspace(ROOT, kernel_store, QuietProgress())
    (job,) = plan.make_plan(plan.Request(rows=(ROW.name,), series=("none",)), DECLARED)
    return steps.build_job(job, DECLARED, place)


@pytest.fixture
def machine(kernel: Kernel, kernel_store: Store) -> Machine:
    image = make_rootfs(ARCHES["aarch64"], kernel_store, QuietProgress())
    return Machine(kernel, image, ROW.guest, "tcg", 20)


def test_guest_has_the_pages_asked_for(machine: Machine, tmp_path: Path) -> None:
    with boot_guest(machine, tmp_path) as guest:
        script = "import os; print(os.sysconf('SC_PAGESIZE'), os.uname().machine, os.cpu_count())"
        answer = guest.run(f'python3 -c "{script}"', Deadline.after(60))
        assert answer.stdout.split() == ["65536", "aarch64", "2"]
        # the config that it runs is the one that was checked
        config = guest.run("zcat /proc/config.gz", Deadline.after(60)).stdout
        assert config == (machine.kernel.folder / "config").read_text()
        assert parse_config(config)["ARM64_64K_PAGES"] == "y"
    guest_setup = load_setup(tmp_path)
    assert guest_setup["page_kib"] == 64
    assert guest_setup["disks"][0]["block"] == 4096, "a page is 16 of them"
    assert guest_setup["thp"] == "madvise"


def test_guest_that_lacks_a_symbol_does_not_count(machine: Machine, tmp_path: Path) -> None:
    """As if make had changed the .config after it was checked."""
    request = machine.kernel.request
    names = (*ROW.kconfig, "xfs")
    other = make_config(names, DECLARED.fragments, request.arch, request.source.version)
    changed = replace(machine.kernel, request=replace(request, config=other))
    what = "1 requested symbol.* not in the running kernel"
    with (
        pytest.raises(StageFailure, match=what) as raised,
        boot_guest(replace(machine, kernel=changed), tmp_path),
    ):
        pytest.fail("a guest without XFS is taken for one that has it")
    assert "XFS_FS: requested y, got n" in raised.value.hint


def test_tests_come_to_what_the_catalogue_says(
    kernel: Kernel, kernel_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COWBELL_RESULTS", str(tmp_path / "results"))
    # what is left to chance is left out
    direct = [f"odirect.rd-{name}" for name in ("control", "mprotect", "pageout", "softdirty")]
    tests = ",".join((*direct, "iouring.fixed-mprotect", "vmsplice.child-*", "swap.excl-cow"))
    words = [f"ROW={ROW.name}", "SERIES=none", f"TESTS={tests}"]
    done = cowbell_with_store(kernel_store.root, "-B", "test", "--json", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    (job,) = json.loads(done.stdout)["jobs"]
    assert job["guest_setup"]["swaps"][0]["stable"] is False
    found = {verdict["name"]: verdict["raw"] for verdict in job["verdicts"]}
    assert found["odirect.rd-control"] == "pass"
    assert found["odirect.rd-mprotect"] == "fail"
    assert found["iouring.fixed-mprotect"] == "fail"
    assert found["vmsplice.child-small"] == "pass"
    assert found["odirect.rd-softdirty"] == "skip", "this architecture has no soft-dirty bits"
    assert found["vmsplice.child-thp"] == "fail", "on a huge page of 512 MiB"
    assert found["odirect.rd-pageout"] == "fail", "swap is there"


PIN = """
import ctypes, fcntl, mmap, os, struct
libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(273, os.open("/work/cowpin.ko", os.O_RDONLY), b"", 0):
    raise OSError(ctypes.get_errno(), "finit_module")
size = mmap.PAGESIZE
memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory[:] = b"a" * size
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
PIN, UNPIN, READ, WRITE = 0x40184301, 0x4302, 0x40184303, 0x40184304
def copy(file, verb, data):
    buffer = ctypes.create_string_buffer(data, len(data))
    fcntl.ioctl(file, verb, struct.pack("QQQ", 4096, ctypes.addressof(buffer), len(data)))
    return buffer.raw
for flags in range(16):
    if flags & 10 == 10:
        continue  # a plain reference for the long term is refused by newer kernels
    with open("/dev/cowpin", "rb", buffering=0) as file:
        fcntl.ioctl(file, PIN, struct.pack("QQII", address, 1, flags, 0))
        memory[4096:4104] = b"by owner"
        assert copy(file, READ, bytes(8)) == b"by owner", flags
        copy(file, WRITE, b"by pins!")
        assert memory[4096:4104] == b"by pins!", flags
        try:
            fcntl.ioctl(file, PIN, struct.pack("QQII", address, 1, flags, 0))
            raise AssertionError("a second pin")
        except OSError as error:
            assert error.errno == 16
        if flags & 1:
            fcntl.ioctl(file, UNPIN)
bad = [(address + 1, 1, 0), (address, 0, 0), (address, 1, 16), (address + size, 1 << 20, 0)]
for ask in bad:
    with open("/dev/cowpin", "rb", buffering=0) as file:
        try:
            fcntl.ioctl(file, PIN, struct.pack("QQII", *ask, 0))
            raise AssertionError(ask)
        except OSError as error:
            assert error.errno == 22, ask
print("well")
"""


def test_module_that_pins(machine: Machine, tmp_path: Path) -> None:
    """Built with the kernel, it pins in every way, and sees what the owner of the memory sees."""
    module = machine.kernel.folder / "guest-modules" / "cowpin.ko"
    with boot_guest(machine, tmp_path) as guest:
        guest.run("cat > /work/cowpin.ko", Deadline.after(60), module.read_bytes())
        answer = guest.run("cat > /work/pin.py && python3 /work/pin.py", Deadline.after(60), PIN.encode())
        assert answer.stdout == "well\n", answer.stderr
        # what the module did is seen to leave no page behind
        after = guest.run("dmesg | grep -c 'BUG\\|WARNING\\|Bad page' || true", Deadline.after(60))
        assert after.stdout.strip() == "0"
