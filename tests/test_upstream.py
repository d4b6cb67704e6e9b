# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own selftests as tests: what becomes a program, and what their TAP is worth."""

import subprocess
from dataclasses import replace

import pytest

from orchestrator.parse.ktap import parse_ktap
from orchestrator.project.guesttest import load_tests, select_tests
from orchestrator.project.selftest import TESTS
from orchestrator.result.record import Failure, JobRecord, TrialResult
from orchestrator.result.verdict import Verdict, is_conclusive, judge_job
from orchestrator.run.runner import Program
from orchestrator.run.selftests import compile_selftests
from orchestrator.source.apply import apply_series
from orchestrator.source.fetch import fetch_tree
from orchestrator.status import Status
from orchestrator.store.store import Store
from tests.conftest import FAKE_TREE, ROOT, MakeSeries, Mirror, QuietProgress
from tests.kernels import request_build, write_config
from tests.samples import CONSOLE, GOOD, WARNING

FOLDER = "tools/testing/selftests"
COMPLETE = """#include <linux/fake.h>
#include <stdio.h>
#include "vm_util.h"
static void ksft_set_plan(int number) { printf("TAP version 13\\n1..%d\\n", number); }
int main(void)
{
	ksft_set_plan(FAKE_ABI);
	printf("ok 1 %s %s\\n", __FILE__, shared());
	return 0;
}
"""
HEAD = "TAP version 13\n"
SKIPPED = "1..0 # SKIP no hugetlb\n"
CUT_SHORT = "1..3\nok 1 a\nok 2 # SKIP no swap\n"


@pytest.fixture
def programs(
    mirror: Mirror, store: Store, progress: QuietProgress, make_series: MakeSeries
) -> dict[str, Program]:
    added = {
        f"{FOLDER}/vm/soft-dirty.c": ("", COMPLETE),
        f"{FOLDER}/vm/vm_util.h": ("", "const char *shared(void);\n"),
        f"{FOLDER}/vm/vm_util.c": ("", 'const char *shared(void) { return "by vm_util"; }\n'),
        f"{FOLDER}/mm/cow.c": ("", "int main(void) { ksft_set_plan(1) }\n"),
        f"{FOLDER}/vm/mkdirty.c": ("", "int main(void) { return 0; }\n"),
    }
    base = fetch_tree(FAKE_TREE, store, progress)
    src = apply_series(base, make_series("selftests", added), (), store, progress)
    request = request_build(src, write_config(store.root / "kconfigs", src))
    return {program.test.id: program for program in compile_selftests(TESTS, request, store, progress)}


def run(program: Program) -> TrialResult:
    is_script = program.path.read_bytes().startswith(b"#!")
    argv = [*(["sh"] if is_script else []), str(program.path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    return make_result(program.test.id, done.stdout, done.returncode)


def make_result(test: str, stdout: str, exit_status: int) -> TrialResult:
    console = CONSOLE.replace(GOOD.test, test)
    return replace(GOOD, test=test, stdout=stdout, exit_status=exit_status, console=console)


def judge(result: TrialResult) -> list[Verdict]:
    job = JobRecord("row", "plain", "x86_64", "tree", "", tests={result.test: ()}, results=(result,))
    return list(judge_job(job))


def told(stdout: str, exit_status: int) -> dict[str, Status]:
    return {
        verdict.name: verdict.raw
        for verdict in judge(make_result("upstream/cow", HEAD + stdout, exit_status))
    }


def test_star_selects_only_own_tests() -> None:
    tests = (*load_tests(ROOT / "guest-tests"), *TESTS)
    assert not set(TESTS) & set(select_tests(tests, ["*"]))
    assert select_tests(tests, ["upstream/*"]) == TESTS
    assert [test.id for test in select_tests(tests, ["upstream/cow"])] == ["upstream/cow"]


def test_compiled_from_the_tree_against_its_headers(programs: dict[str, Program]) -> None:
    assert set(programs) == {test.id for test in TESTS}
    (verdict,) = judge(run(programs["upstream/soft-dirty"]))
    assert (verdict.name, verdict.status) == ("upstream/soft-dirty/soft-dirty.c by vm_util", Status.PASS)


def test_what_does_not_compile_is_broken_with_the_compilers_words(programs: dict[str, Program]) -> None:
    result = run(programs["upstream/cow"])
    (verdict,) = judge(result)
    assert verdict.status is Status.BROKEN
    assert f"{FOLDER}/mm/cow.c does not compile" in verdict.reason
    assert "cow.c:1:" in verdict.evidence and "error: " in verdict.evidence
    assert not is_conclusive(result, ())


@pytest.mark.parametrize(
    ("name", "reason"),
    [("gup_longterm", "this tree has no"), ("mkdirty", "has no TAP plan")],
)
def test_what_can_not_be_run_is_a_skip(name: str, reason: str, programs: dict[str, Program]) -> None:
    (verdict,) = judge(run(programs[f"upstream/{name}"]))
    assert (verdict.name, verdict.status) == (f"upstream/{name}", Status.SKIP)
    assert reason in verdict.reason


@pytest.mark.parametrize(
    ("stdout", "exit_status", "expected"),
    [
        ("1..2\nok 1 a\nok 2 b\n", 0, {"/a": Status.PASS, "/b": Status.PASS}),
        ("1..2\nok 1 a\nnot ok 2 b\n", 1, {"/a": Status.PASS, "/b": Status.FAIL}),
        # ksft_exit_fail_msg, after everything has been told
        ("1..1\nnot ok 1 a\nBail out! 1 out of 1 tests failed\n# Totals: fail:1\n", 1, {"/a": Status.FAIL}),
        ("1..2\nok 1 a\nok 2 # SKIP no swap\n", 0, {"/a": Status.PASS, "/no swap": Status.SKIP}),
        ("1..2\nok 1 a\nok 2 # XFAIL known leak\n", 0, {"/a": Status.PASS, "/known leak": Status.XFAIL}),
        (SKIPPED, 4, {"": Status.SKIP}),
        (CUT_SHORT, 4, {"/a": Status.PASS, "/no swap": Status.SKIP}),
        (CUT_SHORT.replace("ok 1", "not ok 1"), 4, {"/a": Status.FAIL, "/no swap": Status.SKIP}),
        # the header of 5.15 and 6.1 counts the skip before it prints its number
        ("1..3\nok 2 # SKIP no swap\n", 4, {"/no swap": Status.SKIP}),
        ("1..3\nok 1 a\nok 3 # SKIP no swap\n", 4, {"/a": Status.PASS, "/no swap": Status.SKIP}),
        ("1..1\nok 2 # SKIP no swap\n", 4, {"/no swap": Status.SKIP}),
        # what must not pass, or be believed
        ("", 0, {"": Status.BROKEN}),
        ("1..0\n", 0, {"": Status.BROKEN}),
        (SKIPPED, 1, {"": Status.BROKEN}),
        ("ok 1 a\n", 0, {"": Status.BROKEN}),
        ("1..2\nok 1 a\n", 0, {"": Status.BROKEN}),
        (CUT_SHORT, 0, {"": Status.BROKEN}),
        ("1..2\nok 1 a\n", 4, {"": Status.BROKEN}),
        ("1..3\nok 2 # SKIP no swap\n", 0, {"": Status.BROKEN}),
        ("1..3\nok 3 # SKIP no swap\n", 4, {"": Status.BROKEN}),
        ("1..3\nok 2 a # SKIP no swap\n", 4, {"": Status.BROKEN}),
        ("1..3\nok 2 b\nok 3 # SKIP no swap\n", 4, {"": Status.BROKEN}),
        ("1..1\nok 1 a\n", 1, {"": Status.BROKEN}),
        ("1..1\nok 1 a\n", 4, {"": Status.BROKEN}),
        ("1..1\nok 1 a\n", -1, {"": Status.BROKEN}),
        ("1..1\nnot ok 1 a\n", 0, {"": Status.BROKEN}),
        ("1..1\nok 1 a\nBail out! mmap\n", 1, {"": Status.BROKEN}),
        ("1..2\nnot ok 1 a\nBail out! mmap\n", 1, {"": Status.BROKEN}),
        ("1..2\nok 1 a\nok 1 a\n", 0, {"": Status.BROKEN}),
        ("1..1\nok 1 a", 0, {"": Status.BROKEN}),
    ],
)
def test_the_plan_is_the_evidence(stdout: str, exit_status: int, expected: dict[str, Status]) -> None:
    assert told(stdout, exit_status) == {f"upstream/cow{name}": status for name, status in expected.items()}


def test_names_come_from_what_is_announced_and_are_never_the_same() -> None:
    stdout = (
        "1..5\n# [RUN] fork ... with base page\nok 1 No leak\n# [RUN] fork ... with THP\nok 2 No leak\n"
        "# [RUN] holes\nok 3 read\nok 4 write\nok 5 read\n"
    )
    assert list(told(stdout, 0)) == [
        f"upstream/cow/{name}"
        for name in (
            "fork ... with base page",
            "fork ... with THP",
            "holes/read",
            "holes/write",
            "holes/read (2)",
        )
    ]


def test_a_failure_is_told_by_what_the_line_says() -> None:
    stdout = f"{HEAD}1..1\n# [RUN] fork ... with THP\nnot ok 1 Leak from parent into child\n"
    (verdict,) = judge(make_result("upstream/cow", stdout, 1))
    assert (verdict.name, verdict.reason) == (
        "upstream/cow/fork ... with THP", "Leak from parent into child",
    )  # fmt: skip


def test_a_text_that_says_how_it_went_is_no_name() -> None:
    bad = told(
        "1..3\nnot ok 1 : Leaf not released!\nok 2 Leaf split successfully\nok 3 mmap at 0x7f0012\n", 1
    )
    good = told("1..3\nok 1 : Leaf released as it was!\nok 2 Split failed\nok 3 mmap at 0x7f9912\n", 0)
    assert list(bad) == list(good) == [f"upstream/cow/{number}" for number in (1, 2, 3)]
    assert list(told("1..2\nok 1 read past the end\nok 2 no leaf\n", 0)) == [
        "upstream/cow/read past the end", "upstream/cow/no leaf",
    ]  # fmt: skip
    stdout = f"{HEAD}1..1\nnot ok 1 : Leaf not released!\n"
    (verdict,) = judge(make_result("upstream/cow", stdout, 1))
    assert (verdict.name, verdict.reason) == ("upstream/cow/1", "Leaf not released!")


@pytest.mark.parametrize(
    ("stdout", "exit_status", "failed"),
    [
        (
            "1..3\n# [RUN] one\nok 1 fine\n# [RUN] two\nnot ok 2 no room\nBail out! 1 of 2\n",
            1,
            "upstream/cow/two (no room)",
        ),
        ("1..2\nnot ok 1 first\n", 1, "upstream/cow/first"),
        ("1..2\nnot ok 1 first\nok 2 second\n", 0, "upstream/cow/first"),
        (
            "1..99\n" + "".join(f"not ok {number} t{number}\n" for number in range(1, 13)),
            1,
            ", ".join(f"upstream/cow/t{number}" for number in range(1, 11)) + " and 2 more",
        ),
    ],
)
def test_a_broken_test_names_what_failed(stdout: str, exit_status: int, failed: str) -> None:
    (verdict,) = judge(make_result("upstream/cow", HEAD + stdout, exit_status))
    assert verdict.status is Status.BROKEN
    assert verdict.reason.endswith(f"; failed: {failed}")


def test_a_splat_outweighs_what_was_said() -> None:
    result = make_result("upstream/cow", f"{HEAD}1..1\nok 1 a\n", 0)
    (verdict,) = judge(replace(result, console=result.console.replace("\n", "\n" + WARNING, 1)))
    assert (verdict.name, verdict.status) == ("upstream/cow", Status.CRASH)


def test_a_kernel_that_does_not_boot_leaves_a_verdict() -> None:
    job = JobRecord("row", "plain", "x86_64", "tree", "", tests={"upstream/cow": ()})
    (missing,) = judge_job(job)
    (failed,) = judge_job(replace(job, failure=Failure("boot", "panic", "", "", "")))
    assert (missing.status, failed.status) == (Status.BROKEN, Status.CRASH)


def test_only_foreign_streams_may_repeat_a_name() -> None:
    stream = f"{HEAD}1..2\nok 1 a\nok 2 a\n"
    assert parse_ktap(stream, is_foreign=True).is_complete
    assert not parse_ktap(stream).is_complete
