# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs tasks in worker processes that share one budget of cores and memory.

Results are returned in the order of the tasks. A worker requests cores and memory before it starts a compiler
or a guest, and waits until they are available. It dies with this process, its programs die with it, and its
resources are released. ``schedule`` decides which task starts and whose request is granted.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any, Generic, TypeVar

from orchestrator.errors import CowbellError, InfraError
from orchestrator.process.budget import WHOLE_HOST, Budget, MakeShare
from orchestrator.process.jobserver import Jobserver
from orchestrator.process.progress import Board
from orchestrator.process.schedule import ResourceRequest, Schedule
from orchestrator.status import Status

T = TypeVar("T")
_fork = multiprocessing.get_context("fork")
# time for workers to end cleanly after an interrupt
_GRACE_S = 2.5
_TICK_S = 0.25
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits for concurrent tasks.

    Without ``cores``, one task at a time uses the whole host. No task is started while the load average is
    above ``load``. With ``is_keeping_going``, tasks are started even after another one failed.
    """

    cores: Jobserver | None = None
    load: float | None = None
    is_keeping_going: bool = False


@dataclass(frozen=True, slots=True)
class Task(Generic[T]):
    """``call`` gets the progress board and the budget; its result must be picklable.

    ``expected_s`` is the duration of an earlier run. ``schedule`` explains the other fields.
    """

    name: str
    group: str
    call: Callable[[Board, Budget], T]
    expected_s: float | None = None
    product: str = ""


@dataclass(slots=True)
class _Worker(Generic[T]):
    task: Task[T]
    number: int
    process: ForkProcess
    connection: Connection
    expected_s: float | None = None
    expected_at: float = field(default_factory=time.monotonic)


def work(tasks: Sequence[Task[T]], limits: Limits, board: Board) -> list[T | None]:
    """Run all tasks. Returns their results in order, None for tasks that were not run.

    After an error no further task is started (unless ``is_keeping_going``), running tasks finish, and
    ``Stopped`` is raised with the results and the errors. After an interrupt, all workers end within three
    seconds.
    """
    pool = _Pool(tasks, limits, board)
    try:
        while pool.schedule.pending or pool.active:
            pool.start_tasks()
            pool.grant_requests()
            pool.handle_messages()
    finally:
        pool.end()
    if pool.errors:
        raise Stopped(pool.results, pool.errors)
    return pool.results


class Stopped(Exception):  # noqa: N818
    """Some tasks failed: the results of the others, and the errors, also the last one by task."""

    def __init__(self, results: Sequence[Any], errors: Sequence[tuple[str, CowbellError]]) -> None:
        super().__init__(f"{len(errors)} error(s)")
        self.results, self.errors = list(results), [error for _, error in errors]
        self.by_task = dict(errors)


class _Pool(Generic[T]):
    def __init__(self, tasks: Sequence[Task[T]], limits: Limits, board: Board) -> None:
        self.tasks, self.limits, self.board = tasks, limits, board
        self.schedule = Schedule(tasks, limits.cores, _read_available_mib())
        self.active: dict[int, _Worker[T]] = {}
        self.results: list[T | None] = [None] * len(tasks)
        # with the names of their tasks
        self.errors: list[tuple[str, CowbellError]] = []

    def start_tasks(self) -> None:
        """Start the tasks that may start now."""
        pending = self.schedule.pending
        if self.errors and not self.limits.is_keeping_going and pending:
            if self.active:
                self.board.note(f"{len(pending)} job(s) not started; waiting for the running ones")
            pending.clear()
        while not self._is_loaded and (number := self.schedule.start_next()) is not None:
            self.active[number] = self._start(number, self.tasks[number])

    @property
    def _is_loaded(self) -> bool:
        # like make -l: one job always runs
        return bool(self.active) and self.limits.load is not None and os.getloadavg()[0] > self.limits.load

    def _start(self, number: int, task: Task[T]) -> _Worker[T]:
        ours, theirs = _fork.Pipe()
        process = _fork.Process(target=_run, args=(task, theirs, self.limits.cores, os.getpid()))
        process.start()
        theirs.close()
        return _Worker(task, number, process, ours, expected_s=task.expected_s)

    def grant_requests(self) -> None:
        """Tell the workers whose requests can be granted now."""
        while (number := self.schedule.grant_next(is_loaded=self._is_loaded)) is not None:
            with contextlib.suppress(OSError):
                self.active[number].connection.send(None)

    def handle_messages(self) -> None:
        """Wait a moment for messages of the workers and handle them."""
        connections = {worker.connection: worker for worker in self.active.values()}
        for ready in wait(list(connections), _TICK_S):
            worker = connections[ready]  # type: ignore[index]
            try:
                kind, *args = worker.connection.recv()
            except (EOFError, OSError):
                worker.process.join(1)
                status = worker.process.exitcode
                self._finish(worker, InfraError(f"the worker process ended with status {status}"))
            else:
                self._handle(worker, kind, args)
        self._report_overall()

    def _handle(self, worker: _Worker[T], kind: str, args: list[Any]) -> None:
        if kind == "ask":
            self.schedule.request(worker.number, args[0])
        elif kind == "give":
            self.schedule.give_back(worker.number)
        elif kind == "result":
            self.results[worker.number] = args[0]
            self._finish(worker)
        elif kind == "error":
            self._finish(worker, *args[0])
        elif kind == "expect":
            worker.expected_s, worker.expected_at = args[0], time.monotonic()
        else:
            getattr(self.board.for_job(worker.task.name), kind)(*args)

    def _finish(self, worker: _Worker[T], *errors: CowbellError) -> None:
        self.schedule.finish(worker.number)
        del self.active[worker.number]
        worker.connection.close()
        worker.process.join()
        for error in errors:
            error.where = error.where or worker.task.name
            self.errors.append((worker.task.name, error))
        self.board.end_job(worker.task.name, "failed" if errors else "done")

    def _report_overall(self) -> None:
        total, pending = len(self.tasks), self.schedule.pending
        now = time.monotonic()
        running = [
            None if w.expected_s is None else max(0.0, w.expected_s - (now - w.expected_at))
            for w in self.active.values()
        ]
        times = [*running, *(self.tasks[number].expected_s for number in pending)]
        known = [seconds for seconds in times if seconds is not None]
        done = total - len(pending) - len(self.active)
        self.board.overall(done, total, sum(known) if len(known) == len(times) else None)

    def end(self) -> None:
        """End the running workers: SIGTERM, then SIGKILL."""
        for worker in self.active.values():
            _send_signal(worker.process, signal.SIGTERM)
        try:
            until = time.monotonic() + _GRACE_S
            for worker in self.active.values():
                worker.process.join(max(0.0, until - time.monotonic()))
        finally:
            for worker in self.active.values():
                _send_signal(worker.process, signal.SIGKILL)
                worker.process.join()
                self.schedule.finish(worker.number)


def _send_signal(process: ForkProcess, number: int) -> None:
    if process.is_alive() and process.pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


class _WorkerBoard:
    """The ``Board`` of a worker, which has one job: sends everything to the parent."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def stage(self, name: str, subject: str) -> None:
        self._connection.send(("stage", name, subject))

    def count(self, done: int, about: int | None, unit: str) -> None:
        self._connection.send(("count", done, about, unit))

    def verdict(self, status: Status, text: str) -> None:
        self._connection.send(("verdict", status, text))

    def note(self, text: str) -> None:
        self._connection.send(("note", text))

    def detail(self, text: str) -> None:
        self._connection.send(("detail", text))

    def command(self, line: str) -> None:
        self._connection.send(("command", line))

    def expect(self, seconds: float) -> None:
        self._connection.send(("expect", seconds))

    def for_job(self, name: str) -> "_WorkerBoard":
        return self

    def end_job(self, name: str, outcome: str) -> None:
        pass

    def overall(self, done: int, total: int, left_s: float | None) -> None:
        pass


class _WorkerBudget:
    """The ``Budget`` of a worker: sends requests to the parent."""

    def __init__(self, connection: Connection, server: Jobserver) -> None:
        self._connection, self._server = connection, server

    @contextlib.contextmanager
    def build(self) -> Iterator[MakeShare]:
        with self._hold(ResourceRequest(0, 0)):
            yield self._server.share()

    @contextlib.contextmanager
    def guest(self, cpus: int, memory_mib: int) -> Iterator[None]:
        with self._hold(ResourceRequest(cpus, memory_mib)):
            yield

    @contextlib.contextmanager
    def _hold(self, ask: ResourceRequest) -> Iterator[None]:
        self._connection.send(("ask", ask))
        self._connection.recv()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                self._connection.send(("give",))


def _run(task: Task[T], connection: Connection, server: Jobserver | None, parent: int) -> None:
    """The main function of a worker."""
    # only the parent handles Ctrl-C of a terminal
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        result = task.call(
            _WorkerBoard(connection), _WorkerBudget(connection, server) if server else WHOLE_HOST
        )
        connection.send(("result", result))
    except* CowbellError as group:
        connection.send(("error", list(_flatten(group))))
    except* KeyboardInterrupt:
        os._exit(130)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _flatten(group: BaseExceptionGroup[CowbellError]) -> Iterator[CowbellError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _flatten(error)
        else:
            yield error


def _read_available_mib() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith("MemAvailable"))
