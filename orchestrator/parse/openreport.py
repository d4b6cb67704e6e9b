# SPDX-License-Identifier: GPL-2.0-or-later
"""A report of the kernel while its lines are read: its stacks, its excerpt, and where it ends."""

from dataclasses import dataclass, field

from orchestrator.parse import fingerprint, splat
from orchestrator.parse.fingerprint import Trace
from orchestrator.parse.splat import MAX_LINE, Splat, SplatKind

MAX_EXCERPT_LINES = 120
MAX_TRACES = 16

# a report ends after this many unrelated lines: before its trace, and after it
_PATIENCE_BEFORE_TRACE = 80
_PATIENCE = 30
# a message that may have no trace ends sooner
_PATIENCE_OF_NOTICE = 12


@dataclass(slots=True)
class OpenReport:
    """A report that is being read."""

    kind: SplatKind
    title: str
    line_number: int
    uptime_s: float | None
    test: str | None
    excerpt: list[str]
    traces: list[Trace] = field(default_factory=list)
    pointer: str = ""
    locked_at: str = ""
    task: str | None = None
    taint: str | None = None
    dropped_lines: int = 0
    kept: int = 1
    idle: int = 0
    has_died: bool = False
    has_header: bool = False
    is_tracing: bool = False
    is_traced: bool = False

    def add_header(self, text: str) -> None:
        """Read the function that a line such as "WARNING: ... at function" names."""
        self.pointer = self.pointer or splat.find_title_pointer(text)

    def begin_trace(self, pointer: str = "") -> None:
        """Begin a trace, unless the last one has no frames yet."""
        last = self.traces[-1] if self.traces else None
        if (last is None or last.frames or (pointer and last.pointer)) and len(self.traces) < MAX_TRACES:
            self.traces.append(Trace())
        if not self.traces[-1].frames:
            self.traces[-1].pointer = pointer or self.traces[-1].pointer

    def close(self) -> Splat:
        trace = fingerprint.choose_trace(self.kind, self.traces)
        if self.pointer and not trace.pointer:
            trace.pointer = self.pointer
        return Splat(
            self.kind,
            self.title,
            trace.list_frames(),
            fingerprint.make_fingerprint(self.kind, trace, self.title, self.locked_at),
            self.line_number,
            "\n".join(self.excerpt[: self.kept]),
            self.dropped_lines,
            self.uptime_s,
            self.test,
            self.task,
            self.taint,
        )

    def add_line(self, text: str, raw: str) -> bool:
        """Add a line; returns whether the report ends there."""
        is_part = self._read_trace(text)
        if self.kind is SplatKind.LOCKDEP and not (self.locked_at or self.is_traced):
            self.locked_at = splat.find_locked_at(text)
        if found := splat.TASK.search(text):
            self.task = self.task or found[1]
            if self.taint is None:
                self.taint = (found[2] or "").replace(" ", "")
        elif self.task is None:
            self.task = splat.find_task(text)
        is_end = bool(splat.END.match(text))
        is_part = is_part or is_end or bool(splat.OF_REPORT.match(text))
        if len(self.excerpt) < MAX_EXCERPT_LINES:
            self.excerpt.append(raw[:MAX_LINE])
            if is_part:
                self.kept = len(self.excerpt)
        elif is_part:
            self.dropped_lines += 1
        self.idle = 0 if is_part else self.idle + 1
        patience = _PATIENCE if self.is_traced else _PATIENCE_BEFORE_TRACE
        patience = patience if self.kind.is_fault else _PATIENCE_OF_NOTICE
        return self.idle > patience or (is_end and (self.is_traced or not text.startswith("=")))

    def _read_trace(self, text: str) -> bool:
        """Add a frame, or detect begin and end of a trace; returns whether the line is in a trace."""
        if splat.TRACE_BEGIN.match(text):
            self.begin_trace()
            self.is_tracing = self.is_traced = True
            return True
        if found := splat.POINTER.match(text.lstrip()):
            if self.is_tracing and self.traces[-1].frames:
                self.traces[-1].on_registers(found[1], is_stall=self.kind.is_stall)
            elif not (self.is_traced and self.traces[-1].frames) or self.kind.is_stall:
                self.begin_trace(found[1])
            return True
        if found := splat.FRAME.fullmatch(text):
            is_plain = self.kind in splat.PLAIN_TRACE_KINDS or (
                self.kind in splat.DYING_KINDS and found[1].startswith("[<")
            )
            if is_plain and not self.is_traced:
                self.begin_trace()
                self.is_tracing = self.is_traced = True
            if self.is_tracing and not found[2]:
                self.traces[-1].add(found[3], is_indented=bool(found[1]))
            return True
        if self.is_tracing and self.traces[-1].frames:
            is_plain = self.kind in splat.PLAIN_TRACE_KINDS and not text.strip()
            self.is_tracing = not is_plain and self.idle < _PATIENCE and not splat.TRACE_END.match(text)
        return False

    @property
    def may_die(self) -> bool:
        """Whether the first line of die() may follow."""
        return not (self.has_died or self.is_traced) and self.kind in splat.KILLS_ITS_TASK

    def may_have_header(self, text: str) -> bool:
        """Whether this line is the header of a WARNING or BUG whose message came before."""
        waits = splat.MESSAGE_FIRST.match(self.title) and not splat.MESSAGE_FIRST.match(text)
        return bool(waits) and not (self.has_header or self.is_traced)

    @property
    def may_have_message(self) -> bool:
        """Whether the message of a WARNING may follow its header, as in old kernels."""
        return self.kind is SplatKind.WARNING and not self.is_traced and len(self.excerpt) <= 3
