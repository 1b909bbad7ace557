"""The simulation itself: a few seeds, the same run twice, and what it must be able to show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.run import run

ROOT = Path(__file__).parent.parent.parent
ONE = "import sys; from tests.simulation.run import run; print(run(int(sys.argv[1]), 150).trace)"


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_a_few_seeds_break_no_promise(seed: int) -> None:
    """Crashes, faults and all: nothing acknowledged is lost, nothing wrong is served."""
    assert not run(seed, 150).violation


@pytest.mark.parametrize("seed", [5, 7, 9])
def test_a_seed_is_the_same_run_in_every_process(seed: int) -> None:
    """Every call and byte agree, whatever order the process gives to its hashes."""
    traces = {
        subprocess.run(
            [sys.executable, "-c", ONE, str(seed)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(traces) == 1
    assert len(traces.pop().strip()) == 64
