"""Stores, retrieves and audits a second, at the sizes of `farmer bench`, run several times."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import report, spread
from benchmarks.rig import programs
from benchmarks.rig.entrance import enter, parser_of
from benchmarks.rig.errors import MeasuringError
from benchmarks.rig.place import place
from tests.e2e.daemon import environment

ROUNDS: Final = 3
SECONDS: Final = 1.0
"""For each kind of work at each size and number."""

SPACE: Final = "2GB"
BENCH_S: Final = 300.0
"""For one run; one that takes longer hangs."""

DISK: Final = {
    "write_mb_per_s": "disk, written in a row and synced, MB/s",
    "flushes_per_s": "disk, 4 KiB appended and synced, a second",
    "durable_per_s": "disk, 64 KiB appended and synced, a second",
}
CELL: Final = {
    "per_s": "a second",
    "mb_per_s": "MB/s",
    "processor_us": "processor of the farmer for one, us",
    "p99_ms": "p99, ms",
}


def bench(folder: Path, seconds: float, space: str) -> dict[str, Any]:
    """Run `farmer bench` once; raises `MeasuringError`."""
    told = programs.run(
        [
            *(sys.executable, "-m", "farmer.cli.owner", "--home", str(folder / "home"), "bench"),
            *("--dir", str(folder), "--space", space, "--seconds", str(seconds), "--json"),
        ],
        BENCH_S,
        stdin=subprocess.DEVNULL,
        env=environment(),
    )
    if told.returncode:
        raise MeasuringError(f"farmer bench: {told.stderr[-1000:].strip()}")
    document: dict[str, Any] = json.loads(told.stdout)
    return document


def figures(documents: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """Return what all runs say, cell by cell, for people."""
    found: dict[str, object] = {
        called: spread([one["disk"][name] for one in documents]) for name, called in DISK.items()
    }
    for number, cell in enumerate(documents[0]["cells"]):
        work = f"{cell['what']} {cell['size_bytes'] >> 10} KiB x{cell['at_once']}"
        for name, called in CELL.items():
            values = [one["cells"][number][name] for one in documents]
            if any(values):
                found[f"{work}, {called}"] = spread(values)
    return found


def main(words: Sequence[str]) -> int:
    parser = parser_of("benchmarks.load")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--space", default=SPACE)
    asked = parser.parse_args(words)
    with place(asked.dir) as folder:
        found = [bench(folder, asked.seconds, asked.space) for _ in range(asked.rounds)]
    report("load", figures(found))
    return 0


if __name__ == "__main__":
    enter(main)
