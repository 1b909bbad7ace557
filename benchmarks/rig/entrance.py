"""How a benchmark is begun, and what is answered for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from benchmarks.rig.errors import MeasuringError
from benchmarks.rig.place import end_in_order

Main = Callable[[Sequence[str]], int]
"""Measures as its words say, prints and keeps the figures; raises `MeasuringError`."""


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
