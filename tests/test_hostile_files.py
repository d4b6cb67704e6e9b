# SPDX-License-Identifier: GPL-2.0-or-later
"""Any bytes in the files of a user are read or refused, in bounded time: no exception but Cowbell's own."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from orchestrator.cli.variables import Setting
from orchestrator.errors import CowbellError
from orchestrator.kernel.fragment import load_fragments
from orchestrator.project.knownissues import load_known_issues
from orchestrator.project.matrix import load_expectations, load_matrix
from orchestrator.source.fixup import load_fixups
from orchestrator.source.mail import decode_mail, find_base, make_mail, split_mbox
from orchestrator.source.patch import check_mail, parse_hunks
from orchestrator.source.repository import parse_version
from orchestrator.source.series import find_series, load_series, parse_range
from orchestrator.source.tree import find_tree, load_trees
from orchestrator.store.name import is_name, make_name
from orchestrator.store.store import Store
from tests.conftest import ROOT, render_patch

MAIL = render_patch("swap: one", {"mm/swap.c": ("entry + 1", "entry + 2"), "mm/new.c": ("", "int a;\n")})
LINES = [line.encode() for line in MAIL.splitlines(keepends=True)] + [
    b"From a@example.org Mon Sep 17 00:00:00 2001\n",
    b"From 1 at 10:00:00 1\n",
    b"Content-Transfer-Encoding: base64\n",
    b"Content-Transfer-Encoding: quoted-printable\n",
    b'Content-Type: multipart/mixed; boundary="x"\n',
    b'Content-Type: text/plain; charset="utf-16"\n',
    b"--x\n",
    b"--x--\n",
    b"Subject: =?utf-8?q?=5BPATCH_2/3=5D?=\n",
    b"Subject: [PATCH v2 99999999999999999999/3] Re: x\n",
    b"Subject: Re: [PATCH 1/2] x\n",
    b"In-Reply-To: <x>\n",
    b"Date: 99 Foo 99999 25:61:61 +9999\n",
    b"From: <>\n",
    b"@@ -1,99999999999999999999 +1 @@\n",
    b"@@ -0,0 +0,0 @@\n",
    b"GIT binary patch\n",
    b"rename from a\n",
    b"base-commit: c0ffee\n",
    b"\\ No newline at end of file\n",
    b"=\n",
    b"\xef\xbb\xbf",
    b"\0",
    b"\r\n",
]
CHUNKS = st.one_of(st.sampled_from(LINES), st.binary(max_size=40), st.just(b"\n"))
MAILS = st.lists(CHUNKS, max_size=40).map(b"".join)
# git decodes some of them, which is a process each
FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=300, deadline=2000, suppress_health_check=list(HealthCheck))


@contextlib.contextmanager
def only_own_errors() -> Iterator[None]:
    try:
        yield
    except* CowbellError:
        pass


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@FEW
@given(MAILS)
@example(MAIL.encode())
@example(MAIL.encode() * 3)
def test_any_mail(folder: Path, data: bytes) -> None:
    with only_own_errors():
        check_mail(data, "x", 1)
        parse_hunks(make_mail(data, "x"))
        find_base([mail for _, mail in split_mbox(data)])
    (folder / "x.mbox").write_bytes(data)
    with only_own_errors():
        find_series(folder / "x.mbox", Store(folder / "store"))


@MANY
@given(MAILS.filter(lambda data: b"ontent-" not in data and b"=?" not in data))
def test_mail_that_is_made_of_a_plain_one_is_complete(data: bytes) -> None:
    made = decode_mail(make_mail(data, "a title"))
    assert made.is_complete
    assert make_mail(made.text, "another") == made.text


@pytest.mark.parametrize(
    "data",
    [
        b"From x\n" * 200_000,
        b"From a Mon Sep 17 00:00:00 2001\nA: b\n" * 50_000,
        b"Subject: " + b"[PATCH 1/2]" * 100_000 + b"\n\n",
        b"Subject: " + b"Re: " * 100_000 + b"\n\n",
        b"Subject: " + b"=?" * 100_000 + b"\n\n",
        b"Subject: x\n" + b" y\n" * 200_000,
        b"Subject: x\n\n" + b"--- a\n" * 200_000,
        b"Subject: x\n\n" + b"--- a\n+++ b\n@@ -1,9 +1,9 @@\n" * 40_000,
        b"Subject: x\n\n" + b"diff --git a b\n" * 100_000,
        b"Subject: x\n\n--- a\n+++ b\n@@ -1,999999999 +1,999999999 @@\n" + b" \n" * 300_000,
        b"Subject: x\nFrom: " + b"<" * 100_000 + b"a@b" * 100_000 + b"\n\n",
    ],
    ids=[f"{n}" for n in range(11)],
)
def test_time_is_in_proportion_to_the_size(data: bytes) -> None:
    def read() -> None:
        with only_own_errors():
            for line, mail in split_mbox(data)[:20]:
                check_mail(mail, "x", line)
                make_mail(mail, "x")

    limit_s(read, 10)


def limit_s(call: Callable[[], None], seconds: float) -> None:
    """Fail where a call takes longer, in seconds of this process: other load does not count."""
    before = time.process_time()
    call()
    assert time.process_time() - before < seconds


@MANY
@given(
    st.lists(
        st.one_of(st.sampled_from([b"x.patch", b"#", b" ", b"-p1", b"\n"]), st.binary(max_size=9)),
        max_size=20,
    )
)
def test_any_series_file(folder: Path, parts: list[bytes]) -> None:
    place = folder / "quilt"
    place.mkdir(exist_ok=True)
    (place / "x.patch").write_text(MAIL)
    (place / "series").write_bytes(b"".join(parts))
    with only_own_errors():
        load_series(place, is_foreign=True)


FRAGMENT_WORDS = [
    "#:", "about", "when", "only", "expect", "one-of", "optional", "override", "append", " ", "\n", "# ",
    "CONFIG_A", "=y", "=", '"', "kernel>=5.0", "arch=x86_64", "kernel<" + "9" * 5000, "is not set", "A", "\t",
    "\x85", "\u2028",
]  # fmt: skip


@MANY
@given(st.lists(st.one_of(st.sampled_from(FRAGMENT_WORDS), st.text(max_size=5)), max_size=40).map("".join))
def test_any_fragment(folder: Path, text: str) -> None:
    place = folder / "kconfigs"
    place.mkdir(exist_ok=True)
    (place / "x.config").write_bytes(text.encode(errors="surrogatepass"))
    with only_own_errors():
        load_fragments(place)


YAML: dict[Callable[[Path], object], Path] = {
    load_matrix: ROOT / "ci/matrix.yaml",
    load_expectations: ROOT / "ci/expectations.yaml",
    load_trees: ROOT / "patches/trees.yaml",
    load_fixups: ROOT / "patches/fixups.yaml",
    load_known_issues: ROOT / "ci/known-splats.yaml",
}
SPOILT = [
    "", "~", "[]", "{}", "- ", ": ", "\n", "  ", "&a ", "*a", "!!binary x", "<<: ", "'", '"', "|", ">", "%",
    "@", "\t", "---\n", "9" * 5000, "1e999", ".nan", "0x1", "2027-13-45", "\x07", "\ufeff",
    "[" * 200, "{" * 200, "? ", "x: &x [*x]", "[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("read", YAML, ids=lambda read: read.__name__)
def test_any_yaml(read: Callable[[Path], object], folder: Path) -> None:
    # the head of a file is enough, and the rows are long
    text = YAML[read].read_text()[:2500] if YAML[read].exists() else "known: []\n"
    file = folder / f"{read.__name__}.yaml"

    @settings(max_examples=120, deadline=5000, suppress_health_check=list(HealthCheck))
    @given(
        st.integers(0, len(text)), st.integers(0, 30), st.one_of(st.sampled_from(SPOILT), st.text(max_size=6))
    )
    def spoil(at: int, lost: int, put: str) -> None:
        file.write_bytes((text[:at] + put + text[at + lost :]).encode(errors="surrogatepass"))
        with only_own_errors():
            read(file)

    spoil()


@MANY
@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(["/", "..", ":", "~", " ", ",", "a", "file://", "\0"])).map("".join)
)
def test_any_word(word: str) -> None:
    parse_range(word)
    parse_version(word)
    assert is_name(make_name(word))
    with only_own_errors():
        find_tree(word, {})
    assert all(Setting(word, "x").paths)


@pytest.mark.parametrize(
    ("line", "status", "told"),
    [
        ("$C -n test ROW=demo -j 99999999999", 2, "expected a number from 0 to 4096"),
        ("$C -n test ROW=demo -j 2 -l nan", 2, "expected a number above 0"),
        ("$C report DIR=/etc/passwd", 2, "DIR: expected a folder, got /etc/passwd"),
        ("$C -n test BUILT=~nobody-here/x", 2, "there is no such folder"),
        ("COWBELL_STORE=/proc/x $C -n test ROW=demo", 3, "/proc/x"),
        ("COWBELL_RESULTS=/proc/x $C history", 0, "not saved"),
        (
            "unset COWBELL_STORE XDG_CACHE_HOME XDG_CONFIG_HOME; HOME=/proc/1 $C -n test ROW=demo",
            3,
            "/proc/1",
        ),
        ("$C series SERIES=- KERNEL=debian-5.10 <&-", 2, "contains no patch"),
        ("$C list rows >&-", 0, ""),
        # not 1, which is a verdict
        ("$C tset 2>/dev/full", 2, ""),
        ("$C tset 2>&-", 2, ""),
        ("$C list rows >/dev/full", 3, "No space left on device"),
        ("ulimit -f 0; $C history 2>&1 | cat; exit ${PIPESTATUS[0]}", 0, ""),
        ("mkdir gone; cd gone; rmdir ../gone; $C list", 2, "the current folder was removed"),
        ("ln -s loop loop; $C merge loop", 2, "Symlink loop"),
        ("mkfifo x.yaml; XDG_CONFIG_HOME=$PWD; mv x.yaml cowbell.yaml; $C list", 2, "not a regular file"),
        ("mkdir -p o/ci; mkfifo o/ci/matrix.yaml; $C -C o list", 2, "matrix.yaml: is not a regular file"),
        ("mkdir -p o/guest-tests/a/b.c; $C -C o list", 2, "b.c: cannot be read: Is a directory"),
        ("mkdir -p o/guest-tests/a; mkfifo o/guest-tests/a/b.py; $C -C o list", 2, "not a regular file"),
        ("mkdir -p o/guest-tests/a; ln -s b.c o/guest-tests/a/b.c; $C -C o list", 2, "symbolic links"),
        ("mkdir -p o/kconfigs; mkfifo o/kconfigs/x.config; $C -C o test CONFIG=x", 2, "not a regular file"),
    ],
)
def test_command_in_odd_surroundings(line: str, status: int, told: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=tmp_path,
        env=os.environ | {"C": f"{sys.executable} -m orchestrator", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
