# SPDX-License-Identifier: GPL-2.0-or-later
"""Trees fetched through apt, series that apply or do not, and worktrees after a kill."""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import InfraError, StageFailure
from orchestrator.project.condition import Condition
from orchestrator.source import repository
from orchestrator.source.apply import PatchState, apply_series, find_source, try_series
from orchestrator.source.debian import find_mirror
from orchestrator.source.fetch import fetch_tree, find_fetched
from orchestrator.source.fixup import Fixup, load_fixups
from orchestrator.source.repository import Source, checkout
from orchestrator.source.series import Backport, Series
from orchestrator.source.tree import DebianTree
from orchestrator.store.store import Store
from tests.conftest import (
    FAKE_TREE,
    FAKELINUX,
    MakeSeries,
    Mirror,
    QuietProgress,
    render_patch,
    start_python,
    wait_for,
)
from tests.gitserver import run_git

OLD = "	if (references != 1)\n"
NEW = "	if (mapcount != 1)\n"


def read_tree(src: Source, store: Store) -> dict[str, str]:
    with checkout(src, store) as place:
        files = [path for path in place.rglob("*") if path.is_file() and path.name != ".git"]
        return {str(path.relative_to(place)): path.read_text() for path in files}


def git_dir(store: Store) -> Path:
    return Path((store.root / "trees" / FAKE_TREE.name / "source" / ".git").read_text().split()[1])


def test_tree_is_what_the_package_has(base: Source, store: Store) -> None:
    shipped = {str(p.relative_to(FAKELINUX)): p.read_text() for p in FAKELINUX.rglob("*") if p.is_file()}
    assert read_tree(base, store) == shipped | {".gitignore": "*.awk\n"}
    assert (base.tree, base.series, str(base.version)) == ("fake-5.10", "", "5.10.226")
    assert base.commit == base.base


def test_second_time_nothing_is_fetched(
    base: Source, mirror: Mirror, store: Store, progress: QuietProgress
) -> None:
    asked = mirror.asked
    assert mirror.verbs == ["update", f"{FAKE_TREE.package}=5.10.226-1"]
    assert progress.stages == [("source", "fake-5.10: linux-source-5.10 from bullseye-security")]
    assert fetch_tree(FAKE_TREE, store, progress) == base
    assert mirror.asked == asked
    assert find_fetched(FAKE_TREE, store) == base


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
    assert raised.value.what == "the mirror of this host has no linux-source-5.4 in bullseye-security"
    assert find_fetched(absent, store) is None


def test_a_mirror_of_which_apt_has_no_lists(mirror: Mirror, home: Path) -> None:
    """As in a container's image, where they were removed."""
    (home / "no-lists").touch()
    assert find_mirror("bookworm") == f"file:{home}/mirror/debian"
    assert find_mirror("bullseye-security") == f"file:{home}/mirror/debian-security"


def test_mirror_without_the_suite(mirror: Mirror, store: Store, progress: QuietProgress) -> None:
    with pytest.raises(InfraError, match="does not have a Release file"):
        fetch_tree(replace(FAKE_TREE, suite="bookworm"), store, progress)


def test_package_without_a_source(mirror: Mirror, store: Store, progress: QuietProgress) -> None:
    """A package without an archive, or with one that is not a kernel."""
    (mirror.folder / "linux-doc_1_all.deb").symlink_to(next(mirror.folder.glob("*.deb")))
    with pytest.raises(InfraError, match=r"linux-doc_1_all.deb contains no usr/src/linux-doc.tar"):
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
    src = apply_series(base, series, (), store, progress)
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
    assert apply_series(base, series, (), store, progress) == src
    assert progress.stages == stages


def test_no_series_is_the_base(base: Source, store: Store, progress: QuietProgress) -> None:
    assert apply_series(base, Series(), (), store, progress) == base


def test_series_is_the_same_commit_everywhere(
    base: Source, tmp_path: Path, store: Store, progress: QuietProgress, make_series: MakeSeries
) -> None:
    series = make_series("cow", {"mm/memory.c": (OLD, NEW)})
    other = Store(tmp_path / "other")
    elsewhere = apply_series(fetch_tree(FAKE_TREE, other, progress), series, (), other, progress)
    assert apply_series(base, series, (), store, progress) == elsewhere


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
    text = series.patches[1].path.read_text()
    series.patches[1].path.write_text(text.replace("--- a/mm", f"index {blob}..{'1' * 40} 100644\n--- a/mm"))
    before = read_tree(base, store)
    with pytest.raises(StageFailure) as raised:
        apply_series(base, series, (), store, progress)
    error = raised.value
    assert error.stage == "source"
    assert error.what == "0002-bad.patch does not apply to fake-5.10 (5.10.226)"
    # nothing of it is kept, and the next series finds a clean place
    assert find_source(base, series, (), store) is None
    assert read_tree(base, store) == before
    good = make_series("good", {"mm/memory.c": (OLD, NEW)})
    assert NEW in read_tree(apply_series(base, good, (), store, progress), store)["mm/memory.c"]
    assert error.where.startswith("mm/memory.c:")


def test_mail_without_a_patch_is_a_failure_that_names_it(
    base: Source, store: Store, progress: QuietProgress, make_series: MakeSeries
) -> None:
    series = make_series("bad", {"mm/swap.c": ("entry + 1", "entry + 2")}, {"mm/memory.c": (OLD, NEW)})
    series.patches[1].path.write_text("not a mail\n")
    with pytest.raises(StageFailure, match="0002-bad.patch does not apply"):
        apply_series(base, series, (), store, progress)


def leave_dirty(store: Store) -> None:
    place = store.root / "trees" / FAKE_TREE.name / "source"
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
    place = store.root / "trees" / FAKE_TREE.name / "source"
    diff = "--- a/mm/swap.c\n+++ b/mm/swap.c\n@@ -1 +1 @@\n-x\n+y\n"
    (place / "broken").write_text(f"From: a <a@b>\nSubject: [PATCH] x\n\n---\n{diff}")
    subprocess.run(["git", "am", "-q", "broken"], cwd=place, env=os.environ | repository._ENV, check=False)
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
    src = apply_series(base, make_series("cow", {"mm/memory.c": (OLD, NEW)}), (), store, progress)
    assert NEW in read_tree(src, store)["mm/memory.c"]
    leave(store)
    assert read_tree(base, store) == before


def test_a_store_that_was_copied_leaves_the_first_one_alone(
    base: Source, store: Store, progress: QuietProgress, make_series: MakeSeries, tmp_path: Path
) -> None:
    other = Store(shutil.copytree(store.root, tmp_path / "copy", symlinks=True))
    before = git_dir(store).joinpath("HEAD").read_text()
    src = apply_series(base, make_series("cow", {"mm/memory.c": (OLD, NEW)}), (), other, progress)
    assert NEW in read_tree(src, other)["mm/memory.c"]
    assert git_dir(other).is_relative_to(other.root)
    assert git_dir(store).joinpath("HEAD").read_text() == before
    assert OLD in read_tree(base, store)["mm/memory.c"]


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
        "from orchestrator.source.fetch import fetch_tree; from orchestrator.store.store import Store\n"
        "from tests.conftest import FAKE_TREE, QuietProgress\n"
        "fetch_tree(FAKE_TREE, Store(Path(sys.argv[1])), QuietProgress())\n"
    )
    with start_python(script, store.root, PATH=f"{slow}:{os.environ['PATH']}"):
        wait_for((store.root / "trees" / FAKE_TREE.name / "source" / ".git").exists)
    assert find_fetched(FAKE_TREE, store) is None
    base = fetch_tree(FAKE_TREE, store, progress)
    assert "mm/memory.c" in read_tree(base, store)


# --- why a patch does not apply


def test_reject_shows_hunk_and_nearest_context(
    base: Source, store: Store, progress: QuietProgress, make_series: MakeSeries
) -> None:
    first = make_series("first", {"mm/memory.c": (OLD, "	if (references != 7)\n")})
    second = make_series("second", {"mm/memory.c": (OLD, NEW)})
    both = Series("both", patches=(*first.patches, *second.patches))
    with pytest.raises(StageFailure) as raised:
        apply_series(base, both, (), store, progress)
    error = raised.value
    with checkout(base, store) as place:
        line = (place / "mm/memory.c").read_text().splitlines().index(OLD.rstrip()) + 1
    assert error.where == f"mm/memory.c:{line - 3}"
    told = error.hint.splitlines()
    assert told[0] == "mm/memory.c: hunk 1 of 1 is rejected:"
    assert f"    -{OLD.rstrip()}" in told
    assert f"    +{NEW.rstrip()}" in told
    nearest = f"  nearest in the tree, mm/memory.c:{line - 3}: 6 of 7 lines match, '>' marks the others"
    assert nearest in told
    assert f"{line:6} > 	if (references != 7)" in told


def test_file_that_is_not_in_the_tree_or_is_already(
    base: Source, store: Store, progress: QuietProgress, make_series: MakeSeries
) -> None:
    def explain(text: str) -> str:
        patch = make_series(f"s{len(text)}", {"mm/swap.c": ("entry + 1", "entry + 2")}).patches[0]
        patch.path.write_text(text)
        outcomes = try_series(base, Series("x", patches=(patch,)), (), store, progress)
        assert outcomes[0].state is PatchState.REJECTED
        assert outcomes[0].reject
        return f"{outcomes[0].reject.where} | {outcomes[0].reject.text}"

    text = render_patch("x", {"mm/swap.c": ("entry + 1", "entry + 2")})
    assert explain(text.replace("mm/swap.c", "kernel/swap.c")) == (
        "kernel/swap.c | kernel/swap.c: is not in the tree; there is mm/swap.c"
    )
    assert explain(render_patch("x", {"mm/swap.c": ("", "int a;\n")})) == (
        "mm/swap.c | mm/swap.c: the patch creates this file, but it exists in the tree"
    )


def test_patch_that_is_in_the_tree_already(
    base: Source, store: Store, progress: QuietProgress, make_series: MakeSeries
) -> None:
    """Also where git am would pass over it and call that a success: the blobs are known here."""
    one = make_series("one", {"mm/memory.c": (OLD, NEW)}).patches[0]
    two = make_series("two", {"mm/swap.c": ("entry + 1", "entry + 2")}).patches[0]
    src = apply_series(base, Series("x", patches=(one,)), (), store, progress)
    blobs = [
        run_git(store.path("git", "kernels.git"), "rev-parse", f"{commit}:mm/memory.c")
        for commit in (base.commit, src.commit)
    ]
    named = one.path.read_text().replace("--- a/mm", f"index {blobs[0]}..{blobs[1]} 100644\n--- a/mm")
    for text in (one.path.read_text(), named):
        one.path.write_text(text)
        outcomes = try_series(src, Series("x", patches=(one, two)), (), store, progress, keep_going=True)
        assert [outcome.state for outcome in outcomes] == [PatchState.PRESENT, PatchState.APPLIES]
        assert outcomes[0].reject
        assert outcomes[0].reject.present_as == f'{src.commit[:7]} ("one 1")'
        with pytest.raises(StageFailure) as raised:
            apply_series(src, Series("x", patches=(one, two)), (), store, progress)
        assert (
            raised.value.what
            == f'0001-one.patch is in fake-5.10 (5.10.226) already as {src.commit[:7]} ("one 1")'
        )
    # without its history the place has to do
    bare = replace(src, commit=src.commit, base=src.commit)
    orphan = run_git(
        store.path("git", "kernels.git"), "commit-tree", "-m", "all at once", f"{src.commit}^{{tree}}"
    )
    bare = replace(bare, commit=orphan, base=orphan)
    outcomes = try_series(bare, Series("x", patches=(one,)), (), store, progress)
    assert outcomes[0].reject
    assert outcomes[0].reject.present_as.startswith("mm/memory.c:")


def test_plain_diff_and_dos_text_apply(
    base: Source, store: Store, progress: QuietProgress, make_series: MakeSeries
) -> None:
    series = make_series(
        "x", {"mm/dos.c": ("", "int a;\r\nint b;\r\n")}, {"mm/swap.c": ("entry + 1", "entry + 2")}
    )
    text = series.patches[0].path.read_bytes().decode().replace("int a;\n", "int a;\r\n")
    series.patches[0].path.write_text(text.replace("int b;\n", "int b;\r\n"), newline="")
    plain = series.patches[1].path.read_text()
    series.patches[1].path.write_text(plain[plain.index("diff --git") : plain.index("-- \n")])
    src = apply_series(base, series, (), store, progress)
    with checkout(src, store) as place:
        assert (place / "mm/dos.c").read_bytes() == b"int a;\r\nint b;\r\n"
        assert "entry + 2" in (place / "mm/swap.c").read_text()


# --- fixups


def make_fixups(tmp_path: Path, text: str) -> tuple[Fixup, ...]:
    file = tmp_path / "fixups.yaml"
    file.write_text(f"fixups:\n{text}")
    return load_fixups(file)


def test_fixups_lie_below_any_series(
    base: Source, tmp_path: Path, store: Store, progress: QuietProgress, make_series: MakeSeries
) -> None:
    (tmp_path / "fix.patch").write_text(render_patch("mend", {"mm/swap.c": ("entry + 1", "entry + 2")}))
    fixups = make_fixups(
        tmp_path,
        "  - {name: mend, when: kernel<5.11, why: x, patch: fix.patch}\n"
        "  - {name: calm, when: kernel<5.10.300, why: x, make: {WERROR: 0, B: c d}}\n"
        "  - {name: later, when: kernel>=5.11, why: x, make: {LATER: 1}}\n",
    )
    plain = apply_series(base, Series(), fixups, store, progress)
    assert (plain.fixups, plain.make_words) == (("mend", "calm"), ("B=c d", "WERROR=0"))
    assert "entry + 2" in read_tree(plain, store)["mm/swap.c"]
    assert plain.source_id != base.source_id
    series = make_series("cow", {"mm/memory.c": (OLD, NEW)})
    src = apply_series(base, series, fixups, store, progress)
    assert "entry + 2" in read_tree(src, store)["mm/swap.c"]
    assert NEW in read_tree(src, store)["mm/memory.c"]
    assert run_git(store.path("git", "kernels.git"), "rev-parse", f"{src.commit}^") == plain.commit
    assert apply_series(base, Series(), fixups[2:], store, progress).commit == base.commit


def test_fixup_that_conflicts_is_told_as_one(
    base: Source, tmp_path: Path, store: Store, progress: QuietProgress, make_series: MakeSeries
) -> None:
    text = render_patch("mend", {"mm/memory.c": (OLD, NEW)})
    (tmp_path / "fix.patch").write_text(text.replace(f"-{OLD}", "-	if (nothing)\n"))
    fixups = make_fixups(tmp_path, "  - {name: mend, when: kernel<5.11, why: x, patch: fix.patch}\n")
    with pytest.raises(StageFailure, match=r"fixup fix.patch does not apply to fake-5.10 \(5.10.226\)"):
        apply_series(base, Series(), fixups, store, progress)


def test_fixups_are_checked(tmp_path: Path) -> None:
    (tmp_path / "fix.patch").write_text("no patch")
    with pytest.raises(ExceptionGroup) as raised:
        make_fixups(
            tmp_path,
            "  - {name: a, when: kernel<5.11, why: x}\n"
            "  - {name: b, when: arch=x86_64, why: x, make: {A: b}}\n"
            "  - {name: c, when: kernel<5.11, why: x, make: {a-b: c}}\n"
            "  - {name: d, when: kernel<5.11, why: x, patch: absent.patch}\n"
            "  - {name: e, when: kernel<5.11, make: {A: b}}\n",
        )
    assert [str(error).removeprefix(f"{tmp_path}/fixups.yaml:") for error in raised.value.exceptions] == [
        "2: fixups[0]: expected either make: {NAME: VALUE} or patch: FILE",
        "3: fixups[1]: when: expected a range of kernels, got 'arch=x86_64'",
        "4: fixups[2]: make: a-b is not a make variable",
        "5: fixups[3]: patch: absent.patch does not exist",
        "6: fixups[4]: missing why",
    ]
    with pytest.raises(ExceptionGroup) as raised:
        make_fixups(tmp_path, "  - {name: a, when: kernel<5.11, why: x, patch: fix.patch}\n" * 2)
    assert "two fixups are named a" in str(raised.value.exceptions[0])
    assert "fix.patch:1: ends in the middle" in str(raised.value.exceptions[1])


def test_order_and_content_are_identity(
    base: Source, store: Store, progress: QuietProgress, make_series: MakeSeries
) -> None:
    series = make_series("x", {"mm/memory.c": (OLD, NEW)}, {"mm/swap.c": ("entry + 1", "entry + 2")})
    one = apply_series(base, series, (), store, progress)
    turned = apply_series(base, replace(series, patches=series.patches[::-1]), (), store, progress)
    assert turned.tree_id == one.tree_id
    assert turned.source_id != one.source_id


def test_variant_is_what_is_applied(
    base: Source, tmp_path: Path, store: Store, progress: QuietProgress, make_series: MakeSeries
) -> None:
    series = make_series("x", {"mm/swap.c": ("entry + 1", "entry + 2")})
    other = tmp_path / "0001-x.5.10.patch"
    other.write_text(render_patch("x 1", {"mm/swap.c": ("entry + 1", "entry + 3")}))
    old = replace(series.patches[0], backports=(Backport(Condition.parse("kernel<5.11"), other),))
    src = apply_series(base, replace(series, patches=(old,)), (), store, progress)
    assert "entry + 3" in read_tree(src, store)["mm/swap.c"]
    new = replace(series.patches[0], backports=(Backport(Condition.parse("kernel<5.4"), other),))
    src = apply_series(base, replace(series, patches=(new,)), (), store, progress)
    assert "entry + 2" in read_tree(src, store)["mm/swap.c"]
