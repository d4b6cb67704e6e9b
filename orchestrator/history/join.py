# SPDX-License-Identifier: GPL-2.0-or-later
"""Joins the records of several jobs into one run, and lists the planned results that are missing."""

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.history.database import find_variant
from orchestrator.history.entry import make_result_id
from orchestrator.result.record import Failure, JobRecord, RunRecord, TrialResult, make_run_id

# fields that must be equal for results of one variant
_SAME = (
    "arch", "tree", "series", "version", "commit", "build_id", "config_id", "rootfs_id", "accel", "boot",
    "left_out",
)  # fmt: skip
_NO_RESULTS = Failure(
    stage="merge",
    what="there are no results",
    where="",
    hint="its job was not finished, or left nothing that could be merged",
    log="",
)

# runs by id, each with its folder
Runs = Mapping[str, tuple[RunRecord, Path]]


def find_killed(
    runs: Runs,
    results: Mapping[Path, TrialResult],
    variants: Mapping[Path, JobRecord],
    planned: Sequence[JobRecord],
) -> dict[str, tuple[RunRecord, Path]]:
    """Results of killed runs, which have no record, as runs of one kernel each.

    ``results`` are by file, ``variants`` by the folder of their results.
    """
    in_runs = {make_result_id(r) for run, _ in runs.values() for job in run.jobs for r in job.results}
    loose: dict[Path, list[TrialResult]] = {}
    for path, result in results.items():
        if make_result_id(result) not in in_runs:
            loose.setdefault(find_variant(path), []).append(result)
    wanted = {(job.row, job.variant): job for job in planned}
    found = {}
    for number, (folder, tried) in enumerate(loose.items()):
        job = variants.get(folder)
        if job and (meant := wanted.get((job.row, job.variant))):
            started = min(result.started for result in tried)
            job = replace(job, tests={**meant.tests, **job.tests}, results=tuple(tried))
            found[f"killed-{number}"] = (RunRecord(f"killed-{number}", "", started, (job,)), folder)
    return found


def list_missing(runs: Iterable[RunRecord], planned: Iterable[JobRecord]) -> tuple[str, ...]:
    """The planned kernels, as ROW/VARIANT, with tests that were not run for no recorded reason."""
    ran: dict[tuple[str, str], set[str]] = {}
    for job in (job for run in runs for job in run.jobs):
        tests = set(job.tests) if job.left_out or job.failure else {result.test for result in job.results}
        ran.setdefault((job.row, job.variant), set()).update(tests)
    return tuple(
        f"{job.row}/{job.variant}"
        for job in planned
        if not ran.get((job.row, job.variant), set()) >= set(job.tests)
    )


def join(runs: Runs, planned: Sequence[JobRecord], refuse: Callable[[Path, str, str], None]) -> RunRecord:
    """Join runs into one, with all trials of each test; the order of the runs does not matter.

    Planned jobs come first, in their order. ``refuse`` is called for runs that cannot be joined, with the
    folder, what is wrong, and what to do.
    """
    ordered = sorted(runs.values(), key=lambda each: (each[0].started, each[0].run_id))
    found: dict[tuple[str, str], JobRecord] = {}
    for run, folder in ordered:
        for job in run.jobs:
            key = (job.row, job.variant)
            known = found.get(key, job)
            if planned and known.accel != job.accel:
                # runners may differ, and each result says where it was produced
                both = ", ".join(sorted({known.accel, job.accel} - {""}))
                known, job = replace(known, accel=both), replace(job, accel=both)
            if differing := [name for name in _SAME if getattr(known, name) != getattr(job, name)]:
                values = (
                    f"{name} {getattr(job, name) or 'none'} and {getattr(known, name) or 'none'}"
                    for name in differing[:2]
                )
                refuse(
                    folder,
                    f"{job.row}/{job.variant} differs from that of {ordered[0][0].run_id}: "
                    f"{', '.join(values)}",
                    "such runs cannot be joined; cowbell diff compares them",
                )
            found[key] = _join_jobs(known, job)
    wanted = {(job.row, job.variant): job for job in planned}
    joined = tuple(_fill_in(found.get(key), wanted.get(key)) for key in {**wanted, **found})
    commands = "; ".join(dict.fromkeys(run.command for run, _ in ordered if run.command))
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    run_id = make_run_id(joined)
    return RunRecord(run_id, commands, ordered[0][0].started if ordered else now, joined)


def _fill_in(found: JobRecord | None, planned: JobRecord | None) -> JobRecord:
    """The results of a kernel, with the planned tests that have none."""
    if found and planned:
        tests, summaries = {**planned.tests, **found.tests}, {**planned.summaries, **found.summaries}
        return replace(found, tests=tests, summaries=summaries)
    if found:
        return found
    assert planned
    return replace(planned, failure=_NO_RESULTS)


def _join_jobs(one: JobRecord, other: JobRecord) -> JobRecord:
    tests = {**one.tests, **other.tests}
    by_id = {make_result_id(result): result for result in (*one.results, *other.results)}
    results: list[TrialResult] = []
    for test in tests:
        trials = sorted((r for r in by_id.values() if r.test == test), key=lambda r: (r.started, r.trial))
        results += [replace(result, trial=number) for number, result in enumerate(trials, 1)]
    return replace(
        one,
        tests=tests,
        summaries={**one.summaries, **other.summaries},
        expect=tuple(dict.fromkeys((*one.expect, *other.expect))),
        races=tuple(dict.fromkeys((*one.races, *other.races))),
        target_rates={**one.target_rates, **other.target_rates},
        guest_setup=one.guest_setup or other.guest_setup,
        failure=one.failure or other.failure,
        results=tuple(results),
    )
