# SPDX-License-Identifier: GPL-2.0-or-later
"""Series of every kind, and everything that can be wrong with a patch before it is applied."""

import shutil
from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.project.condition import Version
from orchestrator.source.patch import check_patch, parse_hunks
from orchestrator.source.series import Series, find_series, load_series, parse_range
from orchestrator.status import Status
from orchestrator.store.store import Store
from tests.conftest import MakeSeries, render_patch

EDIT = {"mm/swap.c": ("entry + 1", "entry + 2")}
MAIL = render_patch("swap: one", EDIT)
CUT = MAIL[: MAIL.index("-- \n") - 2]


def write_folder(folder: Path, about: str, **files: str) -> Path:
    """A folder of patches/: ``about`` is the list in series.yaml, names of files have ``_`` for ``.``."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    (folder / "series.yaml").write_text(f"title: a title\nwhen: kernel>=5.0\npatches:\n{about}")
    return folder


def tell(errors: pytest.ExceptionInfo[ExceptionGroup[UsageError]]) -> list[str]:
    return [str(error) for error in errors.value.exceptions]


def test_folder(tmp_path: Path) -> None:
    about = (
        "  - file: 2.patch\n"
        "    flips: {odirect.rd-mprotect: pass, vmsplice.child-small: fail}\n"
        "    backports: [{when: kernel<5.11, file: 2.5.10.patch, flips: {a.b: pass}}]\n"
    )
    folder = write_folder(
        tmp_path / "cow", about, series="# why\n1.patch\n2.patch -p1 # as quilt writes it\n",
        **{"1_patch": MAIL, "2_patch": render_patch("swap: two\n three", EDIT), "2_5_10_patch": MAIL},
    )  # fmt: skip
    series = load_series(folder)
    assert (series.name, series.title, series.when.text) == ("cow", "a title", "kernel>=5.0")
    assert [patch.subject for patch in series.patches] == ["swap: one", "swap: two three"]
    assert series.patches[1].flips == {
        "odirect.rd-mprotect": Status.PASS,
        "vmsplice.child-small": Status.FAIL,
    }
    names = {
        v: [path.name for path in series.choose(Version.parse(v))] for v in ("5.10.200", "5.11", "5.15.3")
    }
    assert names == {
        "5.10.200": ["1.patch", "2.5.10.patch"],
        "5.11": ["1.patch", "2.patch"],
        "5.15.3": ["1.patch", "2.patch"],
    }
    chosen = {v: series.patches[1].choose(Version.parse(v)) for v in ("5.10", "5.11")}
    own = ["odirect.rd-mprotect", "vmsplice.child-small"]
    assert {v: sorted(c.flips) for v, c in chosen.items() if c} == {"5.10": ["a.b", *own], "5.11": own}


def test_a_patch_for_some_kernels(tmp_path: Path) -> None:
    """Stable trees have a change since one release each, so it takes a range for each."""
    about = (
        "  - file: 2.patch\n"
        "    when: kernel>=5.15.25\n"
        "    flips: {a.b: pass}\n"
        "    backports: [{when: kernel>=5.10.102 kernel<5.11, file: 2.patch}]\n"
    )
    files = {"1_patch": MAIL, "2_patch": render_patch("swap: two", EDIT)}
    series = load_series(write_folder(tmp_path / "cow", about, series="1.patch\n2.patch\n", **files))
    for version, number in {"5.10.101": 1, "5.10.102": 2, "5.11": 1, "5.15.24": 1, "5.15.25": 2}.items():
        assert len(series.choose(Version.parse(version))) == number


def test_everything_wrong_with_a_folder_at_once(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path / "cow",
        "  - file: 9.patch\n",
        series="1.patch\n1.patch\n2.patch -p0\n3.patch\n4.patch\n",
        **{"1_patch": MAIL, "2_patch": MAIL, "4_patch": CUT},
    )
    with pytest.raises(ExceptionGroup) as raised:
        load_series(folder)
    assert tell(raised) == [
        f"{folder}/series:2: lists 1.patch twice",
        f"{folder}/series:3: -p0 is not supported",
        f"{folder}/series:4: 3.patch does not exist",
        f"{folder}/series.yaml:4: patches[0]: 9.patch is not in series",
        f"{folder}/4.patch:{CUT.count(chr(10)) + 1}: ends in the middle of a line: truncated?",
    ]


@pytest.mark.parametrize(
    ("about", "told"),
    [
        ("  - file: 1.patch\n    flips: {a.b: maybe}\n", "expected one of pass, fail, got maybe"),
        ("  - file: 1.patch\n    backports: [{when: kernel<5.11, file: no}]\n", "no does not exist"),
        ("  - {file: 1.patch, when: arch=x86_64}\n", "expected a kernel range only, got 'arch=x86_64'"),
        (
            "  - file: 1.patch\n    backports: [{when: arch=x86_64, file: 1.patch}]\n",
            "expected a kernel range only, got 'arch=x86_64'",
        ),
    ],
)
def test_claims_are_checked(about: str, told: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "cow", about, series="1.patch\n", **{"1_patch": MAIL})
    with pytest.raises(ExceptionGroup) as raised:
        load_series(folder)
    assert told in tell(raised)[0]


def test_empty_series(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "cow", "  []\n", series="# nothing yet\n")
    with pytest.raises(ExceptionGroup) as raised:
        load_series(folder)
    assert tell(raised) == [f"{folder}/series: lists no patches"]


def test_foreign_folder_needs_no_series_yaml(tmp_path: Path, store: Store) -> None:
    folder = write_folder(tmp_path / "theirs", "", series="1.patch\n", **{"1_patch": MAIL})
    (folder / "series.yaml").unlink()
    assert find_series(folder, store).patches[0].subject == "swap: one"
    with pytest.raises(ExceptionGroup) as raised:
        load_series(folder)
    assert "series.yaml: cannot be read" in tell(raised)[0]


# --- patches


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        (CUT, CUT.count("\n") + 1, "ends in the middle of a line"),
        ("", 1, "contains no diff"),
        ("Subject: [PATCH] x\n\nwords\n", 1, "contains no diff"),
        (MAIL.split(" entry + 1")[0] + "\n", MAIL.split("@@")[0].count("\n") + 1, "shorter than its header"),
        (
            "\n".join(line for line in MAIL.split("\n") if not line.startswith("-	")),
            MAIL.split("@@")[0].count("\n") + 1,
            "shorter than its header",
        ),
    ],
    ids=["no newline", "empty", "no diff", "cut", "line lost"],
)
def test_patch_that_is_not_whole(text: str, line: int, told: str, tmp_path: Path) -> None:
    patch = tmp_path / "x.patch"
    patch.write_bytes(text.encode())
    (error,) = check_patch(patch)
    assert told in error.what
    assert error.where == f"{patch}:{line}"


def test_any_cut_of_a_patch_is_noticed(tmp_path: Path) -> None:
    """Up to the end of its last hunk; what is behind it is a mail's signature."""
    patch = tmp_path / "x.patch"
    whole = MAIL.encode()
    end = whole.index(b"-- \n2.39")
    for size in range(end):
        patch.write_bytes(whole[:size])
        assert check_patch(patch), f"cut at {size} of {end}"
    patch.write_bytes(whole[:end])
    assert check_patch(patch) == []


def test_carriage_returns_of_the_text_are_its_own(tmp_path: Path) -> None:
    patch = tmp_path / "x.patch"
    patch.write_text(render_patch("dos", {"mm/dos.c": ("", "int a;\r\nint b;\r\n")}), newline="")
    assert check_patch(patch) == []


def test_patch_without_hunks_may_be_one(tmp_path: Path) -> None:
    patch = tmp_path / "x.patch"
    patch.write_text("Subject: x\n\n---\ndiff --git a/f b/f\nold mode 100644\nnew mode 100755\n")
    assert check_patch(patch) == []


def test_hunks() -> None:
    two = {
        "mm/memory.c": ("references != 1", "references != 2"),
        "mm/new.c": ("", "int a;\nint b;\n"),
    }
    hunks = parse_hunks(render_patch("x", two).encode())
    assert list(hunks) == ["mm/memory.c", "mm/new.c"]
    (first,) = hunks["mm/memory.c"]
    assert first.line > 1
    assert sum(text.startswith("-") for text in first.text) == 1
    assert hunks["mm/new.c"][0].text == ("+int a;", "+int b;")


# --- mboxes and single patches


def mail(tag: str, title: str, *, file: str = "mm/a.c") -> str:
    text = render_patch("x", {file: ("", f"int {title};\n")})
    return text.replace("[PATCH] x", f"[{tag}] {title}")


COVER = "From 0 Mon Sep 17 00:00:00 2001\nFrom: a <a@b>\nSubject: [PATCH v2 0/2] cover\n\nAbout.\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "thread.mbox"
    path.write_text(text)
    return path


def titles(series: Series) -> list[str]:
    return [patch.subject for patch in series.patches]


def test_mbox_is_put_in_order(tmp_path: Path, store: Store) -> None:
    path = write(tmp_path, COVER + mail("PATCH v2 2/2", "two") + mail("PATCH v2 1/2", "one"))
    series = find_series(path, store)
    assert titles(series) == ["one", "two"]
    assert [patch.name for patch in series.patches] == ["0001-one.patch", "0002-two.patch"]
    assert find_series(path, store) == series
    many = "".join(mail(f"RFC PATCH net-next {n:02}/12", f"n{n}") for n in (12, *range(1, 12)))
    assert titles(find_series(write(tmp_path, many), store)) == [f"n{n}" for n in range(1, 13)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (mail("PATCH 1/3", "one") + mail("PATCH 3/3", "three"), ": lacks patch 2 of 3"),
        (mail("PATCH 1/2", "one") + mail("PATCH 1/2", "again"), ": patch 1/2 occurs twice"),
        (mail("PATCH 1/2", "one") + mail("PATCH v2 2/2", "two"), ": mixes several series: v1 of 2, v2 of 2"),
        (
            mail("PATCH 1/1", "one") + COVER.replace("[PATCH v2 0/2] cover", "[PATCH] lost"),
            ": is a mail without a patch: [PATCH] lost",
        ),
        (mail("PATCH 1/2", "one") + mail("PATCH 2/2", "two")[:-60], "truncated?"),
        (COVER, "contains no diff"),
        ("", ": contains no patch"),
    ],
    ids=["gap", "twice", "versions", "no diff", "cut", "cover alone", "empty"],
)
def test_mbox_that_is_no_series(text: str, told: str, tmp_path: Path, store: Store) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ExceptionGroup) as raised:
        find_series(path, store)
    assert told in tell(raised)[0]
    assert tell(raised)[0].startswith(str(path))


def test_single_patches(tmp_path: Path, store: Store) -> None:
    path = tmp_path / "fix-it.patch"
    path.write_text(MAIL)
    assert titles(find_series(path, store)) == ["swap: one"]
    path.write_text("Some words.\n\n" + MAIL[MAIL.index("diff --git") : MAIL.index("-- \n")])
    assert titles(find_series(path, store)) == ["fix-it"]
    made = find_series(path, store).patches[0].path.read_text()
    assert "Subject: [PATCH] fix-it\n\nSome words.\n\n\n---\ndiff --git" in made
    with pytest.raises(UsageError, match="no such series, mbox or patch"):
        find_series(tmp_path / "absent.patch", store)


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("aa-5.15:v5.15.138..main-5.15.y", ("aa-5.15", "v5.15.138", "main-5.15.y")),
        ("/a/b:HEAD~3..HEAD", ("/a/b", "HEAD~3", "HEAD")),
        ("cow", None),
        ("a:b", None),
        ("a:b...c", None),
        ("a:..c", None),
        ("../x.patch", None),
    ],
)
def test_ranges(word: str, parts: tuple[str, str, str] | None) -> None:
    assert parse_range(word) == parts


def test_series_of_the_helpers_is_whole(make_series: MakeSeries, tmp_path: Path) -> None:
    series = make_series("cow", EDIT)
    assert load_series(tmp_path / "patches" / "cow") == series
    shutil.rmtree(tmp_path / "patches")
