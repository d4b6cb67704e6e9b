# SPDX-License-Identifier: GPL-2.0-or-later
"""Cases and how long they took in, shares of about the same length out."""

import statistics
from collections.abc import Iterable, Mapping, Sequence

from orchestrator.project.guesttest import GuestCase
from orchestrator.history.entry import Entry

# of a case that nobody has seen, where no other case is known either
_UNKNOWN_S = 2.0


def find_times(entries: Iterable[Entry]) -> dict[tuple[str, str], float]:
    """How long a case takes in a row, by (case, row): the median in seconds of each kernel, added up.

    By (case, "") the same over all rows.
    """
    by_cell: dict[tuple[str, str, str], dict[str, float]] = {}
    for entry in entries:
        # the subtests of a case have its time
        by_cell.setdefault((entry.case, entry.row, entry.cell), {})[entry.result_id] = entry.duration_s
    times: dict[tuple[str, str], float] = {}
    for (case, row, _), seconds in by_cell.items():
        times[case, row] = times.get((case, row), 0.0) + statistics.median(seconds.values())
    for case in {case for case, _ in times}:
        times[case, ""] = statistics.median(time for (name, _), time in times.items() if name == case)
    return times


def estimate(row: str, cases: Sequence[GuestCase], times: Mapping[tuple[str, str], float]) -> list[float]:
    """How long each case will take in a row, in seconds; one that is not known is like the others."""
    known = [times.get((case.id, row), times.get((case.id, ""))) for case in cases]
    usual = statistics.median([time for time in known if time is not None] or [_UNKNOWN_S])
    return [usual if time is None else time for time in known]


def divide(
    cases: Sequence[GuestCase], seconds: Sequence[float], share_s: float
) -> tuple[tuple[GuestCase, ...], ...]:
    """Shares of about ``share_s`` each: the longest case goes first, to who has least.

    Within a share cases keep their order.
    """
    number = min(len(cases), max(1, round(sum(seconds) / share_s)))
    shares: list[tuple[float, list[int]]] = [(0.0, []) for _ in range(number)]
    for index in sorted(range(len(cases)), key=lambda index: -seconds[index]):
        least = min(range(number), key=lambda share: shares[share][0])
        length, members = shares[least]
        shares[least] = (length + seconds[index], [*members, index])
    return tuple(tuple(cases[index] for index in sorted(members)) for _, members in shares)
