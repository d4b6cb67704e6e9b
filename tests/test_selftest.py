# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own selftests: which programs a tree has, how they are built, run and judged."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.kernel.build import find_toolchain
from orchestrator.kernel.kconfig import compare_config
from orchestrator.parse.ktap import parse_ktap
from orchestrator.parse.selftest import parse_selftest
from orchestrator.plan.plan import Request, make_plan
from orchestrator.plan.products import list_dropped, list_selftests, make_build_request
from orchestrator.plan.workspace import Workspace
from orchestrator.project.arch import ARCHES
from orchestrator.project.guesttest import find_family, load_tests, select_tests
from orchestrator.project.root import LIB
from orchestrator.project.selftest import (
    choose_programs,
    make_placeholders,
    make_test,
    parse_list,
    parse_run_script,
    parse_settings,
)
from orchestrator.result.record import Failure, JobRecord, ProgramEnd, TrialResult
from orchestrator.result.verdict import Verdict, is_conclusive, judge_job
from orchestrator.run.compile import Program
from orchestrator.run.selftests import compile_selftests, list_programs, read_fragments, render_stub
from orchestrator.source.repository import Source
from orchestrator.status import Status
from orchestrator.store.store import Store
from tests.conftest import ROOT, QuietProgress, cowbell, cowbell_with_store
from tests.samples import CONSOLE, DECLARED, GOOD, WARNING

X86 = ARCHES["x86_64"]
COW = "kselftest/mm/cow"
HEAD = "TAP version 13\n"
SKIPPED = "1..0 # SKIP no hugetlb\n"
CUT_SHORT = "1..3\nok 1 a\nok 2 # SKIP no swap\n"
ENDED = ProgramEnd(status=0)


# --- words


@pytest.mark.parametrize(
    "word",
    ["kselftest", "kselftest/mm", "kselftest/*/cow", "kselftest/mm/", "kselftest//cow", "kselftest/../x/y",
     "kselftest/mm/a b"],
)  # fmt: skip
def test_a_word_has_a_directory_and_a_program(word: str) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        make_placeholders([word, "kselftest/net/*"], LIB)
    (error,) = raised.value.exceptions
    assert f"got {word}" in str(error)


def test_a_star_selects_only_own_tests() -> None:
    selftests = make_placeholders(["odirect.*", "kselftest/mm/*", COW], LIB)
    tests = (*load_tests(ROOT / "guest-tests"), *selftests)
    assert not set(selftests) & set(select_tests(tests, ["*"]))
    assert [test.id for test in selftests] == ["kselftest/mm/*", COW]
    assert find_family(COW) == "kselftest"


def test_a_glob_selects_listed_programs_and_a_name_itself() -> None:
    known = ["cow", "ksm_tests", "ksm_functional_tests"]
    assert choose_programs("kselftest/mm/ksm*", known) == [f"kselftest/mm/{name}" for name in known[1:]]
    assert choose_programs("kselftest/net/lib/xy", known) == ["kselftest/net/lib/xy"]
    with pytest.raises(UsageError, match="selects no program of tools/testing/selftests/mm"):
        choose_programs("kselftest/mm/x*", known)


def test_a_job_with_selftests_asks_for_what_their_configs_take_for_granted() -> None:
    fragments = {**DECLARED.fragments, "kselftest": replace(DECLARED.fragments["base"], name="kselftest")}
    declared = replace(DECLARED, fragments=fragments, tests=(*DECLARED.tests, *make_placeholders([COW], LIB)))
    asked, plain = (
        make_plan(Request(("demo",), tests=(name,)), declared)[0] for name in (COW, "odirect.read")
    )
    assert asked.row.kconfig == ("base", "kselftest")
    assert plain.row.kconfig == ("base",)


# --- the files of a directory


def test_the_run_script_lists_programs_with_their_categories() -> None:
    text = (
        'run_test() {\n\t"$@"\n}\nCATEGORY="hugetlb" run_test ./map_hugetlb\n\tCATEGORY="ksm" run_test '
        './ksm_tests -M -p 10\nCATEGORY="ksm_numa" run_test ./ksm_tests -N\nstress=./uffd-stress\n'
        'CATEGORY="uffd" run_test ${stress} anon\nCATEGORY="mlock" run_test sudo -u nobody ./on-fault-limit\n'
        'CATEGORY="hmm" run_test bash ./test_hmm.sh smoke\n# a word on run_test ./nothing\n'
    )
    script = parse_run_script("run_vmtests.sh", text)
    assert script
    assert script.categories == {
        "map_hugetlb": ("hugetlb",),
        "ksm_tests": ("ksm", "ksm_numa"),
        "uffd-stress": ("uffd",),
        "on-fault-limit": ("mlock",),
        "test_hmm.sh": ("hmm",),
    }
    assert parse_run_script("run.sh", "cd functional; ./run.sh\n") is None


@pytest.mark.parametrize(
    ("text", "limit_s"), [("", 45), ("timeout=180\n", 180), ("# timeout=5\ntimeout=0\n", 3600)]
)
def test_the_time_limit_is_that_of_the_settings(text: str, limit_s: int) -> None:
    assert parse_settings(text) == limit_s


def test_the_list_of_a_directory_ignores_what_make_says() -> None:
    text = "make: Entering directory\nnet/lib:a.sh\nnet:b.sh\nnet/lib:../c\nnet/lib:a.sh\n"
    assert parse_list(text, "net/lib") == ["a.sh"]


# --- a tree with selftests


@pytest.fixture
def place(base: Source, store: Store, progress: QuietProgress) -> Workspace:
    return Workspace(ROOT, store, progress)


def build(base: Source, store: Store, progress: QuietProgress, *names: str) -> dict[str, Program]:
    tests = [make_test(f"kselftest/{name}", 45, LIB) for name in names]
    programs = compile_selftests(tests, base, find_toolchain(X86), store, progress)
    return {program.test.id.removeprefix("kselftest/"): program for program in programs}


def run(program: Program, work: Path) -> TrialResult:
    """Run the script of the guest here, in a folder as the guest has it."""
    work.mkdir()
    if program.path.is_dir():
        (work / "kselftest").symlink_to(program.path)
    else:
        stub = work / "tests" / program.test.id
        stub.parent.mkdir(parents=True)
        stub.symlink_to(program.path)
    done = subprocess.run(
        ["sh", LIB / "selftest.sh", program.test.id],
        capture_output=True, text=True, timeout=60, env={**os.environ, "COWBELL_WORK": str(work)},
    )  # fmt: skip
    return make_result(program.test.id, done.stdout, ProgramEnd(status=done.returncode))


def make_result(test: str, stdout: str, end: ProgramEnd | None) -> TrialResult:
    console = CONSOLE.replace(GOOD.test, test)
    exit_status = end.status if end and end.status is not None else 1
    return replace(GOOD, test=test, stdout=stdout, exit_status=exit_status, console=console, program_end=end)


def judge(result: TrialResult) -> list[Verdict]:
    job = JobRecord("row", "plain", "x86_64", "tree", "", tests={result.test: ()}, results=(result,))
    return list(judge_job(job))


def test_programs_are_listed_by_makefile_and_run_script(
    base: Source, store: Store, progress: QuietProgress
) -> None:
    def listed(directory: str) -> tuple[tuple[str, ...], int]:
        found = list_programs(directory, base, find_toolchain(X86), store, progress)
        return found.programs, found.timeout_s

    # ksft_cow.sh only calls the run script
    assert listed("mm") == (("cow", "ksm", "broken", "unlisted", "cow_32"), 180)
    assert listed("size") == (("plain.sh", "fails.sh", "skips.sh", "streams.sh", "dies.sh"), 45)
    assert listed("size/deep") == (("ok",), 45)
    assert listed("nonesuch") == ((), 45)
    assert not list(store.path("kernels").glob("*"))


def test_words_become_tests_when_the_source_is_there(
    base: Source, place: Workspace, progress: QuietProgress
) -> None:
    words = ("kselftest/size/*s.sh", "kselftest/mm/cwo", "odirect.read")
    declared = replace(
        DECLARED,
        fragments={**DECLARED.fragments, "kselftest": DECLARED.fragments["base"]},
        tests=(*DECLARED.tests, *make_placeholders(words, LIB)),
    )
    job = make_plan(Request(("demo",), tests=words), declared)[0]
    found = list_selftests(job, base, declared, place)
    assert [test.id for test in found.tests] == [
        "odirect.read", "kselftest/size/fails.sh", "kselftest/size/skips.sh", "kselftest/size/streams.sh",
        "kselftest/size/dies.sh", "kselftest/mm/cwo",
    ]  # fmt: skip
    assert "kselftest/mm/cwo is not listed in tools/testing/selftests/mm; nearest: cow" in progress.notes


def test_the_fragment_of_a_directory_is_a_part_of_the_config(
    base: Source, store: Store, place: Workspace
) -> None:
    (fragment,) = read_fragments(["mm", "size"], base, store).values()
    where = "tools/testing/selftests/mm/config"
    assert [(r.symbol, r.value, r.where, r.is_optional) for r in fragment.requests] == [
        ("SWAP", "y", f"{where}:1", True),
        ("NO_SUCH", "y", f"{where}:2", True),
        ("FROB", "m", f"{where}:4", True),
    ]
    words = (COW, "odirect.read")
    declared = replace(
        DECLARED,
        fragments={**DECLARED.fragments, "kselftest": replace(DECLARED.fragments["base"], name="kselftest")},
        tests=(*DECLARED.tests, *make_placeholders(words, LIB)),
    )
    asked, plain = (
        make_build_request(make_plan(Request(("demo",), tests=(name,)), declared)[0], base, declared, place)
        for name in words
    )
    assert asked.build_id != plain.build_id
    assert {request.symbol for request in asked.config.requests} == {"SWAP", "NO_SUCH", "FROB"}
    outcomes = compare_config(asked.config, "CONFIG_SWAP=y\n")
    assert list_dropped(outcomes) == ["NO_SUCH=y", "FROB=m"]
    assert not any(outcome.is_error for outcome in outcomes)


def test_a_directory_is_built_once(base: Source, store: Store, progress: QuietProgress) -> None:
    first = build(base, store, progress, "mm/cow", "mm/ksm")
    progress.stages.clear()
    assert build(base, store, progress, "mm/ksm")["mm/ksm"] == first["mm/ksm"]
    assert not progress.stages


def test_a_program_runs_as_the_run_script_says(
    base: Source, store: Store, progress: QuietProgress, tmp_path: Path
) -> None:
    programs = build(base, store, progress, "mm/cow", "mm/unlisted")
    result = run(programs["mm/cow"], tmp_path / "cow")
    assert [(verdict.name, verdict.status) for verdict in judge(result)] == [
        (f"{COW}/no leak", Status.PASS),
        (f"{COW}/-s 2/no leak", Status.PASS),
        # what the script runs only with -d
        (f"{COW}/-x/no leak", Status.PASS),
    ]
    assert "items: cow late" in result.stdout
    assert "not ours" not in result.stdout
    (verdict,) = judge(run(programs["mm/unlisted"], tmp_path / "unlisted"))
    assert verdict.status is Status.SKIP
    assert verdict.reason.startswith("its run script does not start it here")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("size/plain.sh", {"": (Status.PASS, "")}),
        ("size/fails.sh", {"": (Status.FAIL, "exit status 1: 3 of 4 pages")}),
        ("size/skips.sh", {"": (Status.SKIP, "no hugetlb")}),
        ("size/streams.sh", {"/wait": (Status.PASS, ""), "/wake": (Status.FAIL, "")}),
        ("size/dies.sh", {"": (Status.FAIL, "killed by signal 11: Segmentation fault")}),
        ("size/deep/ok", {"": (Status.PASS, "")}),
    ],
)
def test_a_listed_program_is_judged_by_its_streams_or_its_exit_status(
    name: str,
    expected: dict[str, tuple[Status, str]],
    base: Source,
    store: Store,
    progress: QuietProgress,
    tmp_path: Path,
) -> None:
    verdicts = judge(run(build(base, store, progress, name)[name], tmp_path / "work"))
    assert {verdict.name: (verdict.status, verdict.reason) for verdict in verdicts} == {
        f"kselftest/{name}{rest}": told for rest, told in expected.items()
    }


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("mm/broken", Status.BROKEN, ("broken.c:2:", "error: ", "KSFT_SKIP")),
        ("mm/ksm", Status.BROKEN, ("cannot find -lno-such-library",)),
        ("mm/cow_32", Status.SKIP, ("selftests/mm does not build it on this host for ARCH=x86_64",)),
        ("mm/nonesuch", Status.SKIP, ("the tree builds no program of this name in", "selftests/mm")),
        ("nonesuch/x", Status.SKIP, ("the tree has no tools/testing/selftests/nonesuch",)),
    ],
)
def test_what_can_not_be_run_says_why_and_the_others_run(
    name: str,
    status: Status,
    words: tuple[str, ...],
    base: Source,
    store: Store,
    progress: QuietProgress,
    tmp_path: Path,
) -> None:
    programs = build(base, store, progress, name, "mm/cow")
    result = run(programs[name], tmp_path / "one")
    (verdict,) = judge(result)
    assert verdict.status is status
    assert all(word in verdict.reason for word in words), verdict.reason
    assert is_conclusive(result, ()) == (status is Status.SKIP)
    assert {verdict.status for verdict in judge(run(programs["mm/cow"], tmp_path / "other"))} == {Status.PASS}


# --- verdicts


def told(stdout: str, exit_status: int) -> dict[str, Status]:
    return {verdict.name: verdict.raw for verdict in judge(make_run(HEAD + stdout, exit_status))}


@pytest.mark.parametrize(
    ("output", "exit_status", "expected"),
    [
        ("./a.sh: line 279: pgrep: command not found\numount: busy\n", 1, (Status.BROKEN, "no pgrep")),
        ("./a.sh: 2: bc: not found\nsh: lsof: not found\n", 0, (Status.BROKEN, "no bc, lsof")),
        ("modinfo: not found\nCONFIG_TEST_HMM=m\n", 4, (Status.SKIP, "CONFIG_TEST_HMM=m")),
        ("page 3: not found\nzap: eth0: not found\n", 1, (Status.FAIL, "eth0: not found")),
    ],
)
def test_what_the_guest_lacks_is_not_the_kernels_fault(
    output: str, exit_status: int, expected: tuple[Status, str]
) -> None:
    """charge_reserved_hugetlb.sh of 7.3 goes on without pgrep, and fails later."""
    (verdict,) = judge(make_run(output, exit_status))
    assert (verdict.raw, verdict.reason[-len(expected[1]) :]) == expected


@pytest.mark.parametrize(
    ("stdout", "expected"),
    [("1..2\nok 1 a\nok 2 b\n", ["a", "b"]), ("1..2\nok 1 a\n", []), ("ok 1 a\nok 2 b\n", [])],
)
def test_a_selftest_without_a_version_line_has_to_keep_to_its_plan(stdout: str, expected: list[str]) -> None:
    """uffd-wp-mremap of 7.3 prints none."""
    passed = [verdict.name for verdict in judge(make_run(stdout, 0)) if verdict.raw is Status.PASS]
    assert passed == [f"{COW}/{name}" for name in expected]


def make_run(output: str, exit_status: int) -> TrialResult:
    return make_result(
        COW, f"# cowbell: run ./cow\n{output}\n# cowbell: exit {exit_status}\n# cowbell: end 0\n", ENDED
    )


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
    assert told(stdout, exit_status) == {
        f"kselftest/mm/cow{name}": status for name, status in expected.items()
    }


def test_names_come_from_what_is_announced_and_are_never_the_same() -> None:
    stdout = (
        "1..5\n# [RUN] fork ... with base page\nok 1 No leak\n# [RUN] fork ... with THP\nok 2 No leak\n"
        "# [RUN] holes\nok 3 read\nok 4 write\nok 5 read\n"
    )
    assert list(told(stdout, 0)) == [
        f"kselftest/mm/cow/{name}"
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
    (verdict,) = judge(make_run(stdout, 1))
    assert (verdict.name, verdict.reason) == (
        "kselftest/mm/cow/fork ... with THP", "Leak from parent into child",
    )  # fmt: skip


def test_a_text_that_says_how_it_went_is_no_name() -> None:
    bad = told(
        "1..3\nnot ok 1 : Leaf not released!\nok 2 Leaf split successfully\nok 3 mmap at 0x7f0012\n", 1
    )
    good = told("1..3\nok 1 : Leaf released as it was!\nok 2 Split failed\nok 3 mmap at 0x7f9912\n", 0)
    assert list(bad) == list(good) == [f"kselftest/mm/cow/{number}" for number in (1, 2, 3)]
    assert list(told("1..2\nok 1 read past the end\nok 2 no leaf\n", 0)) == [
        "kselftest/mm/cow/read past the end", "kselftest/mm/cow/no leaf",
    ]  # fmt: skip
    stdout = f"{HEAD}1..1\nnot ok 1 : Leaf not released!\n"
    (verdict,) = judge(make_run(stdout, 1))
    assert (verdict.name, verdict.reason) == ("kselftest/mm/cow/1", "Leaf not released!")


@pytest.mark.parametrize(
    ("stdout", "exit_status", "failed"),
    [
        (
            "1..3\n# [RUN] one\nok 1 fine\n# [RUN] two\nnot ok 2 no room\nBail out! 1 of 2\n",
            1,
            "kselftest/mm/cow/two (no room)",
        ),
        ("1..2\nnot ok 1 first\n", 1, "kselftest/mm/cow/first"),
        ("1..2\nnot ok 1 first\nok 2 second\n", 0, "kselftest/mm/cow/first"),
        (
            "1..99\n" + "".join(f"not ok {number} t{number}\n" for number in range(1, 13)),
            1,
            ", ".join(f"kselftest/mm/cow/t{number}" for number in range(1, 11)) + " and 2 more",
        ),
    ],
)
def test_a_broken_test_names_what_failed(stdout: str, exit_status: int, failed: str) -> None:
    (verdict,) = judge(make_run(HEAD + stdout, exit_status))
    assert verdict.status is Status.BROKEN
    assert verdict.reason.endswith(f"; failed: {failed}")


def test_a_splat_outweighs_what_was_said() -> None:
    result = make_run(f"{HEAD}1..1\nok 1 a\n", 0)
    (verdict,) = judge(replace(result, console=result.console.replace("\n", "\n" + WARNING, 1)))
    assert (verdict.name, verdict.status) == ("kselftest/mm/cow", Status.CRASH)


def test_a_kernel_that_does_not_boot_leaves_a_verdict() -> None:
    job = JobRecord("row", "plain", "x86_64", "tree", "", tests={"kselftest/mm/cow": ()})
    (missing,) = judge_job(job)
    (failed,) = judge_job(replace(job, failure=Failure("boot", "panic", "", "", "")))
    assert (missing.status, failed.status) == (Status.BROKEN, Status.CRASH)


def test_only_foreign_streams_may_repeat_a_name() -> None:
    stream = f"{HEAD}1..2\nok 1 a\nok 2 a\n"
    assert parse_ktap(stream, is_foreign=True).is_complete
    assert not parse_ktap(stream).is_complete


@pytest.mark.parametrize(
    ("end", "status", "reason"),
    [
        (None, Status.BROKEN, "how the program ended was not recorded"),
        (ProgramEnd(running_s=45.0), Status.TIMEOUT, "still running after 45 s"),
        (ENDED, Status.BROKEN, "the run has no end"),
    ],
)
def test_a_run_without_an_end_passes_never(end: ProgramEnd | None, status: Status, reason: str) -> None:
    complete = f"# cowbell: run ./cow\n{HEAD}1..1\nok 1 a\n"
    (verdict,) = judge(make_result(COW, complete, end))
    assert (verdict.status, verdict.reason) == (status, reason)


def test_a_script_that_does_not_reach_its_end_is_seen() -> None:
    stdout = "# cowbell: run ./cow\n\n# cowbell: exit 0\n"
    first, last = judge(make_result(COW, stdout, ProgramEnd(running_s=45.0)))
    assert (first.name, first.status) == (COW, Status.PASS)
    assert (last.name, last.status) == (f"{COW}/end", Status.TIMEOUT)


@pytest.mark.parametrize(
    ("stdout", "status"),
    [
        ("no hugetlbfs support in kernel?\n# cowbell: end 1\n", Status.BROKEN),
        ("# SKIP ./on-fault-limit\n# cowbell: end 0\n", Status.SKIP),
        ("", Status.BROKEN),
    ],
)
def test_a_script_that_starts_nothing_says_why(stdout: str, status: Status) -> None:
    (verdict,) = judge(make_result(COW, stdout, ENDED))
    assert verdict.status is status
    assert stdout.partition("\n")[0].strip("# ") in verdict.reason


def test_any_prefix_of_a_good_output_never_passes_as_a_whole() -> None:
    whole = make_run(f"{HEAD}1..2\nok 1 a\nok 2 b\n", 0)
    for length in range(len(whole.stdout) - 1):
        statuses = {verdict.status for verdict in judge(replace(whole, stdout=whole.stdout[:length]))}
        assert statuses - {Status.PASS}, whole.stdout[:length]
    assert {verdict.status for verdict in judge(whole)} == {Status.PASS}


def test_a_stub_survives_any_words() -> None:
    why = "a.c:1: error: expected ';' before \"$x\" `id` %s"
    done = subprocess.run(["sh"], input=render_stub("broken", why), capture_output=True, text=True)
    assert parse_selftest(done.stdout).why == why


# --- the command line


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("test", "ROW=demo", "TESTS=kselftest/mm"), "expected kselftest/DIRECTORY/PROGRAM"),
        (("coverage", "ROW=coverage", "TESTS=kselftest/mm/*"), "does not take the kernel's selftests"),
        (("-n", "test", "KERNEL=debian-image-6.12", f"TESTS={COW}"), "is built from the kernel's source"),
    ],
)
def test_wrong_words(words: tuple[str, ...], what: str) -> None:
    done = cowbell(*words)
    assert done.returncode == 2
    assert what in done.stderr


def test_selftests_are_listed() -> None:
    assert "kselftest/DIRECTORY/*" in cowbell("list", "tests").stdout


@pytest.mark.kernel
def test_selftests_in_the_guests_of_the_demo(kernel_store_root: Path, setup_kconfig: tuple[str, ...]) -> None:
    # a directory with a config of its own would need another kernel; nothing else is copied to the guest
    names = "kselftest/futex/functional/*"
    words = ("ROW=demo", "SERIES=none", f"CONFIG={','.join(setup_kconfig)}", "BOOT=qemu", f"TESTS={names}")
    done = cowbell_with_store(kernel_store_root, "-s", "-B", "test", *words, "--json")
    (job,) = json.loads(done.stdout)["jobs"]
    found = {verdict["test"]: verdict["status"] for verdict in job["verdicts"]}
    passed = {name for name, status in found.items() if status == "pass"}
    assert any(name.startswith("kselftest/futex/functional/futex_wait_wouldblock") for name in passed), (
        done.stderr
    )
