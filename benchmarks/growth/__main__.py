"""
How cost grows: `python -m benchmarks.growth [--only NAME,...] [--quick | --large]`.

Each axis is kept in benchmarks/out/growth.json as soon as it is measured; `--page` measures
nothing and writes docs/growth.md and its plots from what is kept.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.growth import scales
from benchmarks.growth.axes import AXES, Axis
from benchmarks.growth.errors import GrowthError
from benchmarks.growth.keeping import keep_series
from benchmarks.growth.place import end_in_order, place
from benchmarks.growth.points import Point, Series
from benchmarks.growth.scales import Scale


def main(words: Sequence[str] = ()) -> int:
    """Measure what was asked for, or write the page."""
    asked = arguments(words)
    end_in_order()
    scale = scales.QUICK if asked.quick else scales.LARGE if asked.large else scales.USUAL
    try:
        for name in asked.only:
            _measured(AXES[name], scale, asked.dir)
    except GrowthError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth")
    parser.add_argument("--only", type=_names, default=list(AXES), help=", ".join(AXES))
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small, to see that it works")
    size.add_argument("--large", action="store_true", help="10^7 shards; takes 60 GB and hours")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="on the disk to be used")
    return parser.parse_args(words)


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = set(names) - set(AXES)
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(sorted(unknown))}")
    return names


def _measured(axis: Axis, scale: Scale, parent: Path) -> None:
    sys.stdout.write(f"\n== {axis.name}\n")
    began = time.monotonic()
    series = Series(axis.name, axis.label, axis.about, scale.name, per_x=axis.per_x)
    with place(parent) as folder:
        for point in axis.points(folder, scale):
            sys.stdout.write(f"{_line(point)}\n")
            sys.stdout.flush()
            series = replace(series, points=(*series.points, point))
    keep_series(series)
    sys.stdout.write(f"({time.monotonic() - began:.0f} s)\n")


def _line(point: Point) -> str:
    parts = [f"{point.x:>10,.0f}"]
    for name, rounds in point.rounds.items():
        best = sorted(rounds, key=lambda one: one.cpu_us)[len(rounds) // 2]
        parts.append(f"{name} {best.median_ms:.2f} ms p99 {best.p99_ms:.2f} {best.cpu_us:.0f} us")
    parts += [f"{name} {value:.4g}" for name, value in point.standing.items()]
    return "  ".join(parts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
