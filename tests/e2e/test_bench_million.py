"""The benchmark of a million shards, with few: all its figures, and what it compares."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import million
from tests.e2e.daemon import Daemon

pytestmark = [pytest.mark.apart, pytest.mark.slow]

SHARDS = 1500


@pytest.mark.tool("strace")
def test_a_million_are_measured_the_same_way_when_they_are_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every figure is there, and a rebuild finds what a renter had."""
    monkeypatch.setattr(million, "ROUNDS", 1)
    monkeypatch.setattr(million, "WORK_S", 0.5)
    # The page cache is everybody's.
    monkeypatch.setattr(million, "CACHE", tmp_path / "drop_caches")
    found = million.measure(tmp_path, SHARDS)
    assert all(found.values()), found
    assert (tmp_path / "drop_caches").read_text() == "3"
    assert found["the owner's list after that"] == f"the same {SHARDS} ids"


def test_where_the_page_cache_cannot_be_emptied_a_cold_start_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the reason, and with a farmer that runs afterwards."""
    monkeypatch.setattr(million, "CACHE", tmp_path / "there is no such folder" / "drop_caches")
    with Daemon(tmp_path / "home", tmp_path / "volume") as daemon:
        daemon.start()
        assert million.cold_starts(daemon).startswith("skipped: ")
        assert daemon.status()["listen"]
