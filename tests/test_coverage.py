# SPDX-License-Identifier: GPL-2.0-or-later
"""Coverage: what gcov counted of a program, by function, and what is said of it."""

import subprocess
from pathlib import Path

import pytest

from orchestrator.coverage.gcov import CodeCoverage, Counts, FunctionCoverage, add_counts, cover
from orchestrator.coverage.text import render
from orchestrator.parse.csource import read_functions
from orchestrator.project.mutants import load_mutants

SOURCE = """\
#include <stdlib.h>
#define VM_BUG_ON(x) do { if (x) abort(); } while (0)
static inline int half(int a)
{
\tif (a & 1)
\t\treturn 0;
\treturn a / 2;
}

int work(int a)
{
\tVM_BUG_ON(a == 77);
\tif (a > 10)
\t\treturn 1;
\treturn half(a);
}

int unused(int a)
{
\treturn a + 1;
}

int main(int argc, char **argv)
{
\treturn work(argc + 3) == 2 ? 0 : 1;
}
"""


@pytest.fixture(scope="module")
def covered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FunctionCoverage]:
    folder = tmp_path_factory.mktemp("coverage")
    source = folder / "mm" / "a.c"
    source.parent.mkdir()
    source.write_text(SOURCE)
    subprocess.run(["gcc", "--coverage", "-O2", "-o", "a", "mm/a.c"], cwd=folder, check=True)
    subprocess.run([folder / "a"], check=True)
    (data,) = folder.glob("*.gcda")
    counts: Counts = {}
    command = ["gcov", "-b", "-c", "--json-format", "--stdout", data.name]
    add_counts(subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout, "mm/a.c", counts)
    functions = read_functions(SOURCE.encode(), ["work", "hal*", "unused"])
    return {one.name: one for one in cover("mm/a.c", functions, counts)}


def test_lines_and_branches_that_nothing_reached(covered: dict[str, FunctionCoverage]) -> None:
    work = covered["work"]
    # the assertion is not counted, nor a line of which the optimizer leaves no code
    assert [(one.place, one.line, one.code, one.branches) for one in work.unreached] == [
        ("mm/a.c:work:4", 13, "if (a > 10)", 1),
    ]
    assert (work.branches, work.branches_reached) == (2, 1)
    assert work.lines_reached == work.lines


def test_code_that_was_put_into_its_caller_counts_for_its_own_function(
    covered: dict[str, FunctionCoverage],
) -> None:
    half = covered["half"]
    assert half.lines_reached and half.branches_reached == 1
    assert [one.place for one in half.unreached] == ["mm/a.c:half:3"]


def test_a_function_that_is_never_called(covered: dict[str, FunctionCoverage]) -> None:
    assert not covered["unused"].lines_reached
    found = CodeCoverage("debian-5.10 5.10.262", "0" * 40, tuple(covered.values()), ("odirect.rd-fork",))
    text = render(found)
    assert "functions that no test reaches: 1\n  mm/a.c:unused\n" in text
    assert "  mm/a.c:work:4 (line 13) (1 branch): if (a > 10)\n" in text
    assert "mm/a.c:unused:" not in text


def test_reports_of_two_guests_are_added() -> None:
    line = '{"line_number": 5, "count": %d, "branches": [{"count": %d}, {"count": %d}]}'
    counts: Counts = {}
    for numbers in ((1, 1, 0), (2, 0, 2)):
        report = '{"files": [{"file": "./mm/a.c", "lines": [%s]}]}' % (line % numbers)
        add_counts(report.encode(), "mm/a.c", counts)
    assert counts == {5: (3, [1, 2])}


def test_reasons_are_declared_by_line(tmp_path: Path) -> None:
    file = tmp_path / "mutants.yaml"
    file.write_text("functions: {mm/a.c: [work]}\nunreached: {'mm/a.c:work:5*': a reason}\n")
    assert load_mutants(file).unreached == {"mm/a.c:work:5*": "a reason"}
