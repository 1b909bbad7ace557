"""
This tree against another commit, by turns, in one run.

    python -m benchmarks.paired COMMIT [--rounds 5] [--size 65536] [--at-once 16] [--seconds 2]

What two runs an hour apart say of a change is mostly the hour.  Here each round measures both,
in turned order, each with its own client and its own farmer; what counts is the ratio of a round.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import report
from benchmarks.paired.ratios import rows
from benchmarks.rig import programs
from benchmarks.rig.entrance import enter, parser_of
from benchmarks.rig.errors import MeasuringError
from benchmarks.rig.level import supply
from benchmarks.rig.place import place

HERE = Path(__file__).parent.parent.parent
CELLS = Path(__file__).with_name("cells.py")
TURN_S = 600.0


def main(words: Sequence[str]) -> int:
    """Measure by turns; print and keep the figures."""
    asked = arguments(words)
    with place(asked.dir) as folder:
        asked.dir, tree = folder, folder / "tree"
        commit = unpack(asked.commit, tree)
        turns = [
            {"here": turn(HERE, asked), "there": turn(tree, asked)}
            if number % 2
            else {"there": turn(tree, asked), "here": turn(HERE, asked)}
            for number in range(asked.rounds)
        ]
    report("paired", {"against": commit, **rows(turns)})
    return 0


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """Return what was asked for."""
    parser = parser_of("benchmarks.paired")
    parser.add_argument("commit", help="which; it must have `farmer bench`")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=65536, help="bytes of a shard")
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each kind of work")
    parser.add_argument("--space", type=int, default=500_000_000, help="bytes stored at most")
    return parser.parse_args(words)


def unpack(commit: str, folder: Path) -> str:
    """Put the package of a commit into a folder; return the commit's full name."""
    name = git("rev-parse", "--verify", f"{commit}^{{commit}}").decode().strip()
    with tarfile.open(fileobj=io.BytesIO(git("archive", name, "farmer"))) as archive:
        archive.extractall(folder, filter="data")
    return name


def git(*words: str) -> bytes:
    """Return what git says; raises `MeasuringError`."""
    told = subprocess.run(("git", "-C", str(HERE), *words), check=False, capture_output=True)
    if told.returncode:
        raise MeasuringError(told.stderr.decode(errors="replace").strip())
    return told.stdout


def turn(tree: Path, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one tree once; raises `MeasuringError`."""
    supply(asked.dir, asked.space)
    words = [f"--{name}={getattr(asked, name.replace('-', '_'))}" for name in WORDS]
    told = programs.run(
        # Not from the script's own folder, whose names are no packages.
        [sys.executable, "-P", str(CELLS), *words],
        TURN_S,
        env={**os.environ, "PYTHONPATH": str(tree)},
        # A farmer that is begun by `-m` is taken from the folder we stand in before all others.
        cwd=tree,
    )
    if told.returncode:
        raise MeasuringError(f"{tree}: {told.stderr[-1000:].strip()}")
    found = json.loads(told.stdout)
    if Path(found["tree"]).resolve() != tree.resolve():
        raise MeasuringError(f"{found['tree']} was measured instead of {tree}")
    cells: list[dict[str, Any]] = found["cells"]
    return cells


WORDS = ("size", "at-once", "seconds", "space", "dir")


if __name__ == "__main__":
    enter(main)
