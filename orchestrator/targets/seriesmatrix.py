# SPDX-License-Identifier: GPL-2.0-or-later
"""A series and cases in, what each patch flips out, beside what ``series.yaml`` claims of it.

Every prefix of the series is a kernel; a case flips where it passes on one side of a patch and fails on the
other. What a case came to otherwise, a skip or its own trouble, is no side.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from orchestrator.bisects.line import make_prefix
from orchestrator.ground.errors import UsageError
from orchestrator.ground.status import Status
from orchestrator.histories.entry import render_columns
from orchestrator.jobs.plan import Job
from orchestrator.runs.record import JobRecord, RunRecord
from orchestrator.verdicts.verdict import WORST_FIRST, judge_job


@dataclass(frozen=True, slots=True)
class Flip:
    """A case that a patch flips: from what to what, and what was claimed, empty for nothing."""

    case: str
    before: str
    after: str
    claimed: str

    @property
    def is_as_claimed(self) -> bool:
        return self.claimed == self.after and self.before != self.after


@dataclass(frozen=True, slots=True)
class PatchFlips:
    """A patch, why it could not be tested if so, and its flips, those that were claimed in vain too."""

    file: str
    subject: str
    trouble: str
    flips: tuple[Flip, ...]


@dataclass(frozen=True, slots=True)
class SeriesMatrix:
    """The run that shows it, and each patch in its order."""

    series: str
    tree: str
    run_id: str
    patches: tuple[PatchFlips, ...]

    @property
    def is_as_claimed(self) -> bool:
        return all(
            not patch.trouble and all(flip.is_as_claimed for flip in patch.flips) for patch in self.patches
        )


def list_prefixes(jobs: Sequence[Job]) -> list[Job]:
    """A job for each prefix of the one series, the empty one first; raises ``UsageError`` for others."""
    named = [job for job in jobs if job.series.name]
    if len(named) != 1:
        raise UsageError(
            f"is for one series on one row, and {len(named)} match",
            where="series-matrix",
            hint="choose by SERIES= and ROW=",
        )
    (job,) = named
    return [make_prefix(job, number) for number in range(len(job.series.patches) + 1)]


def make_matrix(job: Job, run: RunRecord) -> SeriesMatrix:
    """What the kernels of ``list_prefixes`` came to; ``job`` is the last of them, with the whole series."""
    outcomes = [_sum_up(record) for record in run.jobs]
    patches = []
    for number, patch in enumerate(job.series.patches, 1):
        before, after = outcomes[number - 1 : number + 1]
        record = run.jobs[number]
        patches.append(
            PatchFlips(
                patch.name,
                patch.subject,
                record.left_out or (record.failure.what if record.failure else ""),
                tuple(
                    Flip(case, str(one or "-"), str(other or "-"), str(patch.flips.get(case, "")))
                    for case in record.cases
                    for one, other in [(before.get(case), after.get(case))]
                    if case in patch.flips or (one and other and one is not other)
                ),
            )
        )
    return SeriesMatrix(job.series.name, job.tree.name, run.run_id, tuple(patches))


def _sum_up(record: JobRecord) -> Mapping[str, Status]:
    """By case, pass or fail: the worst of its subtests; nothing for a case that did neither."""
    found: dict[str, Status] = {}
    for verdict in sorted(judge_job(record), key=lambda v: WORST_FIRST.index(v.raw)):
        if verdict.raw is Status.PASS or verdict.raw.is_kernel_fault:
            found.setdefault(verdict.case, Status.PASS if verdict.raw is Status.PASS else Status.FAIL)
    return found


def render(matrix: SeriesMatrix) -> str:
    """A line a flip, below its patch; what is not as claimed says so."""
    lines = [("patch", "case", "flip", "claimed")]
    for patch in matrix.patches:
        lines.append((patch.file, f"not tested: {patch.trouble}" if patch.trouble else "", "", ""))
        for flip in patch.flips:
            seen = f"{flip.before} -> {flip.after}" if flip.before != flip.after else f"stays {flip.after}"
            claimed = "as claimed" if flip.is_as_claimed else f"CLAIMED: {flip.claimed or 'nothing'}"
            lines.append(("", flip.case, seen, claimed))
        if not patch.flips and not patch.trouble:
            lines.append(("", "flips nothing", "", ""))
    verb = "as" if matrix.is_as_claimed else "NOT as"
    told = f"{matrix.series} on {matrix.tree} is {verb} series.yaml claims ({matrix.run_id})"
    return f"{render_columns(lines)}\n{told}\n"


def render_json(matrix: SeriesMatrix) -> str:
    told = asdict(matrix) | {"is_as_claimed": matrix.is_as_claimed}
    return json.dumps({"schema": "cowbell-series-matrix-1", **told}, indent=1) + "\n"
