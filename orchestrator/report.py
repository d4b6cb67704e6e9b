# SPDX-License-Identifier: GPL-2.0-or-later
"""Judged runs in, text for people and machines out. Nothing is read, written or decided here."""

import dataclasses
import json
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import jinja2
from rich import box
from rich.table import Table

from orchestrator.laboratory import describe_readings
from orchestrator.record import JobRecord, RunRecord
from orchestrator.status import Status
from orchestrator.verdict import Verdict, judge_job

SCHEMA = "cowbell-report-1"
# characters that XML 1.0 has no way to say
_NO_XML = {code: "\N{REPLACEMENT CHARACTER}" for code in range(32) if code not in (9, 10, 13)}
_STYLES = {
    Status.PASS: "green",
    Status.XFAIL: "yellow",
    Status.SKIP: "dim",
}


@dataclass(frozen=True)
class Judged:
    """A run with its verdicts, and what the reports need to know of it."""

    run: RunRecord

    @cached_property
    def jobs(self) -> tuple[tuple[JobRecord, tuple[Verdict, ...]], ...]:
        return tuple((job, judge_job(job)) for job in self.run.jobs)

    @property
    def verdicts(self) -> Iterator[Verdict]:
        return (verdict for _, verdicts in self.jobs for verdict in verdicts)

    @property
    def is_as_expected(self) -> bool:
        """Whether there is a verdict at all, and none is bad."""
        statuses = [verdict.status for verdict in self.verdicts]
        return bool(statuses) and not any(status.is_bad for status in statuses)

    @cached_property
    def rows(self) -> dict[str, tuple[list[JobRecord], dict[str, dict[str, Verdict]]]]:
        """Per matrix row: its kernels, and verdicts by name and kernel."""
        rows: dict[str, tuple[list[JobRecord], dict[str, dict[str, Verdict]]]] = {}
        for job, verdicts in self.jobs:
            kernels, cases = rows.setdefault(job.row, ([], {}))
            kernels.append(job)
            for verdict in verdicts:
                cases.setdefault(verdict.name, {})[job.cell] = verdict
        return rows

    @property
    def summary(self) -> str:
        counts = Counter(verdict.status for verdict in self.verdicts)
        words = {Status.XFAIL: "failed as expected", Status.XPASS: "passed unexpectedly"}
        said = ", ".join(
            f"{counts[status]} {words.get(status, status)}" for status in Status if counts[status]
        )
        ending = "every verdict is the expected one" if self.is_as_expected else "NOT as expected"
        return f"{sum(counts.values())} verdicts: {said or 'none'}: {ending}"


def describe_status(verdict: Verdict) -> str:
    """What happened, and whether that was expected, in a word or two."""
    if verdict.status is Status.XFAIL:
        return f"{verdict.raw.upper()} (expected)"
    if verdict.status is Status.XPASS:
        return "PASS (expected to fail)"
    return verdict.status.upper()


def describe_flip(by_kernel: Mapping[str, Verdict], kernels: list[JobRecord]) -> str:
    """How the outcome changed from the row's first kernel to its last, if it did."""
    found = [by_kernel[job.cell].raw for job in kernels if job.cell in by_kernel]
    if len(found) < 2 or found[0] is found[-1] or Status.SKIP in (found[0], found[-1]):
        return ""
    return f"{found[0].upper()} -> {found[-1].upper()}"


def describe_kernel(job: JobRecord) -> str:
    return f"{job.tree}{f' + {job.series}' if job.series else ''}"


def describe_boot(job: JobRecord) -> str:
    """The accelerator, and who booted the guests if it was not us."""
    return f"{job.accel}{', booted by vng' if job.boot == 'vng' else ''}"


def describe_guests(kernels: Iterable[JobRecord]) -> list[str]:
    """What the guests were found to be, from inside; each once, none for those that were given nothing."""
    return list(dict.fromkeys(filter(None, (describe_readings(job.readings) for job in kernels))))


def make_tables(judged: Judged) -> Iterator[Table]:
    """One table a row: case by kernel, and what flipped."""
    for row, (kernels, cases) in judged.rows.items():
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
        table.add_column("case", no_wrap=True)
        for job in kernels:
            table.add_column(f"{job.cell}\n{describe_kernel(job)}", no_wrap=True)
        table.add_column("flipped", no_wrap=True)
        for name, by_kernel in cases.items():
            cells = (by_kernel.get(job.cell) for job in kernels)
            shown = [
                f"[{_STYLES.get(cell.status, 'bold red')}]{describe_status(cell)}[/]" if cell else ""
                for cell in cells
            ]
            table.add_row(name.replace("[", r"\["), *shown, describe_flip(by_kernel, kernels))
        yield table


def list_explanations(judged: Judged) -> Iterator[tuple[str, str]]:
    """What ended a job early, once; for each other verdict but PASS what it is, was seen, was expected."""
    for job, verdicts in judged.jobs:
        if job.left_out:
            yield f"left out: {job.cell}", job.left_out
        if failure := job.failure:
            where = f"{failure.where}: " if failure.where else ""
            log = f"\nlog: {failure.log}" if failure.log else ""
            yield f"{failure.stage} failed on {job.cell}", f"{where}{failure.what}\n{failure.hint}{log}"
        for verdict in verdicts:
            if verdict.status is Status.PASS or verdict.stage != "run":
                continue
            text = verdict.reason
            if verdict.why_expected:
                text += f"\nexpected {verdict.expected.upper()}: {verdict.why_expected}"
            if verdict.status.is_bad and verdict.evidence and verdict.evidence != verdict.reason:
                text += f"\n{verdict.evidence[:1500]}"
            yield f"{describe_status(verdict)} {verdict.name} on {job.cell}", text


def make_report(judged: Judged) -> dict[str, object]:
    """The report as plain data: what ``--json`` prints and what the page is made of."""
    jobs = [
        {
            **{
                key: value
                for key, value in dataclasses.asdict(job).items()
                if key not in ("results", "expect", "cases")
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
    """KTAP version 1: a subtest a kernel, with the verdicts as its cases."""
    lines = ["KTAP version 1", f"1..{len(judged.jobs)}"]
    for number, (job, verdicts) in enumerate(judged.jobs, 1):
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
        lines.append(f"{'not ok' if is_bad else 'ok'} {number} - {job.row}/{job.cell}")
    return "\n".join(lines) + "\n"


def render_junit(judged: Judged) -> str:
    """JUnit XML: a suite a kernel. An expected failure is skipped with its reason, as GitLab shows it."""
    root = ET.Element("testsuites", name=judged.run.run_id)
    for job, verdicts in judged.jobs:
        counts = Counter(_junit_kind(verdict.status) for verdict in verdicts)
        suite = ET.SubElement(
            root,
            "testsuite",
            name=f"{job.row}/{job.cell}",
            tests=str(len(verdicts)),
            failures=str(counts["failure"]),
            errors=str(counts["error"]),
            skipped=str(counts["skipped"]),
            time=f"{sum(result.duration_s for result in job.results):.3f}",
            timestamp=judged.run.started.removesuffix("+00:00"),
        )
        for verdict in verdicts:
            family, _, name = verdict.name.partition("/" if "/" in verdict.case else ".")
            case = ET.SubElement(
                suite,
                "testcase",
                classname=f"{job.row}.{job.cell}.{family}",
                name=name,
                time=f"{verdict.duration_s:.3f}",
            )
            if kind := _junit_kind(verdict.status):
                said = f"{describe_status(verdict)}: {verdict.reason}".translate(_NO_XML)
                element = ET.SubElement(case, kind, message=said)
                if kind != "skipped":
                    element.set("type", verdict.status.upper())
                element.text = "\n".join(filter(None, (verdict.why_expected, verdict.evidence))).translate(
                    _NO_XML
                )
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _junit_kind(status: Status) -> str:
    match status:
        case Status.PASS:
            return ""
        case Status.SKIP | Status.XFAIL:
            return "skipped"
        case Status.BROKEN:
            return "error"
        case _:
            return "failure"


def render_html(judged: Judged) -> str:
    """One page that needs no network: the table, and behind each verdict what it rests on."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("orchestrator", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    consoles = {
        (job.row, job.cell, result.case): result.console + result.said
        for job, _ in judged.jobs
        for result in job.results
    }
    return environment.get_template("report.html.j2").render(
        judged=judged,
        consoles=consoles,
        describe_status=describe_status,
        describe_flip=describe_flip,
        describe_kernel=describe_kernel,
        describe_readings=describe_readings,
    )
