"""Emptying the trash: what is over by both clocks goes, whatever else lies there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from farmer.model.contract import TRASH_MS
from farmer.model.ids import ShardId
from farmer.storage import sweeping
from farmer.storage.index import Index
from farmer.storage.places import Row
from tests.storage.bench import DAY_MS, Farm, noise

AT_ONCE = 2
NOT_YET_MAX = 4


@pytest.fixture
def farm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Farm]:
    monkeypatch.setattr(sweeping, "LOOK_AT_ONCE", AT_ONCE)
    monkeypatch.setattr(sweeping, "NOT_YET_MAX", NOT_YET_MAX)
    farm = Farm(tmp_path)
    yield farm
    farm.engine.close()


def trashed(farm: Farm, numbers: range) -> list[ShardId]:
    shards = [farm.store(noise(100, number)).shard for number in numbers]
    for shard in shards:
        farm.delete(shard)
        farm.clocks.now_ms += 1
        farm.clocks.observed_ms += 1
    return shards


def looks(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many shards each look of a sweep finds, as they come."""
    found: list[int] = []
    in_trash = Index.in_trash

    def noted(self: Index, until_ms: int, after: Row | None, limit: int) -> list[Row]:
        rows = in_trash(self, until_ms, after, limit)
        found.append(len(rows))
        return rows

    monkeypatch.setattr(Index, "in_trash", noted)
    return found


def test_a_sweep_ends_soon_while_all_is_over_by_wall_time_alone(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    trashed(farm, range(20))
    farm.clocks.now_ms += TRASH_MS
    found = looks(farm, monkeypatch)
    assert farm.sweep() == 0
    assert sum(found) == 2 * NOT_YET_MAX
    farm.clocks.observed_ms += TRASH_MS
    assert farm.sweep() == 20


def test_what_is_over_by_both_clocks_goes_at_the_next_sweep(farm: Farm) -> None:
    trashed(farm, range(10))
    farm.clocks.pass_days(1)
    trashed(farm, range(10, 30))
    farm.clocks.now_ms += TRASH_MS
    farm.clocks.observed_ms += TRASH_MS - DAY_MS
    assert farm.sweep() == 10


def test_what_lies_behind_the_trash_of_a_clock_that_was_wrong_goes_by_and_by(farm: Farm) -> None:
    trashed(farm, range(5))
    farm.clocks.now_ms -= 20 * DAY_MS
    farm.clocks.observed_ms += DAY_MS
    trashed(farm, range(5, 25))
    farm.clocks.now_ms += 20 * DAY_MS + TRASH_MS
    farm.clocks.observed_ms += TRASH_MS - DAY_MS
    assert [farm.sweep() for _ in range(5)] == [0, 0, 0, 0, 5]
    farm.clocks.observed_ms += DAY_MS
    assert farm.sweep() == 20
