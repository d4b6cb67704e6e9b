# SPDX-License-Identifier: GPL-2.0-or-later
"""Statistics of races: a failure rate with its interval, and the number of trials needed.

All confidence levels are 95 %. Intervals are Clopper-Pearson: for races that were hit once or twice, the
lower bound of an approximation is several times too high. The interval of a difference is Newcombe's, from
Wilson score intervals (method 10).
"""

import math

from orchestrator.parse.ktap import Rate

CONFIDENCE = 0.95
# the 97.5 % quantile of the standard normal distribution
_Z = 1.959964


def find_interval(rate: Rate) -> tuple[float, float]:
    """The confidence interval of a rate.

    For a race that was never hit the upper bound is one-sided: at any higher rate, so many misses in a row
    have a probability below 5 %. Without tries, or with more hits than tries, it is 0 to 1.
    """
    if not rate.tries or rate.hits > rate.tries:
        return 0.0, 1.0
    if not rate.hits:
        return 0.0, -math.expm1(math.log(1 - CONFIDENCE) / rate.tries)
    risk = (1 - CONFIDENCE) / 2
    misses = Rate(rate.tries - rate.hits, rate.tries)
    return find_lower_bound(rate, risk), 1 - find_lower_bound(misses, risk)


def find_lower_bound(rate: Rate, risk: float) -> float:
    """The lower confidence bound: below it, so many hits or more have a probability below ``risk``."""
    low, high = 0.0, rate.hits / rate.tries
    # to the precision of a float, also for small rates
    for _ in range(60):
        middle = (low + high) / 2
        if _find_tail(rate.hits, rate.tries, middle) < risk:
            low = middle
        else:
            high = middle
    return low


def _find_tail(hits: int, tries: int, rate: float) -> float:
    """The probability of so many hits or more at a rate below the observed one, where the terms decrease."""
    if not 0 < rate < 1:
        return rate
    ways = math.lgamma(tries + 1) - math.lgamma(hits + 1) - math.lgamma(tries - hits + 1)
    total = term = math.exp(ways + hits * math.log(rate) + (tries - hits) * math.log1p(-rate))
    while term > total * 1e-17:
        term *= (tries - hits) / (hits + 1) * rate / (1 - rate)
        hits, total = hits + 1, total + term
    return total


def _find_wilson(rate: Rate) -> tuple[float, float]:
    share, z2 = rate.hits / rate.tries, _Z * _Z / rate.tries
    middle = (share + z2 / 2) / (1 + z2)
    half_width = _Z * math.sqrt(share * (1 - share) / rate.tries + z2 / (4 * rate.tries)) / (1 + z2)
    return max(0.0, middle - half_width), min(1.0, middle + half_width)


def find_tries(floor: float, risk: float = 1 - CONFIDENCE) -> int:
    """How many misses in a row show that a failure rate is below ``floor`` (0 to 1).

    At that rate, so many misses have a probability of at most ``risk``.
    """
    return math.ceil(math.log(risk) / math.log1p(-floor)) if floor < 1 else 1


def find_difference(one: Rate, other: Rate) -> tuple[float, float]:
    """The confidence interval of the first rate minus the second."""
    a, b = one.hits / one.tries, other.hits / other.tries
    (a_low, a_high), (b_low, b_high) = _find_wilson(one), _find_wilson(other)
    return (
        a - b - math.hypot(a - a_low, b_high - b),
        a - b + math.hypot(a_high - a, b - b_low),
    )


def describe(rate: Rate) -> str:
    """A rate in words: ``0 of 300: rate below 1 % with 95 % confidence``."""
    low, high = find_interval(rate)
    if not rate.hits:
        return f"{rate}: rate below {percent(high)} with {percent(CONFIDENCE)} confidence"
    share = percent(rate.hits / rate.tries)
    return f"{rate}: rate {share}, {percent(low)} to {percent(high)} with {percent(CONFIDENCE)} confidence"


def percent(share: float) -> str:
    """Two significant digits."""
    return f"{100 * share:.0f} %" if abs(share) >= 0.095 else f"{100 * share:.2g} %"
