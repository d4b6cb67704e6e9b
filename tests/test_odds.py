# SPDX-License-Identifier: GPL-2.0-or-later
"""Intervals against published examples, and against what they promise."""

import math
import random

import pytest

from orchestrator.ktap import Rate
from orchestrator.odds import CONFIDENCE, describe, find_difference, find_interval, find_tries, percent


@pytest.mark.parametrize(
    ("rate", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
        (Rate(81, 263), 0.2553, 0.3662),
        (Rate(15, 148), 0.0624, 0.1605),
        (Rate(1, 29), 0.0061, 0.1718),
        (Rate(20, 20), 0.8389, 1.0),
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


def test_the_true_rate_is_inside_nearly_always() -> None:
    dice = random.Random(1)
    inside = 0
    for _ in range(2000):
        true = dice.uniform(0.02, 0.6)
        low, high = find_interval(Rate(sum(dice.random() < true for _ in range(100)), 100))
        inside += low <= true <= high
    assert inside / 2000 > 0.93


def test_rates_in_words() -> None:
    assert describe(Rate(0, 300)) == "0 of 300: rate below 0.99 % with 95 % confidence"
    assert describe(Rate(309, 309)) == "309 of 309: rate 100 %, 99 % to 100 % with 95 % confidence"
    assert [percent(share) for share in (1.0, 0.0951, 0.0949, 1e-7)] == ["100 %", "10 %", "9.5 %", "1e-05 %"]
