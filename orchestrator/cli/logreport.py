# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports the splats and KTAP results of files, as text and as data."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.parse.ktap import Rate
from orchestrator.parse.logfile import LogFile, Stream
from orchestrator.parse.printk import make_printable
from orchestrator.parse.splat import Splat
from orchestrator.status import Status

_MAX_LISTED = 100


@dataclass(frozen=True, slots=True)
class StreamResult:
    """A result of a KTAP stream: a leaf with its full name."""

    name: str
    status: Status
    reason: str
    rate: Rate | None


@dataclass(frozen=True, slots=True)
class StreamReport:
    """A KTAP stream that begins at a line. ``plan`` is None if there is none."""

    line_number: int
    plan: int | None
    skip: str | None
    results: tuple[StreamResult, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileReport:
    """The splats and KTAP streams of a file. ``dropped`` counts the splats beyond the limit of their kind."""

    file: str
    is_bad: bool
    lines: int
    boots: int
    panic: str | None
    splats: tuple[Splat, ...]
    dropped: dict[str, int]
    streams: tuple[StreamReport, ...]
    dropped_streams: int


def make_report(name: str, parsed: LogFile) -> FileReport:
    log = parsed.log
    return FileReport(
        file=name,
        is_bad=parsed.is_bad,
        lines=log.lines,
        boots=log.boots,
        panic=log.panic,
        splats=log.splats,
        dropped={str(kind): number for kind, number in log.dropped},
        streams=tuple(map(_make_stream, parsed.streams)),
        dropped_streams=parsed.dropped_streams,
    )


def _make_stream(stream: Stream) -> StreamReport:
    results = (
        StreamResult(name, result.status, result.reason, result.rate)
        for name, result in stream.ktap.flatten()
    )
    return StreamReport(
        stream.line_number, stream.ktap.plan, stream.ktap.skip, tuple(results), stream.problems
    )


def render(reports: tuple[FileReport, ...], *, is_verbose: bool) -> str:
    """A paragraph per file; with ``is_verbose`` also the lines of each splat, and the results that passed."""
    return make_printable("\n".join("\n".join(_render_file(one, is_verbose)) + "\n" for one in reports))


def _render_file(report: FileReport, is_verbose: bool) -> Iterator[str]:
    faults = sum(splat.is_fault for splat in report.splats) + sum(report.dropped.values())
    notices = sum(not splat.is_fault for splat in report.splats)
    found = [_count(report.lines, "line"), _count(faults, "splat")]
    found += [_count(notices, "notice")] if notices else []
    yield f"{report.file}: {', '.join([*found, _count(len(report.streams), 'KTAP stream')])}"
    for splat in report.splats:
        yield f"  {splat.line_number}: {splat.title}"
        facts = [splat.fingerprint, *([f"task {splat.task}"] if splat.task else [])]
        facts += [f"test {splat.test}"] if splat.test else []
        yield f"      {', '.join(facts)}"
        if is_verbose:
            yield from (f"      | {line}" for line in splat.excerpt.split("\n"))
    for kind, number in report.dropped.items():
        yield f"  {number} more splats of kind {kind}"
    if report.panic:
        yield f"  {report.panic}"
    for stream in report.streams:
        yield from _render_stream(stream, is_verbose)
    if report.dropped_streams:
        yield f"  {report.dropped_streams} more KTAP streams were not read"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _render_stream(stream: StreamReport, is_verbose: bool) -> Iterator[str]:
    count = Counter(result.status for result in stream.results)
    counted = ", ".join(f"{number} {status}" for status, number in count.items()) or "no results"
    yield f"  {stream.line_number}: KTAP: {counted}" + (f" (SKIP {stream.skip})" if stream.skip else "")
    yield from (f"      {problem}" for problem in stream.problems)
    shown = [result for result in stream.results if is_verbose or result.status is not Status.PASS]
    for result in shown[:_MAX_LISTED]:
        rate = f" ({result.rate} tries)" if result.rate else ""
        text = f"{result.name}: {result.reason}" if result.reason else result.name
        yield f"      {str(result.status).upper():<7} {text}{rate}"
    if len(shown) > _MAX_LISTED:
        yield f"      {len(shown) - _MAX_LISTED} more results; --json has all"
