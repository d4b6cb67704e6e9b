# SPDX-License-Identifier: GPL-2.0-or-later
"""Verdicts over records: what passes, and above all what must not."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.guest.connection import CUT, _decode, _keep
from orchestrator.parse.ktap import Rate
from orchestrator.result.record import Ended, Expected, Failure, TrialResult
from orchestrator.result.statistics import find_interval
from orchestrator.result.verdict import find_expected, is_conclusive
from orchestrator.status import Status
from tests.samples import CONSOLE, FAILED, GOOD, NAMES, PAIR, PAIRED, STDOUT, SUBTESTS, WARNING, judge

RESTART = "[    2.200000] reboot: Restarting system\n"
OOM = """[    2.050000] eater invoked oom-killer: gfp_mask=0x100cca(GFP_HIGHUSER_MOVABLE), order=0
[    2.060000] Out of memory: Killed process 77 (eater) total-vm:200000kB, anon-rss:190000kB, file-rss:0kB
"""


def test_a_broken_test_says_that_it_failed() -> None:
    stdout = STDOUT.replace("1..1", "1..2").replace("ok 1", "not ok 1")
    (verdict,) = judge(replace(GOOD, stdout=stdout, exit_status=1))
    assert verdict.status is Status.BROKEN
    assert verdict.reason == "plan says 2, got 1 results; failed: odirect.rd-mprotect"


@pytest.mark.parametrize(
    ("added", "named"),
    [("ok 3\n", "3"), ("ok 3 other\n", "other"), ("not ok 3 other # SKIP no swap\n", "other")],
)
def test_an_undeclared_result_is_no_test_of_its_own(added: str, named: str) -> None:
    """Each declared subtest is BROKEN and says why; one that failed still says so."""
    stdout = PAIR.replace("1..2", "1..3").replace("ok 2", "not ok 2") + added
    verdicts = judge(replace(PAIRED, stdout=stdout, exit_status=1))
    assert [verdict.name for verdict in verdicts] == list(NAMES)
    assert {verdict.status for verdict in verdicts} == {Status.BROKEN}
    reason = f"it does not declare: {named}"
    assert [verdict.reason for verdict in verdicts] == [reason, f"{reason}; failed: {NAMES[1]}"]


PANIC = "[    2.050000] Kernel panic - not syncing: forged\n"


def test_a_panic_that_the_test_outlived_is_not_the_kernel_s() -> None:
    begin, end = CONSOLE.splitlines(keepends=True)
    forged = replace(GOOD, console=begin + PANIC + end)
    (verdict,) = judge(forged)
    assert verdict.status is Status.BROKEN
    assert verdict.reason == (
        "a program wrote to the kernel log, which goes on after it: Kernel panic - not syncing: forged"
    )
    # a splat beside it counts, and so does a panic after the end, or without one
    for console in (
        begin + PANIC + WARNING + end,
        begin + WARNING + PANIC + end,
        CONSOLE + PANIC,
        begin + PANIC,
    ):
        assert status_of(replace(GOOD, console=console)) is Status.CRASH
    assert status_of(replace(forged, ended=Ended.RESET, exit_status=None)) is Status.CRASH


def test_a_test_that_left_its_guest_unusable_does_not_pass() -> None:
    (verdict,) = judge(replace(GOOD, unusable="sh: python3: not found"))
    assert verdict.status is Status.BROKEN
    assert verdict.reason == "its guest could not be used afterwards: sh: python3: not found"
    # a kernel that did so is not excused
    assert status_of(replace(FAILED, unusable="sh: python3: not found")) is Status.FAIL


def status_of(result: TrialResult) -> Status:
    (status,) = {verdict.status for verdict in judge(result)}
    return status


def test_pass_needs_everything() -> None:
    assert status_of(GOOD) is Status.PASS


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"stdout": ""}, Status.BROKEN),
        ({"stdout": "ok 1 odirect.rd-mprotect\n"}, Status.BROKEN),
        ({"stdout": "KTAP version 1\n1..1\n"}, Status.BROKEN),
        ({"stdout": "KTAP version 1\n1..2\nok 1 odirect.rd-mprotect\n"}, Status.BROKEN),
        ({"stdout": STDOUT.replace("rd-mprotect", "rd-other")}, Status.BROKEN),
        ({"stdout": STDOUT.replace("ok 1", "not ok 1")}, Status.BROKEN),
        ({"exit_status": 1}, Status.BROKEN),
        ({"exit_status": -1}, Status.BROKEN),
        ({"stdout": STDOUT.replace("ok 1", "not ok 1"), "exit_status": 1}, Status.FAIL),
        ({"stdout": "KTAP version 1\n1..1\nok 1 odirect.rd-mprotect # SKIP no swap\n"}, Status.SKIP),
        (
            {
                "stdout": "KTAP version 1\n1..1\nnot ok 1 odirect.rd-mprotect # ERROR no disk\n",
                "exit_status": 4,
            },
            Status.BROKEN,
        ),
        ({"console": CONSOLE.replace("\n", "\n" + WARNING, 1)}, Status.CRASH),
        ({"taint_after": 1 << 9}, Status.CRASH),
        ({"taint_after": 1 << 12}, Status.PASS),
        ({"console": CONSOLE.splitlines()[0]}, Status.BROKEN),
        ({"console": ""}, Status.BROKEN),
        ({"console_lost": 1}, Status.BROKEN),
        ({"taint_after": None}, Status.BROKEN),
        ({"taint_before": None}, Status.BROKEN),
        ({"ended": Ended.TIMEOUT, "exit_status": None, "stdout": ""}, Status.TIMEOUT),
        ({"ended": Ended.RESET, "exit_status": None}, Status.CRASH),
        ({"ended": Ended.RESET, "console": CONSOLE + RESTART, "exit_status": None}, Status.BROKEN),
        ({"ended": Ended.POWER_OFF, "exit_status": None}, Status.BROKEN),
        ({"ended": Ended.HANG, "exit_status": None}, Status.CRASH),
        ({"ended": Ended.SSH_LOST, "exit_status": None}, Status.BROKEN),
        ({"ended": Ended.FLOOD, "exit_status": None}, Status.BROKEN),
        ({"ended": Ended.HANG, "console": CONSOLE + WARNING, "exit_status": None}, Status.CRASH),
        ({"ended": Ended.FLOOD, "console": CONSOLE + WARNING, "exit_status": None}, Status.CRASH),
        ({"console": CONSOLE + WARNING}, Status.CRASH),
        (
            {
                "ended": Ended.RESET,
                "exit_status": None,
                "stdout": "",
                "console": CONSOLE + "[    2.2] Kernel panic - not syncing: sysrq triggered crash\n",
            },
            Status.CRASH,
        ),
    ],
)
def test_verdict_of_each_defect_of_a_result(change: dict[str, object], status: Status) -> None:
    assert status_of(replace(GOOD, **change)) is status  # type: ignore[arg-type]


@pytest.mark.parametrize("ended", [ended for ended in Ended if ended is not Ended.EXIT])
def test_no_guest_that_was_lost_passes(ended: Ended) -> None:
    """Whatever the test said before: its end was not seen."""
    (verdict,) = judge(replace(GOOD, ended=ended, how="what shows it"))
    assert verdict.status.is_bad
    assert "what shows it" in verdict.reason
    assert "\n" not in verdict.reason


@pytest.mark.parametrize(("waited_s", "status"), [(0.0, Status.TIMEOUT), (4.0, Status.BROKEN)])
def test_a_time_limit_says_nothing_where_the_guest_had_no_cpu(waited_s: float, status: Status) -> None:
    said = "TAP version 14\n1..1\nnot ok 1 - odirect.rd-control # TIMEOUT after 5 s\n"
    late = replace(GOOD, stdout=GOOD.stdout.replace("ok 1", "not ok 1").rstrip() + " # TIMEOUT\n")
    assert said
    (verdict,) = judge(replace(late, exit_status=1, duration_s=10.0, waited_s=waited_s))
    assert verdict.status is status
    assert ("gave the guest no CPU" in verdict.reason) == bool(waited_s)


def test_what_was_asked_for_is_no_complaint() -> None:
    """A panic by our own NMI, and the traces of blocked tasks, are evidence and not faults."""
    said = "[   20.0] Kernel panic - not syncing: NMI: Not continuing\n"
    (verdict,) = judge(replace(GOOD, ended=Ended.TIMEOUT, exit_status=None, said=said))
    assert verdict.status is Status.TIMEOUT
    assert "NMI" in verdict.evidence


def test_guest_s_oom_killer_is_named() -> None:
    killed = replace(GOOD, console=CONSOLE.replace("\n", f"\n{OOM}", 1), stdout="", exit_status=-1)
    (verdict,) = judge(killed)
    assert verdict.status is Status.BROKEN
    assert "the guest ran out of memory (Out of memory: Killed process 77 (eater)" in verdict.reason
    # one that a test provokes and lives through is its own affair
    assert status_of(replace(killed, stdout=STDOUT, exit_status=0)) is Status.PASS


def test_memory_that_was_kept_is_told() -> None:
    for console in (CONSOLE, CONSOLE + WARNING):
        (verdict,) = judge(replace(GOOD, ended=Ended.HANG, console=console, core="/store/boot-1/vmcore"))
        assert "/store/boot-1/vmcore" in verdict.evidence


def test_nothing_that_a_terminal_obeys_is_in_a_verdict() -> None:
    noise = "\x1b[2J\x1b]0;title\x07\x9b2J\r"
    shown = replace(GOOD, stdout=STDOUT.replace("ok 1 odirect.rd-mprotect", f"not ok 1 other{noise}"))
    lost = replace(GOOD, ended=Ended.HANG, console=CONSOLE + noise)
    for verdict in (*judge(shown), *judge(lost)):
        assert not set(verdict.name + verdict.reason + verdict.evidence) & set("\x1b\x07\x9b\r")


def test_taint_of_an_earlier_test_is_not_counted_again() -> None:
    assert status_of(replace(GOOD, taint_before=1 << 9, taint_after=1 << 9)) is Status.PASS


def test_a_subtest_without_a_result_is_told_by_name() -> None:
    whole = replace(PAIRED, stdout=PAIR)
    assert [(v.name, v.status) for v in judge(whole)] == [(name, Status.PASS) for name in NAMES]
    cut = replace(whole, stdout=PAIR[: PAIR.index("ok 2")], ended=Ended.RESET, exit_status=None)
    assert [(v.name, v.status) for v in judge(cut)] == [(name, Status.CRASH) for name in NAMES]
    mute = replace(whole, stdout=PAIR[: PAIR.index("ok 2")])
    assert {v.status for v in judge(mute)} == {Status.BROKEN}


_WORDS = st.text(
    st.characters(codec="utf-8", exclude_characters="\n\r\0", exclude_categories=["C"]), max_size=30
)


@st.composite
def passing_runs(draw: st.DrawFn) -> TrialResult:
    """What a test that passes leaves: diagnostics and rates in its stream, a kernel that talks meanwhile."""
    test = draw(st.sampled_from([GOOD.test, "fork.basic-cow"]))
    names = SUBTESTS[test]
    lines = ["KTAP version 1", f"1..{len(names)}"]
    for number, name in enumerate(names, 1):
        lines += [f"# {text}" for text in draw(st.lists(_WORDS, max_size=3))]
        lines += draw(st.sampled_from([[], ["# rate: 0 of 300 tries"]]))
        lines.append(f"ok {number} {name}")
    talk = draw(st.lists(st.sampled_from(["random: crng init done", "EXT4-fs (vdb): mounted"]), max_size=3))
    told = [f"cowbell: begin {test}", *talk, f"cowbell: end {test}"]
    console = "".join(f"[    2.{number:06}] {text}\n" for number, text in enumerate(told))
    return replace(GOOD, test=test, stdout="\n".join(lines) + "\n", console=console)


@given(passing_runs(), st.data())
def test_no_prefix_of_a_passing_run_passes(run: TrialResult, data: st.DataObject) -> None:
    def passed(result: TrialResult) -> list[str]:
        return [verdict.name for verdict in judge(result) if verdict.status is Status.PASS]

    assert tuple(passed(run)) == SUBTESTS[run.test]
    stdout = run.stdout[: data.draw(st.integers(0, len(run.stdout) - 1))]
    # a log that shows the end's marker whole has lost nothing but the end of that line
    console = run.console[: data.draw(st.integers(0, len(run.console) - 2))]
    assert not passed(replace(run, stdout=stdout))
    assert not passed(replace(run, console=console))
    assert not passed(replace(run, stdout=stdout, console=console, exit_status=None, ended=Ended.RESET))


@given(st.text(), st.integers(-1, 5))
def test_no_noise_passes(stdout: str, exit_status: int) -> None:
    (verdict, *_) = judge(replace(GOOD, stdout=stdout, exit_status=exit_status))
    assert verdict.status is Status.BROKEN


@pytest.mark.parametrize(
    ("result", "expected", "status"),
    [
        (FAILED, Status.FAIL, Status.XFAIL),
        (GOOD, Status.FAIL, Status.XPASS),
        (replace(GOOD, console=CONSOLE + WARNING), Status.FAIL, Status.CRASH),
        (replace(GOOD, stdout=""), Status.FAIL, Status.BROKEN),
        (replace(GOOD, ended=Ended.TIMEOUT, exit_status=None), Status.FAIL, Status.TIMEOUT),
        (replace(GOOD, ended=Ended.TIMEOUT, exit_status=None), Status.TIMEOUT, Status.XFAIL),
    ],
)
def test_expectations(result: TrialResult, expected: Status, status: Status) -> None:
    (verdict,) = judge(result, expect=(Expected("odirect.*", expected, "known"),))
    assert (verdict.status, verdict.why_expected) == (status, "known")
    assert verdict.status.is_bad is (status is not Status.XFAIL)


def test_expectation_names_a_subtest_literally() -> None:
    expect = (
        Expected("fork.basic-cow[state=thp]", Status.FAIL, "one"),
        Expected("fork.*", Status.CRASH, "all"),
    )
    thp = find_expected(expect, "fork.basic-cow", "fork.basic-cow[state=thp]")
    small = find_expected(expect, "fork.basic-cow", "fork.basic-cow[state=small]")
    assert thp and thp.why == "one"
    assert small and small.why == "all"
    assert find_expected(expect, "forks.x", "forks.x") is None
    first, second = judge(replace(PAIRED, stdout=PAIR), expect=expect[:1])
    assert (first.status, first.expected, first.why_expected) == (Status.PASS, Status.PASS, "")
    assert (second.status, second.expected, second.why_expected) == (Status.XPASS, Status.FAIL, "one")


def test_verdicts_of_tests_that_were_not_run() -> None:
    failure = Failure("build", "the kernel does not build", "", "mm/memory.c:1: error", "")
    (broken,) = judge(tests={"a.b": ("a.b[x=1]",)}, failure=failure)
    assert (broken.status, broken.stage) == (Status.BROKEN, "build")
    (crash,) = judge(tests={"a.b": ("a.b[x=1]",)}, failure=replace(failure, stage="boot"))
    assert crash.status is Status.CRASH
    # the guest does not match its row
    (other,) = judge(tests={"a.b": ("a.b[x=1]",)}, failure=replace(failure, stage="setup"))
    assert other.status is Status.BROKEN
    assert judge(tests={"a.b": ("a.b[x=1]",)}, left_out="the series is for others") == []
    (lost,) = judge(tests={"a.b": ("a.b[x=1]",)})
    assert (lost.status, lost.reason) == (Status.BROKEN, "was not run")


def test_a_test_that_was_not_run_has_a_verdict_for_each_subtest() -> None:
    failure = Failure("build", "the kernel does not build", "", "mm/memory.c:1: error", "")
    found = judge(tests={"fork.basic-cow": NAMES, "selftests/mm/cow": ()}, failure=failure)
    assert [verdict.name for verdict in found] == [*NAMES, "selftests/mm/cow"]
    for verdict in found:
        assert verdict.reason == "build: the kernel does not build"
        assert verdict.evidence == "mm/memory.c:1: error"
        assert (verdict.trials, verdict.duration_s, verdict.interval) == (0, 0, None)


UNFINISHED = Failure("boot", "the kernel hangs", "", "the last line", "", (GOOD.test,))


def test_a_trial_that_could_not_be_run_is_the_next_one() -> None:
    (verdict,) = judge(GOOD, replace(GOOD, trial=2), failure=UNFINISHED)
    assert (verdict.status, verdict.stage) == (Status.CRASH, "boot")
    assert (verdict.trial, verdict.trials) == (3, 2)
    assert verdict.reason == "boot, for trial 3: the kernel hangs; before: the read is whole"
    assert verdict.evidence == "the last line"
    (silent,) = judge(replace(GOOD, stdout=STDOUT.replace("# the read is whole\n", "")), failure=UNFINISHED)
    assert silent.reason == "boot, for trial 2: the kernel hangs"


@pytest.mark.parametrize(
    ("change", "stage", "status"),
    [
        # as bad as the trials before, or better
        ({"console": CONSOLE + WARNING}, "boot", Status.CRASH),
        ({"stdout": STDOUT.replace("ok 1", "not ok 1"), "exit_status": 1}, "build", Status.FAIL),
        ({"stdout": ""}, "build", Status.BROKEN),
    ],
)
def test_a_trial_that_could_not_be_run_hides_no_result(
    change: dict[str, object], stage: str, status: Status
) -> None:
    result = replace(GOOD, **change)  # type: ignore[arg-type]
    (alone,) = judge(result)
    assert judge(result, failure=replace(UNFINISHED, stage=stage)) == [alone]
    assert (alone.status, alone.stage, alone.trial) == (status, "run", 1)


def test_a_failure_after_the_last_trial_changes_no_verdict() -> None:
    assert judge(GOOD, failure=replace(UNFINISHED, unfinished=())) == judge(GOOD)
    assert judge(GOOD, failure=replace(UNFINISHED, unfinished=("fork.basic-cow",))) == judge(GOOD)


def test_a_verdict_says_how_long_and_how_often_it_was_run() -> None:
    trials = [replace(GOOD, trial=number, duration_s=number / 2) for number in (1, 2, 3)]
    (verdict,) = judge(*trials, races=(GOOD.test,))
    assert (verdict.duration_s, verdict.trials, verdict.trial) == (3.0, 3, 1)
    assert verdict.rate == Rate(0, 3)
    assert verdict.interval == find_interval(Rate(0, 3))
    (deterministic,) = judge(*trials)
    assert (deterministic.rate, deterministic.interval) == (None, None)


def test_is_conclusive() -> None:
    assert is_conclusive(GOOD, (GOOD.test,))
    assert is_conclusive(FAILED, (GOOD.test,))
    assert not is_conclusive(replace(GOOD, stdout=""), (GOOD.test,))
    # its stream is whole, and is not that of the declared subtests
    assert not is_conclusive(replace(PAIRED, stdout=STDOUT), NAMES)


def test_output_that_was_cut_names_the_limit() -> None:
    """The rest of the results is missing for that reason."""
    buffer = bytearray()
    for _ in range(3):
        _keep(buffer, b"# a line\n" * 50_000)
    assert not _decode(bytearray(b"x" * (1 << 20))).endswith(CUT)
    (verdict,) = judge(replace(GOOD, stdout=GOOD.stdout.splitlines()[0] + "\n1..1\n" + _decode(buffer)))
    assert verdict.status is Status.BROKEN
    assert verdict.reason.startswith("the output after 1 MiB was dropped; ")
