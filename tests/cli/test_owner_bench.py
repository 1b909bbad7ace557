"""`farmer bench`: what it keeps to on the disk that it measures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from farmer.benching.disk import PIECE_BYTES, measure_disk
from farmer.model.shard import BLOCK_BYTES


def test_its_file_has_a_bound_however_fast_the_disk_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both kinds of flushes append as often as there is time for, which may be more than fits."""
    sizes: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: sizes.append(os.fstat(fd).st_size))
    measure_disk(tmp_path, PIECE_BYTES, 0.3)
    assert sizes.count(BLOCK_BYTES) > 2, "one of them began anew"
    assert max(sizes) == PIECE_BYTES
    assert list(tmp_path.iterdir()) == []
