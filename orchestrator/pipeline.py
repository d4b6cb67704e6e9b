# SPDX-License-Identifier: GPL-2.0-or-later
"""The steps of all jobs, listed or executed: first every source and config, then kernels, guests and tests.

A step whose product is in the store is skipped, so a killed run continues where it stopped. A kernel
failure ends its job and becomes a verdict; an infrastructure error ends the run.
"""

import contextlib
import datetime
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from orchestrator.errors import CowbellError, InfraError, StageFailure
from orchestrator.guest.connection import Guest
from orchestrator.guest.setup import load_setup
from orchestrator.kernel.build import find_kernel
from orchestrator.kernel.prebuilt import BuildFailure, Prebuilt, export_kernel
from orchestrator.plan import manifest
from orchestrator.plan.manifest import load_manifest
from orchestrator.plan.plan import Declarations, Job
from orchestrator.plan.products import check_programs, choose_machine, compile_tests, export_job, make_record
from orchestrator.plan.steps import (
    BUILD,
    TEST,
    Goal,
    JobSteps,
    Prepared,
    Step,
    build_job,
    find_same_steps,
    look_up_trees,
    perform,
    prepare_job,
)
from orchestrator.plan.workspace import Workspace
from orchestrator.process import command
from orchestrator.process.budget import Budget
from orchestrator.process.progress import Board
from orchestrator.process.workers import Stopped, Task, work
from orchestrator.result.record import Failure, JobRecord, RunRecord, TrialResult, make_run_id, save_run
from orchestrator.result.repeat import Repeat
from orchestrator.result.stored import find_results_dir
from orchestrator.run.runner import boot_with_tests, make_boot_dir, remove_stale_images

T = TypeVar("T")


def explain_jobs(
    jobs: Sequence[Job], declared: Declarations, place: Workspace, accel: str, goal: Goal = TEST
) -> Iterator[Step]:
    """The steps that a run would go through; raises as ``check_what_if``."""
    check_what_if(jobs, declared, place, goal)
    same, looked_up = find_same_steps(jobs), dict[object, object]()
    for job in jobs:
        steps = JobSteps(job, declared, place, accel, goal, same[job.name], looked_up)
        for step, _ in steps.list_steps():
            # the earlier job's step does it
            yield replace(step, why="") if step.same_as else step


def check_what_if(jobs: Sequence[Job], declared: Declarations, place: Workspace, goal: Goal) -> None:
    """Raise ``UsageError`` for each file of ``--what-if`` that is not an input of any step."""
    if place.what_if:
        modules = place.list_modules()
        known = {name for job in jobs for name in manifest.list_names(job, declared, modules, goal.last)}
        manifest.raise_unknown(place.what_if, known)


def _work(tasks: Sequence[Task[T]], place: Workspace) -> list[T | None]:
    """Do something for every job, within the limits; raises all errors at once, when what runs is done."""
    try:
        return work(tasks, place.limits, place.progress)
    except Stopped as stopped:
        raise ExceptionGroup("jobs", stopped.errors) from None


def _make_tasks(
    jobs: Sequence[Job],
    place: Workspace,
    call: Callable[[Job, Workspace], T],
    prepared: Mapping[str, Prepared] | None = None,
) -> list[Task[T]]:
    """A task for each job. Of the jobs that build from one tree, only one builds at a time."""

    def make(job: Job) -> Task[T]:
        def do(progress: Board, budget: Budget) -> T:
            command.on_command = progress.command
            return call(job, replace(place, progress=progress, budget=budget))

        expected_s = load_manifest(job, place.store).expect_tests_s(job.tests)
        request = prepared[job.name].request if prepared else None
        product = request.build_id if request else ""
        is_built = bool(product) and place.store.path("kernels", product).is_dir()
        return Task(job.name, "" if is_built else job.tree.name, do, expected_s, product)

    return [make(job) for job in jobs]


def prepare_jobs(
    jobs: Sequence[Job], declared: Declarations, place: Workspace, goal: Goal = BUILD
) -> dict[str, Prepared]:
    """Do the source and config steps of all jobs, before the first object is compiled.

    If some jobs fail, all their errors are raised at once and the others are not built. With ``-k``, or if
    all jobs fail, each failure is returned with its job, whose next step raises it.
    """
    check_programs(jobs, {}, place)
    same, looked_up = find_same_steps(jobs), look_up_trees(jobs, place, goal)

    def prepare(job: Job, own: Workspace) -> Prepared:
        try:
            return prepare_job(job, declared, own, goal, same[job.name], looked_up)
        except InfraError as error:
            if not place.keep_going:
                raise
            return Prepared(failure=error)

    prepared = [one for one in _work(_make_tasks(jobs, place, prepare), place) if one]
    failures = [one.failure for one in prepared if one.failure]
    if failures and not place.keep_going and any(not one.failure and not one.left_out for one in prepared):
        raise ExceptionGroup("jobs", failures)
    found = dict(zip([job.name for job in jobs], prepared, strict=True))
    check_programs(jobs, {name: one.source for name, one in found.items() if one.source}, place)
    return found


def build_jobs(
    jobs: Sequence[Job],
    declared: Declarations,
    place: Workspace,
    goal: Goal = BUILD,
    prepared: Mapping[str, Prepared] | None = None,
    *,
    target: Path | None = None,
) -> list[Path]:
    """The target ``build``: the image of every job whose series is for its tree.

    ``target`` is a folder that gets the kernels, for another machine. ``goal`` is that of all targets of the
    command line, and ``prepared`` what ``prepare_jobs`` made for it.
    """
    prepared = prepared or prepare_jobs(jobs, declared, place, goal)
    same = find_same_steps(jobs)

    def build(job: Job, own: Workspace) -> Path | None:
        found = prepared[job.name]
        if not found.base and found.failure:
            raise found.failure
        assert found.base
        told = Prebuilt(job.row.name, job.variant.name, job.series.name, found.base)
        if reason := found.left_out:
            own.progress.note(f"left out: {job.name}: {reason}")
            if target:
                export_kernel(replace(told, left_out=reason), None, target, place.store)
            return None
        try:
            steps = JobSteps(job, declared, own, goal=goal, same_as=same[job.name], prepared=found)
            perform(steps.list_last_steps())
        except StageFailure as error:
            if target:
                trouble = BuildFailure(error.stage, error.what, error.where, error.hint)
                export_kernel(replace(told, trouble=trouble), None, target, place.store)
            raise
        kernel = steps.kernel
        assert kernel
        if target:
            export_job(job, kernel, told, target, own)
            return target / kernel.request.build_id / kernel.image.name
        return kernel.image

    return [image for image in _work(_make_tasks(jobs, place, build, prepared), place) if image]


def list_images(prepared: Mapping[str, Prepared], place: Workspace) -> list[Path]:
    """The images that are built."""
    kernels = [find_kernel(one.request, place.store) for one in prepared.values() if one.request]
    return [kernel.image for kernel in kernels if kernel]


class IncompleteRun(ExceptionGroup[CowbellError]):
    """The errors of some jobs; the results of the others are a run."""

    run_id: str


def run_jobs(
    jobs: Sequence[Job],
    declared: Declarations,
    place: Workspace,
    accel: str,
    command_line: str,
    goal: Goal = TEST,
    prepared: Mapping[str, Prepared] | None = None,
) -> tuple[str, bool]:
    """The target ``test``. Returns the run's id, and whether anything was new.

    A run is named by its results, so one that changes nothing is the run that is there already. Results that
    came before an ``InfraError`` or an interrupt stay in the store; with ``-k`` they are the run of an
    ``IncompleteRun``, in which the jobs without a kernel or guest are BROKEN.
    ``goal`` and ``prepared`` are as those of ``build_jobs``.
    """
    # those of killed runs, of whichever kernel, may be large
    for folder in place.store.path("results").glob("*"):
        remove_stale_images(folder)
    prepared = prepared or prepare_jobs(jobs, declared, place, goal)
    same = find_same_steps(jobs)

    def test(job: Job, own: Workspace) -> tuple[JobRecord, bool]:
        known = earlier.get(job.name)
        if known and (known.failure or known.left_out):
            return known, False
        first = prepared[job.name]
        if known:
            # in a later turn nothing is new, and nothing is done again
            first = replace(first, new="")
        steps = JobSteps(job, declared, own, accel, Goal() if known else goal, same[job.name], prepared=first)
        return _run_job(steps, known)

    errors: Sequence[CowbellError] = ()
    # by job, the record of the turn before
    earlier: dict[str, JobRecord] = {}
    has_run = False
    # kernels that are compared take turns, so that what else the host does is not the difference
    for repeat in place.repeat.divide() if jobs[1:] else [place.repeat]:
        turn = replace(place, repeat=repeat, what_if=() if earlier else place.what_if)
        try:
            outcomes = work(_make_tasks(jobs, turn, test, prepared), place.limits, place.progress)
            earlier = {job.name: outcome[0] for job, outcome in zip(jobs, outcomes, strict=True) if outcome}
        except Stopped as stopped:
            outcomes, errors = stopped.results, stopped.errors
            if not place.limits.is_keeping_going or not any([*outcomes, *earlier.values()]):
                raise ExceptionGroup("jobs", errors) from None
            outcomes = [
                outcome or (_record_loss(job, earlier.get(job.name), stopped.by_task[job.name], repeat), True)
                for job, outcome in zip(jobs, outcomes, strict=True)
            ]
        has_run |= any(outcome[1] for outcome in outcomes if outcome)
        if errors:
            break
    records = tuple(outcome[0] for outcome in outcomes if outcome)
    folder = place.store.path("runs", make_run_id(records))
    is_new = has_run or not (folder / "record.json").exists()
    if is_new:
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        save_run(RunRecord(folder.name, command_line, started, records), folder)
    if errors:
        incomplete = IncompleteRun("jobs", errors)
        incomplete.run_id = folder.name
        raise incomplete
    return folder.name, is_new


def _record_loss(job: Job, earlier: JobRecord | None, error: CowbellError, repeat: Repeat) -> JobRecord:
    """The record of a job that an infrastructure error ended, with the results of the turns before."""
    record = earlier or make_record(job)
    results: dict[str, list[TrialResult]] = {}
    for result in record.results:
        results.setdefault(result.test, []).append(result)
    log, where = str(error.log or ""), error.where if error.where != job.name else ""
    unfinished = _list_unfinished(job, results, record, repeat)
    failure = Failure("infrastructure", error.what, where, error.hint, log, unfinished)
    return replace(record, failure=failure)


def _list_unfinished(
    job: Job, results: Mapping[str, Sequence[TrialResult]], record: JobRecord, repeat: Repeat
) -> tuple[str, ...]:
    """The tests with results for which another trial was planned."""
    return tuple(
        test.id
        for test in job.tests
        if results.get(test.id) and repeat.wants_more(test, results[test.id], record.known)
    )


def _run_job(steps: JobSteps, earlier: JobRecord | None) -> tuple[JobRecord, bool]:
    """Do the last steps of a job; its record, and whether anything was run."""
    if steps.prepared.left_out:
        return steps.record, False
    tests, repeat, failure = steps.job.tests, steps.place.repeat, None
    for result in earlier.results if earlier else ():
        steps.earlier.setdefault(result.test, []).append(result)
    try:
        perform(steps.list_last_steps())
    except StageFailure as error:
        unfinished = _list_unfinished(steps.job, steps.results, steps.record, repeat)
        log = str(error.log or "")
        failure = Failure(error.stage, error.what, error.where, error.hint, log, unfinished)
    record = replace(steps.record, failure=failure)
    ordered = tuple(result for test in tests for result in steps.results.get(test.id, ()))
    if ordered and steps.machine:
        folder = find_results_dir(steps.machine, steps.place.store)
        record = replace(record, guest_setup=load_setup(folder / ordered[-1].boot))
    return replace(record, results=ordered), steps.has_run or bool(failure)


@contextlib.contextmanager
def open_guest(
    job: Job, declared: Declarations, place: Workspace, accel: str, *, has_gdb: bool = False
) -> Iterator[Guest]:
    """The target ``shell``: a job's guest with its tests in it, gone when the block is left.

    With ``has_gdb``, gdb can attach to it at the socket ``Machine.gdb``, which only this user can open.
    Raises ``StageFailure`` when there is no such kernel or it does not boot.
    """
    prepared = prepare_jobs([job], declared, place)[job.name]
    job = prepared.job or job
    kernel = build_job(job, declared, place, prepared)
    machine = choose_machine(job, kernel, place, accel)
    programs = compile_tests(job, kernel, place)
    place.progress.stage("boot", f"{kernel.request.source.version} on {machine.accel}")
    boot_dir = make_boot_dir(find_results_dir(machine, place.store))
    with contextlib.ExitStack() as stack:
        if has_gdb:
            # the path of a socket has a limit that a folder of the store may exceed
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cowbell-"))
            machine = replace(machine, gdb=Path(folder) / "gdb")
        yield stack.enter_context(boot_with_tests(machine, boot_dir, programs, place.lib_dir))
