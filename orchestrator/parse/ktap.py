# SPDX-License-Identifier: GPL-2.0-or-later
"""Parses a KTAP v1 or TAP 13/14 stream into a tree of results and a list of format errors.

A stream is incomplete until its plan, every planned result and the end of its last line have been seen. Must
not log, print, do I/O or raise on any text, and must not repair a stream silently. Memory use is limited.
"""

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from orchestrator.status import Status

MAX_DIAGNOSTICS = 500
MAX_LINE = 4096
MAX_DEPTH = 16
MAX_PROBLEMS = 200
MAX_RESULTS = 20_000
# characters of the diagnostics of all results
MAX_TEXT = 32 << 20

# every repeat has an upper bound, and lines are cut before they are matched: the time per line is limited
_REST = rf".{{0,{MAX_LINE}}}"
_VERSION = re.compile(r"K?TAP version [0-9]{1,4}")
_PLAN = re.compile(
    rf"1\.\.([0-9]{{1,9}})\s{{0,99}}(?:#\s{{0,99}}(?:(SKIP)\S{{0,99}}\s{{0,99}})?({_REST}))?", re.IGNORECASE
)
_RESULT = re.compile(
    r"(not )?ok(?:\s{1,99}([0-9]{1,9})(?=\s|$)|(?=\s{1,99}-)|(?=\s{0,99}$))\s{0,99}(?:-(?:\s{1,99}|$))?"
    rf"({_REST})"
)
_REMARK = re.compile(rf"(?:(?<=\s)|^)#\s{{0,99}}({_REST})$")
_DIRECTIVE = re.compile(
    rf"(SKIP|TODO|XFAIL|TIMEOUT|ERROR)(?:(?<=SKIP)\w{{1,99}})?\b:?\s{{0,99}}({_REST})", re.IGNORECASE
)
_SUBTEST = re.compile(rf"Subtest:\s{{0,99}}({_REST})")
_RATE = re.compile(r"rate: ([0-9]{1,18}) of ([0-9]{1,18}) tries")
_NO_VERSION = "no version line"
_VERSIONS = ("KTAP version 1", "TAP version 13", "TAP version 14")


@dataclass(frozen=True, slots=True)
class KtapVersion:
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    count: int
    skip: str | None


@dataclass(frozen=True, slots=True)
class TestLine:
    ok: bool
    number: int | None
    name: str
    directive: str
    reason: str


@dataclass(frozen=True, slots=True)
class BailOut:
    reason: str


@dataclass(frozen=True, slots=True)
class Subtest:
    name: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    text: str


Event = KtapVersion | Plan | TestLine | BailOut | Subtest | Diagnostic


@dataclass(frozen=True, slots=True)
class Rate:
    """How often a race was hit: ``hits`` of ``tries``."""

    hits: int
    tries: int

    def __str__(self) -> str:
        return f"{self.hits} of {self.tries}"

    def __add__(self, other: "Rate") -> "Rate":
        return Rate(self.hits + other.hits, self.tries + other.tries)


@dataclass(frozen=True, slots=True)
class KtapResult:
    """One result line with the subtests and diagnostics that came before it."""

    number: int
    name: str
    ok: bool
    directive: str = ""
    reason: str = ""
    diagnostics: tuple[str, ...] = ()
    subtests: tuple["KtapResult", ...] = ()

    @property
    def status(self) -> Status:
        """The status on the line. ``XFAIL`` is the expected failure whether reported as ``ok``, as kselftest
        does, or as ``not ok``; ``ok # TODO`` is an unexpected pass (TAP 14, "TODO tests")."""
        match self.directive, self.ok:
            case "SKIP", _:
                return Status.SKIP
            case "TIMEOUT", _:
                return Status.TIMEOUT
            case "ERROR", _:
                return Status.BROKEN
            case ("XFAIL", _) | ("TODO", False):
                return Status.XFAIL
            case "TODO", True:
                return Status.XPASS
            case _, True:
                return Status.PASS
            case _:
                return Status.FAIL

    @property
    def rate(self) -> Rate | None:
        """The rate in the last diagnostic ``rate: HITS of TRIES tries``; None if there is none."""
        found = [match for text in self.diagnostics if (match := _RATE.fullmatch(text))]
        return Rate(int(found[-1][1]), int(found[-1][2])) if found else None

    def flatten(self, prefix: str = "") -> Iterator[tuple[str, "KtapResult"]]:
        """The leaves with their full names, ``suite/test``; also this result itself if it did not pass and no
        leaf explains why."""
        name = f"{prefix}{self.name or self.number}"
        leaves = [leaf for child in self.subtests for leaf in child.flatten(f"{name}/")]
        yield from leaves
        if not leaves or not (self.status is Status.PASS or any(leaf.status.is_bad for _, leaf in leaves)):
            yield name, self


@dataclass(frozen=True, slots=True)
class Ktap:
    """A whole stream. ``skip`` is the reason given with ``1..0 # SKIP``, empty if none was given."""

    version: str | None
    plan: int | None
    results: tuple[KtapResult, ...]
    problems: tuple[str, ...]
    skip: str | None = None
    bail_out: str | None = None
    diagnostics: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether each planned result occurred once and in order, and there are no contradictions."""
        return not self.problems

    @property
    def has_skipped_rest(self) -> bool:
        """Whether it ends with a SKIP without a name, which kselftest.h prints for the tests not run."""
        return bool(self.results) and (self.results[-1].name, self.results[-1].status) == ("", Status.SKIP)

    def list_foreign_problems(self, *, may_skip_rest: bool) -> list[str]:
        """The problems, except what other programs than tests of ours may do.

        TAP 12 has no version line, and kselftest.h has two endings of its own: a SKIP for the tests that are
        not run, whose number is one too high in 5.15 and 6.1, and a "Bail out!" that counts the failures.
        """
        allowed: tuple[str, ...] = (_NO_VERSION,)
        if may_skip_rest and self.has_skipped_rest:
            number = self.results[-1].number
            allowed += (
                "plan says ",
                f": line out of sequence: number {number}, expected {number - 1}",
                f": result after end: number {number}, plan 1..{number - 1}",
            )
        if self.plan == len(self.results) and not all(result.ok for result in self.results):
            allowed += ("Bail out!",)
        return [text for text in self.problems if not (text.startswith(allowed) or text.endswith(allowed))]

    def flatten(self) -> Iterator[tuple[str, KtapResult]]:
        for result in self.results:
            yield from result.flatten()


def parse_line(line: str) -> tuple[int, Event]:
    """The indentation in columns and the parsed line. Unknown lines are diagnostics, as KTAP requires."""
    text = line.rstrip()
    body = text.lstrip(" \t")
    indent = len(text[: len(text) - len(body)].expandtabs(4))
    if match := _VERSION.fullmatch(body):
        return indent, KtapVersion(match[0])
    if match := _PLAN.fullmatch(body):
        return indent, Plan(int(match[1]), (match[3] or "").strip() if match[2] else None)
    if match := _RESULT.fullmatch(body):
        name, directive, reason = _split_remark(match[3])
        return indent, TestLine(not match[1], int(match[2]) if match[2] else None, name, directive, reason)
    if body.startswith("Bail out!"):
        return indent, BailOut(body.removeprefix("Bail out!").strip())
    if body.startswith("#"):
        remark = body[1:].removeprefix(" ")
        if match := _SUBTEST.fullmatch(remark):
            return indent, Subtest(match[1])
        return indent, Diagnostic(remark)
    return indent, Diagnostic(body)


def parse_ktap(text: str, *, is_foreign: bool = False) -> Ktap:
    """Parse a stream as received; a last line without newline is truncated.

    In a foreign stream, such as that of a kernel selftest, several results may have the same name.
    """
    parser = KtapParser(is_foreign=is_foreign)
    lines = text.split("\n")
    for line in lines[:-1]:
        parser.feed(line)
    if lines[-1]:
        parser.feed(lines[-1])
    return parser.end(is_cut=bool(lines[-1]))


@dataclass(slots=True)
class _Level:
    """One stream, top or nested, while it is being read."""

    indent: int
    name: str = ""
    version: str | None = None
    plan: int | None = None
    skip: str | None = None
    has_late_plan: bool = False
    results: list[KtapResult] = field(default_factory=list)
    numbers: set[int] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    last_number: int = 0
    count: int = 0
    diagnostics: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_DIAGNOSTICS))
    subtests: list[KtapResult] = field(default_factory=list)
    subtest_name: str = ""

    @property
    def is_fresh(self) -> bool:
        return self.version is None and self.plan is None and not self.results


class KtapParser:
    """Feed lines with :meth:`feed`, then get the result with :meth:`end`."""

    def __init__(self, *, is_foreign: bool = False) -> None:
        self._is_foreign = is_foreign
        self._levels = [_Level(0)]
        self._problems: list[str] = []
        self._bail_out: str | None = None
        self._line = 0
        self._results = 0
        self._room = MAX_TEXT

    def feed(self, line: str) -> None:
        """Add one line, with or without its line end."""
        self._line += 1
        indent, event = parse_line(line.strip("\r\n")[:MAX_LINE])
        if len(self._levels) == MAX_DEPTH and indent > self._levels[-1].indent:
            event = Diagnostic(line.strip()[:MAX_LINE])
        match event:
            case Diagnostic(text):
                if text:
                    self._level_for_text(indent).diagnostics.append(text)
            case Subtest(name):
                level = self._level_at(indent)
                if indent and not (level.name or level.plan or level.results):
                    level.name = name
                else:
                    level.subtest_name = name
            case BailOut(reason):
                self._bail_out = reason if self._bail_out is None else self._bail_out
            case KtapVersion(text):
                self._on_version(indent, text)
            case Plan():
                self._on_plan(self._level_at(indent), event)
            case TestLine():
                self._on_result(self._level_at(indent), event)

    def end(self, *, is_cut: bool = False) -> Ktap:
        """End the stream; with ``is_cut``, its last line had no line end. Feed nothing afterwards."""
        top = self._level_at(0)
        if top.subtests:
            self._abandon_subtests(top)
        if top.version is None:
            self._problems.insert(0, _NO_VERSION)
        elif top.version not in _VERSIONS:
            self._problems.insert(0, f"unknown version: {top.version}")
        if top.plan is None:
            self._problems.append("no plan")
        else:
            self._check_count("", top.plan, top.count)
            if top.plan == 0 and top.skip is None:
                self._problems.append("plan 1..0 without a reason")
        if self._bail_out is not None:
            self._problems.append(f"Bail out! {self._bail_out}".rstrip())
        if is_cut:
            self._problems.append("the last line is truncated")
        return Ktap(
            top.version,
            top.plan,
            tuple(top.results),
            tuple(self._problems),
            top.skip,
            self._bail_out,
            self._take_diagnostics(top),
        )

    def _level_at(self, indent: int) -> _Level:
        """The level of a structural line at this indentation; closes deeper levels or opens a new one."""
        while len(self._levels) > 1 and self._levels[-1].indent > indent:
            self._close_level()
        top = self._levels[-1]
        if indent > top.indent:
            if top.subtests:
                self._abandon_subtests(top)
            self._levels.append(_Level(indent, name=top.subtest_name))
            top.subtest_name = ""
        return self._levels[-1]

    def _level_for_text(self, indent: int) -> _Level:
        return next((level for level in reversed(self._levels) if level.indent <= indent), self._levels[0])

    def _close_level(self) -> None:
        closed = self._levels.pop()
        parent = self._levels[-1]
        if closed.subtests:
            self._abandon_subtests(closed)
        if closed.plan is not None:
            self._check_count(f"subtests of {closed.name or 'unnamed'}: ", closed.plan, closed.count)
        parent.diagnostics.extend(self._take_diagnostics(closed))
        if parent.subtests:
            self._abandon_subtests(parent)
        parent.subtests = closed.results
        parent.subtest_name = closed.name

    def _has_room(self) -> bool:
        """Count a result; whether it is kept."""
        self._results += 1
        if self._results == MAX_RESULTS + 1:
            self._problems.insert(0, f"more than {MAX_RESULTS} results")
        return self._results <= MAX_RESULTS

    def _take_diagnostics(self, level: _Level) -> tuple[str, ...]:
        """The diagnostics since the last result; the last ones where there are too many."""
        taken: list[str] = []
        while level.diagnostics and self._room >= len(level.diagnostics[-1]):
            taken.append(level.diagnostics.pop())
            self._room -= len(taken[-1])
        level.diagnostics.clear()
        return tuple(reversed(taken))

    def _abandon_subtests(self, level: _Level) -> None:
        """Keep subtests without a result line of their parent below an ERROR result."""
        name = level.subtest_name
        self._add_problem(f"subtests of {name or 'unnamed'} without a result line")
        subtests, level.subtests, level.subtest_name = tuple(level.subtests), [], ""
        if not self._has_room():
            return
        level.last_number += 1
        lost = KtapResult(
            level.last_number,
            name,
            ok=False,
            directive="ERROR",
            reason="no result line",
            diagnostics=self._take_diagnostics(level),
            subtests=subtests,
        )
        level.results.append(lost)

    def _on_version(self, indent: int, text: str) -> None:
        level = self._level_at(indent)
        if not level.is_fresh and indent:
            self._close_level()
            level = self._level_at(indent)
        if level.version is not None:
            self._add_line_problem("second version line")
        elif not level.is_fresh:
            self._add_line_problem("line out of sequence: version after the first result or plan")
        level.version = level.version or text

    def _on_plan(self, level: _Level, plan: Plan) -> None:
        if level.plan is not None:
            self._add_line_problem("second plan")
            return
        level.plan, level.skip = plan.count, plan.skip
        if level.results:
            level.has_late_plan = True
            if not (level.version or self._levels[0].version or "").startswith("TAP"):
                self._add_line_problem("line out of sequence: plan after the first result")

    def _on_result(self, level: _Level, line: TestLine) -> None:
        expected = level.last_number + 1
        number = expected if line.number is None else line.number
        if self._bail_out is not None or level.has_late_plan:
            self._add_line_problem("result after end")
        elif number in level.numbers:
            self._add_line_problem(f"duplicate test number {number}")
        elif level.plan is not None and number > level.plan:
            self._add_line_problem(f"result after end: number {number}, plan 1..{level.plan}")
        elif number != expected:
            self._add_line_problem(f"line out of sequence: number {number}, expected {expected}")
        elif line.name in level.names and not self._is_foreign:
            self._add_line_problem(f"duplicate test name {line.name}")
        level.count += 1
        if not self._has_room():
            return
        level.numbers.add(number)
        if line.name:
            level.names.add(line.name)
        level.last_number = number
        subtests, level.subtests, level.subtest_name = tuple(level.subtests), [], ""
        result = KtapResult(
            number, line.name, line.ok, line.directive, line.reason, self._take_diagnostics(level), subtests
        )
        if result.status is Status.PASS and any(_is_failure(child.status) for child in subtests):
            self._add_line_problem(f"result {number} is ok, but one of its subtests failed")
        level.results.append(result)

    def _check_count(self, prefix: str, planned: int, got: int) -> None:
        if planned != got:
            self._add_problem(f"{prefix}plan says {planned}, got {got} results")

    def _add_line_problem(self, text: str) -> None:
        self._add_problem(f"line {self._line}: {text}")

    def _add_problem(self, text: str) -> None:
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(text)


def _is_failure(status: Status) -> bool:
    return status in (Status.FAIL, Status.TIMEOUT, Status.BROKEN)


def _split_remark(text: str) -> tuple[str, str, str]:
    """``name # DIRECTIVE reason`` into its three parts; ``\\#`` is a literal one (TAP 14, "Escaping")."""
    match = _REMARK.search(text)
    if not match:
        return text.replace("\\#", "#").strip(), "", ""
    name = text[: match.start()].replace("\\#", "#").strip()
    if directive := _DIRECTIVE.fullmatch(match[1]):
        return name, directive[1].upper(), directive[2].strip()
    return name, "", match[1].strip()
