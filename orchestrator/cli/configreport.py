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
    job: str
    arch: str
    kernel: str
    symbols: list[Symbol]


@dataclass(frozen=True, slots=True)
class ConfigReport:
    """One kernel of one row: its version, and the outcome of each symbol in the order of the fragments."""

    job: str
    arch: str
    kernel: str
    outcomes: tuple[SymbolOutcome, ...]

    @property
    def is_bad(self) -> bool:
        return any(outcome.is_error for outcome in self.outcomes)


def make_reports(prepared: Mapping[str, Prepared]) -> Iterator[ConfigReport]:
    """A report for each job whose config was checked; one whose series is not for its tree has none."""
    for name, job in prepared.items():
        if job.request and job.outcomes is not None:
            request = job.request
            yield ConfigReport(name, request.arch.name, request.subject, job.outcomes)


def render_text(reports: Sequence[ConfigReport]) -> str:
    lines = []
    for report in reports:
        counts = Counter(outcome.state for outcome in report.outcomes)
        counted = ", ".join(f"{number} {state}" for state, number in counts.items())
        lines.append(f"{report.job}: {report.kernel}, {report.arch}: {counted}")
        for outcome in report.outcomes:
            asked = outcome.request
            mark = "ERROR" if outcome.is_error else ""
            told = f"{outcome.taken or asked.symbol}={asked.value}"
            if outcome.got != asked.value:
                told += f", got {outcome.got}"
            lines.append(f"  {mark:<5} {outcome.state:<11} {told}  # {asked.where}")
            if outcome.reason:
                lines += [f"{'':<20}{line}" for line in outcome.reason.splitlines()]
    return "\n".join(lines) + "\n"


def list_kernels(reports: Sequence[ConfigReport]) -> list[KernelConfig]:
    """The reports as ``cowbell schema config`` describes them."""
    return [KernelConfig(r.job, r.arch, r.kernel, list(map(_list_symbol, r.outcomes))) for r in reports]


def _list_symbol(outcome: SymbolOutcome) -> Symbol:
    asked = outcome.request
    return Symbol(
        asked.symbol, outcome.taken, asked.value, outcome.got, outcome.state, outcome.is_error,
        outcome.reason, asked.where,
    )  # fmt: skip
