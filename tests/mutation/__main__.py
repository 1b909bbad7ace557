"""
Mutation of `farmer/storage`: of the mistakes that are drawn, how many the tests notice.

    python -m tests.mutation --mutants 400 --seed 1        a sample
    python -m tests.mutation --mutants 0                   all of them: many hours
    python -m tests.mutation --mutants 0 --only copies.py --tests tests/storage/test_copies.py
                                                           one module's, by its own tests alone
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tests.mutation.coverage_map import CoverageMap
from tests.mutation.mutants import Mutant, mutants
from tests.mutation.trial import ROOT, House, Judged

KILLED_SHARE = 0.85
"""Fewer fail the run."""

TOLD_EACH = 20
"""Mutants: a run of hours that is broken off has said what it saw till then."""


def main() -> int:
    """Run; 0 if enough of them were noticed."""
    asked = _arguments()
    drawn = _drawn(asked.mutants, asked.seed, asked.only)
    judged: list[Judged] = []
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        by_line = None if asked.tests else CoverageMap(Path(folder))
        houses: SimpleQueue[House] = SimpleQueue()
        for number in range(asked.jobs):
            houses.put(House(Path(folder) / f"house{number}"))

        def judge(one: tuple[str, Mutant]) -> Judged:
            module, mutant = one
            house = houses.get()
            try:
                tests = by_line.tests(module, mutant.line) if by_line else asked.tests
                return house.judge(module, mutant, tests)
            finally:
                houses.put(house)

        with ThreadPoolExecutor(asked.jobs) as pool:
            for one in pool.map(judge, drawn):
                judged.append(one)
                if not one.is_dead:
                    print(one, flush=True)
                if len(judged) % TOLD_EACH == 0:
                    _report(judged)
    return _report(judged)


def _drawn(number: int, seed: int, only: str) -> list[tuple[str, Mutant]]:
    every = [
        (str(path.relative_to(ROOT)), mutant)
        for path in sorted((ROOT / "farmer" / "storage").glob("*.py"))
        if only in path.name
        for mutant in mutants(path.read_text())
    ]
    if not number or number >= len(every):
        return every
    return random.Random(seed).sample(every, number)


def _report(judged: list[Judged]) -> int:
    fates = Counter(one.fate.value for one in judged)
    killed = sum(one.is_dead for one in judged)
    share = killed / max(1, len(judged))
    print(", ".join(f"{fate} {number}" for fate, number in sorted(fates.items())))
    print(f"mutants {len(judged)} killed {killed} ({share:.0%})", flush=True)
    return 0 if share >= KILLED_SHARE else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("--mutants", type=int, default=400, help="how many; 0 is all")
    parser.add_argument("--seed", type=int, default=1, help="of the drawing")
    parser.add_argument("--only", default="", help="part of a module's name")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument(
        "--tests", nargs="+", default=[], help="files: these, not all that come by a line"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
