"""`make`: the ways in which the first one of a fresh machine goes wrong."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[1] / "Makefile"

LAME = """#!/bin/sh
case "$1" in
-m) mkdir -p .venv/bin; touch .venv/bin/python; echo "ensurepip is not available"; exit 1 ;;
esac
"""
"""A Python of a system whose venv is a package of its own: it makes half, and fails."""


@pytest.mark.tool("make")
def test_of_an_environment_that_could_not_be_made_nothing_is_left(tmp_path: Path) -> None:
    """Else it would be taken for a whole one, also once the package is there."""
    python = tmp_path / "python"
    python.write_text(LAME)
    python.chmod(0o755)
    words = ["make", "-f", str(MAKEFILE), f"PYTHON={python}", ".venv/bin/python"]
    made = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert made.returncode != 0
    assert "ensurepip is not available" in made.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["python"]
