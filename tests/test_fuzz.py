# SPDX-License-Identifier: GPL-2.0-or-later
"""Hostile logs and KTAP streams: no exception, time linear in their size, and limited memory."""

import re
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.parse import console, fingerprint, ktap, printk, splat
from orchestrator.parse.console import ConsoleParser, parse_console
from orchestrator.parse.ktap import KtapParser, parse_ktap

# the parser of regular expressions of the standard library; it has no public name
sre = __import__("re._parser").__dict__["_parser"]

MODULES = (splat, fingerprint, printk, console, ktap)
SETTINGS = settings(
    max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
# pieces of the lines that the patterns look for, and their separators
PIECES = (
    *(
        "Comm: ",
        "Tainted: ",
        "G ",
        " ",
        "\t",
        " at ",
        ", at: ",
        "a:1 at ",
        "in ",
        "[",
        "[<",
        "[<0>] ",
        "]",
        "[#1]",
    ),
    *(
        "0x1",
        "a",
        "A",
        "_",
        ".",
        ": ",
        ":",
        "/",
        "/1 ",
        "1",
        "12:34:56 ",
        "2025-11-24T10:11:12 ",
        "-",
        "=",
        "+0x1/0x2",
    ),
    *(
        "a+0x1/0x2 ",
        "WARNING: ",
        "WARNING: CPU: 1 PID: 1 at ",
        "BUG: ",
        "BUG ",
        "INFO: task ",
        ":1 blocked ",
        "Oops: ",
    ),
    *(
        "Oops",
        "kernel BUG at ",
        "Unable to handle kernel ",
        "RIP: 0010:",
        "epc : ",
        "Call Trace:",
        " mode:0x1(",
        "alloc",
    ),
    *(
        "nodemask=",
        "stuck for 1s! [",
        "by task ",
        ", CPU#1: ",
        "in process ",
        "  pfn",
        "Killed process 1 (",
        "rcu: ",
    ),
    *(
        "------------[ cut here ]------------",
        "---[ end ",
        "NMI backtrace for cpu 1",
        "Kernel panic - not syncing: ",
    ),
    *(
        "Linux version 6.1",
        "cowbell: begin ",
        "host kernel: ",
        "6,1,1,-;",
        "<4>",
        "[    1.000000] ",
        "[    2.000000][  C",
    ),
    *(
        "\x1b[",
        "\x1b[1;",
        "\r",
        "\x00",
        "\ufffd",
        "\u0661",
        "list_del corruption",
        "refcount_t: ",
        "locks held",
    ),
    *(
        "ok ",
        "not ok ",
        "ok 1 ",
        "1..",
        "1..9",
        "# ",
        "#",
        "# SKIP",
        " # TODO ",
        "KTAP version 1",
        "Bail out!",
        "\\#",
    ),
)
LINES = st.lists(st.sampled_from(PIECES), min_size=1, max_size=4)


def list_patterns(module: ModuleType) -> Iterator[tuple[str, re.Pattern[str]]]:
    def find(value: object) -> Iterator[re.Pattern[str]]:
        if isinstance(value, re.Pattern):
            yield value
        elif isinstance(value, tuple | list):
            for part in value:
                yield from find(part)

    for name, value in vars(module).items():
        for pattern in find(value):
            yield f"{module.__name__}.{name}", pattern


def find_repeats(parsed: Iterable[Any], times: int = 1) -> Iterator[int]:
    """How often each part that repeats may do so, with the repeats around it."""
    for operation, argument in parsed:
        inner = times
        if operation in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            inner = times * argument[1]
            yield inner
        pending = list(argument) if isinstance(argument, tuple | list) else [argument]
        while pending:
            part = pending.pop()
            if isinstance(part, sre.SubPattern):
                yield from find_repeats(part, inner)
            elif isinstance(part, list):
                pending += part


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_repeat_has_an_upper_bound(module: ModuleType) -> None:
    patterns = list(list_patterns(module))
    assert patterns
    for name, pattern in patterns:
        limit = ktap.MAX_LINE if module is ktap else splat.MAX_LINE
        assert max(find_repeats(sre.parse(pattern.pattern, pattern.flags)), default=0) <= limit, name


def repeat(pieces: Sequence[str], size: int) -> str:
    """A line of this size: each piece as often as the others."""
    each = size // len(pieces)
    return "".join((piece * (each // len(piece) + 1))[:each] for piece in pieces)


def measure(parse: Callable[[], object]) -> float:
    """The time on the processor, of the fastest of three runs."""
    times = []
    for _ in range(3):
        begin = time.process_time()
        parse()
        times.append(time.process_time() - begin)
    return min(times)


def parse_log(text: str) -> None:
    parse_console(text)


def parse_report(text: str) -> None:
    """The lines within a report, which are matched by more patterns."""
    header = "[    1.000000] WARNING: CPU: 0 PID: 1 at mm/gup.c:93 a+0x1/0x2\n"
    parse_console("".join(f"{header}[    1.000000] {line}\n" for line in text.split("\n")))


def parse_stream(text: str) -> None:
    list(parse_ktap(f"KTAP version 1\n1..9\n{text}").flatten())


PARSERS = pytest.mark.parametrize("parse", [parse_log, parse_report, parse_stream])
# beside what a line costs at least, so small that it is not measured exactly
FACTOR, FLOOR_S = 8 * 4, 0.002


@PARSERS
@SETTINGS
@given(pieces=LINES)
def test_time_is_linear_in_the_length_of_a_line(parse: Callable[[str], None], pieces: list[str]) -> None:
    small, large = ("\n".join([repeat(pieces, size)] * 4) for size in (120, 960))
    assert measure(lambda: parse(large)) <= FACTOR * max(measure(lambda: parse(small)), FLOOR_S)


@PARSERS
@SETTINGS
@given(lines=st.lists(LINES, min_size=1, max_size=6), length=st.integers(8, 300))
def test_time_is_linear_in_the_number_of_lines(
    parse: Callable[[str], None], lines: list[list[str]], length: int
) -> None:
    text = "\n".join(repeat(pieces, length) for pieces in lines)
    small, large = ("\n".join([text] * number) for number in (8, 64))
    assert measure(lambda: parse(large)) <= FACTOR * max(measure(lambda: parse(small)), FLOOR_S)


@PARSERS
def test_a_line_of_megabytes_takes_no_longer_than_its_beginning(parse: Callable[[str], None]) -> None:
    line = "[    1.000000] WARNING: Comm: Tainted: ok 1 # SKIP "
    small, large = (line * (size // len(line)) for size in (100_000, 800_000))
    assert measure(lambda: parse(large)) <= FACTOR * max(measure(lambda: parse(small)), FLOOR_S)


HOSTILE = {
    "header": lambda n: f"[    1.000000] {'------------[ cut here ]-----' if n else 'refcount_t: underflow'}",
    "lines": lambda n: f"[    1.000000] {'CPU: 1' if n else 'BUG: bad'}",
    "callers": lambda n: f"[    1.000000][  T{n}] BUG: bad\n",
    "cut": lambda n: f"[    1.000000][  T{n}] ------------[ cut here ]------------",
    "stalls": lambda n: f"[    1.000000][  C{n}] {'NMI backtrace for cpu 1' if n else 'BUG: soft lockup'}",
    "recent": lambda n: f"[    1.000000][  T{n}] {'x' * 900}",
    "split": lambda n: (
        f"[    1.000000][  T1] WARNING: CPU: 1 PID: 1 at a\n[    1.000000][  T1] a[    1.0][  T{n}] b"
    ),
    "frames": lambda n: (
        f"[    1.000000] {'WARNING: CPU: 0 PID: 1 at a.c:1 a+0x1/0x2' if not n else f' f{n}+0x1/0x2'}"
    ),
    "traces": lambda n: f"[    1.000000] {'BUG: soft lockup' if not n else 'RIP: 0010:a+0x1/0x2'}",
    "markers": lambda n: f"[    1.000000] cowbell: begin {n} {'x' * 200}",
    "boots": lambda n: f"[    1.000000] Linux version 6.1.{n}",
}


def find_peak(parser: ConsoleParser | KtapParser, lines: Iterable[str]) -> int:
    tracemalloc.start()
    try:
        for line in lines:
            parser.feed(line)
        parser.end()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", HOSTILE)
def test_memory_of_a_log_is_limited(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "MAX_MARKERS", 200)
    make = HOSTILE[name]
    small, large = (find_peak(ConsoleParser(), map(make, range(number))) for number in (300, 2400))
    assert large <= 2 * small + 100_000


@pytest.mark.parametrize(
    "line", ["ok", "  ok", "# {0}", "not ok - {0}", "ok {0} # x", "  # {0}\n  ok\nok", "1..2"]
)
def test_memory_of_a_stream_is_limited(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ktap, "MAX_RESULTS", 300)
    monkeypatch.setattr(ktap, "MAX_TEXT", 20_000)
    small, large = (
        find_peak(KtapParser(), (line.format("x" * 50) for _ in range(number))) for number in (600, 4800)
    )
    assert large <= 2 * small + 100_000


@SETTINGS
@given(st.lists(st.one_of(st.text(max_size=60), LINES.map("".join)), max_size=60))
def test_no_text_raises(lines: list[str]) -> None:
    text = "\n".join(lines)
    log = parse_console(text)
    assert all(found.fingerprint.startswith(f"{found.kind}:") for found in log.splats)
    for is_foreign in (False, True):
        list(parse_ktap(text, is_foreign=is_foreign).flatten())


def test_a_stream_with_too_many_results_is_not_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ktap, "MAX_RESULTS", 3)
    stream = parse_ktap(
        "KTAP version 1\n1..5\n" + "".join(f"ok {number} t{number}\n" for number in range(1, 6))
    )
    assert len(stream.results) == 3
    assert "more than 3 results" in stream.problems
