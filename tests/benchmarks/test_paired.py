"""This tree against another commit: the ratios, and one short real run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.paired import __main__ as paired
from benchmarks.paired.ratios import rows
from farmer.benching.process import OwnFarmer

ROOT = Path(__file__).parent.parent.parent


def cell(per_s: float) -> dict[str, object]:
    figures = {"per_s": per_s, "processor_us": 1e6 / per_s, "median_ms": 1.0, "p99_ms": 2.0}
    return {"what": "store", "size_bytes": 65536, "at_once": 16, **figures}


def test_what_counts_is_the_ratio_of_a_round() -> None:
    """A machine that is half as fast for a while changes both, and no ratio."""
    turns = [
        {"there": [cell(100)], "here": [cell(150)]},
        {"there": [cell(50)], "here": [cell(75)]},
        {"there": [cell(100)], "here": [cell(200)]},
    ]
    found = rows(turns)
    assert found["store 64 KiB x16, a second"] == (
        "100 [50..100] to 150 [75..200]; ratio 1.5 [1.5..2]"
    )
    assert found["store 64 KiB x16, median, ms"].endswith("ratio 1 [1..1]")


def test_a_turn_begins_in_the_tree_that_it_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A farmer of ours, begun by `-m`, would be taken from where we stand: two turns of one."""
    tree = tmp_path / "tree"
    tree.mkdir()
    cells = tmp_path / "cells.py"
    cells.write_text(
        "import json, os, sys\n"
        "told = {'tree': os.environ['PYTHONPATH'], 'cells': [os.getcwd(), *sys.argv[1:]]}\n"
        "print(json.dumps(told))\n"
    )
    monkeypatch.setattr(paired, "CELLS", cells)
    asked = paired.arguments(["HEAD", "--dir", str(tmp_path), "--space", "1", "--at-once", "3"])
    stood, *words = paired.turn(tree, asked)
    assert stood == str(tree)
    assert {"--at-once=3", "--space=1", f"--dir={tmp_path}"} < set(words)


def test_the_farmer_that_is_measured_is_ours_wherever_we_stand(tmp_path: Path) -> None:
    (tmp_path / "farmer").mkdir()
    (tmp_path / "farmer" / "__init__.py").write_text("raise SystemExit('another farmer')")
    command = OwnFarmer(tmp_path / "own", 10**9)._command("config", "check")
    told = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert "another farmer" not in told.stderr
    assert not told.returncode, told.stderr


needs_history = pytest.mark.needs((ROOT / ".git").exists(), "git's folder, for another commit")


def run(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.paired", *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env=os.environ | {"BENCHMARKS_OUT": str(out)},
    )


@needs_history
@pytest.mark.slow
def test_a_short_run_measures_both(tmp_path: Path) -> None:
    """Against the commit that is checked out: every work has its figures."""
    words = ("--rounds", "1", "--seconds", "0.2", "--space", "20000000", "--at-once", "2")
    told = run(tmp_path / "out", "HEAD", *words, "--dir", str(tmp_path))
    assert not told.returncode, told.stderr
    kept = json.loads((tmp_path / "out" / "paired.json").read_text())
    whats = {name.split()[0] for name in kept["figures"]}
    assert whats == {"against", "store", "retrieve", "audit"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@needs_history
def test_a_commit_that_is_none_is_named(tmp_path: Path) -> None:
    """With what git says of it."""
    told = run(tmp_path, "no-such-commit")
    assert told.returncode == 1
    assert "Needed a single revision" in told.stderr or "unknown revision" in told.stderr
