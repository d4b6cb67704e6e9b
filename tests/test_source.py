# SPDX-License-Identifier: GPL-2.0-or-later
"""Trees fetched through apt, series applied or refused, and worktrees that somebody was killed in."""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import source
from orchestrator.errors import InfraError, StageFailure, UsageError
from orchestrator.source import (
    DebianTree,
    GitTree,
    Series,
    Source,
    apply_series,
    checkout,
    fetch_tree,
    find_local_tree,
    find_tree,
)
from orchestrator.store import Store
from tests.conftest import FAKE_TREE, FAKELINUX, MakeSeries, Mirror, QuietProgress, start_python, wait_for

OLD = "	if (references != 1)\n"
NEW = "	if (mapcount != 1)\n"


@pytest.fixture
def base(mirror: Mirror, store: Store, progress: QuietProgress) -> Source:
    return fetch_tree(FAKE_TREE, store, progress)


def read_tree(src: Source, store: Store) -> dict[str, str]:
    with checkout(src, store) as place:
        files = [path for path in place.rglob("*") if path.is_file() and path.name != ".git"]
        return {str(path.relative_to(place)): path.read_text() for path in files}


def git_dir(store: Store) -> Path:
    return Path((store.root / "worktrees" / FAKE_TREE.name / ".git").read_text().split()[1])


def test_tree_is_what_the_package_has(base: Source, store: Store) -> None:
    shipped = {str(p.relative_to(FAKELINUX)): p.read_text() for p in FAKELINUX.rglob("*") if p.is_file()}
    assert read_tree(base, store) == shipped | {".gitignore": "*.awk\n"}
    assert (base.tree, base.series, str(base.version)) == ("fake-5.10", "", "5.10.226")
    assert base.commit == base.base


def test_second_time_nothing_is_fetched(
    base: Source, mirror: Mirror, store: Store, progress: QuietProgress
) -> None:
    asked = mirror.asked
    assert [line.split()[-1] for line in asked if "indextargets" not in line] == ["update", FAKE_TREE.package]
    assert progress.stages == [("source", "fake-5.10: linux-source-5.10 from bullseye-security")]
    assert fetch_tree(FAKE_TREE, store, progress) == base
    assert mirror.asked == asked
    assert find_tree(FAKE_TREE, store) == base


def test_redo_looks_for_a_newer_one(
    base: Source, mirror: Mirror, store: Store, progress: QuietProgress
) -> None:
    asked = len(mirror.asked)
    again = fetch_tree(FAKE_TREE, store, progress, redo=True)
    assert len(mirror.asked) > asked
    assert again == base, "the same package is the same commit"


def test_nothing_but_commits_is_kept_of_a_fetch(base: Source, store: Store) -> None:
    assert list((store.root / "scratch").iterdir()) == []
    assert list((store.root / "apt" / FAKE_TREE.suite).rglob("*.deb")) == []


def test_mirror_without_the_package(mirror: Mirror, store: Store, progress: QuietProgress) -> None:
    absent = DebianTree("debian-5.4", "linux-source-5.4", FAKE_TREE.suite)
    with pytest.raises(InfraError) as raised:
        fetch_tree(absent, store, progress)
    assert (
        raised.value.what == "linux-source-5.4 can not be had from bullseye-security at this machine's mirror"
    )
    assert "KERNEL=debian-6.1" in raised.value.hint
    assert "E: Unable to locate package linux-source-5.4" in raised.value.hint
    assert find_tree(absent, store) is None


def test_mirror_without_the_suite(mirror: Mirror, store: Store, progress: QuietProgress) -> None:
    with pytest.raises(InfraError, match="does not have a Release file"):
        fetch_tree(replace(FAKE_TREE, suite="bookworm"), store, progress)


def test_package_without_a_source(mirror: Mirror, store: Store, progress: QuietProgress) -> None:
    """A package of that name which holds no archive, or one that is no kernel."""
    (mirror.folder / "linux-doc_1_all.deb").symlink_to(next(mirror.folder.glob("*.deb")))
    with pytest.raises((InfraError, UsageError)):
        fetch_tree(DebianTree("doc", "linux-doc", FAKE_TREE.suite), store, progress)


def test_series_applies_whole(
    base: Source, store: Store, progress: QuietProgress, make_series: MakeSeries
) -> None:
    series = make_series(
        "cow",
        {"mm/memory.c": (OLD, NEW)},
        {"mm/swap.c": ("entry + 1", "entry + 2"), "mm/new.c": ("", "int added;\n")},
    )
    before = read_tree(base, store)
    src = apply_series(base, series, store, progress)
    after = read_tree(src, store)
    assert after == before | {
        "mm/memory.c": before["mm/memory.c"].replace(OLD, NEW, 1),
        "mm/swap.c": before["mm/swap.c"].replace("entry + 1", "entry + 2"),
        "mm/new.c": "int added;\n",
    }
    assert (src.series, src.base, src.version) == ("cow", base.commit, base.version)
    assert src.source_id != base.source_id
    assert read_tree(base, store) == before
    stages = list(progress.stages)
    assert apply_series(base, series, store, progress) == src
    assert progress.stages == stages


def test_no_series_is_the_base(base: Source, store: Store, progress: QuietProgress) -> None:
    assert apply_series(base, Series(), store, progress) == base


def test_series_is_the_same_commit_everywhere(
    base: Source, tmp_path: Path, store: Store, progress: QuietProgress, make_series: MakeSeries
) -> None:
    series = make_series("cow", {"mm/memory.c": (OLD, NEW)})
    other = Store(tmp_path / "other")
    elsewhere = apply_series(fetch_tree(FAKE_TREE, other, progress), series, other, progress)
    assert apply_series(base, series, store, progress) == elsewhere


@pytest.mark.parametrize(
    "is_known", [False, True], ids=["made against another tree", "made against this tree"]
)
def test_reject_names_patch_file_and_line(
    base: Source, store: Store, progress: QuietProgress, make_series: MakeSeries, *, is_known: bool
) -> None:
    """The second patch does not know what the first one does; it may name a blob that there is, or was."""
    series = make_series(
        "bad", {"mm/memory.c": (OLD, "	if (references != 7)\n")}, {"mm/memory.c": (OLD, NEW)}
    )
    blob = "2" * 40
    if is_known:
        blob = subprocess.run(
            ["git", "rev-parse", f"{base.commit}:mm/memory.c"],
            cwd=store.path("git", "kernels.git"), capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    text = series.patches[1].read_text()
    series.patches[1].write_text(text.replace("--- a/mm", f"index {blob}..{'1' * 40} 100644\n--- a/mm"))
    before = read_tree(base, store)
    with pytest.raises(StageFailure) as raised:
        apply_series(base, series, store, progress)
    error = raised.value
    assert error.stage == "source"
    assert error.what == "0002-bad.patch does not apply to fake-5.10 (5.10.226)"
    assert "Patch failed at 0002" in error.hint
    # nothing of it is kept, and the next series finds a clean place
    assert source.find_source(base, series, store) is None
    assert read_tree(base, store) == before
    good = make_series("good", {"mm/memory.c": (OLD, NEW)})
    assert NEW in read_tree(apply_series(base, good, store, progress), store)["mm/memory.c"]
    assert error.where.startswith("mm/memory.c:")


def test_mail_without_a_patch_is_a_failure_that_names_it(
    base: Source, store: Store, progress: QuietProgress, make_series: MakeSeries
) -> None:
    series = make_series("bad", {"mm/swap.c": ("entry + 1", "entry + 2")}, {"mm/memory.c": (OLD, NEW)})
    series.patches[1].write_text("not a mail\n")
    with pytest.raises(StageFailure, match="0002-bad.patch does not apply"):
        apply_series(base, series, store, progress)


def leave_dirty(store: Store) -> None:
    place = store.root / "worktrees" / FAKE_TREE.name
    (place / "mm/memory.c").write_text("half")
    (place / "mm/swap.c").unlink()
    (place / "mm/memory.o").write_text("object")
    (place / "empty/folder").mkdir(parents=True)


def leave_index_lock(store: Store) -> None:
    (git_dir(store) / "index.lock").touch()


def leave_head_lock(store: Store) -> None:
    (git_dir(store) / "HEAD.lock").touch()


def leave_broken_index(store: Store) -> None:
    (git_dir(store) / "index").write_bytes(b"DIRC")


def leave_am(store: Store) -> None:
    """Stop ``git am`` where a kill would."""
    place = store.root / "worktrees" / FAKE_TREE.name
    diff = "--- a/mm/swap.c\n+++ b/mm/swap.c\n@@ -1 +1 @@\n-x\n+y\n"
    (place / "broken").write_text(f"From: a <a@b>\nSubject: [PATCH] x\n\n---\n{diff}")
    subprocess.run(["git", "am", "-q", "broken"], cwd=place, env=os.environ | source._ENV, check=False)
    assert (git_dir(store) / "rebase-apply").is_dir()


def leave_no_metadata(store: Store) -> None:
    """``git worktree add`` writes the worktree's .git before what it points to is whole."""
    shutil.rmtree(git_dir(store))


LEFT = [leave_dirty, leave_index_lock, leave_head_lock, leave_broken_index, leave_am, leave_no_metadata]


@pytest.mark.parametrize("leave", LEFT, ids=lambda leave: leave.__name__)
def test_what_a_kill_left_stops_no_fetch(
    base: Source, store: Store, progress: QuietProgress, leave: Callable[[Store], None]
) -> None:
    leave(store)
    assert fetch_tree(FAKE_TREE, store, progress, redo=True) == base


@pytest.mark.parametrize("leave", LEFT, ids=lambda leave: leave.__name__)
def test_what_a_kill_left_stops_no_series(
    base: Source,
    store: Store,
    progress: QuietProgress,
    make_series: MakeSeries,
    leave: Callable[[Store], None],
) -> None:
    before = read_tree(base, store)
    leave(store)
    src = apply_series(base, make_series("cow", {"mm/memory.c": (OLD, NEW)}), store, progress)
    assert NEW in read_tree(src, store)["mm/memory.c"]
    leave(store)
    assert read_tree(base, store) == before


def test_killed_fetch_is_done_again(
    mirror: Mirror, store: Store, progress: QuietProgress, tmp_path: Path
) -> None:
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "tar").write_text(
        '#!/bin/sh\ncase "$*" in *strip-components*) exec sleep 600 ;; esac\n'
        f'exec {shutil.which("tar")} "$@"\n'
    )
    (slow / "tar").chmod(0o755)
    script = (
        "import sys; from pathlib import Path\n"
        "from orchestrator.source import fetch_tree; from orchestrator.store import Store\n"
        "from tests.conftest import FAKE_TREE, QuietProgress\n"
        "fetch_tree(FAKE_TREE, Store(Path(sys.argv[1])), QuietProgress())\n"
    )
    with start_python(script, store.root, PATH=f"{slow}:{os.environ['PATH']}"):
        wait_for((store.root / "worktrees" / FAKE_TREE.name / ".git").exists)
    assert find_tree(FAKE_TREE, store) is None
    base = fetch_tree(FAKE_TREE, store, progress)
    assert "mm/memory.c" in read_tree(base, store)


def test_tree_that_is_no_kernel(
    base: Source, store: Store, progress: QuietProgress, make_series: MakeSeries
) -> None:
    series = make_series("bad", {"Makefile": ("VERSION = 5\n", "")})
    with pytest.raises((UsageError, StageFailure), match="Makefile states no VERSION"):
        apply_series(base, series, store, progress)


@pytest.fixture
def checkout_of_a_user(tmp_path: Path) -> Path:
    place = tmp_path / "linux"
    shutil.copytree(FAKELINUX, place)
    run_git(place, "init", "-q")
    run_git(place, "add", "-A", "-f")
    run_git(place, "commit", "-q", "-m", "first")
    return place


def run_git(place: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=place, env=os.environ | source._ENV, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_local_checkout_is_taken_at_its_head(
    checkout_of_a_user: Path, store: Store, progress: QuietProgress
) -> None:
    first = fetch_tree(find_local_tree(checkout_of_a_user), store, progress)
    assert first.commit == run_git(checkout_of_a_user, "rev-parse", "HEAD")
    stages = len(progress.stages)
    assert fetch_tree(find_local_tree(checkout_of_a_user), store, progress) == first
    assert len(progress.stages) == stages, "nothing new, nothing fetched"
    (checkout_of_a_user / "mm/swap.c").write_text("int swap;\n")
    run_git(checkout_of_a_user, "commit", "-q", "-a", "-m", "second")
    second = fetch_tree(find_local_tree(checkout_of_a_user), store, progress)
    assert second.commit == run_git(checkout_of_a_user, "rev-parse", "HEAD")
    assert second.tree == first.tree
    with checkout(second, store) as place:
        assert (place / "mm/swap.c").read_text() == "int swap;\n"


def test_local_checkout_that_can_not_be_taken(checkout_of_a_user: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no kernel tree"):
        find_local_tree(tmp_path)
    (checkout_of_a_user / "mm/swap.c").write_text("int swap;\n")
    with pytest.raises(UsageError, match=r"1 change\(s\) that are not committed: M mm/swap.c"):
        find_local_tree(checkout_of_a_user)
    shutil.rmtree(checkout_of_a_user / ".git")
    with pytest.raises(UsageError, match="no git checkout"):
        find_local_tree(checkout_of_a_user)


def test_git_tree_comes_from_the_first_mirror_that_has_it(
    checkout_of_a_user: Path, store: Store, progress: QuietProgress
) -> None:
    run_git(checkout_of_a_user, "tag", "v5.10")
    good = checkout_of_a_user.as_uri()
    tree = GitTree("stable", ("file:///nonexistent", good), "v5.10")
    assert fetch_tree(tree, store, progress).commit == run_git(checkout_of_a_user, "rev-parse", "HEAD")
    assert progress.notes == [f"stable: from {good}"]
    with pytest.raises(InfraError, match="v9 can not be fetched") as raised:
        fetch_tree(GitTree("none", (good, "file:///nonexistent"), "v9"), store, progress)
    assert good in raised.value.hint
    assert "file:///nonexistent" in raised.value.hint


def test_tree_that_is_neither_kind(tmp_path: Path) -> None:
    file = tmp_path / "trees.yaml"
    file.write_text("trees:\n  a: {debian: x}\n  b: {git: [u], ref: r, suite: s}\n  c: {git: [u], ref: r}\n")
    with pytest.raises(ExceptionGroup) as raised:
        source.load_trees(file)
    assert [str(error).split(": ")[1] for error in raised.value.exceptions] == ["trees.a", "trees.b"]
