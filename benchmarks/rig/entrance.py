"""How a benchmark is begun, and what is answered for it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn

from benchmarks.rig.errors import MeasuringError
from benchmarks.rig.place import end_in_order

Main = Callable[[Sequence[str]], int]
"""Measures as its words say, prints and keeps the figures; raises `MeasuringError`."""

DISK: Final = Path("/var/tmp")
"""Where it is measured unless that is said: /tmp may be memory, where nothing is durable."""


def enter(main: Main) -> NoReturn:
    """Run a benchmark as a program of its own: it ends in order, and its code says how."""
    end_in_order()
    sys.exit(answered(main, sys.argv[1:]))


def answered(main: Main, words: Sequence[str]) -> int:
    """Return the code of a benchmark: 1 where it could not measure, and then say why."""
    try:
        return main(words)
    except MeasuringError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def parser_of(name: str) -> argparse.ArgumentParser:
    """Return what reads the words of `python -m NAME`, among them where it is to measure."""
    parser = argparse.ArgumentParser(prog=f"python -m {name}")
    parser.add_argument(
        "--dir", type=Path, default=DISK, help=f"a folder on the disk to be used ({DISK})"
    )
    return parser
