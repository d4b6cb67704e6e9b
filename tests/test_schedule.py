# SPDX-License-Identifier: GPL-2.0-or-later
"""Which task starts and which one gets cores: rule by rule, and by the model for all rows on many cores."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest

from orchestrator.process.schedule import MOST_BUILDS, ResourceRequest, Schedule, sort_tasks
from tests.conftest import ROOT
from tests.schedulemodel import ModelCores, ModelTask, Span, find_bound, simulate

BUILD, GUEST = ResourceRequest(0, 0), ResourceRequest(2, 64)


def make_task(name: str, group: str, product: str, guest_s: float = 10.0) -> ModelTask:
    return ModelTask(name, group, product, product, 100.0, 5.0, 5.0, guest_s)


@pytest.fixture(scope="module")
def rows() -> list[ModelTask]:
    """The jobs of ``ci/matrix.yaml``, with step times of a store."""
    return [ModelTask(**fields) for fields in json.loads((ROOT / "tests/steptimes.json").read_text())]


def start_all(schedule: Schedule) -> list[int]:
    return list(iter(schedule.start_next, None))


def test_the_longest_goes_first_with_those_that_share_its_kernel() -> None:
    tasks = [
        make_task("short", "tree", "one", 1),
        make_task("long", "tree", "two", 9),
        make_task("middle", "tree", "three", 5),
        make_task("shared", "tree", "two", 2),
    ]
    assert [tasks[n].name for n in sort_tasks(tasks)] == ["long", "shared", "middle", "short"]


def test_a_kernel_that_is_there_is_not_waited_for() -> None:
    tasks = [
        make_task(*words) for words in (("a", "t", "k1", 9.0), ("b", "t", "k2", 8.0), ("c", "t", "k1", 1.0))
    ]
    schedule = Schedule(tasks, ModelCores(8), 4096)
    assert start_all(schedule) == [0]
    schedule.request(0, BUILD)
    assert schedule.grant_next() == 0
    assert start_all(schedule) == [], "it would build the same kernel, or wait for the worktree"
    schedule.give_back(0)
    schedule.request(0, GUEST)
    assert sorted(start_all(schedule)) == [1, 2]


def test_the_tree_with_the_most_kernels_is_not_delayed_by_others() -> None:
    few = [make_task(f"few {n}", f"tree {n}", f"other {n}", 99.0) for n in range(5)]
    many = [make_task(f"many {n}", "tree", f"kernel {n}") for n in range(4)]
    schedule = Schedule([*few, *many], ModelCores(64), 4096)
    started = start_all(schedule)
    assert len(started) == MOST_BUILDS
    assert started[0] == len(few)


def test_a_guest_gets_cores_beside_a_compiler_that_leaves_one_at_a_time() -> None:
    class Busy(ModelCores):
        """One core is free at a time, and the compilers take it again if nobody keeps it."""

        def try_take(self, count: int) -> bool:
            return count == 1 and next(free) and super().try_take(count)

    free = iter((True, True, False, True))
    schedule = Schedule([make_task("a", "t", "k1"), make_task("b", "u", "k2")], Busy(4), 4096)
    assert start_all(schedule) == [0, 1]
    schedule.request(0, BUILD)
    assert schedule.grant_next() == 0
    schedule.request(1, GUEST)
    assert schedule.grant_next() is None
    assert schedule.grant_next() == 1


def test_cores_of_an_outer_make_are_not_kept_while_waiting() -> None:
    cores = ModelCores(4, is_inherited=True, taken=3)
    schedule = Schedule([make_task("a", "t", "k1")], cores, 4096)
    assert start_all(schedule) == [0]
    schedule.request(0, GUEST)
    assert schedule.grant_next() is None
    assert cores.taken == 3
    cores.give(1)
    assert schedule.grant_next() == 0


def test_a_task_that_ends_while_it_waits_gives_back_what_it_got() -> None:
    cores = ModelCores(2, taken=1)
    schedule = Schedule([make_task("a", "t", "k1")], cores, 4096)
    assert start_all(schedule) == [0]
    schedule.request(0, GUEST)
    assert schedule.grant_next() is None
    assert cores.taken == 2
    schedule.finish(0)
    assert cores.taken == 1
    assert not schedule.active


@pytest.mark.parametrize(("cores", "over"), [(2, 0.1), (4, 0.1), (16, 0.1), (32, 0.1), (64, 0.2)])
def test_all_rows_end_near_the_bound(rows: list[ModelTask], cores: int, over: float) -> None:
    """On 64 cores the builds of one tree, one after another, leave most of them to the linker."""
    outcome, bound_s = simulate(rows, cores, cores * 4096), find_bound(rows, cores)
    assert bound_s <= outcome.makespan_s <= bound_s * (1 + over)
    assert 1 / (1 + over) - 0.01 <= outcome.utilisation <= 1


@pytest.mark.parametrize("cores", [1, 2, 5, 64])
def test_the_model_does_each_step_once_and_keeps_the_rules(rows: list[ModelTask], cores: int) -> None:
    outcome = simulate(rows, cores, cores * 2048)
    by_name = {task.name: task for task in rows}
    guests = [span for span in outcome.spans if span.stage == "guest"]
    builds = [span for span in outcome.spans if span.stage == "build"]
    assert sorted(span.name for span in guests) == sorted(by_name)
    assert sorted(by_name[span.name].product for span in builds if by_name[span.name].group) == sorted(
        {task.product for task in rows if task.group}
    )
    for group in {task.group for task in rows} - {""}:
        own = sorted((span for span in builds if by_name[span.name].group == group), key=_began)
        assert all(one.ended_s <= other.began_s + 1e-6 for one, other in pairwise(own)), group
    for span in guests:
        used = sum(
            min(by_name[other.name].cpus, cores)
            for other in guests
            if other.began_s <= span.began_s < other.ended_s - 1e-6
        )
        assert used <= cores


def test_the_bound_holds_for_one_task() -> None:
    """A build of 100 s of one core, the linker's 5 s, and a guest of 10 s."""
    task = make_task("a", "t", "k")
    assert simulate([task], 4, 4096).makespan_s == pytest.approx(100 / 4 + 5 + 10)
    assert find_bound([task], 4) == pytest.approx(100 / 4 + 5 + 10)
    shared = [task, replace(task, name="b")]
    assert simulate(shared, 4, 4096).makespan_s == pytest.approx(100 / 4 + 5 + 10)


def _began(span: Span) -> float:
    return span.began_s
