# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs jobs from source to results, with the stages in their order.

Every stage looks in the store first, so finished work is not repeated and a killed run continues where it
was. A kernel failure ends its job and becomes a verdict; an infrastructure error ends the run.
"""

import contextlib
import dataclasses
import datetime
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from orchestrator.errors import CowbellError, StageFailure
from orchestrator.guest.boot import boot_guest
from orchestrator.guest.connection import Guest
from orchestrator.guest.qemu import Machine
from orchestrator.guest.setup import load_setup
from orchestrator.history.database import VARIANT_FILE, add_result
from orchestrator.kernel.build import find_kernel
from orchestrator.kernel.prebuilt import BuildFailure, Prebuilt, export_kernel
from orchestrator.plan.manifest import (
    Manifest,
    list_guest_files,
    list_kernel_files,
    list_test_files,
    load_manifest,
    save_manifest,
)
from orchestrator.plan.plan import Declarations, Job
from orchestrator.plan.stages import (
    Prepared,
    apply_job,
    build_job,
    build_prepared,
    choose_machine,
    compile_tests,
    find_reason_left_out,
    list_expected,
    list_known_splats,
    make_record,
    prepare_job,
)
from orchestrator.plan.workspace import Workspace
from orchestrator.process import command
from orchestrator.process.budget import Budget
from orchestrator.process.progress import Board
from orchestrator.process.workers import Stopped, Task, work
from orchestrator.result.kept import find_results, find_results_dir, forget_results, keep_result
from orchestrator.result.record import Failure, JobRecord, RunRecord, TrialResult, save_job, save_run
from orchestrator.run.runner import Program, make_boot_dir, push_tests, run_tests
from orchestrator.source.fetch import fetch_tree
from orchestrator.source.repository import Source
from orchestrator.store.store import make_id

T = TypeVar("T")


def fetch_sources(
    jobs: Sequence[Job], declared: Declarations, place: Workspace, *, redo: bool
) -> list[Source]:
    """The target ``source``: every tree fetched (``redo``: looked up anew) and every series applied."""
    bases = {
        tree.name: fetch_tree(tree, place.store, place.progress, redo=redo)
        for tree in {job.tree.name: job.tree for job in jobs}.values()
    }

    def fetch(job: Job, own: Workspace) -> Source | None:
        base = bases[job.tree.name]
        return None if find_reason_left_out(job, base) else apply_job(job, base, declared, own)

    return [src for src in _work(jobs, place, fetch) if src]


def _work(jobs: Sequence[Job], place: Workspace, call: Callable[[Job, Workspace], T]) -> list[T | None]:
    """Do something for every job, within the limits; raises all errors at once, when what runs is done."""
    try:
        return work(_make_tasks(jobs, place, call), place.limits, place.progress)
    except Stopped as stopped:
        raise ExceptionGroup("jobs", stopped.errors) from None


def _make_tasks(jobs: Sequence[Job], place: Workspace, call: Callable[[Job, Workspace], T]) -> list[Task[T]]:
    def make(job: Job) -> Task[T]:
        def do(progress: Board, budget: Budget) -> T:
            command.on_command = progress.detail
            return call(job, replace(place, progress=progress, budget=budget))

        expected_s = load_manifest(job, place.store).expect_tests_s(job.tests)
        return Task(job.name, job.tree.name, do, expected_s)

    return [make(job) for job in jobs]


def prepare_jobs(jobs: Sequence[Job], declared: Declarations, place: Workspace) -> list[Prepared | None]:
    """Every series applied and every config checked, before the first object is compiled.

    Where something is wrong with some jobs, all of it is raised at once and the others are not built; with
    ``-k``, or when there are no others, the failures are returned to be recorded. With ``-k`` a job that the
    host kept from being prepared is None, and the others go on.
    """
    try:
        tasks = _make_tasks(jobs, place, lambda job, own: prepare_job(job, declared, own))
        prepared = work(tasks, place.limits, place.progress)
    except Stopped as stopped:
        if not place.limits.is_keeping_going:
            raise ExceptionGroup("jobs", stopped.errors) from None
        prepared = stopped.results
    found = [one for one in prepared if one]
    failures = [one.failure for one in found if one.failure]
    if failures and not place.keep_going and any(one.request for one in found):
        raise ExceptionGroup("jobs", failures)
    return prepared


def build_jobs(
    jobs: Sequence[Job],
    declared: Declarations,
    place: Workspace,
    *,
    redo: bool,
    target: Path | None = None,
) -> list[Path]:
    """The target ``build``: the image of every job whose series is for its tree.

    ``target`` is a folder that gets the kernels, for another machine.
    """
    prepared = dict(zip([job.name for job in jobs], prepare_jobs(jobs, declared, place), strict=True))

    def build(job: Job, own: Workspace) -> Path | None:
        # what kept it from being prepared is met, and told, once more
        found = prepared[job.name] or prepare_job(job, declared, own)
        told = Prebuilt(job.row.name, job.variant.name, job.series.name, found.base)
        if reason := found.left_out:
            own.progress.note(f"left out: {job.name}: {reason}")
            if target:
                export_kernel(replace(told, left_out=reason), None, target, place.store)
            return None
        try:
            kernel = build_prepared(job, found, own, redo=redo)
        except StageFailure as error:
            if target:
                trouble = BuildFailure(error.stage, error.what, error.where, error.hint)
                export_kernel(replace(told, trouble=trouble), None, target, place.store)
            raise
        if target:
            export_kernel(told, kernel, target, place.store)
            return target / kernel.request.build_id / kernel.image.name
        return kernel.image

    return [image for image in _work(jobs, place, build) if image]


def run_jobs(
    jobs: Sequence[Job],
    declared: Declarations,
    place: Workspace,
    accel: str,
    command_line: str,
    *,
    redo: bool = False,
) -> tuple[str, bool]:
    """The target ``test``. Returns the run's id, and whether anything was new.

    A run is named by its results, so one that changes nothing is the run that is there already. What was
    earned before an ``InfraError`` or an interrupt stays in the store; with ``-k`` it is a run, too.
    """
    prepared = dict(zip([job.name for job in jobs], prepare_jobs(jobs, declared, place), strict=True))

    def test(job: Job, own: Workspace) -> tuple[JobRecord, bool]:
        known = earned.get(job.name)
        ready = prepared[job.name] or prepare_job(job, declared, own)
        return _run_job(job, ready, declared, own, accel, known, redo=redo and not earned)

    errors: list[CowbellError] = []
    # by job, what it came to in the turn before
    earned: dict[str, JobRecord] = {}
    has_run = False
    # kernels that are compared take turns, so that what else the host does is not the difference
    for repeat in place.repeat.divide() if jobs[1:] else [place.repeat]:
        turn = replace(place, repeat=repeat, what_if=() if earned else place.what_if)
        try:
            outcomes = work(_make_tasks(jobs, turn, test), place.limits, place.progress)
            earned = {job.name: outcome[0] for job, outcome in zip(jobs, outcomes, strict=True) if outcome}
        except Stopped as stopped:
            outcomes, errors = stopped.results, stopped.errors
            if not place.limits.is_keeping_going:
                raise ExceptionGroup("jobs", errors) from None
        has_run |= any(outcome[1] for outcome in outcomes if outcome)
        if errors:
            break
    records = tuple(outcome[0] for outcome in outcomes if outcome)
    identity = make_id([dataclasses.asdict(record) for record in records])
    folder = place.store.path("runs", f"{records[0].row if records else 'empty'}-{identity}")
    is_new = has_run or not (folder / "record.json").exists()
    if is_new:
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        save_run(RunRecord(folder.name, command_line, started, records), folder)
    if errors:
        raise ExceptionGroup("jobs", errors)
    return folder.name, is_new


def _run_job(
    job: Job,
    prepared: Prepared,
    declared: Declarations,
    place: Workspace,
    accel: str,
    earned: JobRecord | None,
    *,
    redo: bool,
) -> tuple[JobRecord, bool]:
    if earned and (earned.failure or earned.left_out):
        return earned, False
    results: dict[str, list[TrialResult]] = {}
    has_run, base = False, prepared.base
    record = replace(
        make_record(job),
        target_rates=place.repeat.list_target_rates(job.tests),
        version=str(base.version),
        origin=base.origin,
        base=base.commit,
        expect=list_expected(job, base, place),
        known=list_known_splats(job, base, declared, place),
        left_out=prepared.left_out,
    )
    if record.left_out:
        return record, False
    try:
        request = prepared.checked_request
        before = load_manifest(job, place.store)
        made_of = list_kernel_files(job, base, request, declared)
        redo_kernel = bool(set(made_of) & set(place.what_if))
        if redo_kernel or not (job.built or find_kernel(request, place.store)):
            _expect(place, before.build_s, before.expect_tests_s(job.tests))
        kernel = build_prepared(job, prepared, place, redo=redo_kernel)
        record = replace(
            record,
            fixups=request.source.fixups,
            commit=request.source.commit,
            tree_id=request.source.tree_id,
            source_id=request.source.source_id,
            config_id=request.config.config_id,
            build_id=request.build_id,
        )
        machine = choose_machine(job, kernel, place, accel)
        record = replace(record, rootfs_id=machine.rootfs.rootfs_id, accel=machine.accel, boot=machine.boot)
        programs = compile_tests(job, kernel, place)
        files = {test.id: list_test_files(test) for test in job.tests}
        stale = {name for name in files if redo or redo_kernel or set(files[name]) & set(place.what_if)}
        folder = find_results_dir(machine, place.store)
        for result in earned.results if earned else ():
            results.setdefault(result.test, []).append(result)
        has_run = _earn_results(record, machine, programs, stale, results, place, before)
        if has_run:
            # of tests that were not asked for this time, what is known stays
            times = before.test_s | {name: known[-1].duration_s for name, known in results.items() if known}
            made = Manifest(made_of, list_guest_files(machine), before.tests | files, kernel.build_s, times)
            save_manifest(made, job, place.store)
    except StageFailure as error:
        unfinished = tuple(
            test.id
            for test in job.tests
            if results.get(test.id) and place.repeat.wants_more(test, results[test.id], record.known)
        )
        log = str(error.log or "")
        failure = Failure(error.stage, error.what, error.where, error.hint, log, unfinished)
        record, has_run = replace(record, failure=failure), True
    ordered = tuple(result for test in job.tests for result in results.get(test.id, ()))
    if ordered:
        record = replace(record, guest_setup=load_setup(folder / ordered[-1].boot))
    return replace(record, results=ordered), has_run


def _earn_results(
    record: JobRecord,
    machine: Machine,
    programs: Sequence[Program],
    stale: Set[str],
    results: dict[str, list[TrialResult]],
    place: Workspace,
    before: Manifest,
) -> bool:
    """Fill ``results`` with what the store has of each test, but for the stale ones, and what it takes more.

    Whether anything was run. Raises as ``run_tests``; each result is kept in the moment when it is earned.
    """
    folder = find_results_dir(machine, place.store)
    tests = {program.test.id: program.test for program in programs}

    def is_wanted_again(result: TrialResult) -> bool:
        return place.repeat.wants_more(tests[result.test], [*results[result.test], result], record.known)

    # who comes second to the same variant takes what the first one earns
    with place.store.lock(f"results-{folder.name}"):
        missing: list[Program] = []
        for program in programs:
            test = program.test
            if test.id in stale:
                forget_results(folder, test, program.program_id)
            stored = find_results(folder, test, program.program_id, record.known)
            # the store gives out no trial that was no answer, and to ask again would be to hide it
            known = results[test.id] = max(results.get(test.id, []), stored, key=len)
            if place.repeat.wants_more(test, known, record.known):
                missing.append(replace(program, trial=len(known) + 1))
        if not missing:
            return False
        _expect(place, before.expect_tests_s([program.test for program in missing]))
        save_job(record, folder / VARIANT_FILE)
        with place.budget.guest(machine.shape.cpus, machine.shape.memory_mib):
            for result in run_tests(machine, missing, place.lib_dir, folder, place.progress, is_wanted_again):
                keep_result(folder, result)
                add_result(place.store, record, result, folder, place.progress)
                results[result.test].append(result)
    return True


def _expect(place: Workspace, *times: float | None) -> None:
    """Tell how long the job will still take, if that is known."""
    known = [seconds for seconds in times if seconds is not None]
    if len(known) == len(times):
        place.progress.expect(sum(known))


@contextlib.contextmanager
def open_guest(job: Job, declared: Declarations, place: Workspace, accel: str) -> Iterator[Guest]:
    """The target ``shell``: a job's guest with its tests in it, gone when the block is left.

    Raises ``StageFailure`` when there is no such kernel or it does not boot.
    """
    kernel = build_job(job, declared, place)
    machine = choose_machine(job, kernel, place, accel)
    programs = compile_tests(job, kernel, place)
    place.progress.stage("boot", f"{kernel.request.source.version} on {machine.accel}")
    with boot_guest(machine, make_boot_dir(find_results_dir(machine, place.store))) as guest:
        push_tests(guest, programs, place.lib_dir)
        yield guest
