"""Run the benchmarks named, or all: `python -m benchmarks [NAME ...]`."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Sequence

from benchmarks.rig.entrance import answered, enter

NAMES = (
    *("load", "small", "handshakes", "million", "memory", "group_commit", "sample_audit"),
    *("hash_tree", "reclaim", "rebuild"),
)
LONG = {"growth": "growth.__main__"}
"""Only when they are named, for each takes longer than all the others; and where they begin."""


def main(words: Sequence[str]) -> int:
    """
    Run them one after the other; each prints its figures and keeps them in benchmarks/out.

    One that fails does not stop the others; the worst code is returned.
    """
    chosen = words or NAMES
    unknown = set(chosen) - {*NAMES, *LONG}
    if unknown:
        sys.stderr.write(
            f"no such benchmark: {', '.join(unknown)}; there are {', '.join((*NAMES, *LONG))}\n"
        )
        return 2
    worst = 0
    for name in chosen:
        sys.stdout.write(f"\n== {name}\n")
        began = time.monotonic()
        module = importlib.import_module(f"benchmarks.{LONG.get(name, name)}")
        worst = max(worst, answered(module.main, ()))
        sys.stdout.write(f"({time.monotonic() - began:.0f} s)\n")
    return worst


if __name__ == "__main__":
    enter(main)
