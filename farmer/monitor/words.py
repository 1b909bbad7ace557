"""Figures as a person says them, beyond what `farmer.units` has."""

from __future__ import annotations

import math

from farmer.model.status import VolumeWork
from farmer.units import format_size, two_sizes


def count(number: int) -> str:
    """Return a number with a thin gap between thousands, at which no line ends."""
    return f"{number:,}".replace(",", "\u202f")


def size(size_bytes: int) -> str:
    """Return a size of which no line ends between number and unit."""
    return together(format_size(size_bytes))


def together(text: str) -> str:
    """Return some words between which no line ends."""
    return text.replace(" ", "\u00a0")


def percent(part: float, whole: float) -> str:
    """Return what share of *whole* the *part* is; only all is 100 %, only nothing is 0 %."""
    share = 100 * part / whole if whole else 0.0
    if 99 < share < 100:
        return f"{math.floor(share * 100) / 100:.2f}\u202f%"
    return f"{max(share, 0.1):.1f}\u202f%" if 0 < share < 10 else f"{share:.0f}\u202f%"


def problem_of(work: VolumeWork) -> str:
    """Return why the emptying of a volume does not go on now, and what helps; empty if it does."""
    if not work.wanted_bytes:
        return work.problem
    wanted, room = two_sizes(work.wanted_bytes, work.available_bytes)
    if work.to_path:
        return f"{wanted} are wanted, {work.to_path} has {room} left; give it more quota"
    return (
        f"{wanted} are wanted, no other volume has more than {room} left; add a volume, or give "
        "one more quota"
    )
