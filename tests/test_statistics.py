# SPDX-License-Identifier: GPL-2.0-or-later
"""Intervals against published examples, and against what they promise."""

import math
from fractions import Fraction

import pytest

from orchestrator.parse.ktap import Rate
from orchestrator.result.statistics import (
    CONFIDENCE,
    describe,
    find_difference,
    find_interval,
    find_tries,
    percent,
)


@pytest.mark.parametrize(
    ("rate", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17:857, table I, method 5
        (Rate(81, 263), 0.2527, 0.3676),
        (Rate(15, 148), 0.0578, 0.1617),
        (Rate(1, 29), 0.0009, 0.1776),
        (Rate(20, 20), 0.8316, 1.0),
    ],
)
def test_intervals_are_the_published_ones(rate: Rate, low: float, high: float) -> None:
    assert find_interval(rate) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17:873, table II, method 10
        (Rate(56, 70), Rate(48, 80), 0.0524, 0.3339),
        (Rate(9, 10), Rate(3, 10), 0.1705, 0.8090),
        (Rate(10, 10), Rate(0, 10), 0.6075, 1.0),
    ],
)
def test_differences_are_the_published_ones(one: Rate, other: Rate, low: float, high: float) -> None:
    assert find_difference(one, other) == pytest.approx((low, high), abs=5e-5)
    assert find_difference(other, one) == pytest.approx((-high, -low), abs=5e-5)


@pytest.mark.parametrize("tries", [1, 10, 300, 10**9])
def test_a_race_never_hit_is_below_a_rate_at_which_that_is_rare(tries: int) -> None:
    low, high = find_interval(Rate(0, tries))
    assert low == 0
    assert math.exp(tries * math.log1p(-high)) == pytest.approx(1 - CONFIDENCE)


@pytest.mark.parametrize("floor", [1.0, 0.5, 0.01, 1 / 1818, 1e-7])
def test_enough_tries_are_just_enough(floor: float) -> None:
    tries = find_tries(floor)
    assert find_interval(Rate(0, tries))[1] <= floor + 1e-12 or tries == 1
    assert tries == 1 or find_interval(Rate(0, tries - 1))[1] > floor


def reach(hits: int, tries: int, rate: Fraction) -> Fraction:
    """How probable that many hits or more are, summed without any shortcut."""
    terms = (math.comb(tries, k) * rate**k * (1 - rate) ** (tries - k) for k in range(hits, tries + 1))
    return sum(terms, Fraction())


@pytest.mark.parametrize("tries", [1, 2, 7, 40])
def test_at_the_ends_the_hits_are_as_rare_as_promised(tries: int) -> None:
    for hits in range(1, tries + 1):
        low, high = map(Fraction, find_interval(Rate(hits, tries)))
        assert float(reach(hits, tries, low)) == pytest.approx(0.025)
        assert hits == tries or float(1 - reach(hits + 1, tries, high)) == pytest.approx(0.025)


@pytest.mark.parametrize("true", [0.0002, 0.0005, 0.003, 0.02, 0.3])
def test_the_low_end_is_rarely_above_the_true_rate(true: float) -> None:
    """Also for races that are hit once in thousands of tries: their lower bound is the target rate."""
    tries, missed = 300, 0.0
    for hits in range(1, tries + 1):
        if find_interval(Rate(hits, tries))[0] > true:
            missed += math.comb(tries, hits) * true**hits * (1 - true) ** (tries - hits)
    assert missed <= 0.025


@pytest.mark.parametrize(
    "rate",
    [Rate(1, 10**9), Rate(17, 2087), Rate(10**5, 10**6), Rate(10**6, 10**6), Rate(10**17, 10**17)],
)
def test_many_tries_have_an_interval_too(rate: Rate) -> None:
    low, high = find_interval(rate)
    assert 0 < low < rate.hits / rate.tries <= high <= 1
    # twice the width of the normal approximation is too wide, but for the few hits
    width = 4 * 1.96 * math.sqrt(rate.hits) / rate.tries
    assert high - low < width + 4 / rate.tries


def test_rates_in_words() -> None:
    assert describe(Rate(0, 300)) == "0 of 300: rate below 0.99 % with 95 % confidence"
    assert describe(Rate(309, 309)) == "309 of 309: rate 100 %, 99 % to 100 % with 95 % confidence"
    shares = (1.0, 0.0951, 0.095, 0.0949, 1e-7, -1.0, -0.05)
    assert [percent(share) for share in shares] == [
        "100 %", "10 %", "10 %", "9.5 %", "1e-05 %", "-100 %", "-5 %",
    ]  # fmt: skip
