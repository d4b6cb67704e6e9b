# SPDX-License-Identifier: GPL-2.0-or-later
"""How often a test is run: counted, until a question is answered, in turns."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cli.variables import read_repeat
from orchestrator.report.page import render_html
from orchestrator.report.report import Judged, list_explanations
from orchestrator.result.record import JobRecord, RunRecord, TargetRate, TrialResult
from orchestrator.result.repeat import AUTO, Repeat
from orchestrator.result.stored import find_results, keep_result
from orchestrator.result.verdict import judge_job
from orchestrator.status import Status
from tests.conftest import cowbell
from tests.samples import BROKEN, DETERMINISTIC, FAILED, GOOD, RACE, WARNING, make_rated


def judge(
    *results: TrialResult, is_race: bool = True, target_rates: dict[str, TargetRate] | None = None
) -> tuple[Status, str]:
    job = JobRecord(
        row="row", variant="plain", arch="x86_64", tree="tree", series="", tests={GOOD.test: (GOOD.test,)},
        races=(GOOD.test,) if is_race else (), target_rates=target_rates or {}, results=results,
    )  # fmt: skip
    (verdict,) = judge_job(job)
    return verdict.raw, verdict.reason


def test_a_counted_test_is_run_that_often() -> None:
    for test in (RACE, DETERMINISTIC):
        assert [Repeat(3).wants_more(test, [GOOD] * n) for n in range(5)] == [True, True, True, False, False]


@pytest.mark.parametrize("name", [GOOD.test, "selftests/mm/cow"])
def test_a_new_result_replaces_all_trials_of_an_earlier_run(tmp_path: Path, name: str) -> None:
    """Also of the kernel's own tests, whose names have a folder; another machine's result is not ours."""
    test = replace(DETERMINISTIC, id=name)
    stdout = GOOD.stdout.replace(GOOD.test, name)
    result = replace(GOOD, test=name, content_id="0" * 16, stdout=stdout)
    result = replace(result, console=GOOD.console.replace(GOOD.test, name))
    for trial in range(1, 12):
        keep_result(tmp_path, replace(result, trial=trial, host="before"))
    theirs = tmp_path / f"{name}.{'0' * 12}.{'f' * 12}.json"
    theirs.write_text("{}")
    assert len(find_results(tmp_path, test, "0" * 16, ())) == 11
    keep_result(tmp_path, replace(result, host="now"))
    (found,) = find_results(tmp_path, test, "0" * 16, ())
    assert found.host == "now"
    assert theirs.exists()


def test_a_kill_while_a_result_is_replaced_mixes_no_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second one that stayed would be taken for the new first one's successor."""
    old = [replace(GOOD, trial=trial) for trial in (1, 2, 3)]
    for result in old:
        keep_result(tmp_path, result)
    unlink, gone = Path.unlink, list[Path]()

    def unlink_one(path: Path) -> None:
        if gone:
            raise KeyboardInterrupt
        gone.append(path)
        unlink(path)

    monkeypatch.setattr(Path, "unlink", unlink_one)
    with pytest.raises(KeyboardInterrupt):
        keep_result(tmp_path, replace(GOOD, host="now"))
    assert find_results(tmp_path, DETERMINISTIC, GOOD.content_id, ()) == old[:2]


def test_auto_runs_what_is_deterministic_once() -> None:
    assert [Repeat(AUTO).wants_more(DETERMINISTIC, [GOOD] * n) for n in range(3)] == [True, False, False]


def test_auto_stops_at_the_first_failure_and_when_misses_are_enough() -> None:
    auto = Repeat(AUTO, {GOOD.test: TargetRate(0.01, "known")})
    assert auto.wants_more(RACE, [make_rated(0, 200)])
    assert not auto.wants_more(RACE, [make_rated(0, 200), make_rated(0, 99)])
    assert not auto.wants_more(RACE, [make_rated(0, 200), make_rated(1, 2)])
    # a kernel's complaint is a failure as well, trouble of the test's own is not to be had away by trying on
    assert not auto.wants_more(RACE, [make_rated(0, 2, console=GOOD.console + WARNING)])
    assert not auto.wants_more(RACE, [BROKEN])


def test_auto_counts_trials_where_no_tries_are_reported() -> None:
    auto = Repeat(AUTO, {GOOD.test: TargetRate(0.2, "known")})
    wanted = [auto.wants_more(RACE, [GOOD] * n) for n in range(1, 16)]
    assert wanted.index(False) == 13


def test_only_auto_has_target_rates_and_only_for_races() -> None:
    other = replace(RACE, id="fork.basic-cow")
    known = TargetRate(0.2, "known")
    auto = Repeat(AUTO, {RACE.id: known})
    assert auto.list_target_rates([RACE, DETERMINISTIC]) == {RACE.id: known}
    assert auto.list_target_rates([DETERMINISTIC]) == {}
    assert auto.list_target_rates([other]) == {other.id: TargetRate(0.01, "the default")}
    assert replace(auto, count=3).list_target_rates([RACE]) == {}


def test_a_lower_risk_takes_more_tries() -> None:
    careful = {GOOD.test: TargetRate(0.5, "known", risk=0.01)}
    assert "inconclusive: 7 tries needed" in judge(make_rated(0, 6), target_rates=careful)[1]
    assert [Repeat(AUTO, careful).wants_more(RACE, [make_rated(0, n)]) for n in (5, 6, 7)] == [
        True,
        True,
        False,
    ]


def test_auto_gives_up_and_says_so() -> None:
    auto = Repeat(AUTO)
    assert auto.wants_more(RACE, [make_rated(0, 1)] * 99)
    assert not auto.wants_more(RACE, [make_rated(0, 1)] * 100)
    assert auto.wants_more(RACE, [make_rated(0, 1, duration_s=1800.0)])
    assert not auto.wants_more(RACE, [make_rated(0, 1, duration_s=1801.0)])
    status, reason = judge(make_rated(0, 100), target_rates=auto.list_target_rates([RACE]))
    assert status is Status.PASS
    assert reason == (
        "0 of 100: rate below 3 % with 95 % confidence; target rate 1 % (the default), "
        "inconclusive: 299 tries needed"
    )
    assert "inconclusive" not in judge(make_rated(0, 299), target_rates=auto.list_target_rates([RACE]))[1]


def test_a_trial_without_a_cpu_is_no_try_of_a_race() -> None:
    auto = Repeat(AUTO)
    rates = auto.list_target_rates([RACE])
    starved = make_rated(0, 299, duration_s=10.0, waited_s=8.0)
    busy = replace(starved, waited_s=5.0)
    assert auto.wants_more(RACE, [starved]) and not auto.wants_more(RACE, [busy])
    status, reason = judge(starved, target_rates=rates)
    assert status is Status.PASS
    assert "inconclusive: 299 tries needed, without those in which the host gave the guest no CPU" in reason
    assert judge(starved, make_rated(0, 1), target_rates=rates)[1].startswith("0 of 1: ")
    # a hit is one wherever it happens, and so is the rate of a run that must reach none
    assert judge(make_rated(1, 299, duration_s=10.0, waited_s=8.0), target_rates=rates)[0] is Status.FAIL
    assert judge(starved)[1].startswith("0 of 299: ")


def test_turns_are_rounds_of_twice_as_many_trials() -> None:
    assert [turn.limit for turn in Repeat(1).divide()] == [1]
    assert [turn.limit for turn in Repeat(10).divide()] == [1, 2, 4, 8, 10]
    assert [turn.limit for turn in Repeat(AUTO).divide()] == [1, 2, 4, 8, 16, 32, 64, 100]
    first, *_ = Repeat(10).divide()
    assert not first.wants_more(RACE, [GOOD])


def test_trials_add_up() -> None:
    assert (
        judge(make_rated(0, 100), make_rated(0, 200))[1] == "0 of 300: rate below 0.99 % with 95 % confidence"
    )
    status, reason = judge(make_rated(0, 100), make_rated(3, 200))
    assert status is Status.FAIL
    assert reason.startswith("1 of 2 trials: ")
    assert "3 of 300: rate 1 %" in reason
    assert judge(make_rated(5, 5))[1] == "5 of 5: rate 100 %, 48 % to 100 % with 95 % confidence"


def test_the_worst_trial_decides() -> None:
    crash = replace(GOOD, console=GOOD.console + WARNING)
    failed = make_rated(1, 1)
    assert judge(GOOD, BROKEN)[0] is Status.BROKEN
    assert judge(BROKEN, failed, GOOD)[0] is Status.FAIL
    assert judge(failed, BROKEN, crash)[0] is Status.CRASH
    assert judge(GOOD, GOOD, GOOD)[0] is Status.PASS


def test_a_race_that_tells_no_tries_has_its_trials() -> None:
    assert "0 of 3: rate below 63 %" in judge(GOOD, GOOD, GOOD)[1]
    # what says nothing is not a try
    assert "0 of 1: rate below 95 %" in judge(GOOD, BROKEN)[1]


def test_a_deterministic_test_that_goes_both_ways_says_how_often() -> None:
    status, reason = judge(GOOD, FAILED, GOOD, is_race=False)
    assert (status, reason.partition(":")[0]) == (Status.FAIL, "1 of 3 trials")


def test_what_is_no_rate_is_not_weighed() -> None:
    assert "confidence" not in judge(make_rated(5, 3))[1]
    assert "confidence" not in judge(make_rated(0, 0))[1]
    # it failed, and not in the way that it counts
    other = replace(make_rated(0, 300), exit_status=1)
    assert "confidence" not in judge(replace(other, stdout=other.stdout.replace("ok 1", "not ok 1")))[1]


def test_kernels_are_compared_by_their_rates() -> None:
    def make_job(variant: str, *results: TrialResult) -> JobRecord:
        return JobRecord("row", variant, "x86_64", "t", "", {GOOD.test: (GOOD.test,)}, results=results)

    run = RunRecord("row-1", "cowbell test", "2024-01-15T01:00:00+00:00", (
        make_job("plain", make_rated(56, 70)),
        make_job("cow", make_rated(8, 40, trial=1), make_rated(40, 40, trial=2)),
    ))  # fmt: skip
    told = dict(list_explanations(Judged(run)))
    assert (
        told[f"{GOOD.test}, plain less cow"] == "56 of 70 less 48 of 80: 5.2 % to 33 % with 95 % confidence"
    )
    assert "2 of 2" not in told[f"FAIL {GOOD.test} on cow"]
    told_by_kernel = GOOD.console.replace("cowbell: end", "only in the second\n[    2.100000] cowbell: end")
    second = make_rated(1, 2, trial=2, console=told_by_kernel)
    page = render_html(Judged(replace(run, jobs=(make_job("cow", GOOD, second, replace(GOOD, trial=3)),))))
    assert "only in the second" in page, "the trial that decides is the one that is shown"


@pytest.mark.parametrize("text", ["0", "-1", "ten", "1.5", "10001", "", "²"])
def test_other_counts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected auto, or a number"):
        read_repeat(text)


def test_a_wrong_count_is_reported() -> None:
    done = cowbell("-n", "REPEAT=often")
    assert (done.returncode, "REPEAT: expected auto, or a number" in done.stderr) == (2, True)
