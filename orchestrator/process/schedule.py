# SPDX-License-Identifier: GPL-2.0-or-later
"""Decides which task starts next, and which request for cores and memory is granted; has no clock and no I/O.

The pool of workers and the model in ``tests/schedulemodel.py`` share these decisions.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

# builds of different groups that share the cores: one alone leaves them idle while the linker runs, and more
# delay the group with the most builds, which go one after another
MOST_BUILDS = 2
# memory of QEMU in addition to that of its guest
_QEMU_MIB = 200


class Cores(Protocol):
    """The cores that are shared with compilers, and with other jobs of a make if they are inherited."""

    cores: int
    is_inherited: bool

    def try_take(self, count: int) -> bool:
        """Take ``count`` cores if all of them are free, or none."""

    def give(self, count: int) -> None:
        """Give back cores that were taken."""


class Work(Protocol):
    """A task, as far as its order depends on it.

    Only one task of a ``group`` prepares at a time; without a group it need not prepare. Tasks of the same
    ``product`` need only one of them to make it. ``expected_s`` is the time after that, None if unknown.
    """

    @property
    def group(self) -> str: ...

    @property
    def product(self) -> str: ...

    @property
    def expected_s(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class ResourceRequest:
    """A request of a task: for a guest if it has ``cpus``, otherwise for a build."""

    cpus: int
    memory_mib: int


@dataclass(slots=True)
class _Share:
    """What a running task holds."""

    is_preparing: bool
    cores: int = 0
    memory_mib: int = 0


class Schedule:
    """The state of all tasks, which are called by their number. Without ``cores`` one runs at a time."""

    def __init__(self, tasks: Sequence[Work], cores: Cores | None, memory_mib: int) -> None:
        self._tasks, self._cores, self._memory_mib = tasks, cores, memory_mib
        self.pending = sort_tasks(tasks) if cores else list(range(len(tasks)))
        self.active: dict[int, _Share] = {}
        self._waiting: deque[tuple[int, ResourceRequest]] = deque()
        self._made: set[str] = set()
        # cores that the first waiting task has got so far
        self._reserved = 0

    def start_next(self) -> int | None:
        """Start the first task that may start now; None if there is none."""
        number = min(self._list_startable(), key=self._rank, default=None)
        if number is not None:
            self.pending.remove(number)
            task = self._tasks[number]
            self.active[number] = _Share(bool(task.group) and task.product not in self._made)
        return number

    def _list_startable(self) -> Iterator[int]:
        # more tasks would only wait
        if len(self.active) >= (2 * self._cores.cores if self._cores else 1):
            return
        preparing = [number for number, share in self.active.items() if share.is_preparing]
        busy = {self._tasks[number].group for number in preparing}
        is_full = sum(map(self._is_build, preparing)) >= MOST_BUILDS
        for number in self.pending:
            task = self._tasks[number]
            may_prepare = task.group not in busy and not (is_full and self._is_build(number))
            if may_prepare or task.product in self._made:
                yield number

    def _is_build(self, number: int) -> bool:
        task = self._tasks[number]
        return bool(task.group and task.product) and task.product not in self._made

    def _rank(self, number: int) -> int:
        """What builds nothing goes first, then the group that still has to make the most products."""
        if not self._is_build(number):
            return -len(self._tasks)
        group = self._tasks[number].group
        others = (self._tasks[other] for other in self.pending)
        return -len({task.product for task in others if task.group == group} - self._made)

    def request(self, number: int, request: ResourceRequest) -> None:
        """A task waits for cores. One that requests a guest has made its product."""
        share = self.active[number]
        if request.cpus and share.is_preparing:
            share.is_preparing = False
            if product := self._tasks[number].product:
                self._made.add(product)
        self._waiting.append((number, request))

    def grant_next(self, *, is_loaded: bool = False) -> int | None:
        """Grant the first request if that is possible; a large one is not overtaken by smaller ones."""
        if not self._waiting:
            return None
        number, request = self._waiting[0]
        assert self._cores
        used = sum(share.memory_mib for share in self.active.values())
        memory_mib = request.memory_mib + _QEMU_MIB if request.cpus else 0
        # a guest that is larger than the host runs alone
        if memory_mib and used and used + memory_mib > self._memory_mib:
            return None
        held = sum(share.cores for share in self.active.values())
        if held and is_loaded:
            return None
        cores = max(1, min(request.cpus, self._cores.cores))
        # while a build or a guest holds one of these cores, compilers may use the others
        if cores > self._cores.cores - held:
            return None
        # compilers hardly ever leave all of them free at the same time; but two that each keep some of an
        # inherited jobserver's could wait for each other
        step = cores if self._cores.is_inherited else 1
        while self._reserved < cores:
            if not self._cores.try_take(step):
                return None
            self._reserved += step
        self._waiting.popleft()
        self._reserved = 0
        share = self.active[number]
        share.cores, share.memory_mib = cores, memory_mib
        return number

    def give_back(self, number: int) -> None:
        """A task needs what it holds no longer."""
        share = self.active[number]
        if share.cores:
            assert self._cores
            self._cores.give(share.cores)
        share.cores = share.memory_mib = 0

    def finish(self, number: int) -> None:
        """A task has ended; if that is told again, nothing is done."""
        if number not in self.active:
            return
        self.give_back(number)
        if self._waiting and self._waiting[0][0] == number and self._reserved:
            assert self._cores
            self._cores.give(self._reserved)
            self._reserved = 0
        self._waiting = deque(entry for entry in self._waiting if entry[0] != number)
        del self.active[number]


def sort_tasks(tasks: Sequence[Work]) -> list[int]:
    """The numbers of the tasks: the longest first, and those of unknown duration before them.

    What remains to be done when a product is there decides when it is made: that of the longest task first.
    """

    def measure(number: int) -> float:
        expected_s = tasks[number].expected_s
        return math.inf if expected_s is None else expected_s

    longest: dict[str, float] = {}
    first: dict[str, int] = {}
    names = [task.product or f"task {number}" for number, task in enumerate(tasks)]
    for number, name in enumerate(names):
        longest[name] = max(longest.get(name, 0.0), measure(number))
        first.setdefault(name, number)

    def key(number: int) -> tuple[float, int, float]:
        name = names[number]
        return -longest[name], first[name], -measure(number)

    return sorted(range(len(tasks)), key=key)
