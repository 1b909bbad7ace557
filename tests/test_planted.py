"""
Planted bugs: each patch in tests/planted is a mistake somebody could make; the suite must see it.

A patch begins with lines `caught-by: <pytest node>`; those tests pass as the code stands
(the suite runs them) and at least one must fail on a copy with the patch applied.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PATCHES = sorted((ROOT / "tests" / "planted").glob("*.patch"))
QUICKLY = ["-x", "-p", "no:cacheprovider", "--hypothesis-profile=planted"]
FAILED = 1  # pytest's exit code for "tests ran, some failed"; 4 and 5 would mean none ran


def catchers(patch: Path) -> list[str]:
    lines = patch.read_text().splitlines()
    return [line.split(":", 1)[1].strip() for line in lines if line.startswith("caught-by:")]


@pytest.mark.slow
@pytest.mark.tool("git")
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_planted_bug_is_caught(patch: Path, tmp_path: Path) -> None:
    """The named tests fail once the bug is in."""
    house = tmp_path / "house"
    for name in ("farmer", "tests", "conf", "docs", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        house.mkdir(exist_ok=True)
        copy(ROOT / name, house / name)
    applied = subprocess.run(
        ["git", "apply", "--recount", str(patch)],
        cwd=house,
        check=False,
        capture_output=True,
        text=True,
    )
    assert applied.returncode == 0, f"the patch no longer fits:\n{applied.stderr}"
    assert catchers(patch), "the patch does not say which tests catch it"

    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", *QUICKLY, *catchers(patch)],
        cwd=house,
        check=False,
        env={**os.environ, "PYTHONPATH": str(house), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )

    # A bug may also take the process with it once its test has failed.
    is_caught = outcome.returncode == FAILED or (
        outcome.returncode < 0 and "\n1 failed in " in outcome.stdout
    )
    assert is_caught, f"not caught:\n{outcome.stdout[-2000:]}"


def test_there_are_enough_planted_bugs() -> None:
    """Deleting a patch that no longer fits is not the way to make it pass."""
    assert len(PATCHES) >= 70
