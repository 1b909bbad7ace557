"""What is done before each cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.rig import level

MIB = 1024**2


def test_so_many_bytes_are_written_to_a_file_that_is_gone(tmp_path: Path) -> None:
    """Whole MiB; nothing of it is left."""
    assert level.supply(tmp_path, 3 * MIB + 5) == 3 * MIB
    assert not list(tmp_path.iterdir())


def test_no_more_is_written_than_half_of_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what others have in memory would go for it."""
    monkeypatch.setattr(level, "_available_bytes", lambda: 4 * MIB)
    assert level.supply(tmp_path, 3 * MIB) == 2 * MIB
