# SPDX-License-Identifier: GPL-2.0-or-later
"""A store kept under its size: the oldest goes first, and nothing that a running job uses."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.result.record import Failure
from orchestrator.run.runner import remove_stale_images
from orchestrator.store.gc import CORES, THREADS, TRACES, collect, measure
from orchestrator.store.store import Store
from tests.conftest import read_line, start_python
from tests.records import JOB, RESULT, VARIANT, store_result, store_run

MIB = 1 << 20
USE = (
    "import sys, time; from pathlib import Path; from orchestrator.store.store import Store\n"
    "Store(Path(sys.argv[1])).use(sys.argv[2], sys.argv[3]); print('used', flush=True); time.sleep(60)\n"
)


@pytest.fixture
def filled(store: Store) -> Store:
    """An entry of 1 MiB of each kind, each used an hour after the one before."""
    names = (
        "trees/t/a", "kernels/b", "rootfs/c", "programs/d", "trees/e/source", "results/f", "runs/g", "git/h"
    )  # fmt: skip
    for hours, name in enumerate(names):
        kind, _, entry = name.rpartition("/")
        place = store.path(kind, entry)
        (place / "inner").mkdir(parents=True)
        (place / "inner/file").write_bytes(os.urandom(MIB))
        os.utime(place, (hours * 3600, hours * 3600))
    return store


def left(store: Store) -> str:
    places = [path.parents[1] for path in store.root.rglob("inner/file")]
    return "".join(sorted(place.parent.name if place.name == "source" else place.name for place in places))


def test_enough_room_removes_nothing(filled: Store) -> None:
    found = collect(filled, 100 * MIB)
    assert (found.removed, found.in_use) == ((), ())
    assert found.before == found.after >= 8 * MIB
    assert left(filled) == "abcdefgh"


def test_what_was_not_used_for_longest_goes_first(filled: Store) -> None:
    found = collect(filled, measure(filled.root) - MIB - MIB // 2)
    assert [entry.path.name for entry in found.removed] == ["a", "b"]
    assert left(filled) == "cdefgh"
    assert found.before - found.after >= 2 * MIB
    assert abs(measure(filled.root) - found.after) < MIB // 10


def test_results_and_commits_are_always_kept(filled: Store) -> None:
    collect(filled, 0)
    assert left(filled) == "fgh"
    assert not list(filled.root.glob("*/.*"))


def test_memory_of_guests_is_removed_and_their_results_are_kept(filled: Store) -> None:
    """The oldest first, as anything else; not while the tests of its kernel run."""
    place = filled.path("results", "f") / "boot-1"
    place.mkdir()
    (place / "console.log").touch()
    (place.parent / "result.json").write_text('{"boot": "boot-1"}')
    core = place / "vmcore"
    core.write_bytes(os.urandom(MIB))
    os.utime(core, (90 * 60, 90 * 60))
    limit = measure(filled.root) - 2 * MIB - MIB // 2
    with filled.lock("results-f"):
        assert [entry.path for entry in collect(filled, limit, (CORES,)).in_use] == [core]
    found = collect(filled, limit)
    assert [entry.path.name for entry in found.removed] == ["a", "b", "vmcore"]
    assert found.before - found.after >= 3 * MIB
    assert not core.exists()
    assert (place / "console.log").exists()
    assert left(filled) == "cdefgh"


def test_traces_and_mails_are_removed_like_the_memory_of_guests(filled: Store) -> None:
    """The oldest first; the copies beside the pages too. The records stay."""
    place = filled.path("results", "f") / "boot-1"
    place.mkdir()
    (place.parent / "result.json").write_text('{"boot": "boot-1"}')
    files = {
        place / "fork.basic-cow.1.trace": "results-f",
        filled.path("runs", "g") / "files/demo.plain.fork.basic-cow.1.trace.txt": "runs-g",
        filled.path("threads", "0123456789ab.mbox"): "thread-0123456789ab",
    }
    for minutes, path in enumerate(files):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(MIB))
        os.utime(path, (minutes * 60 - 600, minutes * 60 - 600))
    for path, lock in files.items():
        with filled.lock(lock):
            assert [
                entry.path for entry in collect(filled, 0, (TRACES, THREADS), is_dry_run=True).in_use
            ] == [path]
    found = collect(filled, measure(filled.root) - 2 * MIB - MIB // 2)
    assert [entry.path for entry in found.removed] == list(files)
    assert not any(path.exists() for path in files)
    assert left(filled) == "abcdefgh"


def test_memory_of_guests_in_a_folder_of_results(filled: Store, tmp_path: Path) -> None:
    """It counts although it is not in the store."""
    other = Store(filled.root, tmp_path / "results")
    core = other.path("results", "f") / "boot-1/vmcore"
    core.parent.mkdir(parents=True)
    (core.parent.parent / "result.json").write_text('{"boot": "boot-1"}')
    core.write_bytes(os.urandom(MIB))
    os.utime(core, (-1, -1))
    found = collect(other, measure(filled.root) + MIB // 2)
    assert [entry.path for entry in found.removed] == [core]


def test_use_of_an_entry_renews_its_age(filled: Store) -> None:
    with start_python(USE, filled.root, "trees/t", "a") as process:
        assert read_line(process) == "used"
    found = collect(filled, measure(filled.root) - MIB - MIB // 2)
    assert [entry.path.name for entry in found.removed] == ["b", "c"]


def test_what_a_job_uses_is_left_alone_until_it_ends(filled: Store) -> None:
    with start_python(USE, filled.root, "kernels", "b") as process:
        assert read_line(process) == "used"
        found = collect(filled, 0)
        assert [entry.path.name for entry in found.in_use] == ["b"]
        assert left(filled) == "bfgh"
        process.kill()
        process.wait()
        collect(filled, 0)
    assert left(filled) == "fgh"


def test_worktree_that_is_built_from_is_left_alone(filled: Store) -> None:
    with filled.lock("worktree-e"):
        collect(filled, 0)
    assert left(filled) == "efgh"


def test_dry_run_removes_nothing(filled: Store) -> None:
    found = collect(filled, 0, is_dry_run=True)
    assert {entry.path.name for entry in found.removed} == {*"abcd", "source"}
    assert left(filled) == "abcdefgh"


def test_collected_entry_is_made_again(store: Store) -> None:
    def fill(draft: Path) -> None:
        (draft / "file").write_text("1")

    with start_python(
        "import sys; from pathlib import Path; from orchestrator.store.store import Store\n"
        "Store(Path(sys.argv[1])).publish('kernels', 'a', lambda draft: (draft / 'file').touch())\n",
        store.root,
    ) as process:
        assert process.wait(20) == 0
    assert [entry.path.name for entry in collect(store, 0).removed] == ["a"]
    assert (store.publish("kernels", "a", fill) / "file").read_text() == "1"


def test_remains_of_a_killed_collection_go(filled: Store) -> None:
    (filled.root / "trees/t/a").rename(filled.root / "trees/t/.a.gone")
    collect(filled, 100 * MIB)
    assert left(filled) == "bcdefgh"


def test_lock_of_a_worktree_tells_its_last_use(filled: Store) -> None:
    """A worktree has no time stamp: each build takes its lock, which has one."""
    with filled.lock("worktree-e"):
        pass
    lock = filled.path("locks", "worktree-e")
    os.utime(lock, (0, 0))
    with filled.lock("worktree-e"):
        assert lock.stat().st_mtime > 0


def test_symlinks_are_not_followed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(os.urandom(MIB))
    place = store.path("trees/t", "a")
    place.mkdir(parents=True)
    (place / "link").symlink_to(tmp_path / "outside")
    assert collect(store, 0).before < MIB // 2
    assert (tmp_path / "outside").exists()


OWN = (
    "import sys, time, contextlib; from pathlib import Path\n"
    "from orchestrator.store.store import Store, own_folder\n"
    "store = Store(Path(sys.argv[1]))\n"
    "def fill(draft):\n"
    "    (draft / 'big').touch(); print('owns', flush=True); time.sleep(60)\n"
    "with contextlib.ExitStack() as stack:\n"
    "    for name in ('boot-9', 'saved-9'):\n"
    "        stack.enter_context(own_folder(store.path('results', sys.argv[2]) / name))\n"
    "    (stack.enter_context(store.scratch('x')) / 'big').touch()\n"
    "    store.publish('rootfs', 'y', fill)\n"
)


def list_boots(store: Store) -> set[str]:
    return {path.name for path in store.root.glob("results/*/*") if path.is_dir()}


def make_boots(store: Store) -> Path:
    """The folder of a variant with a boot of a result, one of a failed run, and one of neither."""
    folder = store_result(store, RESULT).parent
    for name in (RESULT.boot, "boot-2", "boot-3", "saved-x"):
        (folder / name).mkdir()
        for file in ("console.log", "keys.tar", "root.qcow2"):
            (folder / name / file).write_bytes(b"x" * MIB)
    log = str(folder / "boot-2" / "console.log")
    store_run(store, 1, replace(JOB, failure=Failure("boot", "it does not boot", "", "", log)))
    return folder


def test_boots_that_nothing_refers_to_are_removed(store: Store) -> None:
    folder = make_boots(store)
    found = collect(store, 100 * MIB, is_dry_run=True)
    assert {entry.path.name for entry in found.removed} == {"boot-3", "saved-x"}
    assert found.before - found.after >= 6 * MIB
    assert list_boots(store) == {RESULT.boot, "boot-2", "boot-3", "saved-x"}
    # like all that can be made again
    for limit, kinds in ((100 * MIB, ("trees",)), (100 * MIB, ())):
        shutil.copytree(folder / "boot-3", folder / "boot-4", dirs_exist_ok=True)
        collect(store, limit, kinds)
        assert list_boots(store) == {RESULT.boot, "boot-2"}
        (folder / "boot-3").mkdir()


def test_nothing_of_a_killed_process_stays(store: Store) -> None:
    with start_python(OWN, store.root, VARIANT) as process:
        assert read_line(process) == "owns"
        for name in ("boot-9", "saved-9"):
            (store.root / "results" / VARIANT / name / "root.qcow2").touch()
        collect(store, 0)
        remove_stale_images(store.root / "results" / VARIANT)
        assert {path.name for path in store.root.rglob("*.qcow2")} == {"root.qcow2"}
        assert len(list(store.root.rglob("*.qcow2"))) == len(list(store.root.rglob("big"))) == 2
        process.kill()
        process.wait()
    collect(store, 100 * MIB)
    assert not [*store.root.rglob("*.qcow2"), *store.root.rglob("big")]
    assert not [path for path in (store.root / "rootfs").iterdir()]


def test_images_of_killed_runs_are_removed_by_the_next_one(store: Store) -> None:
    remove_stale_images(make_boots(store))
    assert list_boots(store) == {RESULT.boot, "boot-2", "boot-3"}
    assert {path.name for path in store.root.glob("results/*/boot-*/*")} == {"console.log"}
