"""
Planted bugs: each patch in tests/planted is a mistake somebody could make; the suite must see it.

A patch begins with lines `caught-by: <pytest node>`; those tests pass on a copy of the code as
it stands, and at least one must fail on a copy with the patch applied.
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
PLANTED = 201
QUICKLY = ["-p", "no:cacheprovider", "--hypothesis-profile=planted"]
PASSED, FAILED = 0, 1  # pytest's exit codes; 4 and 5 would mean that none ran


def catchers(patch: Path) -> list[str]:
    lines = patch.read_text().splitlines()
    return [line.split(":", 1)[1].strip() for line in lines if line.startswith("caught-by:")]


@pytest.mark.slow
def test_what_catches_the_bugs_passes_without_them(tmp_path: Path) -> None:
    """What fails in such a copy anyway has caught nothing.  First: it takes as long as many."""
    tests = sorted({test for patch in PATCHES for test in catchers(patch)})
    outcome = ran_in(copied_to(tmp_path / "house"), *tests, within_s=900)
    assert outcome.returncode == PASSED, outcome.stdout[-3000:]


@pytest.mark.slow
@pytest.mark.tool("git")
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_planted_bug_is_caught(patch: Path, tmp_path: Path) -> None:
    """The named tests fail once the bug is in."""
    house = copied_to(tmp_path / "house")
    applied = subprocess.run(
        ["git", "apply", "--recount", str(patch)],
        cwd=house,
        check=False,
        capture_output=True,
        text=True,
    )
    assert applied.returncode == 0, f"the patch no longer fits:\n{applied.stderr}"
    assert catchers(patch), "the patch does not say which tests catch it"

    outcome = ran_in(house, "-x", *catchers(patch), within_s=120)

    # A bug may also take the process with it once its test has failed.
    is_caught = outcome.returncode == FAILED or (
        outcome.returncode < 0 and "\n1 failed in " in outcome.stdout
    )
    assert is_caught, f"not caught:\n{outcome.stdout[-2000:]}"


def copied_to(house: Path) -> Path:
    """Return a copy of what the tests need, for bugs to be planted in."""
    house.mkdir()
    for name in ("farmer", "tests", "conf", "docs", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, house / name)
    return house


def ran_in(house: Path, *words: str, within_s: float) -> subprocess.CompletedProcess[str]:
    """Run pytest on a copy."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", *QUICKLY, *words],
        cwd=house,
        check=False,
        env={**os.environ, "PYTHONPATH": str(house), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=within_s,
    )


def test_no_planted_bug_is_lost() -> None:
    """Deleting a patch that no longer fits is not the way to make it pass."""
    assert len(PATCHES) == PLANTED
