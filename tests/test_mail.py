# SPDX-License-Identifier: GPL-2.0-or-later
"""Mails of every kind that git am applies: each becomes the commit that git am would make."""

import base64
import gzip
import itertools
import lzma
import quopri
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.source.apply import apply_series, try_series
from orchestrator.source.mail import Numbering, clean_title, make_mail, parse_numbering, split_mbox
from orchestrator.source.patch import check_mail, check_patch
from orchestrator.source.repository import Source, open_repository
from orchestrator.source.series import Series, find_series, load_series
from orchestrator.store.store import Store
from tests.conftest import QuietProgress, render_patch
from tests.gitserver import run_git

TITLE = "swap: one"
MAIL = render_patch(TITLE, {"mm/swap.c": ("entry + 1", "entry + 2")})
HEAD, _, BODY = MAIL.partition("\n\n")
BODY += "\n"
DIFF = MAIL[MAIL.index("diff --git") : MAIL.index("-- \n")]
SECOND = render_patch("memory: two", {"mm/memory.c": ("references != 1", "references != 2")})
NEXT = "From b@example.org Tue Jan  6 10:00:00 2015\nFrom: B <b@example.org>\n"


def encode(coding: str, body: bytes) -> str:
    packed = base64.encodebytes(body) if coding == "base64" else quopri.encodestring(body)
    fields = (
        f'MIME-Version: 1.0\nContent-Type: text/plain; charset="utf-8"\nContent-Transfer-Encoding: {coding}'
    )
    return f"{HEAD}\n{fields}\n\n{packed.decode()}"


ATTACHED = (
    f'{HEAD}\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="=x"\n\n'
    f"--=x\nContent-Type: text/plain\n\nBecause.\n\n--=x\nContent-Type: text/x-patch\n"
    f"Content-Transfer-Encoding: base64\n\n{base64.encodebytes(DIFF.encode()).decode()}--=x--\n"
)
EMPTY = "diff --git a/mm/new.h b/mm/new.h\nnew file mode 100644\nindex 0000000..e69de29\n"
COPY = "diff --git a/mm/swap.c b/mm/swap2.c\nsimilarity index 100%\ncopy from mm/swap.c\ncopy to mm/swap2.c\n"
START = MAIL[: MAIL.index("diff --git")]


@pytest.fixture
def apply(
    base: Source, tmp_path: Path, store: Store, progress: QuietProgress
) -> Callable[[str | bytes, str], list[str]]:
    """Apply a file; the title and author of each commit that it makes, oldest first."""

    def do(text: str | bytes, name: str = "swap-one.mbox") -> list[str]:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        src = apply_series(base, find_series(path, store), (), store, progress)
        words = ("log", "--reverse", "--format=%s, %an", f"{base.commit}..{src.commit}")
        return run_git(open_repository(store), *words).splitlines()

    return do


Apply = Callable[..., list[str]]
ONE = f"{TITLE}, A Developer"
TWO = "memory: two, A Developer"
CODED = "=?utf-8?q?=5BPATCH_1/1=5D_swap=3A_=C3=B6ne?="
UMLAUT = "swap: öne, A Developer"
FRACTION = "swap: handle [1/2] case, A Developer"


@pytest.mark.parametrize(
    ("text", "made"),
    [
        (encode("base64", BODY.encode()), ONE),
        (encode("base64", BODY.replace("\n", "\r\n").encode()), ONE),
        (encode("quoted-printable", BODY.encode()), ONE),
        (ATTACHED, ONE),
        (MAIL.replace("[PATCH] swap: one", CODED), UMLAUT),
        (MAIL.replace("[PATCH] swap: one", "[PATCH]\n swap:\n one"), ONE),
        (MAIL.replace("swap: one", "swap: öne").encode("latin-1"), UMLAUT),
        (MAIL.replace("A Developer <", "=?iso-8859-1?q?=C4_Developer?= <"), "swap: one, Ä Developer"),
        (MAIL.replace("Because.", "It was\nFrom Documentation as it was in 2019\nthat Fact: x"), ONE),
        (MAIL.replace("Because.", "From 1 Mon Sep 17 00:00:00 2001\nis how it begins"), ONE),
        (MAIL.replace("Because.", "The reject was\n@@ -1,5 +1,7 @@\n-x\nand no more."), ONE),
        (MAIL.replace("Because.", "diff of it"), ONE),
        (START + EMPTY, ONE),
        (START + COPY, ONE),
        (START + COPY.replace("copy", "rename"), ONE),
        (START + "diff --git a/mm/swap.c b/mm/swap.c\nold mode 100644\nnew mode 100755\n", ONE),
        (MAIL.replace("swap:", "Applying: x: Applying:"), "Applying: x: Applying: one, A Developer"),
        (MAIL.replace("From: A Developer <a@example.org>\n", ""), f"{TITLE}, Cowbell"),
        (MAIL.replace("A Developer <a@example.org>", "A Developer"), ONE),
        (MAIL.replace("Mon, 5 Jan 2015", "Some day"), ONE),
        (MAIL.replace("[PATCH] swap: one", "[PATCH]"), "swap-one, A Developer"),
        (MAIL.rstrip("\n"), ONE),
        ("\ufeff" + MAIL, ONE),
        ("\n\n" + MAIL, ONE),
        (MAIL.replace("\n", "\r\n"), ONE),
        (DIFF, "swap-one, Cowbell"),
        (f"Subject matter: none\n\n{DIFF}", "swap-one, Cowbell"),
        (gzip.compress(MAIL.encode()), ONE),
        (lzma.compress(MAIL.encode()), ONE),
    ],
    ids=itertools.count(1),
)  # fmt: skip
def test_mail_is_applied_as_git_does(text: str | bytes, made: str, apply: Apply) -> None:
    assert apply(text) == [made]


def test_change_arrives_whatever_the_coding(
    base: Source, tmp_path: Path, store: Store, progress: QuietProgress
) -> None:
    trees = set()
    for name, text in {"a": MAIL, "b": encode("base64", BODY.encode()), "c": ATTACHED}.items():
        (tmp_path / name).write_text(text)
        src = apply_series(base, find_series(tmp_path / name, store), (), store, progress)
        trees.add(src.tree_id)
    assert len(trees) == 1


def test_mail_without_a_date_is_one_commit_everywhere(apply: Apply, base: Source, store: Store) -> None:
    text = MAIL.replace("Date: Mon, 5 Jan 2015 10:00:00 +0000\n", "")
    assert b"\nDate: Sun, 9 Sep 2001 " in make_mail(text.encode(), "x")
    assert apply(text) == [ONE]


def number(text: str, tags: str) -> str:
    return text.replace("[PATCH] ", f"[{tags}] ")


def reply(diff: str = "", subject: str = "Re: [PATCH] swap: one", more: str = "") -> str:
    date = "Tue, 6 Jan 2015 10:00:00 +0000"
    return f"{NEXT}Date: {date}\nSubject: {subject}\n{more}\nOr rather like this?\n\n{diff}-- \n2.39.5\n\n"


COVER = f"{NEXT}Subject: [PATCH 0/2] cover\n\n--- what it is\nTwo changes.\n\n"
OTHER = DIFF.replace("entry + 2", "entry + 9")


@pytest.mark.parametrize(
    ("text", "made"),
    [
        (MAIL + reply(OTHER), [ONE]),
        (MAIL + reply(), [ONE]),
        (reply(OTHER) + MAIL, [ONE]),
        (MAIL + reply(OTHER, "=?utf-8?q?Re=3A_=5BPATCH=5D_swap=3A_one?="), [ONE]),
        (MAIL + reply(OTHER, "AW: [PATCH] swap: one") + reply(OTHER, "Re[2]: swap: one"), [ONE]),
        (MAIL + reply(OTHER, "an untested idea", "In-Reply-To: <1@example.org>\n"), [ONE]),
        (MAIL + reply("", "what else I wanted to say"), [ONE]),
        (COVER + number(MAIL, "PATCH 1/2") + reply(OTHER) + number(SECOND, "PATCH 2/2"), [ONE, TWO]),
        (number(SECOND, "PATCH RFC v3 2/2") + number(MAIL, "PATCH RFC v3 1/2"), [ONE, TWO]),
        (number(SECOND, "PATCHv2,2/2") + number(MAIL, "PATCHv2,1/2"), [ONE, TWO]),
        (SECOND + number(MAIL, "PATCH 1/1"), [TWO, ONE]),
        (number(MAIL, "PATCH 1/1") + SECOND, [ONE, TWO]),
        (MAIL.replace("swap: one", "swap: handle [1/2] case") + SECOND, [FRACTION, TWO]),
        (number(MAIL, "PATCH 5.10 1/2") + number(SECOND, "PATCH 5.10 2/2"), [ONE, TWO]),
    ],
    ids=itertools.count(1),
)  # fmt: skip
def test_thread_is_its_patches_in_order(text: str, made: list[str], apply: Apply) -> None:
    assert apply(text) == made


def test_diffs_that_are_left_out_are_told(tmp_path: Path, store: Store) -> None:
    (tmp_path / "x.mbox").write_text(MAIL + reply(OTHER))
    assert find_series(tmp_path / "x.mbox", store).title == "swap: one (left out: 1 diff(s) in replies)"


def test_versions_of_one_patch_are_not_mixed(tmp_path: Path, store: Store) -> None:
    (tmp_path / "x.mbox").write_text(MAIL + number(MAIL, "PATCH v2"))
    with pytest.raises(ExceptionGroup) as raised:
        find_series(tmp_path / "x.mbox", store)
    assert f"x.mbox:{MAIL.count(chr(10)) + 1}: is another version of swap: one" in str(
        raised.value.exceptions[0]
    )


def test_a_number_that_is_far_off_is_told_briefly(tmp_path: Path, store: Store) -> None:
    (tmp_path / "x.mbox").write_text(number(MAIL, "PATCH 1/9999") + number(SECOND, "PATCH 2/9999"))
    with pytest.raises(ExceptionGroup) as raised:
        find_series(tmp_path / "x.mbox", store)
    assert str(raised.value.exceptions[0]).endswith("lacks patch 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 ... of 9999")


@pytest.mark.parametrize(
    ("subject", "numbering"),
    [
        ("[PATCH 2/3] x", Numbering(2, 3, 1, True)),
        ("[RFC PATCH v4 net-next 02/12] x", Numbering(2, 12, 4, True)),
        ("[PATCH v2 5.15.y 1/2 RESEND] x", Numbering(1, 2, 2, True)),
        ("[PATCH 1/2 v3] x", Numbering(1, 2, 3, True)),
        ("[PATCH] x [1/2]", Numbering(0, 0, 1, True)),
        ("x 1/2", Numbering()),
    ],
)
def test_numbering(subject: str, numbering: Numbering) -> None:
    assert parse_numbering(subject) == numbering


def test_title_is_that_of_the_commit() -> None:
    titles = {"[PATCH 1/2] [media] x": "x", "Re: [PATCH] x": "x", "x [1/2]": "x [1/2]", "[PATCH": "[PATCH"}
    assert {subject: clean_title(subject) for subject in titles} == titles


def test_mbox_is_split_at_headers_only() -> None:
    text = "From me to you at 10:00:00 2015\n\nwords\n"
    assert len(split_mbox((MAIL + text + SECOND).encode())) == 2
    lines = [line for line, _ in split_mbox((MAIL + SECOND).encode())]
    assert lines == [1, MAIL.count("\n") + 1]
    assert split_mbox(b"From x\n" * 100_000)[0][0] == 1


# --- damage

HUNK = DIFF[: DIFF.index("@@")].count("\n")
LONGER = "longer than its header says"
LOST = "has no change: truncated?"
LATER = "diff --git a/mm/memory.c b/mm/memory.c\nindex 1..2 100644\n"
ADDED = "diff --git a/x b/x\nnew file mode 100644\n--- /dev/null\n+++ b/x\n"


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        (START + DIFF.replace("+\treturn", "+int x;\n+\treturn"), HUNK, LONGER),
        (START + DIFF.replace("-2,7 +2,7", "-2,7 +2,6"), HUNK, LONGER),
        (START + DIFF + "+int late;\n", HUNK, LONGER),
        (START + EMPTY.replace("e69de29", "1234567"), 0, LOST),
        (START + DIFF + LATER, DIFF.count("\n"), LOST),
        (START + DIFF + ADDED, DIFF.count("\n"), LOST),
    ],
    ids=itertools.count(1),
)  # fmt: skip
def test_damage_is_told_with_its_line(text: str, line: int, told: str, tmp_path: Path) -> None:
    (tmp_path / "x.patch").write_text(text)
    (error,) = check_patch(tmp_path / "x.patch")
    assert told in error.what
    assert error.where == f"{tmp_path}/x.patch:{START.count(chr(10)) + 1 + line}"


def test_damage_in_a_mail_of_an_mbox_and_in_a_coded_one() -> None:
    cut = encode("base64", BODY[: BODY.index(" #else")].encode())
    (error,) = check_mail(cut.encode(), "x", 7)
    assert "shorter than its header" in error.what
    assert error.where == "x:7", "lines of what git has decoded are none of the file"
    (error,) = check_mail(MAIL[: MAIL.index(" #else")].encode(), "x", 7)
    assert error.where == f"x:{7 + MAIL[: MAIL.index('@@')].count(chr(10))}"


def test_mail_that_git_cannot_decode() -> None:
    text = encode("base64", b"").replace("utf-8", "klingon") + base64.encodebytes("qaplá".encode()).decode()
    (error,) = check_mail(text.encode(), "x", 1)
    assert isinstance(error, UsageError)
    assert error.where == "x:1"


# --- folders


def test_an_mbox_is_no_patch_of_a_folder(tmp_path: Path, store: Store) -> None:
    (tmp_path / "all.mbox").write_text(MAIL + SECOND)
    (tmp_path / "series").write_text("all.mbox\n")
    with pytest.raises(ExceptionGroup) as raised:
        find_series(tmp_path, store)
    told = str(raised.value.exceptions[0])
    assert f"all.mbox:{MAIL.count(chr(10)) + 1}: has 2 mails, and a patch of a series is one" in told
    assert "git mailsplit" in told


@pytest.mark.parametrize(
    ("listing", "names"),
    [
        (b"# f\xfcr\nfix-#1.patch # f\xfcr\nb.patch\n", ["fix-#1.patch", "b.patch"]),
        (b"\xef\xbb\xbffix-#1.patch\r\nb.patch\r\n", ["fix-#1.patch", "b.patch"]),
        (b"  fix-#1.patch -p1\n\n#b.patch\n\tb.patch -pab #x", ["fix-#1.patch", "b.patch"]),
    ],
)
def test_series_file_as_quilt_reads_it(
    listing: bytes, names: list[str], tmp_path: Path, store: Store
) -> None:
    (tmp_path / "fix-#1.patch").write_text(MAIL)
    (tmp_path / "b.patch").write_text(SECOND)
    (tmp_path / "series").write_bytes(listing)
    assert [patch.name for patch in find_series(tmp_path, store).patches] == names


@pytest.mark.parametrize(
    "listing", [b"\0\1\2\n", b"b\xe9.patch\n", b"x" * 9000, b"b.patch\0\n", b"a/b/../\n", bytes(range(256))]
)
def test_series_file_that_is_none(listing: bytes, tmp_path: Path) -> None:
    (tmp_path / "series").write_bytes(listing)
    with pytest.raises(ExceptionGroup) as raised:
        load_series(tmp_path, is_foreign=True)
    assert all(isinstance(error, UsageError) for error in raised.value.exceptions)
    assert f"{tmp_path}/series:1: " in str(raised.value.exceptions[0])


def test_folder_of_format_patch(base: Source, tmp_path: Path, store: Store, progress: QuietProgress) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(UsageError, match="neither a series file nor patches"):
        find_series(folder, store)
    files = {"0000-cover-letter": COVER, "0002-swap-one": number(MAIL, "PATCH 2/2")}
    files |= {"0001-memory-two": number(SECOND, "PATCH 1/2")}
    for name, text in files.items():
        (folder / f"{name}.patch").write_text(text)
    series = find_series(folder, store)
    assert [patch.subject for patch in series.patches] == ["memory: two", TITLE]
    assert all(outcome.state == "applies" for outcome in try_series(base, series, (), store, progress))
    (folder / "0001-memory-two.patch").unlink()
    with pytest.raises(ExceptionGroup, match="bad input") as raised:
        find_series(folder, store)
    assert str(raised.value.exceptions[0]) == f"{folder}: lacks patch 1 of 2"


def test_base_that_a_mail_names(tmp_path: Path, store: Store) -> None:
    base, needed = "c0ffee" * 6 + "c0ff", ["12" * 20, "34" * 20]
    tail = f"\nbase-commit: {base}\n" + "".join(f"prerequisite-patch-id: {one}\n" for one in needed)
    (tmp_path / "x.patch").write_text(MAIL + tail)
    series = find_series(tmp_path / "x.patch", store)
    assert (series.base, list(series.needed)) == (base, needed)
    assert Series().base == ""


@pytest.mark.parametrize("packed", [b"\x1f\x8b\x08cut", b"\xfd7zXZ\0cut"])
def test_archive_that_is_torn(packed: bytes, tmp_path: Path, store: Store) -> None:
    (tmp_path / "x.mbox.gz").write_bytes(packed)
    with pytest.raises(UsageError, match="cannot be read"):
        find_series(tmp_path / "x.mbox.gz", store)
