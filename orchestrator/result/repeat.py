# SPDX-License-Identifier: GPL-2.0-or-later
"""Decides how often a test is run: once, ``REPEAT=`` times, or until the result is significant.

The question is whether a race fails at its known rate or more often. One failure with evidence answers it; so
does a number of misses whose probability at that rate is below 5 %. So a bad kernel passes with a probability
of at most 5 %, and a good one never fails.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.project.guesttest import GuestTest
from orchestrator.result.record import Known, TargetRate, TrialResult
from orchestrator.result.verdict import is_answered

AUTO = 0
# limits, after which the result is inconclusive
_MOST_TRIALS, _MOST_S = 100, 1800.0
DEFAULT = TargetRate(0.01, "the default")


@dataclass(frozen=True, slots=True)
class Repeat:
    """``count`` trials of each test, or ``AUTO``; not more than ``limit`` for now.

    ``target_rates`` are the known failure rates of races, by subtest.
    """

    count: int = 1
    target_rates: Mapping[str, TargetRate] = field(default_factory=dict)
    limit: int = 0

    def list_target_rates(self, tests: Sequence[GuestTest]) -> dict[str, TargetRate]:
        """The target rates by subtest; empty if the number of trials is given."""
        races = [test for test in tests if test.kind == "race" and self.count == AUTO]
        names = [name for test in races for name in test.subtests or (test.id,)]
        return {name: self.target_rates.get(name, DEFAULT) for name in names}

    def wants_more(
        self, test: GuestTest, known: Sequence[TrialResult], splats: tuple[Known, ...] = ()
    ) -> bool:
        """Whether the test needs another trial after the trials in ``known``.

        ``splats`` are the known issues.
        """
        if not known:
            return True
        if len(known) >= (self.limit or self.count or _MOST_TRIALS):
            return False
        if self.count != AUTO:
            return True
        if test.kind != "race" or sum(r.duration_s for r in known) > _MOST_S:
            return False
        return not is_answered(known, test.subtests, self.list_target_rates([test]), splats)

    def divide(self) -> Iterator["Repeat"]:
        """The same in rounds with a doubled limit, for kernels that are tested alternately."""
        most = self.count or _MOST_TRIALS
        limit = 1
        while limit < most:
            yield replace(self, limit=limit)
            limit *= 2
        yield replace(self, limit=most)
