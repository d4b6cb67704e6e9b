# SPDX-License-Identifier: GPL-2.0-or-later
"""Parses a file that may contain a kernel log, KTAP, or both, as people keep and post them.

Must not log, print, do I/O or raise on any text. Memory use is limited.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.parse.console import ConsoleLog, ConsoleParser
from orchestrator.parse.ktap import Ktap, KtapParser
from orchestrator.parse.printk import split_line

MAX_STREAMS = 200

# of a mail that quotes a log
_QUOTE = re.compile(r"(?:> ?){1,8}")
_VERSION = re.compile(r"K?TAP version [0-9]{1,4}\s{0,9}$")
_PLAN = re.compile(r"1\.\.[0-9]{1,9}(?:\s|$)")


@dataclass(frozen=True, slots=True)
class Stream:
    """A KTAP stream of a file. ``problems`` are format errors and missing results."""

    line_number: int
    ktap: Ktap
    problems: tuple[str, ...]

    @property
    def is_bad(self) -> bool:
        return bool(self.problems) or any(result.status.is_bad for _, result in self.ktap.flatten())


@dataclass(frozen=True, slots=True)
class LogFile:
    """The kernel log in a file, and its KTAP streams; ``dropped_streams`` are beyond the limit."""

    log: ConsoleLog
    streams: tuple[Stream, ...]
    dropped_streams: int

    @property
    def is_bad(self) -> bool:
        """Whether there is a fault, a panic, a failed result, or a result missing."""
        is_bad = any(stream.is_bad for stream in self.streams) or self.dropped_streams > 0
        return is_bad or bool(self.log.faults) or self.log.panicked


def parse_file(lines: Iterable[str]) -> LogFile:
    """Parse the lines of a file, with or without their line ends.

    A stream begins with its version or, if that was not copied, with its plan. If this line is of the kernel
    log, all lines of the stream are, otherwise none.
    """
    console = ConsoleParser()
    begun: list[tuple[int, KtapParser, bool]] = []
    dropped = 0
    for number, line in enumerate(lines, 1):
        line = _QUOTE.sub("", line, count=1) if line.startswith(">") else line
        console.feed(line)
        for piece in split_line(line):
            if _VERSION.match(piece.text) or (not begun and _PLAN.match(piece.text)):
                if len(begun) < MAX_STREAMS:
                    begun.append((number, KtapParser(is_foreign=True), piece.is_marked))
                else:
                    dropped += 1
            if begun and piece.is_marked == begun[-1][2] and not dropped:
                begun[-1][1].feed(piece.text)
    streams = []
    for first, parser, _ in begun:
        ktap = parser.end()
        streams.append(Stream(first, ktap, tuple(ktap.list_foreign_problems(may_skip_rest=True))))
    return LogFile(console.end(), tuple(streams), dropped)
