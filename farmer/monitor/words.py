"""Figures as a person says them, beyond what `farmer.units` has."""

from __future__ import annotations

import math


def count(number: int) -> str:
    """Return a number with a thin gap between thousands, at which no line ends."""
    return f"{number:,}".replace(",", "\u202f")


def percent(part: float, whole: float) -> str:
    """Return what share of *whole* the *part* is; only all is 100 %, only nothing is 0 %."""
    share = 100 * part / whole if whole else 0.0
    if 99 < share < 100:
        return f"{math.floor(share * 100) / 100:.2f}\u202f%"
    return f"{max(share, 0.1):.1f}\u202f%" if 0 < share < 10 else f"{share:.0f}\u202f%"
