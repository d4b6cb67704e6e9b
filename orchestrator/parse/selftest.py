# SPDX-License-Identifier: GPL-2.0-or-later
"""Parses the output of a kernel selftest: its runs, each with its streams and its exit status.

The lines between the runs are those of ``guest-tests/lib/selftest.sh``.
"""

import re
from dataclasses import dataclass

from orchestrator.parse.ktap import Ktap, parse_ktap

_MARK = re.compile(r"^# cowbell: (run|exit|end|skip|broken)(?: (.*))?$", re.MULTILINE)
_VERSION = re.compile(r"^(?:K?TAP version \d+)\s*$", re.MULTILINE)
# lines that a program without a version line prints if it reports results all the same
_RESULT = re.compile(r"^(?:\d+\.\.\d+|(?:not )?ok \d+)\b", re.MULTILINE)
# what starts a program, and says nothing of what it does
_STARTERS = ("bash", "sh", "sudo", "-u", "-c", "nobody")


@dataclass(frozen=True, slots=True)
class SelftestRun:
    """One start of a program. ``status`` is that of a shell, None if the run did not end."""

    command: str
    output: str
    status: int | None
    streams: tuple[Ktap, ...]

    @property
    def arguments(self) -> str:
        """The command without the program."""
        words = self.command.split()
        while words and words[0] in _STARTERS:
            words.pop(0)
        return " ".join(words[1:]).replace("/", "-")


@dataclass(frozen=True, slots=True)
class SelftestOutput:
    """``kind`` is ``skip`` or ``broken`` if there is no program to run, and ``why`` the reason.

    ``status`` is that of the script that starts the programs, None if it did not end; ``other`` its output.
    """

    runs: tuple[SelftestRun, ...]
    status: int | None
    other: str
    kind: str = ""
    why: str = ""


def parse_selftest(text: str) -> SelftestOutput:
    """Parse the whole output; a run that has no end takes what is left."""
    runs: list[SelftestRun] = []
    others: list[str] = []
    kind = why = ""
    command: str | None = None
    status: int | None = None
    at = begin = 0
    for mark in _MARK.finditer(text):
        word, rest = mark[1], (mark[2] or "").strip()
        if word == "run" and command is None:
            others.append(text[at : mark.start()])
            command, begin = rest, mark.end() + 1
        elif word == "exit" and command is not None and rest.isdecimal():
            # the line before is empty: the output may have had no line end
            runs.append(_make_run(command, text[begin : mark.start()].removesuffix("\n"), int(rest)))
            command, at = None, mark.end() + 1
        elif word == "end" and command is None and rest.isdecimal():
            status = int(rest)
        elif word in ("skip", "broken") and not runs and command is None:
            kind, why = word, rest
    if command is None:
        others.append(text[at:])
    else:
        runs.append(_make_run(command, text[begin:], None))
    other = _MARK.sub("", "".join(others))
    return SelftestOutput(tuple(runs), status, other, kind, why)


def _make_run(command: str, output: str, status: int | None) -> SelftestRun:
    return SelftestRun(command, output, status, tuple(_split_streams(output)))


def _split_streams(output: str) -> list[Ktap]:
    """The streams of a program, which may be a script that runs several; none if it prints no results."""
    starts = [match.start() for match in _VERSION.finditer(output)]
    if not starts:
        return [parse_ktap(output, is_foreign=True)] if _RESULT.search(output) else []
    # results before the first version line belong to no stream, and are an error of the first one
    first = 0 if _RESULT.search(output[: starts[0]]) else starts[0]
    ends = [*starts[1:], len(output)]
    begins = [first, *starts[1:]]
    return [parse_ktap(output[begin:end], is_foreign=True) for begin, end in zip(begins, ends, strict=True)]
