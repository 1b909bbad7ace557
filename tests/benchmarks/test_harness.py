"""What every benchmark keeps: its figures, where they were measured, when, and of which commit."""

from __future__ import annotations

import importlib
import json
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks import harness
from benchmarks.__main__ import LONG, NAMES


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.com")
    told = subprocess.run(
        ("git", "-C", str(folder), *who, *words), check=True, capture_output=True, text=True
    )
    return told.stdout.strip()


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(harness, "OUT", tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.tool("git")
def test_a_commit_is_named_and_whether_it_is_quite_that(tmp_path: Path) -> None:
    """By its short name; what was changed since says so."""
    git(tmp_path, "init", "-q")
    file = tmp_path / "file"
    file.write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-q", "-m", "one")
    git(tmp_path, "tag", "-m", "a tag", "v1")
    name = git(tmp_path, "rev-parse", "--short", "HEAD")
    assert harness.commit(tmp_path) == name
    file.write_text("two")
    assert harness.commit(tmp_path) == f"{name}-dirty"


def test_where_git_knows_of_no_commit_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unpacked from an archive, or on a machine without git."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert harness.commit(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert harness.commit(tmp_path) is None


def test_figures_are_kept_with_the_moment_in_utc(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the machine thinks it is."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        harness.report("some", {"a figure": 7})
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    kept = json.loads((out / "some.json").read_text())
    assert set(kept) == {"date", "commit", "machine", "figures"}
    assert kept["figures"] == {"a figure": 7}
    moment = datetime.fromisoformat(kept["date"])
    assert moment.utcoffset() is not None
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 60
    assert kept["date"].endswith("+00:00")
    assert capsys.readouterr().out == "a figure  7\n"


@pytest.mark.parametrize("name", [*NAMES, *LONG])
def test_every_benchmark_that_can_be_named_can_be_run(name: str) -> None:
    """It has a `main`."""
    module = importlib.import_module(f"benchmarks.{LONG.get(name, name)}")
    assert callable(module.main)
