"""
Planted bugs: each patch in tests/simulation/planted is a mistake that the seeds must find.

    python -m tests.simulation.planted [--seeds 1000] [--jobs 2] [words]

Each patch is applied to a copy of the house, and the unmodified campaign runs there, seed after
seed from the first, until a promise is broken.  Nothing in the simulation knows of any patch.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PATCHES = sorted((Path(__file__).parent / "planted").glob("*.patch"))
TIMEOUT_S = 900


def hunt(patch: Path, seeds: int, ops: int) -> tuple[int, str]:
    """Return after how many seeds a bug was found, 0 if not, and what was seen."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        house = Path(folder)
        for name in ("farmer", "tests"):
            shutil.copytree(
                ROOT / name, house / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        fitted = subprocess.run(
            ["git", "apply", "--recount", str(patch)],
            cwd=house,
            check=False,
            capture_output=True,
            text=True,
        )
        if fitted.returncode:
            return 0, f"the patch no longer fits: {fitted.stderr.strip()}"
        command = [sys.executable, "-m", "tests.simulation", "--until-found", "--jobs", "1"]
        outcome = subprocess.run(
            [*command, "--seeds", str(seeds), "--ops", str(ops)],
            cwd=house,
            env={**os.environ, "PYTHONPATH": str(house), "PYTHONDONTWRITEBYTECODE": "1"},
            check=False,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
    found = re.search(r"^seed (\d+): (.*)", outcome.stdout, re.MULTILINE)
    if found is None:
        return 0, (outcome.stdout + outcome.stderr).strip().splitlines()[-1]
    return int(found[1]), found[2]


def is_clean(seeds: int, ops: int, jobs: int) -> bool:
    """Say whether the same seeds find nothing without a patch."""
    command = [sys.executable, "-m", "tests.simulation", "--until-found", "--jobs", str(jobs)]
    outcome = subprocess.run(
        [*command, "--seeds", str(seeds), "--ops", str(ops)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        timeout=TIMEOUT_S,
    )
    return outcome.returncode == 0


def main() -> int:
    """Hunt all; 0 if every one was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.planted")
    parser.add_argument("words", nargs="*", help="only patches whose name has one of these")
    parser.add_argument("--seeds", type=int, default=1000, help="at most so many for each")
    parser.add_argument("--ops", type=int, default=400)
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    chosen = [
        patch
        for patch in PATCHES
        if not asked.words or any(word in patch.stem for word in asked.words)
    ]
    missed = last = 0
    with ThreadPoolExecutor(asked.jobs) as pool:
        hunts = pool.map(lambda patch: hunt(patch, asked.seeds, asked.ops), chosen)
        for patch, (seeds, seen) in zip(chosen, hunts, strict=True):
            missed += not seeds
            last = max(last, seeds)
            verdict = f"found by seed {seeds:>3}" if seeds else "NOT FOUND        "
            print(f"{patch.stem:<44} {verdict}  {seen[:110]}", flush=True)
    if last and not is_clean(last, asked.ops, asked.jobs):
        print("the house as it is breaks a promise in these seeds: nothing is shown by them")
        missed += 1
    print(f"planted {len(chosen)} found {len(chosen) - missed} missed {missed}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
