# SPDX-License-Identifier: GPL-2.0-or-later
"""An entry of the history: the outcome of one subtest on one kernel, and its text form."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.parse.console import parse_console
from orchestrator.parse.ktap import Rate, parse_ktap
from orchestrator.parse.printk import make_printable
from orchestrator.result.record import JobRecord, RunRecord, TrialResult
from orchestrator.result.verdict import Verdict, judge_job
from orchestrator.status import Status
from orchestrator.store.store import make_id

# what an entry needs to be found again by; a boot is renamed where it is merged, trials are numbered by run
_IDENTITY = (
    "test",
    "content_id",
    "started",
    "duration_s",
    "ended",
    "exit_status",
    "stdout",
    "stderr",
    "console",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A subtest's outcome. ``started`` is UTC in ISO 8601, of older results when their run was over.

    ``kernel`` is its version, ``boot`` who booted the guest. ``hits`` of ``tries`` is how often a race was
    hit, where the test tells. ``fingerprint`` is that of the first splat of its console. ``folder`` and
    ``console`` are below the store, empty where they are not known; ``console_at`` is a byte of that log.
    """

    result_id: str
    name: str
    test: str
    row: str
    variant: str
    tree: str
    series: str
    kernel: str
    commit: str
    build_id: str
    config_id: str
    rootfs_id: str
    program_id: str
    arch: str
    accel: str
    boot: str
    started: str
    duration_s: float
    trial: int
    raw: Status
    expected: Status
    reason: str
    hits: int | None
    tries: int | None
    fingerprint: str
    folder: str
    console: str
    console_at: int | None
    host: str

    @property
    def status(self) -> Status:
        return self.raw.against(self.expected)

    @property
    def rate(self) -> Rate | None:
        return None if self.hits is None or self.tries is None else Rate(self.hits, self.tries)


def make_result_id(result: TrialResult) -> str:
    """Identity of a result, wherever and in whichever run it is found."""
    return make_id([getattr(result, name) for name in _IDENTITY])


def make_entries(job: JobRecord, result: TrialResult, folder: str = "", started: str = "") -> list[Entry]:
    """An entry for each verdict. ``started`` is for results that do not say."""
    subtests = job.tests.get(result.test, _find_subtests(result))
    # the target rates apply to all trials together
    alone = replace(
        job, tests={result.test: subtests}, results=(result,), target_rates={}, failure=None, left_out=""
    )
    faults = parse_console(result.console).faults
    return [
        Entry(
            **_take_common(job, verdict),
            result_id=make_result_id(result),
            program_id=result.content_id,
            accel=result.accel,
            started=result.started or started,
            duration_s=result.duration_s,
            trial=result.trial,
            fingerprint=faults[0].fingerprint if faults else "",
            folder=folder,
            console=f"{folder}/{result.boot}/console.log" if folder else "",
            console_at=result.console_at,
            host=result.host,
        )
        for verdict in judge_job(alone)
    ]


def list_outcomes(run: RunRecord) -> Iterator[Entry]:
    """A run's entries, also those of tests that never ran because their kernel did not come that far."""
    for job in run.jobs:
        for result in job.results:
            yield from make_entries(job, result, started=run.started)
        yield from list_missing(run, job)


def list_missing(run: RunRecord, job: JobRecord) -> Iterator[Entry]:
    """Entries of the tests that never ran, or not once more. Their identity is that of the run."""
    have = {result.test for result in job.results} - set(job.failure.unfinished if job.failure else ())
    missing = {test: names for test, names in job.tests.items() if test not in have}
    for verdict in judge_job(replace(job, tests=missing, results=())):
        yield Entry(
            **_take_common(job, verdict),
            result_id=make_id(run.run_id, run.started, job.row, job.variant, verdict.test),
            program_id="",
            fingerprint="",
            folder="",
            console="",
            host="",
            accel=job.accel,
            started=run.started,
            duration_s=0.0,
            trial=1,
            console_at=None,
        )


def _take_common(job: JobRecord, verdict: Verdict) -> dict[str, Any]:
    """What an entry has of its job and its verdict."""
    of_job = (
        "row",
        "variant",
        "tree",
        "series",
        "commit",
        "build_id",
        "config_id",
        "rootfs_id",
        "arch",
        "boot",
    )
    of_verdict = ("test", "name", "raw", "expected", "reason")
    return {
        **{name: getattr(job, name) for name in of_job},
        **{name: getattr(verdict, name) for name in of_verdict},
        "kernel": job.version,
        "hits": verdict.rate.hits if verdict.rate else None,
        "tries": verdict.rate.tries if verdict.rate else None,
    }


def _find_subtests(result: TrialResult) -> tuple[str, ...]:
    """What a test declared, when nobody knows any more: what it told of. The kernel's own declare nothing."""
    if "/" in result.test:
        return ()
    return tuple(name for name, _ in parse_ktap(result.stdout).flatten()) or (result.test,)


def is_kernel(entry: Entry, word: str) -> bool:
    """Whether a word is the name of an entry's tree, or its kernel's version or the beginning of it."""
    return word == entry.tree or f"{entry.kernel}.".startswith(f"{word}.")


def describe_outcome(entry: Entry) -> str:
    """What happened, and whether that was expected, in a word or two."""
    if entry.status is Status.XFAIL:
        return f"{entry.raw.upper()} (expected)"
    return "PASS (expected to fail)" if entry.status is Status.XPASS else entry.status.upper()


def render(entries: Sequence[Entry]) -> str:
    """A line for each entry."""
    lines = [("when (UTC)", "row/variant", "kernel", "subtest", "status", "rate", "seconds", "fingerprint")]
    lines += [
        (
            entry.started[:19].replace("T", " "),
            f"{entry.row}/{entry.variant}" if entry.row else "-",
            entry.kernel + (f" + {entry.series}" if entry.series else ""),
            entry.name,
            describe_outcome(entry),
            str(entry.rate or ""),
            f"{entry.duration_s:.1f}",
            entry.fingerprint,
        )
        for entry in entries
    ]
    return render_columns(lines)


def render_columns(lines: Sequence[Sequence[str]]) -> str:
    """Aligned. Other machines' words are in them, too: nothing is left that a terminal would obey."""
    lines = [[make_printable(text) for text in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return "".join(f"{line}\n" for line in padded)
