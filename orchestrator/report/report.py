# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes runs as text for people and for programs. Does no I/O and makes no decisions."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from rich import box
from rich.table import Table

from orchestrator.guest.setup import describe_setup
from orchestrator.result import statistics
from orchestrator.result.record import JobRecord, RunRecord
from orchestrator.result.verdict import Verdict, is_unexercised, judge_job
from orchestrator.status import Status
from orchestrator.store.store import make_id

SCHEMA = "cowbell-report-1"
_STYLES = {
    Status.PASS: "green",
    Status.XFAIL: "yellow",
    Status.SKIP: "dim",
}


@dataclass(frozen=True, slots=True)
class Group:
    """Kernels that are compared: the variants of one row in one run, with verdicts by name and variant."""

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
        return tuple(Group(row, tuple(jobs), tests) for (_, row), (jobs, tests) in found.items())

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
    def summary(self) -> str:
        counts = Counter(verdict.status for verdict in self.verdicts)
        words = {Status.XFAIL: "failed as expected", Status.XPASS: "passed unexpectedly"}
        parts = ", ".join(
            f"{counts[status]} {words.get(status, status)}" for status in Status if counts[status]
        )
        if self.unexercised:
            parts += f"; {len(self.unexercised)} not exercised"
        ending = "every verdict is the expected one" if self.is_as_expected else "NOT as expected"
        return f"{sum(counts.values())} verdicts: {parts or 'none'}: {ending}"


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


def describe_status(verdict: Verdict) -> str:
    """The outcome, and whether it was expected, as short text."""
    if verdict.status is Status.XFAIL:
        return f"{verdict.raw.upper()} (expected)"
    if verdict.status is Status.XPASS:
        return "PASS (expected to fail)"
    return verdict.status.upper()


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


def describe_kernel(job: JobRecord) -> str:
    return f"{job.tree}{f' + {job.series}' if job.series else ''}"


def describe_boot(job: JobRecord) -> str:
    """The accelerator, and whether vng booted the guests."""
    return f"{job.accel}{', booted by vng' if job.boot == 'vng' else ''}"


def describe_guests(kernels: Iterable[JobRecord]) -> list[str]:
    """The verified setup of the guests, each once."""
    return list(dict.fromkeys(filter(None, (describe_setup(job.guest_setup) for job in kernels))))


def make_tables(judged: Judged) -> Iterator[Table]:
    """A table per row: test by kernel, with flips."""
    for group in judged.groups:
        row, kernels, tests = group.row, group.jobs, group.tests
        accels = ", ".join(sorted({describe_boot(job) for job in kernels if job.accel}))
        table = Table(
            title=f"{row}: {kernels[0].arch}, {kernels[0].version or kernels[0].tree}"
            + (f", {accels}" if accels else "")
            + "".join(f"\nguest: {text}" for text in describe_guests(kernels)),
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        table.add_column("test", no_wrap=True)
        for job in kernels:
            table.add_column(f"{job.variant}\n{describe_kernel(job)}", no_wrap=True)
        table.add_column("flipped", no_wrap=True)
        for name, by_kernel in tests.items():
            variants = (by_kernel.get(job.variant) for job in kernels)
            shown = [
                f"[{_STYLES.get(variant.status, 'bold red')}]{describe_status(variant)}[/]" if variant else ""
                for variant in variants
            ]
            table.add_row(name.replace("[", r"\["), *shown, describe_flip(by_kernel, kernels))
        yield table


def list_explanations(judged: Judged) -> Iterator[tuple[str, str]]:
    """Titles and texts: failures of jobs, and for each verdict the reason, the evidence, the expectation.

    A PASS is listed only if it has a rate or ignored known issues.
    """
    for job, verdicts in judged.jobs:
        if job.left_out:
            yield f"left out: {job.variant}", job.left_out
        if failure := job.failure:
            where = f"{failure.where}: " if failure.where else ""
            log = f"\nlog: {failure.log}" if failure.log else ""
            yield f"{failure.stage} failed on {job.variant}", f"{where}{failure.what}\n{failure.hint}{log}"
        for verdict in verdicts:
            has_more = verdict.status is not Status.PASS or verdict.rate or verdict.known
            if not has_more or verdict.stage != "run":
                continue
            text = "\n".join([verdict.reason, *(f"known issue: {known}" for known in verdict.known)])
            if verdict.why_expected:
                text += f"\nexpected {verdict.expected.upper()}: {verdict.why_expected}"
            if verdict.status.is_bad:
                # without the lines that are in the reason
                rest = [line for line in verdict.evidence.splitlines() if line not in verdict.reason]
                text += "\n".join(["", *rest])[:1500]
            yield f"{describe_status(verdict)} {verdict.name} on {job.variant}", text
    for row, verdict in judged.unexercised:
        yield f"not exercised: {verdict.name}, which row {row} lists by name", verdict.reason
    for group in judged.groups:
        for name, by_kernel in group.tests.items():
            if difference := describe_difference(by_kernel, group.jobs):
                yield f"{name}, {group.jobs[0].variant} less {group.jobs[-1].variant}", difference


def make_report(judged: Judged) -> dict[str, object]:
    """The report as plain data, as printed by ``--json``."""
    jobs = [
        {
            **{
                key: value
                for key, value in dataclasses.asdict(job).items()
                if key not in ("results", "expect", "tests")
            },
            "verdicts": [dataclasses.asdict(verdict) for verdict in verdicts],
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


def render_json(judged: Judged) -> str:
    return json.dumps(make_report(judged), indent=1) + "\n"


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
