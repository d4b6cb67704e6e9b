# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that go on from a saved one: what it had is there, what was done since is not; nothing is left."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import InfraError
from orchestrator.guest.boot import boot_guest
from orchestrator.guest.connection import Guest
from orchestrator.guest.qemu import Machine
from orchestrator.guest.snapshot import Snapshot, keep_images, list_images, save_snapshot
from orchestrator.plan import products, steps
from orchestrator.plan.declarations import load_declarations
from orchestrator.plan.plan import Request, make_plan
from orchestrator.plan.workspace import Workspace
from orchestrator.process.command import Deadline
from orchestrator.project.guest import Disk
from orchestrator.project.guesttest import load_tests
from orchestrator.run.compile import Program
from orchestrator.run.runner import boot_with_tests, compile_imports, make_test_line, run_tests
from orchestrator.store.store import Store
from tests.conftest import ROOT, QuietProgress, wait_for

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def machine(kernel_store: Store) -> Machine:
    """The demo row's plain kernel, with a disk."""
    declared = load_declarations(ROOT)
    (job,) = make_plan(Request(rows=("demo",), series=("none",)), declared)
    place = Workspace(ROOT, kernel_store, QuietProgress())
    machine = products.choose_machine(job, steps.build_job(job, declared, place), place, "tcg")
    disk = Disk(size_mib=256, sector=512, format="ext4")
    return replace(machine, shape=replace(machine.shape, disks=(disk,)))


@pytest.fixture(scope="module")
def snapshot(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    folder = tmp_path_factory.mktemp("saved")
    with boot_guest(machine, folder / "boot") as guest:
        run(guest, "echo root > /work/root; echo disk > /work/tmp/disk; echo memory > /dev/shm/memory")
        saved = save_snapshot(guest, folder / "saved")
        assert saved
        # it continues, and later changes are not part of the snapshot
        run(guest, "echo soiled > /work/root; echo soiled > /work/tmp/disk; rm /dev/shm/memory; sync")
    assert not any(path.exists() for path in list_images(machine, folder / "boot"))
    return saved


def run(guest: Guest, line: str) -> str:
    answer = guest.run(line, Deadline.after(60))
    assert answer.status == 0, answer
    return answer.stdout


def test_every_guest_goes_on_where_the_saved_one_was(
    machine: Machine, snapshot: Snapshot, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        with boot_guest(machine, tmp_path / name, snapshot) as guest:
            assert run(guest, "cat /work/root /work/tmp/disk /dev/shm/memory") == "root\ndisk\nmemory\n"
            assert run(guest, "nproc") == f"{machine.shape.cpus}\n"
            run(guest, "echo soiled > /work/root; echo soiled > /work/tmp/disk; sync; echo x > /dev/kmsg")
            assert "-loadvm" in json.loads((tmp_path / name / "qemu.json").read_text())
        assert (tmp_path / name / "setup.json").exists(), "its setup report is that of the saved one"
        assert not any(path.exists() for path in list_images(machine, tmp_path / name))


def test_two_at_once(machine: Machine, snapshot: Snapshot, tmp_path: Path) -> None:
    with (
        boot_guest(machine, tmp_path / "one", snapshot) as one,
        boot_guest(machine, tmp_path / "two", snapshot) as two,
    ):
        run(one, "echo one > /work/tmp/disk; sync")
        assert run(two, "cat /work/tmp/disk") == "disk\n"


def test_python_tests_find_their_imports_compiled(machine: Machine, tmp_path: Path) -> None:
    tests = [test for test in load_tests(ROOT / "guest-tests") if test.language == "python"]
    programs = [Program(test, "", test.path) for test in tests]
    with boot_with_tests(machine, tmp_path, programs, ROOT / "guest-tests" / "lib") as guest:
        compile_imports(guest, programs)
        for test in tests:
            said = run(guest, f"export PYTHONVERBOSE=1; {make_test_line(test, 1)} --describe 2>&1")
            loaded = re.findall(r"^# code object from '?([^'\n]*)", said, re.M)
            assert loaded and not [path for path in loaded if not path.endswith(".pyc")], test.id


def test_crash_of_one_is_seen_and_the_next_is_whole(
    machine: Machine, snapshot: Snapshot, tmp_path: Path
) -> None:
    with boot_guest(machine, tmp_path / "one", snapshot) as guest:
        with pytest.raises(Exception, match="lost|ended"):
            guest.run("echo c > /proc/sysrq-trigger; sleep 60", Deadline.after(60))
        wait_for(lambda: "Kernel panic" in guest.console.read_text(errors="replace"))
    with boot_guest(machine, tmp_path / "two", snapshot) as guest:
        assert run(guest, "cat /proc/sys/kernel/tainted") == "0\n"


def test_another_guest_than_the_saved_one_is_refused(
    machine: Machine, snapshot: Snapshot, tmp_path: Path
) -> None:
    other = replace(snapshot, boot_id="another")
    with pytest.raises(InfraError, match="a different guest"), boot_guest(machine, tmp_path / "boot", other):
        pass


def test_machine_that_is_not_the_saved_one_is_refused(
    machine: Machine, snapshot: Snapshot, tmp_path: Path
) -> None:
    other = replace(machine, shape=replace(machine.shape, memory_mib=512))
    with pytest.raises(InfraError), boot_guest(other, tmp_path / "boot", snapshot):
        pass


def test_guest_of_vng_is_not_saved(machine: Machine, snapshot: Snapshot, tmp_path: Path) -> None:
    with boot_guest(machine, tmp_path / "boot", snapshot) as guest:
        guest.machine = replace(machine, boot="vng")
        assert save_snapshot(guest, tmp_path / "saved") is None
    assert not (tmp_path / "saved").exists()


def test_what_a_killed_run_left_is_removed(machine: Machine, tmp_path: Path) -> None:
    left = [tmp_path / "boot-1" / "root.qcow2", tmp_path / "saved-x" / "root.qcow2"]
    for path in left:
        path.parent.mkdir()
        path.touch()
    assert not list(run_tests(machine, [], tmp_path, tmp_path, QuietProgress()))
    assert not any(path.exists() for path in left)


def test_images_go_when_the_boot_fails(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), keep_images(machine, tmp_path, None):
        assert all(path.exists() for path in list_images(machine, tmp_path))
        raise RuntimeError
    assert not any(path.exists() for path in list_images(machine, tmp_path))
