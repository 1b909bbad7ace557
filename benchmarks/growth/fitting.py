"""
How something grows: by what factor for ten times as much, and whether worse than a logarithm.

Two explanations are held against each other, both fitted by least squares of the relative
error to all rounds, so that noise blurs both alike:

    logarithm   y = a + b log x         any a, b >= 0
    power       y = a + b x^p           a, b >= 0; the best p of a few

It is worse than logarithmic if y grows at all, and the power leaves less than half of the
squared error that the logarithm leaves.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

Values = Sequence[tuple[float, Sequence[float]]]
"""For each x what the rounds found."""

POWERS: Final = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)

GROWS: Final = 1.25
"""By so much every round of the last x is above every one of the first; else it is flat."""

BETTER: Final = 0.5
"""How much of the logarithm's squared error the power may leave, to be believed."""

ENOUGH: Final = 4
"""Different x; through three points too many curves go."""


class Growth(Enum):
    """What the points say."""

    FLAT = "does not grow"
    FALLS = "falls"
    LOGARITHMIC = "no"
    WORSE = "yes"
    UNKNOWN = "too few points"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one figure grows."""

    exponent: float
    """Of the power of x that fits best through the medians, on logarithmic axes."""
    growth: Growth

    @property
    def per_decade(self) -> float:
        """The factor for ten times as much."""
        return float(10**self.exponent)


def judge(values: Values) -> Verdict:
    """Say how a figure grows; every x and every value is above 0."""
    medians = [(x, statistics.median(some)) for x, some in values]
    exponent = _exponent(medians)
    return Verdict(exponent, _growth(values, medians))


def _exponent(medians: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the straight line through the points on logarithmic axes."""
    if len(medians) < 2:
        return 0.0
    xs, ys = ([math.log(pair[side]) for pair in medians] for side in (0, 1))
    return statistics.linear_regression(xs, ys).slope


def _growth(values: Values, medians: Sequence[tuple[float, float]]) -> Growth:
    first, last = values[0][1], values[-1][1]
    if max(last) / min(first) < 1 / GROWS:
        return Growth.FALLS
    if min(last) / max(first) < GROWS:
        return Growth.FLAT
    if len(medians) < ENOUGH:
        return Growth.UNKNOWN
    logarithm = _error(values, math.log, is_free=True)
    power = min(_error(values, _power(p), is_free=False) for p in POWERS)
    return Growth.WORSE if power < BETTER * logarithm else Growth.LOGARITHMIC


def _power(p: float) -> Callable[[float], float]:
    return lambda x: x**p


def _error(values: Values, of: Callable[[float], float], *, is_free: bool) -> float:
    """Return the squared relative error that y = a + b of(x) leaves; b >= 0, a if not free."""
    pairs = [(of(x), y) for x, some in values for y in some]
    fits = [_line(pairs), (0.0, _through_zero(pairs)), (_constant(pairs), 0.0)]
    allowed = [(a, b) for a, b in fits if b >= 0 and (is_free or a >= 0)]
    return min(_left(pairs, a, b) for a, b in allowed)


def _left(pairs: Iterable[tuple[float, float]], a: float, b: float) -> float:
    return sum(((a + b * u - y) / y) ** 2 for u, y in pairs)


def _line(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return a and b of the weighted least squares; each point weighs 1 / y^2."""
    weights = [1 / y**2 for _, y in pairs]
    total = sum(weights)
    mean_u = sum(w * u for w, (u, _) in zip(weights, pairs, strict=True)) / total
    mean_y = sum(w * y for w, (_, y) in zip(weights, pairs, strict=True)) / total
    spread = sum(w * (u - mean_u) ** 2 for w, (u, _) in zip(weights, pairs, strict=True))
    shared = sum(w * (u - mean_u) * (y - mean_y) for w, (u, y) in zip(weights, pairs, strict=True))
    slope = shared / spread if spread else 0.0
    return mean_y - slope * mean_u, slope


def _through_zero(pairs: Sequence[tuple[float, float]]) -> float:
    squares = sum((u / y) ** 2 for u, y in pairs)
    return sum(u / y for u, y in pairs) / squares if squares else 0.0


def _constant(pairs: Sequence[tuple[float, float]]) -> float:
    return sum(1 / y for _, y in pairs) / sum(1 / y**2 for _, y in pairs)
