"""What two trees did by turns, as ratios round by round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.harness import spread

Turn = Mapping[str, Sequence[Mapping[str, Any]]]
"""The cells of one round, of `here` and of `there`."""

FIGURES = (
    ("per_s", "a second"),
    ("processor_us", "processor of the farmer for one, us"),
    ("median_ms", "median, ms"),
    ("p99_ms", "p99, ms"),
)


def rows(turns: Sequence[Turn]) -> dict[str, str]:
    """Return for each work and figure: there, here, and here divided by there."""
    found = {}
    for number, first in enumerate(turns[0]["here"]):
        for figure, called in FIGURES:
            here, there = (
                [turn[side][number][figure] for turn in turns] for side in ("here", "there")
            )
            ratios = [ours / theirs for ours, theirs in zip(here, there, strict=True) if theirs]
            name = f"{first['what']} {first['size_bytes'] >> 10} KiB x{first['at_once']}, {called}"
            found[name] = f"{spread(there)} to {spread(here)}; ratio {spread(ratios or [0])}"
    return found
