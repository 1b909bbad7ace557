"""
`make bench-peers`: farmer beside what one would use instead.

`python -m benchmarks.peers` measures and keeps `benchmarks/out/peers.json`; `python -m
benchmarks.peers table` writes what is there into docs/performance.md.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.peers import table
from benchmarks.peers.install import cache_directory
from benchmarks.peers.nginx import Nginx
from benchmarks.peers.ours import Ours
from benchmarks.peers.peer import Peer
from benchmarks.peers.rclone import Rclone
from benchmarks.peers.run import RESULT, Plan, Run
from benchmarks.peers.swift import Swift
from benchmarks.peers.tahoe import Tahoe
from benchmarks.rig.entrance import enter
from benchmarks.rig.place import place
from farmer.units import format_size, parse_size

AT_ONCE: Final = (1, 16)
SIZES: Final = "64KiB,2MiB,64MiB"
NAMES: Final = "farmer,nginx,tahoe,swift,rclone"


def main(words: Sequence[str]) -> int:
    """Measure, or write the table."""
    options = _options(words)
    if options.do == "table":
        table.write()
        return 0
    peers, cache = _peers(options.only), cache_directory()
    folder = Path(options.dir) if options.dir else cache
    folder.mkdir(parents=True, exist_ok=True)
    plan = _plan(options)
    if shutil.disk_usage(folder).free < 2 * plan.bytes_max:
        wanted = format_size(2 * plan.bytes_max)
        sys.exit(f"{folder}: less than {wanted} are free; --space less, or --dir elsewhere")
    with place(folder) as work:
        run = Run(plan, work, _say)
        run.measure(run.set_up(peers, cache))
    _say(f"{RESULT} is written; python -m benchmarks.peers table shows it in the docs")
    return 0


def _plan(options: argparse.Namespace) -> Plan:
    if options.rounds < 1 or options.seconds <= 0:
        sys.exit("--rounds must be at least 1, --seconds more than 0")
    try:
        sizes = tuple(parse_size(size) for size in options.sizes.split(","))
        space_bytes = parse_size(options.space)
    except ValueError as error:
        sys.exit(str(error))
    plan = Plan(sizes, AT_ONCE, options.rounds, options.seconds, space_bytes)
    if space_bytes < plan.space_bytes_min:
        sys.exit(f"--space: at least {format_size(plan.space_bytes_min)} for such shards")
    return plan


def _options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("do", nargs="?", choices=("run", "table"), default="run")
    parser.add_argument("--rounds", type=int, default=5, help="each has every cell once (5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each kind of work (2)")
    parser.add_argument("--only", default=NAMES, help=f"of {NAMES}")
    parser.add_argument("--sizes", default=SIZES, help=f"of shards ({SIZES})")
    parser.add_argument("--space", default="2GB", help="stored in one cell at most (2GB)")
    parser.add_argument("--dir", help="on the disk to be used (the cache directory)")
    return parser.parse_args(words)


def _peers(only: str) -> list[Peer]:
    known: dict[str, Peer] = {
        "farmer": Ours(max(AT_ONCE)),
        "nginx": Nginx(),
        "tahoe": Tahoe(),
        "swift": Swift(),
        "rclone": Rclone(),
    }
    chosen = only.split(",")
    unknown = set(chosen) - set(known)
    if unknown:
        sys.exit(f"no such peer: {', '.join(sorted(unknown))}; there are {NAMES}")
    return [peer for name, peer in known.items() if name in chosen]


def _say(line: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    enter(main)
