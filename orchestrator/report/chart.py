# SPDX-License-Identifier: GPL-2.0-or-later
"""Draws the history of a test as SVG: its failures and its duration over time."""

from collections.abc import Iterable, Sequence
from html import escape

from orchestrator.history.entry import Entry
from orchestrator.result import statistics
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
