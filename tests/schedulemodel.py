# SPDX-License-Identifier: GPL-2.0-or-later
"""A model of a command's builds and guests on any number of cores, without waiting: the clock is simulated.

Which task starts and who gets cores is decided by the code that decides it for the workers. Compilers use all
cores that nobody holds, shared equally; a build ends with a part that uses one core, as the linker does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.process.schedule import ResourceRequest, Schedule

_EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class ModelTask:
    """A job: it builds ``product`` in the worktree of ``group``, unless another one did, and runs a guest.

    The first build of a ``folder`` takes ``cold_s`` of one core, others ``warm_s``; ``serial_s`` follows.
    """

    name: str
    group: str
    product: str
    folder: str
    cold_s: float
    warm_s: float
    serial_s: float
    guest_s: float
    cpus: int = 2
    memory_mib: int = 1024

    @property
    def expected_s(self) -> float:
        return self.guest_s


@dataclass(slots=True)
class ModelCores:
    """The cores that tasks hold; compilers have the rest."""

    cores: int
    is_inherited: bool = False
    taken: int = 0

    def try_take(self, count: int) -> bool:
        if self.taken + count > self.cores:
            return False
        self.taken += count
        return True

    def give(self, count: int) -> None:
        self.taken -= count


@dataclass(frozen=True, slots=True)
class Span:
    """What a task did, and when."""

    name: str
    stage: str
    began_s: float
    ended_s: float


@dataclass(slots=True)
class _Running:
    stage: str
    parallel_s: float = 0.0
    serial_s: float = 0.0
    began_s: float = 0.0


@dataclass(slots=True)
class Outcome:
    """``makespan_s`` is the time until all is done, ``work_s`` what it took of one core."""

    cores: int
    makespan_s: float = 0.0
    work_s: float = 0.0
    spans: list[Span] = field(default_factory=list)

    @property
    def utilisation(self) -> float:
        return self.work_s / (self.cores * self.makespan_s)


def simulate(tasks: Sequence[ModelTask], count: int, memory_mib: int) -> Outcome:
    """Run all tasks on a host of ``count`` cores."""
    cores = ModelCores(count)
    schedule = Schedule(tasks, cores, memory_mib)
    running: dict[int, _Running] = {}
    built: set[str] = set()
    folders: set[str] = set()
    now, outcome = 0.0, Outcome(count)
    while schedule.pending or schedule.active:
        while (number := schedule.start_next()) is not None:
            is_built = tasks[number].product in built
            running[number] = _Running("guest" if is_built else "build")
            schedule.request(number, _make_request(tasks[number], running[number].stage))
        while (number := schedule.grant_next()) is not None:
            task, state = tasks[number], running[number]
            state.began_s = now
            if state.stage == "build":
                state.parallel_s = task.warm_s if task.folder in folders else task.cold_s
                state.serial_s = task.serial_s
                folders.add(task.folder)
                outcome.work_s += state.parallel_s + state.serial_s
            else:
                state.serial_s = task.guest_s
                outcome.work_s += task.guest_s * schedule.active[number].cores
        active = {number: running[number] for number, share in schedule.active.items() if share.cores}
        assert active, "no task can go on"
        makes = sum(state.parallel_s > 0 for state in active.values())
        rate = 1 + (count - cores.taken) / makes if makes else 1.0
        step = min(
            state.parallel_s / rate if state.parallel_s > 0 else state.serial_s for state in active.values()
        )
        now += step
        for number, state in active.items():
            if state.parallel_s > 0:
                state.parallel_s = _reduce(state.parallel_s, step * rate)
                continue
            state.serial_s = _reduce(state.serial_s, step)
            if state.serial_s or state.parallel_s:
                continue
            task = tasks[number]
            outcome.spans.append(Span(task.name, state.stage, state.began_s, now))
            if state.stage == "build":
                built.add(task.product)
                schedule.give_back(number)
                running[number] = _Running("guest")
                schedule.request(number, _make_request(task, "guest"))
            else:
                schedule.finish(number)
    outcome.makespan_s = now
    return outcome


def _reduce(left: float, done: float) -> float:
    return max(0.0, left - done) if left - done > _EPSILON else 0.0


def _make_request(task: ModelTask, stage: str) -> ResourceRequest:
    return ResourceRequest(task.cpus, task.memory_mib) if stage == "guest" else ResourceRequest(0, 0)


def find_bound(tasks: Sequence[ModelTask], cores: int) -> float:
    """The time that no order of the tasks can be below.

    It is the largest of: all work, divided by the cores; the builds of one worktree, one after another, with
    the guest that remains after each. The latter order is the best one: that of the longest guest first.
    """
    work = sum(task.guest_s * min(task.cpus, cores) for task in tasks)
    worst = 0.0
    # without a group each product is made by itself
    for group in {task.group or task.product for task in tasks}:
        longest: dict[str, ModelTask] = {}
        for task in tasks:
            known = longest.get(task.product)
            if (task.group or task.product) == group and (not known or task.guest_s > known.guest_s):
                longest[task.product] = task
        ordered = sorted(longest.values(), key=lambda task: -task.guest_s)
        last = {task.folder: number for number, task in enumerate(ordered)}
        ended_s = 0.0
        for number, task in enumerate(ordered):
            # wherever the first build of the folder is, it is not later than the last one
            build_s = task.cold_s if last[task.folder] == number else task.warm_s
            work += build_s + task.serial_s
            ended_s += build_s / cores + task.serial_s
            worst = max(worst, ended_s + task.guest_s)
    return max(worst, work / cores)


def render(outcome: Outcome, bound_s: float) -> str:
    """One line of figures."""
    over = outcome.makespan_s / bound_s - 1 if bound_s else math.inf
    return (
        f"{outcome.cores:3} cores {outcome.makespan_s:8.0f} s, bound {bound_s:8.0f} s, "
        f"{over:+7.1%}, utilisation {outcome.utilisation:6.1%}"
    )
