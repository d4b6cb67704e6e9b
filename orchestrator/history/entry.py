# SPDX-License-Identifier: GPL-2.0-or-later
"""An entry of the history: the outcome of one subtest on one kernel, and its text form."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.parse.ktap import Rate
from orchestrator.parse.printk import make_printable
from orchestrator.result.record import JobRecord, RunRecord, TrialResult
from orchestrator.result.verdict import Verdict, judge_job, judge_trial
from orchestrator.status import Status
from orchestrator.store.store import make_id

# the fields of a result that are part of its id; import changes names of boots and numbers of trials
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
    """A subtest's outcome. ``started`` is UTC in ISO 8601; for older results it is the end of their run.

    ``kernel`` is a version, ``boot`` is ``qemu`` or ``vng``. ``hits`` of ``tries`` is how often a race was
    hit, if the test reports it. ``fingerprint`` is that of the first fault on its console. ``folder`` and
    ``console`` are relative to the store, empty if unknown; ``console_at`` is an offset in that log.
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
    def label(self) -> str:
        return self.status.label(self.raw)

    @property
    def rate(self) -> Rate | None:
        return None if self.hits is None or self.tries is None else Rate(self.hits, self.tries)


def make_result_id(result: TrialResult) -> str:
    """The id of a result; it does not depend on the run or the store."""
    return make_id([getattr(result, name) for name in _IDENTITY])


def make_entries(job: JobRecord, result: TrialResult, folder: str = "", started: str = "") -> list[Entry]:
    """An entry for each verdict. ``started`` is used for results without a start time."""
    subtests = job.tests.get(result.test, _find_subtests(result))
    faults = result.log.faults
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
        for verdict in judge_trial(replace(job, tests={result.test: subtests}), result)
    ]


def list_outcomes(run: RunRecord) -> Iterator[Entry]:
    """The entries of a run, also for tests that did not run because an earlier stage failed."""
    for job in run.jobs:
        for result in job.results:
            yield from make_entries(job, result, started=run.started)
        yield from list_missing(run, job)


def list_missing(run: RunRecord, job: JobRecord) -> Iterator[Entry]:
    """Entries of tests, or their last trials, that did not run. Their ids depend on the run."""
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
    """The fields of an entry that come from its job and its verdict."""
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
    """The subtests of an unknown test, from its results; kernel selftests and programs declare none."""
    if "/" in result.test or result.program_end:
        return ()
    return tuple(name for name, _ in result.ktap.flatten()) or (result.test,)


def is_kernel(entry: Entry, word: str) -> bool:
    """Whether a word is an entry's tree, with or without its version, or a kernel version or its prefix."""
    trees = (entry.tree, entry.tree.partition(":")[0])
    return word in trees or f"{entry.kernel}.".startswith(f"{word}.")


def render(entries: Sequence[Entry]) -> str:
    """A line for each entry."""
    lines = [("when (UTC)", "row/variant", "kernel", "subtest", "status", "rate", "seconds", "fingerprint")]
    lines += [
        (
            entry.started[:19].replace("T", " "),
            f"{entry.row}/{entry.variant}" if entry.row else "-",
            entry.kernel + (f" + {entry.series}" if entry.series else ""),
            entry.name,
            entry.label,
            str(entry.rate or ""),
            f"{entry.duration_s:.1f}",
            entry.fingerprint,
        )
        for entry in entries
    ]
    return render_columns(lines)


def render_columns(lines: Sequence[Sequence[str]]) -> str:
    """Aligned columns. Control characters are escaped, as the text may come from other machines."""
    lines = [[make_printable(text) for text in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return "".join(f"{line}\n" for line in padded)
