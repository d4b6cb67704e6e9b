# SPDX-License-Identifier: GPL-2.0-or-later
"""Splits a console line into printk lines, and makes guest output safe to display.

Reads the formats in which logs are kept and posted: the console, dmesg with its options, journalctl, syslog
and netconsole.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.parse.splat import MAX_LINE


@dataclass(frozen=True, slots=True)
class KernelLine:
    """One printk line, or a piece of one. ``caller`` is ``T123`` or ``C0`` with CONFIG_PRINTK_CALLER.

    ``is_marked``: a time stamp or a log daemon shows that the kernel printed it. ``is_cut``: another line
    follows where this one should end.
    """

    text: str
    raw: str
    uptime_s: float | None
    caller: str
    is_marked: bool = False
    is_cut: bool = False


_MAX_RAW = MAX_LINE * 4
_CONTROL = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t\r"
} | {ord("\r"): ""}
# characters that change the text direction, have no width, or that XML or UTF-8 cannot express
_UNSEEN = {
    code: f"<U+{code:04X}>"
    for code in (
        0x061C, *range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF,
        *range(0xD800, 0xE000), *range(0xFFF9, 0xFFFC), 0xFFFE, 0xFFFF, *range(0xE0000, 0xE0080),
    )
}  # fmt: skip
_PRINTABLE = _CONTROL | _UNSEEN
_ANSI = re.compile(r"\x1b(?:\[[0-9;?]{0,32}[ -/]{0,4}[@-~]|[()][A-Z0-9]|[=>78cDEHM])")
_LEVEL = r"(?:<[0-9]{1,3}>)?"
# dmesg puts a blank between the two
_CALLER = r"(?: ?\[ {0,9}([TC][0-9]{1,9})\])?"
# the console, also after unterminated output of user space; dmesg -d adds the time since the line before
_STAMP = re.compile(rf"{_LEVEL}\[ {{0,12}}([0-9]{{1,12}}\.[0-9]{{6}})(?: <[ 0-9.]{{1,16}}>)?\]{_CALLER} ?")
_UNSTAMPED = re.compile(rf"{_LEVEL}(?:\[ {{0,9}}([TC][0-9]{{1,9}})\] ?)?")
_CLOCK = r"[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?"
_DATE = rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[T ]{_CLOCK}(?:Z|[+-][0-9]{{2}}:?[0-9]{{2}}| [A-Z]{{2,5}})?"
_HOST = r" [\w.:-]{1,64} "
# what other programs put before a line of the kernel; the groups are the uptime in us, and the caller
_FOREIGN = re.compile(
    "|".join(
        (
            # netconsole and /dev/kmsg: [RELEASE,]LEVEL,NUMBER,USEC,FLAGS[,caller=T1];TEXT
            r"(?:[0-9][\w.+-]{0,63},)?[0-9]{1,4},[0-9]{1,12},([0-9]{1,18}),[-c+](?:,caller=([TC][0-9]{1,9}))?"
            r"(?:,[\w=/-]{1,40}){0,4};",
            # journalctl and syslog: DATE HOST kernel: TEXT, also with other kinds of dates
            rf"{_LEVEL}(?:\w{{1,9}}\.? {{1,2}}[0-9]{{1,2}} {_CLOCK}|(?:\w{{1,9}}\.? )?{_DATE}"
            rf"|[0-9]{{9,12}}\.[0-9]{{6}}){_HOST}kernel(?:\[[0-9]{{1,9}}\])?: ",
            # dmesg -x: FACILITY:LEVEL: and a stamp
            r"[a-z]{1,9} {0,6}:[a-z]{1,9} {0,6}: (?=\[|[0-9]{4}-)",
            # dmesg -T, -e and --time-format=iso
            rf"{_LEVEL}\[(?:\w{{1,9}}\.? \w{{1,9}}\.? {{1,2}}[0-9]{{1,2}} {_CLOCK} [0-9]{{4}}"
            rf"|\w{{3,9}}\.? {{0,2}}[0-9]{{1,2}} {_CLOCK}| {{1,3}}[+][ 0-9.]{{1,16}})\] ?",
            r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8},[0-9]{6}[+-][0-9]{2}:[0-9]{2} ",
        )
    )
)
_FOREIGN_CALLER = re.compile(r"\[ {0,9}([TC][0-9]{1,9})\] ")
_JOURNAL_HOST = re.compile(rf"{_HOST[1:]}kernel: ")


def make_printable(text: str) -> str:
    """A text of a guest, a file or another machine, with control and unseen characters shown by number."""
    return text.translate(_PRINTABLE)


def split_line(line: str) -> Iterator[KernelLine]:
    """Split a console line at time stamps: a printk line can follow unterminated output of user space."""
    line = line[: _MAX_RAW * 2].strip("\r\n")
    if "\x1b" in line:
        line = _ANSI.sub("", line)
    line = line[:_MAX_RAW]
    start, is_marked, uptime_s, head_caller = _skip_foreign(line)
    stamps = list(_STAMP.finditer(line, start)) if "[" in line else []
    first = stamps[0].start() if stamps else len(line)
    head = line[start:first]
    if head or not stamps:
        plain = _UNSTAMPED.match(head)
        offset, caller = (plain.end(), plain[1] or "") if plain else (0, "")
        text, raw = head[offset:][:MAX_LINE], line[:first]
        yield KernelLine(text, raw, uptime_s, caller or head_caller, is_marked, bool(stamps) and is_marked)
    for stamp, end in zip(stamps, [*(stamp.start() for stamp in stamps[1:]), len(line)], strict=False):
        text, raw = line[stamp.end() : end], line[stamp.start() : end]
        # journalctl -o short-monotonic
        text = text[found.end() :] if (found := _JOURNAL_HOST.match(text)) else text
        is_cut = bool(text) and end < len(line)
        yield KernelLine(text[:MAX_LINE], raw, float(stamp[1]), stamp[2] or "", True, is_cut)


def _skip_foreign(line: str) -> tuple[int, bool, float | None, str]:
    """The length of what other programs put before a line, whether there is any, its uptime and caller."""
    start, uptime_s, caller = 0, None, ""
    # syslog of netconsole, and dmesg -x -T, have two of them
    for _ in range(2):
        if not (found := _FOREIGN.match(line, start)):
            break
        start = found.end()
        uptime_s = int(found[1]) / 1e6 if found[1] else uptime_s
        caller = found[2] or caller
    if start and (found := _FOREIGN_CALLER.match(line, start)):
        start, caller = found.end(), found[1]
    return start, start > 0, uptime_s, caller
