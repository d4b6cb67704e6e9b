# SPDX-License-Identifier: GPL-2.0-or-later
"""Trees and ranges of commits from a real git server: complete or not at all, also after interruptions."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.bisect.line import make_history_line
from orchestrator.errors import InfraError, UsageError
from orchestrator.plan.inputs import add_inputs
from orchestrator.plan.plan import Declarations, Job
from orchestrator.plan.workspace import Workspace
from orchestrator.project.matrix import Variant
from orchestrator.source import fetch, remote
from orchestrator.source.apply import PatchState, apply_series, try_series
from orchestrator.source.fetch import fetch_tree, find_fetched
from orchestrator.source.remote import fetch_range
from orchestrator.source.repository import Source, checkout, open_repository
from orchestrator.source.series import Series, export_range
from orchestrator.source.tree import GitTree, LocalTree, find_tree
from orchestrator.store.store import Store
from tests.conftest import QuietProgress, start_python
from tests.gitserver import COMMITS, GitServer, commit_file, run_git, serve
from tests.samples import DECLARED, ROW


@pytest.fixture
def server(history: Path, tmp_path: Path) -> Iterator[GitServer]:
    """One that a test may do with as it likes."""
    repo = tmp_path / "served" / "linux.git"
    repo.parent.mkdir()
    run_git(history, "clone", "-q", "--bare", "--no-local", str(history), str(repo))
    run_git(repo, "config", "uploadpack.allowFilter", "true")
    with serve(repo) as server:
        yield server


@pytest.fixture
def tree(server: GitServer) -> GitTree:
    return GitTree("fake", (server.url,), "main")


def list_files(src: Source, store: Store) -> dict[str, str]:
    with checkout(src, store) as place:
        files = [path for path in place.rglob("*") if path.is_file() and path.name != ".git"]
        return {str(path.relative_to(place)): path.read_text() for path in files}


@pytest.mark.parametrize("ref", ["main", "v5.10", "v5.11", "stack", "refs/heads/other", "tags/v5.10"])
def test_branches_and_tags(
    ref: str, tree: GitTree, history: Path, store: Store, progress: QuietProgress
) -> None:
    src = fetch_tree(find_tree(f"fake:{ref}", {"fake": tree}), store, progress)
    assert src.commit == run_git(history, "rev-parse", f"{ref}^{{commit}}")
    assert src.tree_id == run_git(history, "rev-parse", f"{ref}^{{tree}}")
    assert (src.tree, src.folder, src.origin) == (f"fake:{ref}", "fake", tree.urls[0])
    shown = run_git(history, "ls-tree", "-r", "--name-only", ref).splitlines()
    assert sorted(list_files(src, store)) == sorted(shown)
    # one commit, without its history
    assert run_git(open_repository(store), "rev-list", "--count", src.commit) == "1"


@pytest.mark.parametrize("length", [40, 12, 7])
def test_commit_in_the_history_of_a_branch(
    length: int, tree: GitTree, history: Path, store: Store, progress: QuietProgress
) -> None:
    commit = run_git(history, "rev-parse", "stack~30")
    named = find_tree(f"fake:{commit[:length]}", {"fake": replace(tree, ref="main stack", commit="0000000")})
    src = fetch_tree(named, store, progress)
    assert src.commit == commit
    assert list_files(src, store)["many/40.c"].count("line9 = 40;") == 1
    assert "line9 = 41;" not in list_files(src, store)["many/41.c"]


def test_commit_that_is_nowhere(tree: GitTree, store: Store, progress: QuietProgress) -> None:
    with pytest.raises(UsageError, match="there is no abcdef0") as raised:
        fetch_tree(replace(tree, ref="main stack", commit="abcdef0"), store, progress)
    assert raised.value.hint.count("abcdef0 is not in the history of") == 2


def test_unknown_ref_names_the_nearest(tree: GitTree, store: Store, progress: QuietProgress) -> None:
    with pytest.raises(UsageError, match="there is no v5.12") as raised:
        fetch_tree(replace(tree, ref="v5.12"), store, progress)
    assert f"{tree.urls[0]} has no v5.12; did you mean v5.1" in raised.value.hint
    assert raised.value.exit_code == 2


def test_mirror_that_answers_is_used_and_recorded(
    tree: GitTree, store: Store, progress: QuietProgress
) -> None:
    there = tree.urls[0]
    tree = replace(tree, urls=("git://127.0.0.1:1/linux.git", there))
    assert fetch_tree(tree, store, progress).origin == there
    assert progress.notes[-1].endswith(f"from {there}")


def test_no_mirror_answers(server: GitServer, tree: GitTree, store: Store, progress: QuietProgress) -> None:
    server.allowed = 0
    tree = replace(tree, urls=(*tree.urls, "file:///nonexistent"))
    with pytest.raises(InfraError, match="cannot be fetched") as raised:
        fetch_tree(tree, store, progress)
    assert all(url in raised.value.hint for url in tree.urls)
    assert find_fetched(tree, store) is None


def test_offline_uses_what_is_there_and_says_so(
    server: GitServer, tree: GitTree, store: Store, progress: QuietProgress
) -> None:
    src = fetch_tree(tree, store, progress)
    server.allowed = 0
    server.connections = 1
    assert fetch_tree(tree, store, progress) == src
    assert server.connections == 1, "the server was not contacted"
    assert fetch_tree(tree, store, progress, redo=True) == src
    assert f"{src.commit[:12]} from an earlier fetch is used" in progress.notes[-1]


def test_moved_branch_is_seen_when_asked_for(
    server: GitServer, tree: GitTree, history: Path, store: Store, progress: QuietProgress
) -> None:
    old = fetch_tree(tree, store, progress)
    run_git(server.repo, "update-ref", "refs/heads/main", run_git(history, "rev-parse", "stack"))
    assert fetch_tree(tree, store, progress) == old
    new = fetch_tree(tree, store, progress, redo=True)
    assert new.commit == run_git(history, "rev-parse", "stack")
    # only the differences were fetched
    assert progress.counts[-1][1] == COMMITS


@pytest.mark.parametrize("allows", ["true", "false"])
def test_server_may_know_nothing_of_filters(
    allows: str, server: GitServer, tree: GitTree, store: Store, progress: QuietProgress
) -> None:
    server.set("uploadpack.allowFilter", allows)
    src = fetch_tree(tree, store, progress)
    assert len(list_files(src, store)) > COMMITS
    assert bool(progress.counts) == (allows == "true")


def test_what_came_before_a_break_is_not_asked_for_again(
    server: GitServer, tree: GitTree, store: Store, progress: QuietProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_FILES_A_FETCH", 2)
    # refs, history, a first batch, and then the line is cut
    server.allowed = 3
    with pytest.raises(InfraError):
        fetch_tree(tree, store, progress)
    assert find_fetched(tree, store) is None
    total = progress.counts[0][1]
    assert total
    server.allowed = 1 << 30
    src = fetch_tree(tree, store, progress)
    assert len(list_files(src, store)) > COMMITS
    again = next(about for done, about, _ in progress.counts[2:] if done == 0)
    assert again == total - 2


def test_fetch_at_once_is_done_once(
    server: GitServer, tree: GitTree, store: Store, progress: QuietProgress
) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from orchestrator.source.fetch import fetch_tree; from orchestrator.store.store import Store\n"
        "from orchestrator.source.tree import GitTree; from tests.conftest import QuietProgress\n"
        "tree = GitTree('fake', (sys.argv[2],), 'main')\n"
        "print(fetch_tree(tree, Store(Path(sys.argv[1])), QuietProgress()).commit)\n"
    )
    with (
        start_python(script, store.root, server.url) as one,
        start_python(script, store.root, server.url) as two,
    ):
        said = {process.communicate(timeout=60)[0] for process in (one, two)}
    assert said == {fetch_tree(tree, store, progress).commit + "\n"}
    assert server.connections == 3, "refs, history and files, for both together"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
def test_full_disk_leaves_nothing_half_made(
    server: GitServer,
    tree: GitTree,
    tmp_path: Path,
    progress: QuietProgress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetch, "_NEEDED_MIB", 0)
    clone = tmp_path / "clone"
    run_git(tmp_path, "clone", "-q", server.repo.as_uri(), str(clone))
    (clone / "big").write_bytes(os.urandom(8 << 20))
    run_git(clone, "add", "big")
    run_git(clone, "commit", "-q", "-m", "big")
    run_git(clone, "push", "-q", "origin", "HEAD:main")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True)
    try:
        small = Store(disk / "store")
        with pytest.raises(InfraError) as raised:
            fetch_tree(tree, small, progress)
        assert "no space left on device" in str(raised.value).lower()
        assert find_fetched(tree, small) is None
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        src = fetch_tree(tree, small, progress)
        assert len(run_git(open_repository(small), "cat-file", "-s", f"{src.commit}:big")) == 7
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


# --- ranges


def load_range(word: str, tree: GitTree, store: Store, progress: QuietProgress) -> Series:
    declared = Declarations({}, {"fake": tree}, {}, {}, ())
    place = Workspace(Path(), store, progress)
    return add_inputs(declared, "", [word], place).series[word]


@pytest.mark.parametrize("tip", ["stack", "stack-y"])
def test_range_is_a_series_that_makes_the_same_tree(
    tip: str, tree: GitTree, history: Path, store: Store, progress: QuietProgress
) -> None:
    series = load_range(f"fake:v5.10..{tip}", tree, store, progress)
    assert [patch.subject for patch in series.patches] == [f"many: change {n}" for n in range(1, COMMITS + 1)]
    base = fetch_tree(find_tree("fake:v5.10", {"fake": tree}), store, progress)
    src = apply_series(base, series, (), store, progress)
    assert src.tree_id == run_git(history, "rev-parse", f"{tip}^{{tree}}")


def test_range_is_not_asked_for_twice(
    server: GitServer, tree: GitTree, store: Store, progress: QuietProgress
) -> None:
    first = load_range("fake:v5.10..stack", tree, store, progress)
    server.allowed = 0
    assert load_range("fake:v5.10..stack", tree, store, progress) == first


def test_steps_of_a_bisection_leave_its_history_whole(
    tree: GitTree, history: Path, tmp_path: Path, store: Store, progress: QuietProgress
) -> None:
    place = Workspace(tmp_path, store, progress)
    declared = replace(DECLARED, trees={"fake": tree})
    job = Job(ROW, Variant("plain", "", ()), tree, Series(), ())
    found = make_history_line(job, ("v5.10", "stack"), declared, place)
    assert found.count(()) == COMMITS
    for number in (35, 10):
        commit = run_git(history, "rev-parse", f"stack~{number}")
        src = fetch_tree(found.make_job(commit).tree, store, progress)
        assert src.commit == commit
        assert src.folder == "fake"
        assert found.count(()) == COMMITS
        assert run_git(found.git_dir, "rev-list", "--count", commit, f"^{found.old}") == str(COMMITS - number)


def test_range_of_two_lines_is_refused(tree: GitTree, store: Store, progress: QuietProgress) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        load_range("fake:v5.10..knot", tree, store, progress)
    assert "merges two lines of history" in str(raised.value.exceptions[0])
    with pytest.raises(ExceptionGroup) as raised:
        load_range("fake:other..stack", tree, store, progress)
    assert "fake:other is not in the history of fake:stack" in str(raised.value.exceptions[0])


def test_range_deeper_than_the_first_look(
    tree: GitTree, store: Store, progress: QuietProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_DEPTHS", (2, 20, 200))
    assert len(load_range("fake:v5.10..stack", tree, store, progress).patches) == COMMITS


def test_reject_in_the_middle(tree: GitTree, store: Store, progress: QuietProgress) -> None:
    series = load_range("fake:v5.10..stack", tree, store, progress)
    base = fetch_tree(find_tree("fake:other", {"fake": tree}), store, progress)
    outcomes = try_series(base, series, (), store, progress)
    assert [o.state for o in outcomes] == [PatchState.APPLIES] * 34 + [PatchState.REJECTED] + [
        PatchState.NOT_TRIED
    ] * 35
    outcomes = try_series(base, series, (), store, progress, keep_going=True)
    assert [o.state for o in outcomes] == [PatchState.APPLIES] * 34 + [PatchState.REJECTED] + [
        PatchState.APPLIES
    ] * 35
    reject = outcomes[34].reject
    assert outcomes[34].patch == "0035-many-change-35.patch"
    assert reject
    assert reject.where == "many/35.c:7"
    assert "+int line9 = 35;" in reject.text
    assert "    10 > int line9 = -1;" in reject.text


# --- clones of a user's


@pytest.mark.parametrize("options", [[], ["--depth=1"], ["--filter=blob:none"], ["--filter=tree:0"]], ids=str)
def test_clone_of_a_user(
    options: list[str],
    server: GitServer,
    history: Path,
    tmp_path: Path,
    store: Store,
    progress: QuietProgress,
) -> None:
    clone = tmp_path / "mine"
    run_git(tmp_path, "clone", "-q", "-b", "stack", *options, server.url, str(clone))
    before = run_git(clone, "status", "--porcelain")
    src = fetch_tree(find_tree(str(clone), {}), store, progress)
    assert src.tree_id == run_git(history, "rev-parse", "stack^{tree}")
    assert len(list_files(src, store)) > COMMITS
    assert run_git(clone, "status", "--porcelain") == before


@pytest.mark.parametrize("options", [[], ["--filter=blob:none"]], ids=str)
def test_range_of_a_clone(
    options: list[str], server: GitServer, tmp_path: Path, store: Store, progress: QuietProgress
) -> None:
    clone = tmp_path / "mine"
    run_git(tmp_path, "clone", "-q", "-b", "stack", *options, server.url, str(clone))
    series = load_range(f"{clone}:v5.10..HEAD", GitTree("fake", (), ""), store, progress)
    assert len(series.patches) == COMMITS
    base = fetch_tree(find_tree(f"{clone}:v5.10", {}), store, progress)
    assert apply_series(base, series, (), store, progress).series == f"{clone}:v5.10..HEAD"


def test_range_of_a_shallow_clone_says_what_it_lacks(
    server: GitServer, tmp_path: Path, store: Store, progress: QuietProgress
) -> None:
    clone = tmp_path / "mine"
    run_git(tmp_path, "clone", "-q", "-b", "stack", "--depth=5", server.url, str(clone))
    with pytest.raises(ExceptionGroup) as raised:
        load_range(f"{clone}:v5.10..HEAD", GitTree("fake", (), ""), store, progress)
    assert "has no v5.10" in str(raised.value.exceptions[0])


def test_range_of_the_same_commit_is_refused(tree: GitTree, store: Store, progress: QuietProgress) -> None:
    src = fetch_tree(tree, store, progress)
    fetch_range(src, src, store, progress)
    with pytest.raises(UsageError, match="an empty range"):
        export_range("x", src.commit, src.commit, open_repository(store), store)


def test_local_repository_that_went_away(
    history: Path, tmp_path: Path, store: Store, progress: QuietProgress
) -> None:
    clone = tmp_path / "mine"
    run_git(tmp_path, "clone", "-q", str(history), str(clone))
    tree = find_tree(str(clone), {})
    assert isinstance(tree, LocalTree)
    fetch_tree(tree, store, progress)
    commit_file(clone, "mm/new.c", "int new;\n", "new")
    shutil.rmtree(clone / ".git")
    shutil.rmtree(clone / "mm")
    (clone / "Makefile").unlink()
    with pytest.raises(UsageError, match="not a kernel tree"):
        fetch_tree(tree, store, progress)
