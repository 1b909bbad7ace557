"""Run the benchmarks named, or all: `python -m benchmarks [NAME ...]`."""

from __future__ import annotations

import importlib
import sys
import time

NAMES = ("group_commit", "sample_audit", "hash_tree", "reclaim", "rebuild", "million", "memory")


def main() -> int:
    """Run them one after the other; each prints its figures and keeps them in benchmarks/out."""
    chosen = sys.argv[1:] or NAMES
    unknown = set(chosen) - set(NAMES)
    if unknown:
        sys.stderr.write(
            f"no such benchmark: {', '.join(unknown)}; there are {', '.join(NAMES)}\n"
        )
        return 2
    for name in chosen:
        sys.stdout.write(f"\n== {name}\n")
        began = time.monotonic()
        importlib.import_module(f"benchmarks.{name}").main()
        sys.stdout.write(f"({time.monotonic() - began:.0f} s)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
