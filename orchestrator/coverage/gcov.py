# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads what gcov counted, and finds the lines and branches that nothing reached.

Lines are attributed to the function in whose text they are, also where the compiler put them into another.
Assertions are left out: that they do nothing is what a correct kernel does.
Source: gcov's manual, "--json-format".
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from pydantic import BaseModel, TypeAdapter

from orchestrator.parse.csource import FunctionText


class _Branch(BaseModel):
    count: int


class _Line(BaseModel):
    line_number: int
    count: int
    branches: list[_Branch]


class _File(BaseModel):
    file: str
    lines: list[_Line]


class _Report(BaseModel):
    files: list[_File]


_REPORT = TypeAdapter(_Report)


@dataclass(frozen=True, slots=True)
class Unreached:
    """A line that was not executed or, if ``branches`` is not 0, so many ways out of it that were not taken.

    ``place`` is file:function:n, where n is the line counted from the function's first.
    """

    place: str
    line: int
    code: str
    branches: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FunctionCoverage:
    """How much of a function was reached. A function that the compiler left out has no lines."""

    file: str
    name: str
    lines: int
    lines_reached: int
    branches: int
    branches_reached: int
    unreached: tuple[Unreached, ...]


@dataclass(frozen=True, slots=True)
class CodeCoverage:
    """What was reached of each function that the kernel has."""

    kernel: str
    commit: str
    functions: tuple[FunctionCoverage, ...]
    tests: tuple[str, ...]


# by line: how often it was executed, and each of its branches
Counts = dict[int, tuple[int, list[int]]]


def add_counts(report: bytes, file: str, counts: Counts) -> None:
    """Add a report of gcov on one file; of several copies of inlined code, each branch counts for all."""
    for one in _REPORT.validate_json(report).files:
        if not one.file.endswith(file):
            continue
        for line in one.lines:
            count, branches = counts.get(line.line_number, (0, []))
            both = zip_longest(branches, (branch.count for branch in line.branches), fillvalue=0)
            counts[line.line_number] = (count + line.count, [sum(pair) for pair in both])


def cover(
    file: str, functions: Iterable[FunctionText], counts: Mapping[int, tuple[int, Sequence[int]]]
) -> Iterator[FunctionCoverage]:
    """The coverage of each function of a file."""
    for function in functions:
        found = [
            (number, *counts[number])
            for number in range(function.line, function.line + len(function.lines))
            if number in counts and number not in function.assertions
        ]
        missed = [
            Unreached(
                f"{file}:{function.name}:{number - function.line + 1}",
                number,
                function.lines[number - function.line].strip(),
                sum(not one for one in branches),
            )
            for number, count, branches in found
            if not count or not all(branches)
        ]
        yield FunctionCoverage(
            file,
            function.name,
            len(found),
            sum(bool(count) for _, count, _ in found),
            sum(len(branches) for _, _, branches in found),
            sum(bool(one) for _, _, branches in found for one in branches),
            tuple(missed),
        )
