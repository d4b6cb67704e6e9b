# SPDX-License-Identifier: GPL-2.0-or-later
"""``cowbell parse``: files with a kernel log, KTAP, or both."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.parse import logfile
from orchestrator.parse.logfile import LogFile, parse_file
from orchestrator.status import Status
from tests.conftest import LOGS, ROOT, cowbell
from tests.schema import read_product

STREAM = ("KTAP version 1", "1..2", "# Subtest: outer", "ok 1 first", "not ok 2 second # rate is low")
SPLAT = "[    5.000000] BUG: Bad page state in process a  pfn:1"


def read(*lines: str) -> LogFile:
    return parse_file(f"{line}\n" for line in lines)


def list_results(parsed: LogFile) -> list[dict[str, Status]]:
    return [{name: one.status for name, one in stream.ktap.flatten()} for stream in parsed.streams]


def test_a_stream_among_the_lines_of_a_log() -> None:
    parsed = read("[    1.000000] Linux version 6.1.0", *STREAM[:4], SPLAT, STREAM[4], "[    6.000000] done")
    assert [splat.fingerprint for splat in parsed.log.splats] == ["bad-page:Bad_page_state_in_process"]
    assert list_results(parsed) == [{"first": Status.PASS, "second": Status.FAIL}]
    assert parsed.streams[0].problems == ()
    assert (parsed.streams[0].line_number, parsed.is_bad) == (2, True)


@pytest.mark.parametrize(
    "prefix", ["[    1.000000] ", "[    1.000000][  T100] ", "Nov 24 10:11:12 host kernel: "]
)
def test_kunit_prints_its_streams_into_the_log(prefix: str) -> None:
    lines = (
        "KTAP version 1",
        "1..1",
        "    KTAP version 1",
        "    # Subtest: suite",
        "    1..1",
        "    ok 1 a",
        "ok 1 suite",
    )
    parsed = read(
        *(f"{prefix}{line}" for line in lines[:4]),
        "ok 7 of user space",
        *(f"{prefix}{line}" for line in lines[4:]),
    )
    assert list_results(parsed) == [{"suite/a": Status.PASS}]
    assert not parsed.is_bad


def test_quotes_of_mails() -> None:
    parsed = read(*(f">> {line}" for line in ("kernel BUG at mm/gup.c:9!", *STREAM)))
    assert [splat.fingerprint for splat in parsed.log.splats] == ["bug:mm/gup.c"]
    assert list_results(parsed) == [{"first": Status.PASS, "second": Status.FAIL}]


def test_several_streams() -> None:
    parsed = read(*STREAM, *STREAM[:4], "ok 2 second")
    assert [stream.is_bad for stream in parsed.streams] == [True, False]
    assert [stream.line_number for stream in parsed.streams] == [1, 6]


@pytest.mark.parametrize(
    ("lines", "is_bad"),
    [
        ((), False),
        (("1..1", "ok 1 a"), False),
        (("1..2", "ok 1 a"), True),
        (("TAP version 13", "1..9", "ok 2 # SKIP no swap"), False),
        (("TAP version 13", "1..0 # SKIP no swap"), False),
        (("TAP version 13", "1..2", "ok 1 a", "ok 2 a"), False),
        (("TAP version 13", "1..1", "ok 1 a # XFAIL known"), False),
        (("TAP version 13", "1..1", "ok 1 a # TODO later"), True),
        (("TAP version 13", "1..1", "ok 1 a", "Bail out! no memory"), True),
        (("[    1.000000] a: page allocation failure: order:4, mode:0x40cc0(GFP_KERNEL)",), False),
        ((SPLAT,), True),
        (("[    1.000000] Kernel panic - not syncing: a",), True),
    ],
)
def test_what_is_wrong(lines: tuple[str, ...], is_bad: bool) -> None:
    assert read(*lines).is_bad == is_bad


def test_the_number_of_streams_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "MAX_STREAMS", 2)
    parsed = read(*("TAP version 13", "1..1", "ok 1 a") * 4)
    assert (len(parsed.streams), parsed.dropped_streams, parsed.is_bad) == (2, 2, True)
    assert not any(stream.is_bad for stream in parsed.streams)


def test_healthy_logs_are_not_bad() -> None:
    done = cowbell("parse", str(LOGS / "healthy.log"), str(LOGS / "oom-kill.log"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "healthy.log: 16 lines, 0 splats, 0 KTAP streams\n" in done.stdout


def test_text() -> None:
    done = cowbell("parse", "tests/logs/warning.log")
    assert done.returncode == 1
    assert done.stdout == (
        "tests/logs/warning.log: 56 lines, 1 splat, 0 KTAP streams\n"
        "  15: WARNING at drivers/misc/lkdtm/bugs.c:83 lkdtm_WARNING\n"
        "      warning:lkdtm_WARNING/direct_entry/full_proxy_write, task init, test lkdtm/WARNING\n"
    )
    assert (
        "| [   10.894070][   T41] ------------[ cut here"
        in cowbell("parse", "-v", "tests/logs/warning.log").stdout
    )


def parse_stdin(text: bytes, *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", "parse", *words, "-"],
        input=text, capture_output=True, cwd=ROOT, timeout=60, check=False,
    )  # fmt: skip


def test_stdin() -> None:
    text = "\r\n".join((*STREAM, "\x1b[1mnot a result\x9b", "")).encode() + b"\xff"
    done = parse_stdin(text)
    assert (done.returncode, done.stderr) == (1, b"")
    assert done.stdout.decode() == (
        "-: 7 lines, 0 splats, 1 KTAP stream\n  1: KTAP: 1 pass, 1 fail\n      FAIL    second: rate is low\n"
    )
    product = read_product(parse_stdin(text, "--json").stdout.decode())
    (file,) = product["files"]
    assert [result["status"] for result in file["streams"][0]["results"]] == ["pass", "fail"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    good = tmp_path / "good=1.log"
    good.write_text(SPLAT)
    done = cowbell("parse", str(tmp_path), str(tmp_path / "none"), str(good), "--json")
    assert done.returncode == 2
    assert f"{tmp_path}: cannot be read: Is a directory" in done.stderr
    assert f"{tmp_path / 'none'}: cannot be read: No such file or directory" in done.stderr
    assert [file["file"] for file in json.loads(done.stdout)["files"]] == [str(good)]
    assert cowbell("parse").returncode == 2
