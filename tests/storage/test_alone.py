"""The databases are this process's alone, and nothing of them is mapped into it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from farmer.storage.alone import open_alone
from tests.storage.bench import Farm, noise

LOOK = (
    "import sqlite3, sys;"
    "index = sqlite3.connect(sys.argv[1], timeout=0);"
    "print(index.execute('SELECT count(*) FROM shards').fetchone())"
)


def elsewhere(path: Path) -> str:
    """Have another process read the index; return what it said."""
    words = [sys.executable, "-c", LOOK, str(path)]
    ended = subprocess.run(words, check=False, capture_output=True, text=True, timeout=20)
    return ended.stdout or ended.stderr


def test_no_file_of_a_volume_is_mapped(farm: Farm) -> None:
    """Where it has no room for a page, a filesystem that never overwrites ends the process."""
    farm.store(noise(5000))
    assert str(farm.path) not in Path("/proc/self/maps").read_text()
    assert not list(farm.path.glob("*-shm"))


def test_no_other_process_reads_what_is_open_and_all_may_afterwards(farm: Farm) -> None:
    farm.store(noise(5000))
    path = farm.path / "index.sqlite"
    assert "locked" in elsewhere(path)
    with sqlite3.connect(path) as here:
        assert here.execute("SELECT count(*) FROM shards").fetchone() == (1,)
    here.close()
    assert "locked" in elsewhere(path), "that let nobody in"
    farm.engine.close()
    assert elsewhere(path) == "(1,)\n"
    farm.open()


def test_any_name_of_a_directory_will_do(tmp_path: Path) -> None:
    """The path goes by way of a URI."""
    for name in ("a?b#c", "50%25", "über uns", "x&vfs=unix"):
        path = tmp_path / name / "index"
        path.parent.mkdir()
        connection = open_alone(path, 1.0)
        connection.execute("CREATE TABLE t (x)")
        connection.close()
        assert path.stat().st_size


def test_a_missing_directory_is_an_error_like_any(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        open_alone(tmp_path / "nowhere" / "index", 1.0).execute("CREATE TABLE t (x)")
