# SPDX-License-Identifier: GPL-2.0-or-later
"""Parses the console of a guest: splats with a fingerprint, panic, boots, milestones and test markers.

Memory use is limited however long the log is; dropped lines are counted. Must not log, print, do I/O or raise
on any text, and must not decide whether a test passed.
"""

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.parse import splat
from orchestrator.parse.openreport import OpenReport
from orchestrator.parse.printk import KernelLine, split_line
from orchestrator.parse.splat import MAX_LINE, Splat, SplatKind

MAX_SPLATS_PER_KIND = 40
MAX_MARKERS = 20_000
MAX_MILESTONES = 64
MAX_OPEN = 32

_CUT_PATIENCE = 20
# the lines and seconds before a stack without a report in which the kernel said why it prints one
_LINES_BEFORE = 8
_SECONDS_BEFORE = 1.0


@dataclass(frozen=True, slots=True)
class Marker:
    """``cowbell: begin TEST`` or ``cowbell: end TEST``, written to the log around a test."""

    action: str
    test: str
    line_number: int
    uptime_s: float | None


@dataclass(frozen=True, slots=True)
class Milestone:
    """``banner``, ``root``, ``init``, ``power-down`` or ``restart``, at seconds of uptime."""

    name: str
    line_number: int
    uptime_s: float | None


@dataclass(frozen=True, slots=True)
class ConsoleLog:
    """A parsed log. ``panic`` is the message of the first panic; ``dropped`` counts the splats of each kind
    beyond the limit; ``lines`` is 0 if there was no output.
    """

    lines: int
    splats: tuple[Splat, ...]
    panic: str | None
    boots: int
    milestones: tuple[Milestone, ...]
    markers: tuple[Marker, ...]
    last_uptime_s: float | None
    dropped: tuple[tuple[SplatKind, int], ...]
    dropped_markers: int

    @property
    def panicked(self) -> bool:
        return self.panic is not None

    @property
    def faults(self) -> tuple[Splat, ...]:
        return tuple(splat for splat in self.splats if splat.is_fault)


_BANNER = re.compile(r"Linux version \d{1,3}\.\d{1,4}")
_MARKER = re.compile(r"cowbell: (begin|end) (\S.{0,990})$")
_MILESTONES = (
    ("root", re.compile(r"VFS: Mounted root ")),
    ("init", re.compile(r"Run \S{1,900} as init process")),
    ("power-down", re.compile(r"reboot: (?:Power down|System halted)")),
    ("restart", re.compile(r"reboot: Restarting system|Rebooting in \d{1,9} seconds")),
)
_MILESTONE_GATE = re.compile("Run |VFS: M|reboot: |Rebooting ")


def parse_console(text: str | Iterable[str]) -> ConsoleLog:
    """Parse a whole log, or its lines."""
    parser = ConsoleParser()
    for line in text.split("\n") if isinstance(text, str) else text:
        parser.feed(line)
    return parser.end()


class ConsoleParser:
    """Feed lines with :meth:`feed`, then get the result with :meth:`end`."""

    def __init__(self) -> None:
        self._lines = 0
        self._has_text = False
        self._open: dict[str, OpenReport] = {}
        self._cut: dict[str, list[tuple[int, KernelLine]]] = {}
        # by caller: the last lines that are of no report, and a line that another CPU's line interrupted
        self._recent: dict[str, deque[KernelLine]] = {}
        self._split: dict[str, tuple[int, str]] = {}
        self._splats: list[Splat] = []
        self._kept: dict[SplatKind, int] = {}
        self._dropped: dict[SplatKind, int] = {}
        self._last_fault: SplatKind | None = None
        self._panic: str | None = None
        self._boots = 0
        self._milestones: list[Milestone] = []
        self._markers: list[Marker] = []
        self._dropped_markers = 0
        self._uptime_s: float | None = None
        self._has_marks = False
        self._test: str | None = None
        self._has_trace_reason = False

    def feed(self, line: str) -> None:
        """Add one line, with or without its line end, decoded with ``errors="replace"``."""
        self._lines += 1
        self._has_text = self._has_text or bool(line.strip())
        for piece in split_line(line):
            self._on_line(piece)

    def end(self) -> ConsoleLog:
        """End the log and close open reports. Feed nothing afterwards."""
        self._close_all()
        return ConsoleLog(
            self._lines if self._has_text else 0,
            tuple(sorted(self._splats, key=lambda splat: splat.line_number)),
            self._panic,
            self._boots,
            tuple(self._milestones),
            tuple(self._markers),
            self._uptime_s,
            tuple(sorted(self._dropped.items())),
            self._dropped_markers,
        )

    def _on_line(self, line: KernelLine) -> None:
        self._uptime_s = self._uptime_s if line.uptime_s is None else line.uptime_s
        self._has_marks = self._has_marks or line.is_marked
        if self._on_landmark(line):
            self._has_trace_reason = False
            self._recent.clear()
            return
        if splat.SYSRQ.match(line.text):
            self._has_trace_reason = True
        if splat.CUT_HERE.match(line.text):
            self._on_cut_here(line)
            return
        kind = self._find_report(line)
        if kind and self._on_report(kind, line):
            return
        if line.caller in self._cut:
            held = self._cut[line.caller]
            held.append((self._lines, line))
            if len(held) > _CUT_PATIENCE:
                self._flush_cut(line.caller)
        elif report := self._find_open(line):
            self._on_continued(report, line)
        elif self._is_from_kernel(line):
            if splat.CALL_TRACE.match(line.text) and not self._has_trace_reason:
                self._open_trace(line)
            else:
                if line.caller not in self._recent and len(self._recent) >= MAX_OPEN:
                    del self._recent[next(iter(self._recent))]
                self._recent.setdefault(line.caller, deque(maxlen=_LINES_BEFORE)).append(line)

    def _on_cut_here(self, line: KernelLine) -> None:
        report = self._find_open(line)
        if report and report.may_have_header(line.text):
            self._on_continued(report, line)
            return
        self._flush_cut(line.caller)
        if len(self._cut) < MAX_OPEN:
            self._cut[line.caller] = [(self._lines, line)]

    def _open_trace(self, line: KernelLine) -> None:
        """Open a report for a stack without one: a healthy kernel prints no stack without a request.

        The line before the stack is its title.
        """
        before = [
            text
            for text in self._recent.pop(line.caller, ())
            if None in (text.uptime_s, line.uptime_s)
            or (text.uptime_s or 0) >= (line.uptime_s or 0) - _SECONDS_BEFORE
        ]
        reasons = [index for index, text in enumerate(before) if not splat.is_of_stack(text.text)]
        self._open_report(SplatKind.TRACE, line)
        report = self._open[line.caller]
        report.title = "a stack without a report"
        report.excerpt, report.kept = [], 0
        if reasons:
            before = before[reasons[-1] :]
            report.title += f": {splat.clean_title(before[0].text)}"
            if splat.NO_MEMORY.search(before[0].text):
                report.kind, report.title = SplatKind.PAGE_ALLOC, splat.clean_title(before[0].text)
            report.excerpt, report.kept = [before.pop(0).raw[:MAX_LINE]], 1
        for text in (*before, line):
            self._on_continued(report, text)

    def _on_landmark(self, line: KernelLine) -> bool:
        if _BANNER.match(line.text):
            self._close_all()
            self._last_fault = None
            self._boots += 1
            self._test = None
            self._add_milestone("banner", line)
            return True
        if marker := _MARKER.match(line.text):
            test = marker[2].rstrip()
            self._test = test if marker[1] == "begin" else None
            if len(self._markers) < MAX_MARKERS:
                self._markers.append(Marker(marker[1], test, self._lines, line.uptime_s))
            else:
                self._dropped_markers += 1
            return True
        if _MILESTONE_GATE.match(line.text):
            for name, pattern in _MILESTONES:
                if pattern.match(line.text):
                    self._add_milestone(name, line)
        return False

    def _add_milestone(self, name: str, line: KernelLine) -> None:
        if len(self._milestones) < MAX_MILESTONES:
            self._milestones.append(Milestone(name, self._lines, line.uptime_s))

    def _find_report(self, line: KernelLine) -> SplatKind | None:
        text = line.text.lstrip()
        if kind := splat.find_kind(text):
            return kind
        return SplatKind.BUG if self._is_from_kernel(line) and text.startswith("BUG: ") else None

    def _is_from_kernel(self, line: KernelLine) -> bool:
        """Whether a line is from the kernel. User space may print lines that look like generic reports."""
        return line.is_marked or not self._has_marks

    def _on_report(self, kind: SplatKind, line: KernelLine) -> bool:
        """Open a report, unless the line continues the open one; returns whether the line was consumed."""
        report = self._find_open(line)
        text = line.text.lstrip()
        match kind:
            case SplatKind.PANIC:
                message = line.text[line.text.index("Kernel panic") :][:MAX_LINE]
                self._panic = self._panic or message
                if self._is_explained(message):
                    self._has_trace_reason = True
                    return False
            case SplatKind.OOM if report and report.kind is SplatKind.OOM and "process" in line.text:
                report.title = splat.clean_title(line.text)
                report.task = splat.find_task(line.text) or report.task
                return False
            case SplatKind.OOPS if report and splat.DIE.match(text) and report.may_die:
                report.has_died = True
                return False
            case SplatKind.BUG | SplatKind.WARNING if report and report.may_have_header(text):
                report.has_header = True
                report.add_header(text)
                return False
            case SplatKind.LIST | SplatKind.REFCOUNT if report and report.may_have_message:
                report.kind, report.title, report.has_header = kind, splat.clean_title(text), True
                return False
        self._open_report(kind, line)
        return True

    def _is_explained(self, message: str) -> bool:
        if self._last_fault is None and not any(report.kind.is_fault for report in self._open.values()):
            return False
        if "Attempted to kill" in message:
            kinds = {self._last_fault, *(report.kind for report in self._open.values())}
            return bool(kinds & set(splat.KILLS_ITS_TASK))
        return bool(splat.CONSEQUENCE.search(message))

    def _open_report(self, kind: SplatKind, line: KernelLine) -> None:
        previous = self._open.pop(line.caller, None)
        if previous:
            self._keep(previous)
        held = self._cut.pop(line.caller, [])
        title = splat.clean_title(line.text)
        message = next((text.text.strip() for _, text in held[1:] if text.text.strip()), "")
        if kind is SplatKind.WARNING and message:
            title = f"{title}: {message[:MAX_LINE]}"
        excerpt = [text.raw[:MAX_LINE] for _, text in held] + [line.raw[:MAX_LINE]]
        if len(self._open) >= MAX_OPEN:
            self._keep(self._open.pop(next(iter(self._open))))
        report = OpenReport(kind, title, self._lines, line.uptime_s, self._test, excerpt, kept=len(excerpt))
        report.task = splat.find_task(line.text)
        report.has_died = bool(splat.DIE.match(line.text.lstrip()))
        report.add_header(line.text.lstrip())
        self._open[line.caller] = report

    def _find_open(self, line: KernelLine) -> OpenReport | None:
        is_new = line.caller not in self._open and len(self._open) < MAX_OPEN
        if is_new and line.text.startswith("NMI backtrace for cpu"):
            # a stalled CPU prints its own trace into the report of the CPU that noticed
            stalls = (report for report in self._open.values() if report.kind.is_stall)
            if report := next(stalls, None):
                self._open[line.caller] = report
        if not self._open:
            return None
        if not line.is_marked and not line.caller and self._has_marks:
            return None
        return self._open.get(line.caller)

    def _on_continued(self, report: OpenReport, line: KernelLine) -> None:
        if report.add_line(self._join_split(line), line.raw):
            self._close(report)

    def _join_split(self, line: KernelLine) -> str:
        """The text, with the part of its line that came before another CPU's line, if both are a frame."""
        number, begun = self._split.pop(line.caller, (self._lines, ""))
        if begun and number == self._lines:
            # the line that interrupted it
            self._split[line.caller] = (number, begun)
        elif begun and splat.FRAME.fullmatch(begun + line.text):
            return begun + line.text
        if line.is_cut and not splat.FRAME.fullmatch(line.text) and len(self._split) < MAX_OPEN:
            self._split[line.caller] = (self._lines, line.text)
        return line.text

    def _flush_cut(self, caller: str) -> None:
        """``cut here`` without a known report counts as a report."""
        held = self._cut.pop(caller, None)
        if not held:
            return
        number, first = held[0]
        message = next((text.text.strip() for _, text in held[1:] if text.text.strip()), "nothing followed")
        report = OpenReport(
            SplatKind.WARNING,
            f"report cut off: {splat.clean_title(message)}",
            number,
            first.uptime_s,
            self._test,
            [text.raw[:MAX_LINE] for _, text in held],
            kept=len(held),
        )
        self._keep(report)

    def _close(self, report: OpenReport) -> None:
        for caller in [caller for caller, other in self._open.items() if other is report]:
            del self._open[caller]
        self._keep(report)

    def _close_all(self) -> None:
        for caller in list(self._cut):
            self._flush_cut(caller)
        while self._open:
            self._close(next(iter(self._open.values())))

    def _keep(self, report: OpenReport) -> None:
        for caller in [caller for caller, other in self._open.items() if other is report]:
            del self._open[caller]
        if report.kind.is_fault:
            self._last_fault = report.kind
        kept = self._kept.get(report.kind, 0)
        if kept == MAX_SPLATS_PER_KIND:
            self._dropped[report.kind] = self._dropped.get(report.kind, 0) + 1
            return
        self._kept[report.kind] = kept + 1
        self._splats.append(report.close())
