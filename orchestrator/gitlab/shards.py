# SPDX-License-Identifier: GPL-2.0-or-later
"""Splits the tests of a row into shards of similar duration."""

import statistics
from collections.abc import Iterable, Mapping, Sequence

from orchestrator.history.entry import Entry
from orchestrator.project.guesttest import GuestTest

# the duration of a test if no duration is known at all
_UNKNOWN_S = 2.0


def find_times(entries: Iterable[Entry]) -> dict[tuple[str, str], float]:
    """The duration of each test in seconds, by (test, row): the sum of the medians of all kernels.

    (test, "") is the median over all rows.
    """
    by_variant: dict[tuple[str, str, str], dict[str, float]] = {}
    for entry in entries:
        # each subtest has the duration of its test
        by_variant.setdefault((entry.test, entry.row, entry.variant), {})[entry.result_id] = entry.duration_s
    times: dict[tuple[str, str], float] = {}
    for (test, row, _), seconds in by_variant.items():
        times[test, row] = times.get((test, row), 0.0) + statistics.median(seconds.values())
    for test in {test for test, _ in times}:
        times[test, ""] = statistics.median(time for (name, _), time in times.items() if name == test)
    return times


def estimate(row: str, tests: Sequence[GuestTest], times: Mapping[tuple[str, str], float]) -> list[float]:
    """The expected duration of each test in a row, in seconds; the median of the others if unknown."""
    known = [times.get((test.id, row), times.get((test.id, ""))) for test in tests]
    usual = statistics.median([time for time in known if time is not None] or [_UNKNOWN_S])
    return [usual if time is None else time for time in known]


def divide(
    tests: Sequence[GuestTest], seconds: Sequence[float], shard_s: float
) -> tuple[tuple[GuestTest, ...], ...]:
    """Divide tests into shards of about ``shard_s`` each: the longest test first, to the shortest shard.

    Within a shard, tests keep their order.
    """
    number = min(len(tests), max(1, round(sum(seconds) / shard_s)))
    shards: list[tuple[float, list[int]]] = [(0.0, []) for _ in range(number)]
    for index in sorted(range(len(tests)), key=lambda index: -seconds[index]):
        least = min(range(number), key=lambda shard: shards[shard][0])
        length, members = shards[least]
        shards[least] = (length + seconds[index], [*members, index])
    return tuple(tuple(tests[index] for index in sorted(members)) for _, members in shards)
