# SPDX-License-Identifier: GPL-2.0-or-later
"""Points of a case's history in, SVG out that stands in a page: how often it failed, how long it took."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from orchestrator import odds
from orchestrator.ktap import Rate
from orchestrator.record import RunRecord
from orchestrator.verdict import judge_job

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 320, 110, 44, 8, 18


@dataclass(frozen=True, slots=True)
class Point:
    """One result: when it began (ISO 8601), how long it took in seconds, and hits of tries if it is a race.

    ``kernel`` and ``row`` tell whose line it belongs to; ``name`` is the subtest's.
    """

    name: str
    kernel: str
    row: str
    started: str
    duration_s: float
    status: str
    hits: int = 0
    tries: int = 0


def list_points(runs: Iterable[RunRecord]) -> list[Point]:
    """The points of stored runs, in the order of their time; what was left out or not run has none."""
    found: dict[Point, None] = {}
    for run in runs:
        for job in run.jobs:
            began = {result.case: result.started or run.started for result in job.results}
            series = f" + {job.series}" if job.series else ""
            for verdict in judge_job(job):
                if verdict.case in began:
                    hits, tries = (verdict.rate.hits, verdict.rate.tries) if verdict.rate else (0, 0)
                    found[
                        Point(
                            verdict.name, f"{job.version or job.tree}{series}", job.row, began[verdict.case],
                            verdict.duration_s, verdict.raw, hits, tries,
                        )
                    ] = None  # fmt: skip
    return sorted(found, key=lambda point: point.started)


def render_rates(points: Sequence[Point]) -> str:
    """The failure rate of each result that told one, with its interval; empty without any."""
    # more hits than tries are a count, not a rate
    told = [point for point in points if point.tries and 0 <= point.hits <= point.tries]
    if not told:
        return ""
    bounds = [odds.find_interval(Rate(point.hits, point.tries)) for point in told]
    top = max(high for _, high in bounds)
    marks = []
    for number, (point, (low, high)) in enumerate(zip(told, bounds, strict=True)):
        x, rate = _place_x(number, len(told)), point.hits / point.tries
        bounds_told = f"{point.hits} of {point.tries}, {odds.percent(low)} to {odds.percent(high)}"
        title = f"{point.started[:16]} {point.kernel}: {bounds_told}"
        marks.append(
            f'<g><title>{escape(title)}</title><line x1="{x}" x2="{x}" y1="{_place_y(low, top)}" '
            f'y2="{_place_y(high, top)}" class="bar"/>'
            f'<circle cx="{x}" cy="{_place_y(rate, top)}" r="3.5" class="{_side(point)}"/></g>'
        )
    return _frame("failure rate, 95 % interval", odds.percent(top), marks, told)


def render_durations(points: Sequence[Point]) -> str:
    """How long each result took; empty when there is only one, which tells nothing over time."""
    if len(points) < 2:
        return ""
    top = max(point.duration_s for point in points) or 1.0
    marks = []
    for number, point in enumerate(points):
        x, y = _place_x(number, len(points)), _place_y(point.duration_s, top)
        title = f"{point.started[:16]} {point.kernel}: {point.status.upper()}, {point.duration_s:.3f} s"
        # bad ones are square: the shape tells what the colour tells
        shape = (
            f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7" class="bad"/>'
            if _side(point) == "bad"
            else f'<circle cx="{x}" cy="{y}" r="3.5" class="good"/>'
        )
        marks.append(f"<g><title>{escape(title)}</title>{shape}</g>")
    return _frame("duration; squares failed", f"{top:.2f} s", marks, points)


def _side(point: Point) -> str:
    is_bad = point.hits > 0 if point.tries else point.status in ("fail", "crash", "timeout", "broken")
    return "bad" if is_bad else "good"


def _place_x(number: int, count: int) -> float:
    return round(_LEFT + 8 + (_WIDTH - _LEFT - 16) * (number + 0.5) / count, 1)


def _place_y(value: float, top: float) -> float:
    return round(_TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - value / top), 1) if top else _HEIGHT - _BOTTOM


def _frame(label: str, top: str, marks: Iterable[str], points: Sequence[Point]) -> str:
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
