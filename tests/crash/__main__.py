"""Long proofs on real kernels: `python -m tests.crash engine --kills 500` and others."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work; else a temporary one")
    verbs = parser.add_subparsers(dest="verb", required=True)
    engine = verbs.add_parser("engine", help="kill -9 of the engine at random moments")
    engine.add_argument("--kills", type=int, default=500)
    chosen = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        line, wrong = _run(chosen, Path(folder))
    for one in wrong[:50]:
        sys.stdout.write(f"VIOLATION {one}\n")
    sys.stdout.write(f"({time.monotonic() - began:.0f} s)\n{line}\n")
    return 1 if wrong else 0


def _run(chosen: argparse.Namespace, folder: Path) -> tuple[str, list[str]]:
    if chosen.verb == "engine":
        from tests.crash.killing import campaign

        return campaign(folder, chosen.kills, chosen.seed)
    raise AssertionError(chosen.verb)


if __name__ == "__main__":
    sys.exit(main())
