# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports the value of every requested config symbol, with the reason where it differs.

Nothing is built: only Kconfig runs, a few seconds per kernel.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.kernel.kconfig import SymbolOutcome
from orchestrator.plan.steps import Prepared


@dataclass(frozen=True, slots=True)
class Symbol:
    """The outcome of a config symbol. ``state`` is in words, ``where`` the file and line that request it.

    ``taken`` differs from ``symbol`` where the fragment names alternatives.
    """

    symbol: str
    taken: str
    requested: str
    got: str
    state: str
    is_error: bool
    reason: str
    where: str


@dataclass(frozen=True, slots=True)
class KernelConfig:
    """One kernel of one row, and the outcome of each symbol in the order of the fragments."""

    job: str
    arch: str
    kernel: str
    symbols: tuple[Symbol, ...]

    @property
    def is_bad(self) -> bool:
        return any(symbol.is_error for symbol in self.symbols)


def make_reports(prepared: Mapping[str, Prepared]) -> Iterator[KernelConfig]:
    """A report for each job whose config was checked; one whose series is not for its tree has none."""
    for name, job in prepared.items():
        if job.request and job.outcomes is not None:
            request, symbols = job.request, tuple(map(_describe, job.outcomes))
            yield KernelConfig(name, request.arch.name, request.subject, symbols)


def _describe(outcome: SymbolOutcome) -> Symbol:
    asked = outcome.request
    return Symbol(
        asked.symbol, outcome.taken, asked.value, outcome.got, outcome.state, outcome.is_error,
        outcome.reason, asked.where,
    )  # fmt: skip


def render_text(reports: Sequence[KernelConfig]) -> str:
    lines = []
    for report in reports:
        counts = Counter(symbol.state for symbol in report.symbols)
        counted = ", ".join(f"{number} {state}" for state, number in counts.items())
        lines.append(f"{report.job}: {report.kernel}, {report.arch}: {counted}")
        for one in report.symbols:
            text = f"{one.taken or one.symbol}={one.requested}"
            if one.got != one.requested:
                text += f", got {one.got}"
            lines.append(f"  {'ERROR' if one.is_error else '':<5} {one.state:<11} {text}  # {one.where}")
            if one.reason:
                lines += [f"{'':<20}{line}" for line in one.reason.splitlines()]
    return "\n".join(lines) + "\n"
