# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes runs as one HTML page that needs no network: a matrix with the reason of each verdict.

Guest output is shown as text; unprintable characters are shown by their number.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import jinja2
from markupsafe import Markup

from orchestrator.guest.setup import describe_setup
from orchestrator.history.entry import Entry, make_result_id
from orchestrator.parse.codeplace import add_source_lines
from orchestrator.parse.console import ConsoleLog, parse_console
from orchestrator.parse.printk import make_printable
from orchestrator.project.guesttest import find_family
from orchestrator.report.bundle import is_failing, name_bundle, name_file
from orchestrator.report.chart import render_durations, render_rates
from orchestrator.report.replay import make_command
from orchestrator.report.report import Judged, describe_flip, describe_kernel, list_parts
from orchestrator.result.record import JobRecord, TrialResult
from orchestrator.result.stored import name_trace
from orchestrator.result.verdict import WORST_FIRST, Verdict
from orchestrator.status import Status

# console lines on the page: before and after the first line of a splat, or at the end
_BEFORE, _AFTER, _END = 8, 60, 40
_LINE = 400
# a chart shows the last points only
_MOST_POINTS = 50
# the folder of the files to which a page links, beside it
LINKED = "files"
# unexpected verdicts first, the worst one first
_ORDER = (*(status for status in WORST_FIRST if status.is_bad), Status.XFAIL, Status.SKIP, Status.PASS)


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Lines of a console, each with whether a splat starts there; the numbers of lines before and after."""

    lines: tuple[tuple[str, bool], ...]
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Shown:
    """A verdict on the page. ``job`` is the name of its kernel, ``slug`` that of the test in addresses.

    ``bundle`` is the path of its evidence, ``log`` that of the console log of its boot, ``trace`` that
    of its trace; empty if they are lost. ``before`` is the outcome in the previous run of the row.
    """

    job: str
    slug: str
    verdict: Verdict
    trial: int
    command: str
    excerpt: Excerpt
    diagnostics: Excerpt
    bundle: str
    log: str
    trace: str
    before: Entry | None
    charts: Markup

    @property
    def anchor(self) -> str:
        return f"{self.job}/{self.slug}"

    @property
    def has_changed(self) -> bool:
        """Whether the previous run of the row had another verdict."""
        return self.before is not None and self.before.raw is not self.verdict.raw

    @property
    def order(self) -> int:
        return _ORDER.index(self.verdict.status)


@dataclass(frozen=True, slots=True)
class Column:
    """A kernel of the matrix. ``files`` are the paths of its files by label."""

    name: str
    job: JobRecord
    run: str
    shown: tuple[Shown, ...]
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PageLine:
    """A test over all columns, None if it was not planned, and its flips within rows.

    ``order`` is that of its worst verdict, ``duration_s`` the longest one.
    """

    name: str
    slug: str
    summary: str
    family: str
    order: int
    duration_s: float
    variants: tuple[Shown | None, ...]
    flips: tuple[str, ...]

    @property
    def has_changed(self) -> bool:
        return any(one.has_changed for one in self.variants if one)


def find_excerpt(console: str, log: ConsoleLog | None = None) -> Excerpt:
    """The lines around the first fault, or around the first splat, or the last lines.

    ``log`` is the parsed console, if it was parsed before.
    """
    # split at newlines only, not at other line ends in guest output
    lines = console.removesuffix("\n").split("\n") if console else []
    splats = (log or parse_console(console)).splats if console else ()
    marked = {splat.line_number for splat in splats}
    first = next((splat.line_number for splat in splats if splat.is_fault), min(marked, default=0))
    if first:
        begin, end = max(0, first - 1 - _BEFORE), first - 1 + _AFTER
    else:
        begin, end = max(0, len(lines) - _END), len(lines)
    kept = tuple(
        (make_printable(line[:_LINE]), begin + n + 1 in marked) for n, line in enumerate(lines[begin:end])
    )
    return Excerpt(kept, begin, max(0, len(lines) - end))


def render_html(judged: Judged, history: Sequence[Entry] = (), linked: Collection[str] = ()) -> str:
    """The page; ``history`` has the entries for its charts, oldest first.

    ``linked`` are the paths of the files that exist beside it.
    """
    columns = _make_columns(judged, history, linked)
    shown = sorted((one for column in columns for one in column.shown), key=lambda one: one.order)
    return load_template("orchestrator.report", "report.html.j2").render(
        judged=judged,
        columns=columns,
        filled=[column for column in columns if column.shown],
        lines=_make_lines(judged, [column for column in columns if column.shown]),
        unexpected=[one for one in shown if one.verdict.status.is_bad],
        changed=[one for one in shown if one.has_changed],
        has_before=any(one.before for one in shown),
        statuses=[status for status in _ORDER if any(one.verdict.status is status for one in shown)],
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
        finalize=lambda value: value if isinstance(value, Markup) else make_printable(str(value)),
    )
    return environment.get_template(name)


def _make_columns(judged: Judged, history: Sequence[Entry], linked: Collection[str]) -> list[Column]:
    past: dict[tuple[str, ...], list[Entry]] = {}
    of_row: dict[tuple[str, ...], list[Entry]] = {}
    for entry in history:
        key = (entry.name, entry.row, entry.arch, entry.kernel, entry.series)
        past.setdefault(key, []).append(entry)
        of_row.setdefault((entry.name, entry.row, entry.arch, entry.variant), []).append(entry)
    columns = []
    prefixes = {run.run_id: prefix for run, prefix in list_parts(judged)}
    for (job, verdicts), name, run in zip(judged.jobs, judged.names, judged.origins, strict=True):
        prefix = prefixes[run.run_id]

        def find(what: str, job: JobRecord = job, prefix: str = prefix) -> str:
            path = f"{prefix}{LINKED}/{name_file(job, what)}"
            return path if path in linked else ""

        results = {(result.test, result.trial): result for result in job.results}
        shown = []
        for verdict in verdicts:
            result = results.get((verdict.test, verdict.trial))
            is_dull = verdict.status is Status.PASS and not verdict.rate
            points = past.get((verdict.name, job.row, job.arch, job.version, job.series), [])[-_MOST_POINTS:]
            charts = "" if is_dull else render_rates(points) + render_durations(points)
            bundle = f"{prefix}evidence/{name_bundle(job, result)}" if result and is_failing(verdict) else ""
            shown.append(
                Shown(
                    job=name,
                    # an id has no blanks
                    slug=re.sub(r"\s", "_", make_printable(verdict.name)),
                    verdict=verdict,
                    trial=result.trial if result else 1,
                    command=make_command(run, job, verdict.test),
                    excerpt=(
                        find_excerpt(_show(result.console, result), result.log)
                        if result and not is_dull
                        else find_excerpt("")
                    ),
                    diagnostics=find_excerpt(_show(result.said, result) if result else ""),
                    bundle=bundle,
                    log=find(result.boot) if result else "",
                    trace=find(name_trace(result.test, result.trial)) if result and result.trace else "",
                    before=_find_before(
                        of_row.get((verdict.name, job.row, job.arch, job.variant), []),
                        [one for one in job.results if one.test == verdict.test],
                    ),
                    # generated and escaped by chart
                    charts=Markup(charts),  # noqa: S704
                )
            )
        files = {what: path for what in ("config", "series") if (path := find(what))}
        columns.append(Column(name, job, run.run_id, tuple(shown), files))
    return columns


def _find_before(entries: Sequence[Entry], results: Sequence[TrialResult]) -> Entry | None:
    """The outcome of a subtest in the run before that of its results; of several trials the worst."""
    own = {make_result_id(result) for result in results} if entries else set()
    began = min((result.started for result in results if result.started), default="")
    earlier = [entry for entry in entries if entry.result_id not in own and entry.started < began]
    trials: list[Entry] = []
    for entry in reversed(earlier):
        trials.append(entry)
        if entry.trial == 1:
            break
    return min(trials, key=lambda entry: WORST_FIRST.index(entry.raw), default=None)


def _show(log: str, result: TrialResult) -> str:
    return add_source_lines(log, result.source_lines)


def _make_lines(judged: Judged, columns: Sequence[Column]) -> list[PageLine]:
    """The lines of the matrix, those with the worst verdicts first."""
    by_column = [{shown.verdict.name: shown for shown in column.shown} for column in columns]
    lines = []
    for name in {name for found in by_column for name in found}:
        flips = []
        for group in judged.groups:
            if flip := describe_flip(group.tests.get(name, {}), group.jobs):
                version = f"{group.jobs[0].version or group.jobs[0].tree}: " if len(judged.groups) > 1 else ""
                flips.append(f"{version}{flip}")
        shown = [found[name] for found in by_column if name in found]
        test = shown[0].verdict.test
        lines.append(
            PageLine(
                name=name,
                slug=shown[0].slug,
                summary=next(filter(None, (column.job.summaries.get(test) for column in columns)), ""),
                family=find_family(test),
                order=min(one.order for one in shown),
                duration_s=max(one.verdict.duration_s for one in shown),
                variants=tuple(found.get(name) for found in by_column),
                flips=tuple(dict.fromkeys(flips)),
            )
        )
    # of expected verdicts, the name alone decides
    return sorted(lines, key=lambda line: (min(line.order, _ORDER.index(Status.XFAIL)), line.name))
