# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes runs as one HTML page that needs no network: a matrix with the reason of each verdict.

Guest output is shown as text; unprintable characters are shown by their number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jinja2
from markupsafe import Markup

from orchestrator.guest.setup import describe_setup
from orchestrator.history.entry import Entry
from orchestrator.parse.codeplace import add_source_lines
from orchestrator.parse.console import parse_console
from orchestrator.parse.printk import make_printable
from orchestrator.report.bundle import is_failing, name_bundle
from orchestrator.report.chart import render_durations, render_rates
from orchestrator.report.replay import make_command
from orchestrator.report.report import Judged, describe_flip, describe_kernel, describe_status
from orchestrator.result.record import JobRecord, TrialResult
from orchestrator.result.verdict import Verdict
from orchestrator.status import Status

# console lines on the page: before and after the first line of a splat, or at the end
_BEFORE, _AFTER, _END, _END_GOOD = 8, 60, 40, 8
_LINE = 400
# a chart shows the last points only
_MOST_POINTS = 50
# characters that change the text direction, have no width, or cannot be encoded as UTF-8
_UNSEEN = {
    code: f"<U+{code:04X}>"
    for code in (
        0x061C, *range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF,
        *range(0xD800, 0xE000), *range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080),
    )
}  # fmt: skip
_SIGNS = {Status.PASS: "✓", Status.XFAIL: "≈", Status.SKIP: "–"}


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Lines of a console, each with whether a splat starts there; the numbers of lines before and after."""

    lines: tuple[tuple[str, bool], ...]
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Shown:
    """A verdict on the page. ``bundle`` is the path of its evidence, ``log`` the console of its boot."""

    anchor: str
    verdict: Verdict
    trial: int
    command: str
    excerpt: Excerpt
    diagnostics: Excerpt
    bundle: str
    log: str
    charts: Markup


@dataclass(frozen=True, slots=True)
class Column:
    """A kernel of the matrix; ``run`` is its run id if several runs are shown."""

    name: str
    job: JobRecord
    run: str
    shown: tuple[Shown, ...]


@dataclass(frozen=True, slots=True)
class PageLine:
    """A test over all columns, None if it was not planned, and its flips within rows."""

    name: str
    variants: tuple[Shown | None, ...]
    flips: tuple[str, ...]


def find_excerpt(console: str, *, is_good: bool = False) -> Excerpt:
    """The lines around the first fault, or around the first splat, or the last lines."""
    # split at newlines only, not at other line ends in guest output
    lines = console.removesuffix("\n").split("\n") if console else []
    splats = parse_console(console).splats
    marked = {splat.line_number for splat in splats}
    first = next((splat.line_number for splat in splats if splat.is_fault), min(marked, default=0))
    if first:
        begin, end = max(0, first - 1 - _BEFORE), first - 1 + _AFTER
    else:
        begin, end = max(0, len(lines) - (_END_GOOD if is_good else _END)), len(lines)
    kept = tuple(
        (make_visible(line[:_LINE]), begin + n + 1 in marked) for n, line in enumerate(lines[begin:end])
    )
    return Excerpt(kept, begin, max(0, len(lines) - end))


def make_visible(text: object) -> str:
    """Guest output without control and invisible characters."""
    return make_printable(str(text)).translate(_UNSEEN)


def render_html(judged: Judged, history: Sequence[Entry] = ()) -> str:
    """The page; ``history`` has the entries for its charts, oldest first."""
    columns = _make_columns(judged, history)
    return load_template("orchestrator.report", "report.html.j2").render(
        judged=judged,
        columns=columns,
        filled=[column for column in columns if column.shown],
        lines=_make_lines(judged, [column for column in columns if column.shown]),
        sign_of=lambda status: _SIGNS.get(status, "✗"),
        statuses=[s for s in Status if any(verdict.status is s for verdict in judged.verdicts)],
        describe_status=describe_status,
        describe_kernel=describe_kernel,
        describe_setup=describe_setup,
    )


def load_template(package: str, name: str) -> jinja2.Template:
    """A page's template, which may include this package's ``style.css``; unseen characters are shown."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(one, ".") for one in (package, "orchestrator.report")]
        ),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else make_visible(value),
    )
    return environment.get_template(name)


def _make_columns(judged: Judged, history: Sequence[Entry]) -> list[Column]:
    past: dict[tuple[str, ...], list[Entry]] = {}
    for entry in history:
        key = (entry.name, entry.row, entry.arch, entry.kernel, entry.series)
        past.setdefault(key, []).append(entry)
    columns = []
    for number, ((job, verdicts), name, run) in enumerate(
        zip(judged.jobs, judged.names, judged.origins, strict=True)
    ):
        results: Mapping[tuple[str, int], TrialResult] = {
            (result.test, result.trial): result for result in job.results
        }
        shown = []
        for index, verdict in enumerate(verdicts):
            result = results.get((verdict.test, verdict.trial))
            key = (verdict.name, job.row, job.arch, job.version, job.series)
            points = past.get(key, [])[-_MOST_POINTS:]
            is_kept = result is not None and is_failing(verdict)
            path = f"{f'../{run.run_id}/' if judged.parts else ''}evidence/"
            shown.append(
                Shown(
                    anchor=f"v{number}-{index}",
                    verdict=verdict,
                    trial=result.trial if result else 1,
                    command=make_command(run, job, verdict.test),
                    excerpt=find_excerpt(
                        _show(result.console, result) if result else "", is_good=verdict.raw is Status.PASS
                    ),
                    diagnostics=find_excerpt(_show(result.said, result) if result else ""),
                    bundle=path + name_bundle(job, result) if result and is_kept else "",
                    log=f"{result.boot}/console.log" if result else "",
                    # generated and escaped by chart
                    charts=Markup(render_rates(points) + render_durations(points)),  # noqa: S704
                )
            )
        columns.append(Column(name, job, run.run_id if judged.parts else "", tuple(shown)))
    return columns


def _show(log: str, result: TrialResult) -> str:
    return add_source_lines(log, result.source_lines)


def _make_lines(judged: Judged, columns: Sequence[Column]) -> list[PageLine]:
    by_column = [{shown.verdict.name: shown for shown in column.shown} for column in columns]
    names = sorted({name for found in by_column for name in found})
    lines = []
    for name in names:
        flips = []
        for group in judged.groups:
            if flip := describe_flip(group.tests.get(name, {}), group.jobs):
                version = f"{group.jobs[0].version or group.jobs[0].tree}: " if len(judged.groups) > 1 else ""
                flips.append(f"{version}{flip}")
        lines.append(
            PageLine(name, tuple(found.get(name) for found in by_column), tuple(dict.fromkeys(flips)))
        )
    return lines
