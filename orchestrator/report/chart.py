# SPDX-License-Identifier: GPL-2.0-or-later
"""Draws SVG: the failures and the duration of a test over time, and the timeline of a run."""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from orchestrator.history.entry import Entry
from orchestrator.result import statistics
from orchestrator.result.record import RunRecord
from orchestrator.status import Status

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 320, 110, 44, 8, 18


def render_rates(points: Sequence[Entry]) -> str:
    """The failure rates with their intervals; empty if no result has a rate."""
    # skip invalid rates with more hits than tries
    rates = [(point, point.rate) for point in points if point.rate]
    shown = [(point, rate) for point, rate in rates if 0 <= rate.hits <= rate.tries > 0]
    if not shown:
        return ""
    bounds = [statistics.find_interval(rate) for _, rate in shown]
    top = max(high for _, high in bounds)
    marks = []
    for number, ((point, rate), (low, high)) in enumerate(zip(shown, bounds, strict=True)):
        x, y = _place_x(number, len(shown)), _place_y(rate.hits / rate.tries, top)
        title = f"{_describe_point(point)}: {rate}, {statistics.percent(low)} to {statistics.percent(high)}"
        marks.append(
            f'<g><title>{escape(title)}</title><line x1="{x}" x2="{x}" y1="{_place_y(low, top)}" '
            f'y2="{_place_y(high, top)}" class="bar"/>'
            f'<circle cx="{x}" cy="{y}" r="3.5" class="{_side(point)}"/></g>'
        )
    return _frame(
        "failure rate, 95 % interval", statistics.percent(top), marks, [point for point, _ in shown]
    )


def render_durations(points: Sequence[Entry]) -> str:
    """The duration of each result; empty if there is only one."""
    if len(points) < 2:
        return ""
    top = max(point.duration_s for point in points) or 1.0
    marks = []
    for number, point in enumerate(points):
        x, y = _place_x(number, len(points)), _place_y(point.duration_s, top)
        title = f"{_describe_point(point)}: {point.raw.upper()}, {point.duration_s:.3f} s"
        # failures are square, so that the chart does not depend on colour
        shape = (
            f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7" class="bad"/>'
            if _side(point) == "bad"
            else f'<circle cx="{x}" cy="{y}" r="3.5" class="good"/>'
        )
        marks.append(f"<g><title>{escape(title)}</title>{shape}</g>")
    return _frame("duration; squares failed", f"{top:.2f} s", marks, points)


@dataclass(frozen=True, slots=True)
class Bar:
    """A step of a job: its stage, what it did, and when (UTC)."""

    job: str
    stage: str
    subject: str
    began: datetime.datetime
    seconds: float


_COLOURS = {"build": "#b35900", "run": "#2a6f97"}
_ROW, _NAMES, _WIDE, _TICKS = 18, 190, 1000, 6


def list_bars(run: RunRecord, builds: Mapping[str, tuple[datetime.datetime, float]]) -> list[Bar]:
    """The steps of a run: its tests, and its builds, whose begin and seconds are by build id.

    Older results lack their start; they are left out.
    """
    bars = []
    for job in run.jobs:
        name = f"{job.row}/{job.variant}"
        if job.build_id in builds:
            bars.append(Bar(name, "build", f"{job.tree} {job.series}".strip(), *builds[job.build_id]))
        bars += [
            Bar(name, "run", one.test, datetime.datetime.fromisoformat(one.started), one.duration_s)
            for one in job.results
            if one.started
        ]
    return bars


def render_timeline(bars: Sequence[Bar]) -> str:
    """A line for each job, with a bar for each step; empty without any."""
    if not bars:
        return ""
    first = min(bar.began for bar in bars)
    spans = [((bar.began - first).total_seconds(), bar) for bar in bars]
    total_s = max(1.0, *(at + bar.seconds for at, bar in spans))
    names = list(dict.fromkeys(bar.job for _, bar in sorted(spans, key=lambda span: span[0])))
    scale, bottom = (_WIDE - _NAMES - 10) / total_s, len(names) * _ROW + 6
    parts = [
        f'<text x="{_NAMES - 6}" y="{number * _ROW + 15}" text-anchor="end">{escape(name)}</text>'
        for number, name in enumerate(names)
    ]
    for tick in range(_TICKS + 1):
        x = _NAMES + (total_s * tick / _TICKS) * scale
        parts.append(
            f'<path d="M{x:.1f} 4V{bottom}" stroke="#bbb"/><text x="{x:.1f}" y="{bottom + 14}" '
            f'text-anchor="middle">{total_s * tick / _TICKS:.0f} s</text>'
        )
    for at, bar in spans:
        title = f"{bar.job}: {bar.stage} {bar.subject}, {bar.seconds:.1f} s"
        parts.append(
            f'<rect x="{_NAMES + at * scale:.1f}" y="{names.index(bar.job) * _ROW + 5}" '
            f'width="{max(1.0, bar.seconds * scale):.1f}" height="{_ROW - 5}" '
            f'fill="{_COLOURS[bar.stage]}"><title>{escape(title)}</title></rect>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {bottom + 20}" '
        f'font-family="sans-serif" font-size="11" role="img" aria-label="timeline of {len(bars)} steps">'
        f"{''.join(parts)}</svg>\n"
    )


def _describe_point(point: Entry) -> str:
    return f"{point.started[:16]} {point.kernel}{f' + {point.series}' if point.series else ''}"


def _side(point: Entry) -> str:
    is_bad = point.rate.hits > 0 if point.rate else point.raw.is_kernel_fault or point.raw is Status.BROKEN
    return "bad" if is_bad else "good"


def _place_x(number: int, count: int) -> float:
    return round(_LEFT + 8 + (_WIDTH - _LEFT - 16) * (number + 0.5) / count, 1)


def _place_y(value: float, top: float) -> float:
    return round(_TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - value / top), 1) if top else _HEIGHT - _BOTTOM


def _frame(label: str, top: str, marks: Iterable[str], points: Sequence[Entry]) -> str:
    base, first, last = _HEIGHT - _BOTTOM, points[0].started[:10], points[-1].started[:10]
    return (
        f'<figure class="chart"><figcaption>{escape(label)}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(label)}, {len(points)} results">'
        f'<path d="M{_LEFT} {_TOP}V{base}H{_WIDTH}" class="axis"/>'
        f'<text x="{_LEFT - 4}" y="{_TOP + 8}" text-anchor="end">{escape(top)}</text>'
        f'<text x="{_LEFT - 4}" y="{base}" text-anchor="end">0</text>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 4}">{escape(first)}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 4}" text-anchor="end">{escape(last)}</text>'
        f"{''.join(marks)}</svg></figure>"
    )
