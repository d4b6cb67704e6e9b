# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests every prefix of a series and compares what each patch flips with ``series.yaml``.

Every prefix of the series is one kernel. A patch flips a test that passes on one side of it and fails on the
other; a skip or a broken test is neither.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.bisect.line import make_prefix
from orchestrator.errors import UsageError
from orchestrator.history.entry import render_columns
from orchestrator.parse.printk import make_printable
from orchestrator.plan.plan import Job
from orchestrator.project.condition import Version
from orchestrator.result.record import JobRecord, RunRecord
from orchestrator.result.verdict import WORST_FIRST, judge_job
from orchestrator.source.series import Series
from orchestrator.status import Status


@dataclass(frozen=True, slots=True)
class Flip:
    """A test that a patch flips, with its results before and after, and the claimed one if any."""

    test: str
    before: str
    after: str
    claimed: str

    @property
    def is_as_claimed(self) -> bool:
        return self.claimed == self.after and self.before != self.after


@dataclass(frozen=True, slots=True)
class PatchFlips:
    """A patch and its flips, including those that were claimed and not seen.

    ``meant_for`` are the kernels that it is for, if not this one; ``trouble`` says why it was not tested.
    """

    file: str
    subject: str
    meant_for: str
    trouble: str
    flips: tuple[Flip, ...]


@dataclass(frozen=True, slots=True)
class SeriesMatrix:
    """The patches in their order, and the run with the results."""

    series: str
    tree: str
    run_id: str
    patches: tuple[PatchFlips, ...]

    @property
    def is_as_claimed(self) -> bool:
        return all(
            not patch.trouble and all(flip.is_as_claimed for flip in patch.flips) for patch in self.patches
        )


def list_prefixes(jobs: Sequence[Job], *, is_any_row: bool = False) -> list[Job]:
    """A job for each prefix of the one series, the empty one first; raises ``UsageError`` for more.

    ``is_any_row`` takes the first row that runs every test that the series claims to flip.
    """
    named = [job for job in jobs if job.series.name]
    if is_any_row and len({job.series.name for job in named}) == 1:
        claimed = _list_claimed(named[0].series)
        whole = [job for job in named if claimed <= {test.id for test in job.tests}]
        named = whole[:1] if claimed and whole else named
    if len(named) != 1:
        raise UsageError(
            f"takes one series on one row, and {len(named)} match",
            where="series-matrix",
            hint="select them with SERIES= and ROW=",
        )
    (job,) = named
    return [make_prefix(job, number) for number in range(len(job.series.patches) + 1)]


def _list_claimed(series: Series) -> set[str]:
    claims = [patch.flips for patch in series.patches]
    claims += [backport.flips for patch in series.patches for backport in patch.backports]
    return {test for flips in claims for test in flips}


def make_matrix(job: Job, run: RunRecord) -> SeriesMatrix:
    """The results of the jobs of ``list_prefixes``; ``job`` is the last one, with the whole series."""
    outcomes = [_sum_up(record) for record in run.jobs]
    patches = []
    for number, patch in enumerate(job.series.patches, 1):
        before, after = outcomes[number - 1 : number + 1]
        record = run.jobs[number]
        claimed, meant_for = patch.flips, ""
        if record.version:
            chosen = patch.choose(Version.parse(record.version))
            claimed, meant_for = (chosen.flips, "") if chosen else ({}, patch.when.text)
        patches.append(
            PatchFlips(
                patch.name,
                patch.subject,
                meant_for,
                record.left_out or (record.failure.what if record.failure else ""),
                tuple(
                    Flip(test, str(one or "-"), str(other or "-"), str(claimed.get(test, "")))
                    for test in record.tests
                    for one, other in [(before.get(test), after.get(test))]
                    if test in claimed or (one and other and one is not other)
                ),
            )
        )
    return SeriesMatrix(job.series.name, job.tree.name, run.run_id, tuple(patches))


def _sum_up(record: JobRecord) -> Mapping[str, Status]:
    """By test, pass or fail: the worst of its subtests; nothing for one with trouble."""
    worst: dict[str, Status] = {}
    for verdict in sorted(judge_job(record), key=lambda v: WORST_FIRST.index(v.raw)):
        if verdict.raw is not Status.SKIP:
            worst.setdefault(verdict.test, verdict.raw)
    return {
        test: Status.FAIL if raw.is_kernel_fault else raw
        for test, raw in worst.items()
        if raw is not Status.BROKEN
    }


def render(matrix: SeriesMatrix) -> str:
    """Each patch with one line per flip; a flip that differs from its claim is marked."""
    flips = [flip for patch in matrix.patches for flip in patch.flips]
    told = iter(render_columns([_tell(flip) for flip in flips]).splitlines())
    lines = []
    for patch in matrix.patches:
        lines.append(make_printable(patch.file))
        if patch.trouble:
            lines.append(f"  not tested: {make_printable(patch.trouble)}")
        elif not patch.flips:
            lines.append(f"  is for {patch.meant_for}" if patch.meant_for else "  flips nothing")
        lines += [f"  {next(told)}" for _ in patch.flips]
    verb = "as" if matrix.is_as_claimed else "NOT as"
    lines += ["", f"{matrix.series} on {matrix.tree} is {verb} series.yaml claims ({matrix.run_id})"]
    return "".join(f"{line}\n" for line in lines)


def _tell(flip: Flip) -> tuple[str, str, str]:
    seen = f"{flip.before} -> {flip.after}" if flip.before != flip.after else f"stays {flip.after}"
    return flip.test, seen, "as claimed" if flip.is_as_claimed else f"CLAIMED: {flip.claimed or 'nothing'}"
