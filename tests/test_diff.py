# SPDX-License-Identifier: GPL-2.0-or-later
"""What changed between two sides: which group a change belongs to, and what a side is."""

from dataclasses import replace

import pytest

from orchestrator.errors import UsageError
from orchestrator.history.database import open_history
from orchestrator.history.diff import Change, Difference, Side, compare, find_sides, render
from orchestrator.history.entry import Entry, make_entries
from orchestrator.result.record import Failure
from orchestrator.status import Status
from orchestrator.store.store import Store
from tests.conftest import cowbell
from tests.records import FAILED_RESULT, JOB, RESULT, store_result, store_run
from tests.schema import read_product

(PLAIN,) = make_entries(JOB, RESULT)
PASS, FAIL, CRASH, TIMEOUT = Status.PASS, Status.FAIL, Status.CRASH, Status.TIMEOUT
SKIP, BROKEN, XFAIL = Status.SKIP, Status.BROKEN, Status.XFAIL


def side(*entries: Entry, is_kernel: bool = False) -> Side:
    return Side("side", (replace(PLAIN, name="anchor", test="anchor"), *entries), is_kernel)


def find_groups(found: Difference) -> dict[str, list[str]]:
    groups = ("broken", "fixed", "changed", "new", "gone", "slower")
    return {name: [change.name for change in getattr(found, name)] for name in groups if getattr(found, name)}


@pytest.mark.parametrize(
    ("was", "is_", "group"),
    [
        (PASS, FAIL, "broken"), (PASS, CRASH, "broken"), (PASS, TIMEOUT, "broken"), (PASS, BROKEN, "broken"),
        (FAIL, CRASH, "broken"), (TIMEOUT, CRASH, "broken"), (PASS, XFAIL, "broken"),
        (FAIL, PASS, "fixed"), (CRASH, PASS, "fixed"), (TIMEOUT, PASS, "fixed"), (XFAIL, PASS, "fixed"),
        (CRASH, FAIL, "changed"), (FAIL, TIMEOUT, "changed"),
        (None, PASS, "new"), (None, FAIL, "new"), (SKIP, PASS, "new"), (BROKEN, FAIL, "new"),
        (PASS, None, "gone"), (PASS, SKIP, "gone"), (FAIL, BROKEN, "gone"), (CRASH, None, "gone"),
        (PASS, PASS, ""), (FAIL, FAIL, ""), (SKIP, SKIP, ""), (SKIP, BROKEN, ""), (None, SKIP, ""),
    ],
)  # fmt: skip
def test_diff_groups_tests_by_their_outcomes(was: Status | None, is_: Status | None, group: str) -> None:
    before, after = (side(*([replace(PLAIN, raw=raw)] if raw else [])) for raw in (was, is_))
    found = compare(before, after)
    assert find_groups(found) == ({group: [PLAIN.name]} if group else {})
    # the one that both have besides, and this one where it gave the same answer
    assert found.unchanged == 1 + (was is is_ and was is not SKIP)


def test_the_last_outcome_counts_and_of_its_trials_the_worst() -> None:
    earlier = [replace(PLAIN, raw=FAIL)]
    trials = [replace(PLAIN, raw=raw, trial=number) for number, raw in enumerate((PASS, FAIL, PASS), 1)]
    assert find_groups(compare(side(*earlier), side(PLAIN))) == {"fixed": [PLAIN.name]}
    assert find_groups(compare(side(PLAIN), side(*trials))) == {"broken": [PLAIN.name]}
    assert find_groups(compare(side(PLAIN), side(*trials, PLAIN))) == {}


@pytest.mark.parametrize(
    ("was", "is_", "is_slower"),
    [
        ((1.0,), (2.6,), True),
        ((1.0,), (1.9,), False),
        ((10.0,), (14.0,), False),
        ((0.1,), (0.9,), False),
        ((1.0, 1.0, 90.0), (3.0,), True),
        ((3.0,), (1.0,), False),
    ],
)
def test_slower_is_by_both_and_of_the_median(
    was: tuple[float, ...], is_: tuple[float, ...], is_slower: bool
) -> None:
    before, after = (side(*(replace(PLAIN, duration_s=each) for each in times)) for times in (was, is_))
    found = compare(before, after)
    assert find_groups(found) == ({"slower": [PLAIN.test]} if is_slower else {})


def test_other_accelerators_have_other_clocks() -> None:
    slow = replace(PLAIN, duration_s=60.0)
    assert not compare(side(replace(PLAIN, accel="kvm")), side(slow)).slower
    assert compare(side(PLAIN), side(slow)).slower


def test_a_slower_test_is_told_once() -> None:
    names = ("one", "two")
    before = side(*(replace(PLAIN, name=name) for name in names))
    after = side(*(replace(PLAIN, name=name, duration_s=9.0) for name in names))
    assert compare(before, after).slower == (Change("demo", "plain", PLAIN.test, "0.5 s", "9.0 s"),)


def test_kernels_are_compared_by_series() -> None:
    other = replace(PLAIN, variant="another name", kernel="6.12", raw=FAIL)
    fixed = replace(PLAIN, variant="cow", series="cow", kernel="6.12")
    found = compare(side(PLAIN, is_kernel=True), side(other, fixed, is_kernel=True))
    assert find_groups(found) == {"broken": [PLAIN.name], "new": [PLAIN.name]}
    assert [change.variant for change in (*found.broken, *found.new)] == ["plain", "cow"]


def test_nothing_in_common_says_nothing() -> None:
    with pytest.raises(UsageError, match="have no subtest of one row and variant in common"):
        compare(Side("a", (PLAIN,)), Side("b", (replace(PLAIN, row="numa"),)))


def test_render_lists_broken_tests_last() -> None:
    gone = [replace(PLAIN, name=f"gone-{number}", variant="cow") for number in range(12)]
    shown = render(
        compare(side(PLAIN, *gone), side(replace(PLAIN, raw=FAIL, expected=PASS, reason="it is lost")))
    )
    assert shown == (
        "gone: 12\n  demo/cow  12 subtests; --json lists them\n\n"
        "broken: 1\n  demo/plain  odirect.rd-mprotect  PASS (expected to fail) -> FAIL  it is lost\n\n"
        "side -> side: 1 broken, 0 fixed, 0 changed, 0 new, 12 gone, 0 slower, 1 unchanged\n"
    )


def test_sides_are_runs_kernels_and_dates(store: Store) -> None:
    store_result(store, RESULT)
    store_result(store, FAILED_RESULT, replace(JOB, version="6.12.3", tree="debian-image-6.12:6.12.3-1"))
    run = store_run(
        store, 1, replace(JOB, results=(RESULT,), failure=Failure("boot", "it panics", "", "", ""))
    )
    with open_history(store, pytest.fail) as db:

        def count(word: str) -> int:
            return len(find_sides(db, store, (word, word))[0].entries)

        words = {
            run.run_id: 3, "6.1": 3, "debian-image-6.12": 1, "debian-image-6.12:6.12.3-1": 1, "6": 4,
            "2024-05-01": 1, "2024-05-01..": 4, "2024-05-02..": 3,
            "..2024-05-01": 1, "2024-05-01..2024-05-02": 2, "2024-05-01T10": 1, "..": 4,
        }  # fmt: skip
        assert {word: count(word) for word in words} == words
        with pytest.raises(ExceptionGroup) as caught:
            find_sides(db, store, ("2023-01-01", "../runs/" + run.run_id))
        with pytest.raises(UsageError, match="takes two"):
            find_sides(db, store, ("6.1",))
    assert [str(error).partition("\n")[0] for error in caught.value.exceptions] == [
        "2023-01-01: there are no results of such a run, kernel or date",
        f"../runs/{run.run_id}: there are no results of such a run, kernel or date"
        f"; did you mean {run.run_id}?",
    ]


def test_the_command_fails_when_something_broke(store: Store) -> None:
    store_result(store, RESULT)
    store_result(store, FAILED_RESULT, replace(JOB, version="6.12.3"))
    done = cowbell("diff", "6.1", "6.12", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    product = read_product(done.stdout)
    assert [change["name"] for change in product["broken"]] == [RESULT.test]
    done = cowbell("diff", "6.12", "6.1")
    assert done.returncode == 0
    assert done.stdout.endswith("0 broken, 1 fixed, 0 changed, 0 new, 0 gone, 0 slower, 0 unchanged\n")
    done = cowbell("diff", "6.12", "6.13")
    assert done.returncode == 2
