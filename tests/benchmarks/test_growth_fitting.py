"""How growth is judged."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from benchmarks.growth.fitting import Growth, judge

DECADES = (1, 10, 100, 1000, 10_000)


def rounds(of: Callable[[float], float], xs: tuple[int, ...] = DECADES, noise: float = 0.0):
    dice = random.Random(7)
    return [(x, [of(x) * (1 + noise * dice.uniform(-1, 1)) for _ in range(3)]) for x in xs]


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize(
    ("of", "growth"),
    [
        (lambda _x: 5.0, Growth.FLAT),
        (lambda x: 5 + 2 * math.log(x), Growth.LOGARITHMIC),
        (lambda x: 1 + math.log2(x), Growth.LOGARITHMIC),
        (lambda x: 0.3 * x, Growth.WORSE),
        (lambda x: 500 + 0.3 * x, Growth.WORSE),
        (lambda x: 10 + x**0.5, Growth.WORSE),
        (lambda x: 0.01 * x**2, Growth.WORSE),
        (lambda x: 100 / x, Growth.FALLS),
    ],
    ids=["flat", "log", "log2", "linear", "linear behind", "root", "square", "falling"],
)
def test_growth_is_told_from_its_shape(of, growth: Growth, noise: float) -> None:
    """A small constant part, and noise of a few percent, do not hide what it is."""
    assert judge(rounds(of, noise=noise)).growth is growth


def test_the_exponent_is_that_of_the_power() -> None:
    """A square root grows by the root of ten for ten times as much."""
    verdict = judge(rounds(lambda x: 3 * x**0.5))
    assert verdict.exponent == pytest.approx(0.5)
    assert verdict.per_decade == pytest.approx(math.sqrt(10))


def test_three_points_prove_no_shape() -> None:
    """Too many curves go through them."""
    assert judge(rounds(float, (1, 10, 100))).growth is Growth.UNKNOWN


def test_a_single_point_does_not_grow() -> None:
    """Nor has it an exponent."""
    verdict = judge(rounds(lambda _x: 2.0, (10,)))
    assert (verdict.exponent, verdict.growth) == (0.0, Growth.FLAT)


def test_noise_alone_is_not_worse_than_logarithmic() -> None:
    """Rounds that differ by a third in any direction prove nothing."""
    dice = random.Random(3)
    for _ in range(200):
        values = [(x, [dice.uniform(0.75, 1.25) for _ in range(3)]) for x in DECADES]
        assert judge(values).growth is not Growth.WORSE
