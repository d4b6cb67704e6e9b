# SPDX-License-Identifier: GPL-2.0-or-later
"""Splits a console line into printk lines, and makes guest output safe to display."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.parse.splat import MAX_LINE


@dataclass(frozen=True, slots=True)
class KernelLine:
    """One printk line, or a piece of one. ``caller`` is ``T123`` or ``C0`` with CONFIG_PRINTK_CALLER."""

    text: str
    raw: str
    uptime_s: float | None
    caller: str


_CONTROL = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t\r"
} | {ord("\r"): ""}
_ANSI = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[()][A-Z0-9]|[=>78cDEHM])")
_STAMP = re.compile(r"(?:<[0-9]{1,3}>)?\[ *([0-9]{1,9}\.[0-9]{6})\](?:\[ *([TC][0-9]+)\])? ?")
_UNSTAMPED = re.compile(r"(?:<[0-9]{1,3}>)?(?:\[ *([TC][0-9]+)\] ?)?")


def make_printable(text: str) -> str:
    """Guest output with its control characters escaped."""
    return text.translate(_CONTROL)


def split_line(line: str) -> Iterator[KernelLine]:
    """Split a console line at time stamps: a printk line can follow unterminated output of user space."""
    if "\x1b" in line:
        line = _ANSI.sub("", line)
    line = line.strip("\r\n")[: MAX_LINE * 4]
    stamps = list(_STAMP.finditer(line)) if "[" in line else []
    head = line[: stamps[0].start()] if stamps else line
    if head or not stamps:
        plain = _UNSTAMPED.match(head)
        offset, caller = (plain.end(), plain[1] or "") if plain else (0, "")
        yield KernelLine(head[offset:], head, None, caller)
    for stamp, end in zip(stamps, [*(stamp.start() for stamp in stamps[1:]), len(line)], strict=False):
        raw = line[stamp.start() : end]
        yield KernelLine(line[stamp.end() : end], raw, float(stamp[1]), stamp[2] or "")
