"""
How cost grows: `python -m benchmarks.growth [--only NAME,...] [--quick | --large] [--page]`.

Names are those of the axes and of the works in the background; `axes` and `background` mean all
of a kind.  Each is kept in docs/growth/figures.json as soon as it is measured.  `--page`
measures nothing and writes docs/growth.md and its plots from what is kept.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.growth import background, page, scales
from benchmarks.growth.axes import AXES, Axis
from benchmarks.growth.background import WORKS
from benchmarks.growth.keeping import keep_background, keep_series
from benchmarks.growth.points import Point, Series
from benchmarks.growth.scales import Scale
from benchmarks.rig.entrance import enter, parser_of
from benchmarks.rig.place import allow_many_connections, place

KINDS: Final = {"axes": tuple(AXES), "background": tuple(WORKS)}


def main(words: Sequence[str]) -> int:
    """Measure what was asked for, or write the page."""
    asked = arguments(words)
    allow_many_connections()
    if asked.page:
        page.write()
        return 0
    scale = scales.QUICK if asked.quick else scales.LARGE if asked.large else scales.USUAL
    for name in asked.only:
        if name in AXES:
            _measured(AXES[name], scale, asked.dir)
        else:
            _disturbed(name, asked.shards or scale.background, asked)
    return 0


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """Return what was asked for."""
    parser = parser_of("benchmarks.growth")
    every = ", ".join([*KINDS, *AXES, *WORKS])
    parser.add_argument("--only", type=_names, default=[*AXES, *WORKS], help=every)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small, to see that it works")
    size.add_argument("--large", action="store_true", help="10^7 shards; takes 60 GB and hours")
    parser.add_argument("--shards", type=int, help="for each work in the background")
    parser.add_argument(
        "--seconds", type=float, default=180.0, help="for each work in the background, at most"
    )
    parser.add_argument("--page", action="store_true", help="write docs/growth.md")
    return parser.parse_args(words)


def _names(text: str) -> list[str]:
    names = [name for word in text.split(",") for name in KINDS.get(word, (word,))]
    unknown = set(names) - {*AXES, *WORKS}
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


def _disturbed(name: str, shards: int, asked: argparse.Namespace) -> None:
    sys.stdout.write(f"\n== {name}, {shards:,} shards in the background\n")
    began = time.monotonic()
    with place(asked.dir) as folder:
        found = background.measure(name, folder, shards, asked.seconds)
    keep_background(name, found)
    for when in ("alone", "meanwhile"):
        figures, lag_ms = found[when]["all_ms"], found[when]["lag_p99_s"] * 1000
        sys.stdout.write(
            f"{when:<10} p99 {figures['p99']:.1f} ms  median {figures['median']:.1f} ms"
            f"  requests {figures['count']}  reactor's delay, p99 at most {lag_ms:.3g} ms\n"
        )
    words = "" if found["finished"] else ", and it was not finished"
    sys.stdout.write(f"({time.monotonic() - began:.0f} s{words})\n")


def _line(point: Point) -> str:
    parts = [f"{point.x:>10,.0f}"]
    for name, rounds in point.rounds.items():
        best = sorted(rounds, key=lambda one: one.cpu_us)[len(rounds) // 2]
        parts.append(f"{name} {best.median_ms:.2f} ms p99 {best.p99_ms:.2f} {best.cpu_us:.0f} us")
    parts += [f"{name} {value:.4g}" for name, value in point.standing.items()]
    return "  ".join(parts)


if __name__ == "__main__":
    enter(main)
