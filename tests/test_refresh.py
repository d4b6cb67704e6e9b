# SPDX-License-Identifier: GPL-2.0-or-later
"""A series opened, edited with git as people do, and written back: nothing else changes."""

import base64
import difflib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import StageFailure, UsageError
from orchestrator.source.apply import apply_series
from orchestrator.source.fetch import fetch_tree
from orchestrator.source.patch import export_commit
from orchestrator.source.refresh import Worktree, find_worktree, open_worktree, refresh_series
from orchestrator.source.repository import Source, checkout
from orchestrator.source.series import Series, load_series
from orchestrator.store.store import Store
from tests.conftest import FAKE_TREE, FAKELINUX, MakeSeries, QuietProgress, render_patch
from tests.gitserver import commit_file, run_git

OLD = "	if (references != 1)\n"
NEW = "	if (mapcount != 1)\n"


@pytest.fixture
def folder(base: Source, store: Store, make_series: MakeSeries, tmp_path: Path) -> Path:
    """A series of two patches, as git format-patch writes it."""
    make_series("cow", {"mm/memory.c": (OLD, NEW)}, {"mm/swap.c": ("entry + 1", "entry + 2")})
    folder = tmp_path / "patches" / "cow"
    opened = find_worktree("cow", "first", None, store)
    open_worktree(base, load_series(folder), opened, store)
    commits = run_git(opened.place, "rev-list", "--reverse", f"{base.commit}..HEAD").split()
    for number, commit in enumerate(commits, 1):
        (folder / f"{number:04}-cow.patch").unlink()
        made = export_commit(opened.place, commit, folder, number)
        for file in ("series", "series.yaml"):
            text = (folder / file).read_text()
            (folder / file).write_text(text.replace(f"{number:04}-cow.patch", made.name))
    return folder


@pytest.fixture
def opened(base: Source, folder: Path, store: Store) -> Worktree:
    opened = find_worktree("cow", FAKE_TREE.name, None, store)
    assert open_worktree(base, load_series(folder), opened, store)
    return opened


def read_folder(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refresh(folder: Path, opened: Worktree, store: Store) -> list[str]:
    return [path.name for path in refresh_series(folder, load_series(folder), opened, store)]


def test_written_back_unedited_is_the_same_bytes(folder: Path, opened: Worktree, store: Store) -> None:
    before = read_folder(folder)
    assert sorted(before) == ["0001-cow-1.patch", "0002-cow-2.patch", "series", "series.yaml"]
    assert refresh(folder, opened, store) == []
    assert read_folder(folder) == before
    assert b"index " in before["0001-cow-1.patch"], "with the blobs that a three-way merge needs"


def test_another_machine_writes_the_same_bytes(folder: Path, tmp_path: Path, progress: QuietProgress) -> None:
    other = Store(tmp_path / "other")
    opened = find_worktree("cow", "x", tmp_path / "a place of mine", other)
    open_worktree(fetch_tree(FAKE_TREE, other, progress), load_series(folder), opened, other)
    assert (tmp_path / "a place of mine" / "Makefile").exists()
    assert refresh(folder, opened, other) == []


def test_amended_patch_is_the_only_file_that_changes(folder: Path, opened: Worktree, store: Store) -> None:
    swap = opened.place / "mm/swap.c"
    swap.write_text(swap.read_text().replace("entry + 2", "entry + 4"))
    with pytest.raises(ExceptionGroup) as raised:
        refresh(folder, opened, store)
    assert "has 1 uncommitted change(s): M mm/swap.c" in str(raised.value.exceptions[0])
    run_git(opened.place, "commit", "-q", "-a", "--amend", "--no-edit")
    assert refresh(folder, opened, store) == ["0002-cow-2.patch"]
    assert "+	return entry + 4" in (folder / "0002-cow-2.patch").read_text()


def test_new_gone_and_renamed_patches(
    base: Source, folder: Path, opened: Worktree, store: Store, progress: QuietProgress
) -> None:
    (folder / "series").write_text("# in this order\n" + (folder / "series").read_text())
    run_git(opened.place, "reset", "-q", "--hard", "HEAD~2")
    commit_file(opened.place, "mm/new.c", "int new;\n", "mm: make room\n\nBecause.")
    run_git(opened.place, "cherry-pick", "HEAD@{2}")
    changed = refresh(folder, opened, store)
    assert sorted(changed) == ["0001-cow-1.patch", "0001-mm-make-room.patch", "series"]
    assert (folder / "series").read_text() == "# in this order\n0001-mm-make-room.patch\n0002-cow-2.patch\n"
    # what the series claims of a patch that is gone is for a person to take out
    with pytest.raises(ExceptionGroup) as raised:
        load_series(folder)
    assert "0001-cow-1.patch is not in series" in str(raised.value.exceptions[0])
    claims = folder / "series.yaml"
    claims.write_text(claims.read_text().replace("  - file: 0001-cow-1.patch\n", ""))
    src = apply_series(base, load_series(folder), (), store, progress)
    assert src.tree_id == run_git(opened.place, "rev-parse", "HEAD^{tree}")


def test_moved_patch_keeps_its_claims(base: Source, folder: Path, opened: Worktree, store: Store) -> None:
    claims = folder / "series.yaml"
    claims.write_text(
        claims.read_text().replace("cow-2.patch\n", "cow-2.patch # the swap side\n    flips: {a.b: pass}\n")
    )
    one, two = run_git(opened.place, "rev-list", "--reverse", f"{base.commit}..HEAD").split()
    run_git(opened.place, "reset", "-q", "--hard", base.commit)
    run_git(opened.place, "cherry-pick", two, one)
    assert refresh(folder, opened, store) == ["series"]
    series = load_series(folder)
    assert [patch.name for patch in series.patches] == ["0002-cow-2.patch", "0001-cow-1.patch"]
    assert series.patches[0].flips == {"a.b": "pass"}
    assert "0002-cow-2.patch # the swap side" in claims.read_text()


def test_backport_is_written_where_it_is_chosen(base: Source, folder: Path, store: Store) -> None:
    text = (folder / "0002-cow-2.patch").read_text().replace("entry + 2", "entry + 3")
    (folder / "0002-cow-2.5.10.patch").write_text(text)
    claims = folder / "series.yaml"
    claims.write_text(
        claims.read_text().replace(
            "0002-cow-2.patch\n",
            "0002-cow-2.patch\n    backports: [{when: kernel<5.11, file: 0002-cow-2.5.10.patch}]\n",
        )
    )
    before = read_folder(folder)
    opened = find_worktree("cow", "backport", None, store)
    open_worktree(base, load_series(folder), opened, store)
    assert "entry + 3" in (opened.place / "mm/swap.c").read_text()
    refresh(folder, opened, store)
    after = read_folder(folder)
    assert after["0002-cow-2.patch"] == before["0002-cow-2.patch"]
    swap = opened.place / "mm/swap.c"
    swap.write_text(swap.read_text().replace("entry + 3", "entry + 5"))
    run_git(opened.place, "commit", "-q", "-a", "--amend", "-m", "cow 2")
    assert refresh(folder, opened, store) == ["0002-cow-2.5.10.patch"]


def test_a_patch_for_other_kernels_stays_in_its_place(base: Source, folder: Path, store: Store) -> None:
    claims = folder / "series.yaml"
    other = "    when: kernel<5.0\n    backports: [{when: kernel>=9.0, file: 0001-cow-1.patch}]\n"
    claims.write_text(claims.read_text().replace("1.patch\n", f"1.patch\n{other}"))
    before = read_folder(folder)
    opened = find_worktree("cow", "partly", None, store)
    open_worktree(base, load_series(folder), opened, store)
    assert "entry + 2" in (opened.place / "mm/swap.c").read_text()
    assert OLD in (opened.place / "mm/memory.c").read_text()
    assert refresh(folder, opened, store) == []
    commit_file(opened.place, "mm/new.c", "int new;\n", "mm: make room\n\nBecause.")
    assert sorted(refresh(folder, opened, store)) == ["0003-mm-make-room.patch", "series"]
    assert read_folder(folder).items() >= {name: before[name] for name in before if name != "series"}.items()


def test_at_other_lines_of_another_kernel_a_patch_is_the_same(
    base: Source, folder: Path, store: Store
) -> None:
    opened = find_worktree("cow", "moved", None, store)
    open_worktree(base, Series("cow", "t"), opened, store)
    swap = opened.place / "mm/swap.c"
    swap.write_text("\n\n\n" + swap.read_text())
    run_git(opened.place, "commit", "-q", "-a", "-m", "three lines more")
    run_git(opened.place, "update-ref", opened.base_ref, "HEAD")
    run_git(opened.place, "am", "-q", *(str(path) for path in sorted(folder.glob("*.patch"))))
    assert refresh(folder, opened, store) == []


def test_a_patch_with_less_context_is_the_same(base: Source, folder: Path, store: Store) -> None:
    """It may leave out lines that differ on other kernels; an edit is written with all of its context."""
    patch = folder / "0002-cow-2.patch"
    head, _, hunk = patch.read_text().partition("@@")
    lines = hunk.splitlines(keepends=True)
    change = [i for i, line in enumerate(lines) if line[:1] in "+-" and not line.startswith("-- ")]
    first, last = change[0], change[-1] + 1
    kept = [*lines[first - 1 : last], lines[last]]
    assert len(kept) == 4 < len(lines) - 3
    patch.write_text(f"{head}@@ -{int(lines[0].split('-')[1].split(',')[0]) + 2},3 +1,3 @@\n" + "".join(kept))
    before = read_folder(folder)
    opened = find_worktree("cow", "less", None, store)
    open_worktree(base, load_series(folder), opened, store)
    assert refresh(folder, opened, store) == []
    assert read_folder(folder) == before

    swap = opened.place / "mm/swap.c"
    swap.write_text(swap.read_text().replace("entry + 2", "entry + 4"))
    run_git(opened.place, "commit", "-q", "-a", "--amend", "--no-edit")
    assert refresh(folder, opened, store) == ["0002-cow-2.patch"]


def test_a_patch_of_another_series_is_not_written(
    base: Source, folder: Path, opened: Worktree, store: Store
) -> None:
    other = folder.parent / "on-cow"
    other.mkdir()
    (other / "series").write_text(f"../{folder.name}/0001-cow-1.patch\n")
    (other / "series.yaml").write_text("title: t\nwhen: kernel>=5.0\npatches: []\n")
    before = read_folder(folder)
    with pytest.raises(ExceptionGroup) as raised:
        refresh_series(other, load_series(other), opened, store)
    assert "0001-cow-1.patch: belongs to another folder" in str(raised.value.exceptions[0])
    assert read_folder(folder) == before


def test_open_worktree_is_never_overwritten(
    base: Source, folder: Path, opened: Worktree, store: Store, tmp_path: Path
) -> None:
    (opened.place / "mm/swap.c").write_text("my work\n")
    assert not open_worktree(base, load_series(folder), opened, store)
    assert (opened.place / "mm/swap.c").read_text() == "my work\n"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("mine")
    with pytest.raises(UsageError, match="exists already with other content"):
        open_worktree(base, load_series(folder), find_worktree("cow", "x", tmp_path / "mine", store), store)


def test_worktree_of_a_tree_s_name_does_not_end_the_build_s(
    base: Source, folder: Path, store: Store, tmp_path: Path
) -> None:
    """Git keeps both under the last part of their paths."""
    mine = find_worktree("cow", "x", tmp_path / FAKE_TREE.name, store)
    open_worktree(base, load_series(folder), mine, store)
    shutil.rmtree(store.root / "trees" / FAKE_TREE.name / "source")
    with checkout(base, store) as place:
        assert (place / "Makefile").exists()
    assert refresh(folder, mine, store) == []


def test_series_that_does_not_apply_waits_to_be_mended(
    base: Source, folder: Path, store: Store, progress: QuietProgress, make_series: MakeSeries
) -> None:
    moved = make_series("moved", {"mm/swap.c": ("entry + 1", "entry + 7")})
    onto = apply_series(base, moved, (), store, progress)
    opened = find_worktree("cow", "moved", None, store)
    with pytest.raises(StageFailure, match="0002-cow-2.patch does not apply") as raised:
        open_worktree(replace(onto, base=onto.commit), load_series(folder), opened, store)
    assert "git am --continue" in raised.value.hint
    with pytest.raises(ExceptionGroup) as group:
        refresh(folder, opened, store)
    assert "git am is in progress" in str(group.value.exceptions[0])
    swap = opened.place / "mm/swap.c"
    lines = [line for line in swap.read_text().splitlines() if not line.startswith(("<<<", "===", ">>>"))]
    swap.write_text("\n".join(line for line in lines if "entry + 7" not in line) + "\n")
    run_git(opened.place, "add", "mm/swap.c")
    run_git(opened.place, "am", "--continue")
    assert "0002-cow-2.patch" in refresh(folder, opened, store)
    assert "-	return entry + 7" in (folder / "0002-cow-2.patch").read_text()


def test_nothing_to_write_back(base: Source, folder: Path, opened: Worktree, store: Store) -> None:
    with pytest.raises(UsageError, match="no worktree of cow is open") as raised:
        refresh(folder, find_worktree("cow", "elsewhere", None, store), store)
    assert "cowbell worktree SERIES=cow" in raised.value.hint
    run_git(opened.place, "reset", "-q", "--hard", base.commit)
    with pytest.raises(ExceptionGroup) as group:
        refresh(folder, opened, store)
    assert "has no commit above its base" in str(group.value.exceptions[0])
    run_git(opened.place, "checkout", "-q", "--orphan", "astray")
    run_git(opened.place, "commit", "-q", "-m", "astray")
    with pytest.raises(ExceptionGroup) as group:
        refresh(folder, opened, store)
    assert "is no longer based on" in str(group.value.exceptions[0])


def test_series_without_a_patch_opens_bare(base: Source, store: Store) -> None:
    opened = find_worktree("none", "x", None, store)
    assert open_worktree(base, Series(), opened, store)
    assert (opened.place / "Makefile").exists()


def test_title_is_what_a_patch_is_known_by(folder: Path, opened: Worktree, store: Store) -> None:
    run_git(opened.place, "commit", "-q", "--amend", "-m", "another title")
    assert sorted(refresh(folder, opened, store)) == [
        "0002-another-title.patch", "0002-cow-2.patch", "series"
    ]  # fmt: skip


FOREIGN = (
    "X-Note: kept\nFrom: A Developer <a@example.org>\nDate: Mon, 5 Jan 2015 10:00:00 +0000\n"
    "Subject: [PATCH v3 {number}/3] {title}\nMessage-Id: <{number}@example.org>\n\nBecause of {number}.\n"
    "---\nv3: as it should be | since v2\n\n some/file.c | 2 +-\n 1 file changed\n\n"
    "{diff}-- \n2.30.1 (a tool)\n\n"
)
CHANGES = [
    ("swap.c", "entry + 1", "entry + 2"),
    ("swap.c", "entry + 2", "entry + 3"),
    ("memory.c", "!= 1", "!= 2"),
]
LISTING = "# the series\n\nb.patch -p1 # first\n# about the next\na.patch\n\n# the rest\nsub-c.diff"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Patches as mail programs and other tools write them: two of one title, and one in base64."""
    folder = tmp_path / "patches" / "foreign"
    folder.mkdir(parents=True)
    text = {name: (FAKELINUX / "mm" / name).read_text() for name in ("swap.c", "memory.c")}
    for number, (file, old, new) in enumerate(CHANGES, 1):
        assert old in text[file]
        after = text[file].replace(old, new, 1)
        one, two = (part.splitlines(keepends=True) for part in (text[file], after))
        diff = "".join(difflib.unified_diff(one, two, f"a/mm/{file}", f"b/mm/{file}", n=2))
        text[file] = after
        title = "mm: count" if number < 3 else "mm: compare"
        name = {1: "b.patch", 2: "a.patch", 3: "sub-c.diff"}[number]
        (folder / name).write_text(FOREIGN.format(number=number, title=title, diff=diff))
    head, _, body = (folder / "sub-c.diff").read_text().partition("\n\n")
    packed = base64.encodebytes(body.encode()).decode()
    (folder / "sub-c.diff").write_text(f"{head}\nContent-Transfer-Encoding: base64\n\n{packed}")
    (folder / "series").write_text(LISTING)
    claims = (
        "title: t\nwhen: kernel>=5.0\npatches:\n  - {file: a.patch, flips: {a.b: pass}} # of the second\n"
    )
    (folder / "series.yaml").write_text(claims)
    return folder


@pytest.fixture
def edited(base: Source, foreign: Path, store: Store) -> Worktree:
    opened = find_worktree("foreign", FAKE_TREE.name, None, store)
    assert open_worktree(base, load_series(foreign), opened, store)
    return opened


def test_what_nobody_edited_keeps_its_bytes(
    base: Source, foreign: Path, edited: Worktree, store: Store
) -> None:
    before = read_folder(foreign)
    assert refresh(foreign, edited, store) == []
    assert read_folder(foreign) == before
    # on an earlier commit that was edited they are others, but the patches are the same
    run_git(edited.place, "reset", "-q", "--hard", base.commit)
    commit_file(edited.place, "mm/first.c", "int first;\n", "mm: come first")
    run_git(edited.place, "cherry-pick", f"{base.commit}..HEAD@{{2}}")
    assert sorted(refresh(foreign, edited, store)) == ["0001-mm-come-first.patch", "series"]
    after = read_folder(foreign)
    assert {name: after[name] for name in before if name != "series"} == {
        name: data for name, data in before.items() if name != "series"
    }
    expected = LISTING.replace("\n\nb.patch", "\n\n0001-mm-come-first.patch\nb.patch") + "\n"
    assert (foreign / "series").read_text() == expected


def test_edited_patch_keeps_name_notes_and_headers(foreign: Path, edited: Worktree, store: Store) -> None:
    run_git(edited.place, "reset", "-q", "--hard", "HEAD~1")
    before = (foreign / "b.patch").read_bytes()
    swap = edited.place / "mm/swap.c"
    swap.write_text(swap.read_text().replace("entry + 3", "entry + 4"))
    run_git(edited.place, "commit", "-q", "-a", "--amend", "--no-edit")
    run_git(edited.place, "cherry-pick", "HEAD@{2}")
    assert refresh(foreign, edited, store) == ["a.patch"]
    text = (foreign / "a.patch").read_text()
    head = text.partition("\n\n")[0].splitlines()
    assert "Subject: [PATCH v3 2/3] mm: count" in head
    assert {"X-Note: kept", "Message-Id: <2@example.org>"} <= set(head)
    assert "\n---\nv3: as it should be | since v2\n\n mm/swap.c | 2 +-\n" in text
    assert "some/file.c" not in text
    assert text.endswith("\n-- \n2.30.1 (a tool)\n\n")
    assert "+\treturn entry + 4" in text
    assert (foreign / "b.patch").read_bytes() == before
    assert refresh(foreign, edited, store) == []


def test_patches_of_one_title_are_told_apart(
    base: Source, foreign: Path, edited: Worktree, store: Store, progress: QuietProgress
) -> None:
    commits = run_git(edited.place, "rev-list", "--reverse", f"{base.commit}..HEAD").split()
    commit_file(edited.place, "mm/third.c", "int third;\n", "mm: count")
    commit_file(edited.place, "mm/fourth.c", "int fourth;\n", "mm: count")
    changed = sorted(refresh(foreign, edited, store))
    assert changed == ["0004-mm-count.patch", "0005-mm-count.patch", "series"]
    series = load_series(foreign)
    assert [patch.name for patch in series.patches] == [
        "b.patch", "a.patch", "sub-c.diff", "0004-mm-count.patch", "0005-mm-count.patch"
    ]  # fmt: skip
    assert apply_series(base, series, (), store, progress).tree_id == run_git(
        edited.place, "rev-parse", "HEAD^{tree}"
    )
    assert series.patches[1].flips == {"a.b": "pass"}
    # the first of them is gone, and the second is still itself
    run_git(edited.place, "reset", "-q", "--hard", base.commit)
    run_git(edited.place, "cherry-pick", commits[2])
    assert "a.patch" in refresh(foreign, edited, store)
    assert (foreign / "series").read_text() == "# the series\n\n# about the next\n\n# the rest\nsub-c.diff\n"


def test_a_file_that_is_not_of_the_series_is_not_overwritten(
    foreign: Path, edited: Worktree, store: Store
) -> None:
    (foreign / "0004-mm-new.patch").write_text("notes of mine")
    commit_file(edited.place, "mm/new.c", "int new;\n", "mm: new")
    assert sorted(refresh(foreign, edited, store)) == ["0004-mm-new-2.patch", "series"]
    assert (foreign / "0004-mm-new.patch").read_text() == "notes of mine"


def test_plain_diff_keeps_its_bytes(base: Source, tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "patches" / "plain"
    folder.mkdir(parents=True)
    text = render_patch("x", {"mm/swap.c": ("entry + 1", "entry + 2")})
    text = "Some words.\n\n" + text[text.index("--- a/") : text.index("-- \n")]
    (folder / "fix-#1.patch").write_text(text)
    (folder / "series").write_text("fix-#1.patch\n")
    (folder / "series.yaml").write_text("title: t\nwhen: kernel>=5.0\npatches: []\n")
    opened = find_worktree("plain", "x", None, store)
    open_worktree(base, load_series(folder), opened, store)
    assert refresh(folder, opened, store) == []
    assert (folder / "fix-#1.patch").read_text() == text


@pytest.mark.parametrize("series", ["/a/linux:HEAD~1..HEAD", "~/x y.mbox", "a@{1}..b^", "x.lock"])
def test_worktree_of_any_words_has_a_branch(base: Source, series: str, store: Store) -> None:
    opened = find_worktree(series, "linux:v5~1", None, store)
    assert open_worktree(base, Series(series), opened, store)
    assert run_git(opened.place, "symbolic-ref", "--short", "HEAD") == opened.branch
    assert find_worktree(f"{series}x", "linux:v5~1", None, store) != opened


def test_new_title_keeps_the_notes(foreign: Path, edited: Worktree, store: Store) -> None:
    run_git(edited.place, "reset", "-q", "--hard", "HEAD~1")
    run_git(edited.place, "commit", "-q", "--amend", "-m", "mm: count twice\n\nBecause.")
    run_git(edited.place, "cherry-pick", "HEAD@{2}")
    assert sorted(refresh(foreign, edited, store)) == ["0002-mm-count-twice.patch", "a.patch", "series"]
    text = (foreign / "0002-mm-count-twice.patch").read_text()
    assert "Subject: [PATCH] mm: count twice\n" in text
    assert "\n---\nv3: as it should be | since v2\n\n mm/swap.c | 2 +-\n" in text
