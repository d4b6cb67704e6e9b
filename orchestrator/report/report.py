# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes runs as text for people and for programs. Does no I/O and makes no decisions."""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.guest.setup import describe_setup
from orchestrator.result import statistics
from orchestrator.result.record import JobRecord, RunRecord
from orchestrator.result.verdict import Verdict, is_unexercised, judge_job
from orchestrator.status import Status
from orchestrator.store.store import make_id

SCHEMA = "cowbell-report-1"
# wide enough for every table, to find the width of one
_MEASURING = Console(width=10_000)
_MOST_LONGEST = 3
# by name and variant
_Tests = Mapping[str, Mapping[str, Verdict]]


@dataclass(frozen=True, slots=True)
class Group:
    """Kernels that are compared: the variants of one row in one run, with verdicts by name and variant."""

    run_id: str
    row: str
    jobs: tuple[JobRecord, ...]
    tests: Mapping[str, Mapping[str, Verdict]]


@dataclass(frozen=True)
class Judged:
    """A run with its verdicts, as the reports need it.

    ``parts`` are the runs that it was joined from, in the order of its jobs; empty for a single run.
    """

    run: RunRecord
    parts: tuple[RunRecord, ...] = ()

    @cached_property
    def jobs(self) -> tuple[tuple[JobRecord, tuple[Verdict, ...]], ...]:
        return tuple((job, judge_job(job)) for job in self.run.jobs)

    @cached_property
    def origins(self) -> tuple[RunRecord, ...]:
        """The run of each job."""
        return tuple(part for part in self.parts or (self.run,) for _ in part.jobs)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """A unique name for each job: row and variant, and the run id if there are several runs."""
        plain = [f"{job.row}/{job.variant}" for job in self.run.jobs]
        if not self.parts:
            return tuple(plain)
        return tuple(f"{name}@{run.run_id}" for name, run in zip(plain, self.origins, strict=True))

    @property
    def verdicts(self) -> Iterator[Verdict]:
        return (verdict for _, verdicts in self.jobs for verdict in verdicts)

    @property
    def is_as_expected(self) -> bool:
        """Whether there are verdicts and none of them is bad."""
        statuses = [verdict.status for verdict in self.verdicts]
        return bool(statuses) and not any(status.is_bad for status in statuses)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        found: dict[tuple[str, str], tuple[list[JobRecord], dict[str, dict[str, Verdict]]]] = {}
        for (job, verdicts), run in zip(self.jobs, self.origins, strict=True):
            jobs, tests = found.setdefault((run.run_id, job.row), ([], {}))
            jobs.append(job)
            for verdict in verdicts:
                tests.setdefault(verdict.name, {})[job.variant] = verdict
        return tuple(Group(*key, tuple(jobs), tests) for key, (jobs, tests) in found.items())

    @cached_property
    def unexercised(self) -> list[tuple[str, Verdict]]:
        """By row, the tests that it lists by name and that were skipped on all of its kernels."""
        found = []
        for group in self.groups:
            jobs = {job.variant: job for job in group.jobs}
            for by_variant in group.tests.values():
                if all(is_unexercised(jobs[variant], one) for variant, one in by_variant.items()):
                    found.append((group.row, next(iter(by_variant.values()))))
        return found

    @property
    def longest(self) -> str:
        """The jobs whose tests took longest, each with its longest test; empty for a single row."""
        if len({job.row for job in self.run.jobs}) < 2:
            return ""
        times = []
        for job, name in zip(self.run.jobs, self.names, strict=True):
            by_test: dict[str, float] = {}
            for result in job.results:
                by_test[result.test] = by_test.get(result.test, 0.0) + result.duration_s
            if by_test:
                test = max(by_test, key=by_test.__getitem__)
                times.append((sum(by_test.values()), name, test, by_test[test]))
        told = (
            f"{name} {seconds:.0f} s ({test} {test_s:.0f} s)"
            for seconds, name, test, test_s in sorted(times, reverse=True)[:_MOST_LONGEST]
        )
        return ", ".join(told)

    @property
    def summary(self) -> str:
        counts = Counter(verdict.status for verdict in self.verdicts)
        words = {Status.XFAIL: "failed as expected", Status.XPASS: "passed unexpectedly"}
        parts = ", ".join(
            f"{counts[status]} {words.get(status, status)}" for status in Status if counts[status]
        )
        if self.unexercised:
            parts += f"; {len(self.unexercised)} not exercised"
        ending = "every verdict is the expected one" if self.is_as_expected else "NOT as expected"
        total = sum(counts.values())
        return f"{total} verdict{'s' * (total != 1)}: {parts or 'none'}: {ending}"


def join_runs(runs: Sequence[RunRecord]) -> Judged:
    """Join runs in the given order; a single run is not changed."""
    if len(runs) == 1:
        return Judged(runs[0])
    names = [run.run_id for run in runs]
    joined = RunRecord(
        f"joined-{make_id(names)}",
        f"cowbell report RUN={','.join(names)}",
        max(run.started for run in runs),
        tuple(job for run in runs for job in run.jobs),
    )
    return Judged(joined, tuple(runs))


def list_parts(judged: Judged) -> Iterator[tuple[RunRecord, str]]:
    """The runs of a report, each with the path of its files from the report's folder."""
    for run in judged.parts or (judged.run,):
        yield run, f"{run.run_id}/" if judged.parts else ""


def describe_flip(by_kernel: Mapping[str, Verdict], kernels: Sequence[JobRecord]) -> str:
    """How the outcome changed from the row's first kernel to its last, if it did."""
    found = [by_kernel[job.variant].raw for job in kernels if job.variant in by_kernel]
    if len(found) < 2 or found[0] is found[-1] or Status.SKIP in (found[0], found[-1]):
        return ""
    return f"{found[0].upper()} -> {found[-1].upper()}"


def describe_difference(by_kernel: Mapping[str, Verdict], kernels: Sequence[JobRecord]) -> str:
    """How much more often a race failed on the row's first kernel than on its last, with the interval."""
    found = [by_kernel[job.variant] for job in kernels if job.variant in by_kernel]
    rates = [
        verdict.rate for verdict in found if verdict.rate and verdict.rate.hits <= verdict.rate.tries > 0
    ]
    if len(rates) < 2 or len(rates) < len(found) or not any(rate.hits for rate in rates):
        return ""
    low, high = statistics.find_difference(rates[0], rates[-1])
    confidence = statistics.percent(statistics.CONFIDENCE)
    between = f"{statistics.percent(low)} to {statistics.percent(high)}"
    return f"{rates[0]} less {rates[-1]}: {between} with {confidence} confidence"


def is_of_git(job: JobRecord) -> bool:
    """Whether the base of a job is a commit that others may have: one of a git server or a checkout."""
    is_archive = re.search(r"\.(?:tar(?:\.\w+)?|tgz|txz|tbz2?|tzst)$", job.origin)
    is_commit = re.fullmatch(r"[0-9a-f]{40}", job.base) and job.base != job.tree_id
    return bool(is_commit and re.match(r"(?:https?|git|ssh)://|/", job.origin) and not is_archive)


def describe_kernel(job: JobRecord) -> str:
    return f"{job.tree}{f' + {job.series}' if job.series else ''}"


def describe_boot(job: JobRecord) -> str:
    """The accelerator, and whether vng booted the guests."""
    return f"{job.accel}{', booted by vng' if job.boot == 'vng' else ''}"


def describe_guests(kernels: Iterable[JobRecord]) -> list[str]:
    """The verified setup of the guests, each once."""
    return list(dict.fromkeys(filter(None, (describe_setup(job.guest_setup) for job in kernels))))


def make_tables(judged: Judged, width: int, *, only_bad: bool = False) -> Iterator[tuple[str, Table]]:
    """A title and a table per row: test by kernel, with flips.

    A table of more than ``width`` columns is broken into more lines. ``only_bad`` leaves out the tests
    without an unexpected verdict.
    """
    for group in judged.groups:
        kernels = group.jobs
        tests = {
            name: by_kernel
            for name, by_kernel in group.tests.items()
            if not only_bad or any(verdict.status.is_bad for verdict in by_kernel.values())
        }
        accels = ", ".join(sorted({describe_boot(job) for job in kernels if job.accel}))
        title = f"{group.row}: {kernels[0].arch}, {kernels[0].version or kernels[0].tree}"
        title += f", {accels}" if accels else ""
        title += f"\nrun: {group.run_id}" if judged.parts else ""
        title += "".join(f"\nguest: {text}" for text in describe_guests(kernels))
        for table in _list_layouts(tests, kernels):
            if table.__rich_measure__(_MEASURING, _MEASURING.options).maximum <= width:
                break
        if tests:
            yield title, table


def _list_layouts(tests: _Tests, kernels: Sequence[JobRecord]) -> Iterator[Table]:
    """The tables of the same verdicts, each narrower than the one before."""
    yield _make_matrix(tests, kernels)
    # the series of a kernel, and then the parameters of a test, on a line of their own
    yield _make_matrix(tests, kernels, before_series="\n")
    yield _make_matrix(tests, kernels, before_series="\n", before_params="\n  ")
    yield _make_list(tests, kernels)


def _make_matrix(
    tests: _Tests, kernels: Sequence[JobRecord], before_series: str = " ", before_params: str = ""
) -> Table:
    """A line per test, and a column per kernel."""
    heads = [f"{job.variant}\n{describe_kernel(job).replace(' +', f'{before_series}+')}" for job in kernels]
    table = _start_table("test", *heads, "flipped")
    for name, by_kernel in tests.items():
        shown = (_show_verdict(by_kernel.get(job.variant)) for job in kernels)
        table.add_row(Text(name.replace("[", f"{before_params}[")), *shown, describe_flip(by_kernel, kernels))
    return table


def _make_list(tests: _Tests, kernels: Sequence[JobRecord]) -> Table:
    """A line per verdict, below the name of the test."""
    table = _start_table("test, variant", "verdict", "flipped")
    for name, by_kernel in tests.items():
        table.add_row(Text(name.replace("[", "\n  [")))
        flip = describe_flip(by_kernel, kernels)
        for job in kernels:
            if verdict := by_kernel.get(job.variant):
                table.add_row(Text(f"    {job.variant}"), _show_verdict(verdict), flip)
                flip = ""
    return table


def _start_table(*heads: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in heads:
        table.add_column(Text(head), no_wrap=True)
    return table


def _show_verdict(verdict: Verdict | None) -> Text:
    return Text(verdict.label, verdict.status.style) if verdict else Text()


def list_explanations(judged: Judged, *, only_bad: bool = False) -> Iterator[tuple[str, str]]:
    """Titles and texts: failures of jobs, and for each verdict the reason, the evidence, the expectation.

    A PASS is listed only if it has a rate or ignored known issues; with ``only_bad``, only what is not as
    expected is listed.
    """
    for job, verdicts in judged.jobs:
        if job.left_out and not only_bad:
            yield f"left out: {job.variant}", job.left_out
        if failure := job.failure:
            where = f"{failure.where}: " if failure.where else ""
            log = f"\nlog: {failure.log}" if failure.log else ""
            yield f"{failure.stage} failed on {job.variant}", f"{where}{failure.what}\n{failure.hint}{log}"
        for verdict in verdicts:
            has_more = verdict.status is not Status.PASS or verdict.rate or verdict.known
            if not has_more or verdict.stage != "run" or (only_bad and not verdict.status.is_bad):
                continue
            text = "\n".join([verdict.reason, *(f"known issue: {known}" for known in verdict.known)])
            if verdict.why_expected:
                text += f"\nexpected {verdict.expected.upper()}: {verdict.why_expected}"
            if verdict.status.is_bad:
                # without the lines that are in the reason
                rest = [line for line in verdict.evidence.splitlines() if line not in verdict.reason]
                text += "\n".join(["", *rest])[:1500]
            yield f"{verdict.label} {verdict.name} on {job.variant}", text
    if only_bad:
        return
    for row, verdict in judged.unexercised:
        yield f"not exercised: {verdict.name}, which row {row} lists by name", verdict.reason
    for group in judged.groups:
        for name, by_kernel in group.tests.items():
            if difference := describe_difference(by_kernel, group.jobs):
                yield f"{name}, {group.jobs[0].variant} less {group.jobs[-1].variant}", difference


def make_report(judged: Judged, *, only_bad: bool = False) -> dict[str, object]:
    """The report as plain data, as printed by ``--json``; ``only_bad`` leaves out expected verdicts."""
    jobs = [
        {
            **{
                key: value
                for key, value in dataclasses.asdict(job).items()
                if key not in ("results", "expect", "tests")
            },
            "verdicts": [
                dataclasses.asdict(verdict) for verdict in verdicts if verdict.status.is_bad or not only_bad
            ],
        }
        for job, verdicts in judged.jobs
    ]
    return {
        "schema": SCHEMA,
        "run_id": judged.run.run_id,
        "command": judged.run.command,
        "started": judged.run.started,
        "summary": judged.summary,
        "is_as_expected": judged.is_as_expected,
        "jobs": jobs,
    }


def render_json(judged: Judged, *, only_bad: bool = False) -> str:
    return json.dumps(make_report(judged, only_bad=only_bad), indent=1) + "\n"


def render_ktap(judged: Judged) -> str:
    """KTAP version 1: a subtest per kernel, with its verdicts as tests."""
    lines = ["KTAP version 1", f"1..{len(judged.jobs)}"]
    for number, ((job, verdicts), name) in enumerate(zip(judged.jobs, judged.names, strict=True), 1):
        lines += [
            f"    # {describe_kernel(job)} {job.version} {describe_boot(job)}",
            "    KTAP version 1",
            f"    1..{len(verdicts)}",
        ]
        for index, verdict in enumerate(verdicts, 1):
            is_ok, directive = verdict.status.ktap
            reason = " ".join((verdict.reason or verdict.status).split()).replace("#", "")
            lines.append(
                f"    {'ok' if is_ok else 'not ok'} {index} - {verdict.name}"
                + (f" # {directive} {reason}" if directive else "")
            )
        is_bad = any(verdict.status.is_bad for verdict in verdicts)
        lines.append(f"{'not ok' if is_bad else 'ok'} {number} - {name}")
    return "\n".join(lines) + "\n"
