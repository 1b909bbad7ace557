"""Run the benchmarks named, or all: `python -m benchmarks [--dir DIR] [NAME ...]`."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Sequence

from benchmarks.rig.entrance import answered, enter, parser_of

NAMES = (
    *("load", "small", "handshakes", "million", "memory", "group_commit", "sample_audit"),
    *("hash_tree", "reclaim", "rebuild"),
)
LONG = {"growth": "growth.__main__"}
"""Only when they are named, for each takes longer than all the others; and where they begin."""
KNOWN = (*NAMES, *LONG)


def main(words: Sequence[str]) -> int:
    """
    Run them one after the other; each prints its figures and keeps them in benchmarks/out.

    One that fails does not stop the others; the worst code is returned.
    """
    parser = parser_of("benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(KNOWN)}")
    asked = parser.parse_args(words)
    unknown = set(asked.names) - {*KNOWN}
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(KNOWN)}")
    worst = 0
    for name in asked.names or NAMES:
        sys.stdout.write(f"\n== {name}\n")
        began = time.monotonic()
        module = importlib.import_module(f"benchmarks.{LONG.get(name, name)}")
        worst = max(worst, answered(module.main, ("--dir", str(asked.dir))))
        sys.stdout.write(f"({time.monotonic() - began:.0f} s)\n")
    return worst


if __name__ == "__main__":
    enter(main)
