"""Run the benchmarks named, or all: `python -m benchmarks [NAME ...]`."""

from __future__ import annotations

import importlib
import sys
import time

from benchmarks.rig.place import end_in_order

NAMES = (
    *("load", "small", "handshakes", "million", "memory", "group_commit", "sample_audit"),
    *("hash_tree", "reclaim", "rebuild"),
)
LONG = {"growth": "growth.__main__"}
"""Only when they are named, for each takes longer than all the others; and where they begin."""


def main() -> int:
    """Run them one after the other; each prints its figures and keeps them in benchmarks/out."""
    end_in_order()
    chosen = sys.argv[1:] or NAMES
    unknown = set(chosen) - {*NAMES, *LONG}
    if unknown:
        sys.stderr.write(
            f"no such benchmark: {', '.join(unknown)}; there are {', '.join((*NAMES, *LONG))}\n"
        )
        return 2
    for name in chosen:
        sys.stdout.write(f"\n== {name}\n")
        began = time.monotonic()
        importlib.import_module(f"benchmarks.{LONG.get(name, name)}").main()
        sys.stdout.write(f"({time.monotonic() - began:.0f} s)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
