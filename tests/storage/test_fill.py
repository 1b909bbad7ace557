"""Where new shards go."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from farmer.model.ids import ShardId
from farmer.model.status import VolumeState
from farmer.storage.duty import Duty, Leaving
from farmer.storage.errors import NoSpaceError, VolumeUnavailableError
from farmer.storage.fill import Choice, Fill, order
from tests.storage.bench import MIB, Farm, noise, shard_of

GB = 10**9
SMALL = Choice(b"s" * 16, VolumeState.HEALTHY, 100 * GB)
LARGE = Choice(b"l" * 16, VolumeState.HEALTHY, 300 * GB)


def shard(number: int) -> ShardId:
    return ShardId(number.to_bytes(32))


def test_spread_follows_free_space_and_not_only_the_emptiest() -> None:
    firsts = Counter(order([SMALL, LARGE], shard(n), Fill.SPREAD)[0] for n in range(4000))
    assert 2900 < firsts[1] < 3100


def test_a_repeated_store_comes_to_the_same_volume() -> None:
    for number in range(50):
        one = order([SMALL, LARGE], shard(number), Fill.SPREAD)
        assert one == order([SMALL, LARGE], shard(number), Fill.SPREAD)
        assert sorted(one) == [0, 1]


def test_first_is_the_order_of_the_settings() -> None:
    for number in range(50):
        assert order([SMALL, LARGE], shard(number), Fill.FIRST) == [0, 1]


@pytest.mark.parametrize("fill", Fill)
def test_slow_ones_then_full_ones_come_last_and_a_stalled_one_behind_its_like(fill: Fill) -> None:
    full = LARGE._replace(state=VolumeState.FULL, free_bytes=0)
    slow = LARGE._replace(state=VolumeState.SLOW)
    for number in range(50):
        assert order([full, slow, SMALL], shard(number), fill) == [2, 1, 0]
        stalled = LARGE._replace(is_stalled=True)
        assert order([stalled, SMALL], shard(number), fill) == [1, 0]


@pytest.mark.parametrize(
    "state",
    [VolumeState.READ_ONLY, VolumeState.FAILING, VolumeState.GONE, VolumeState.RETIRED],
)
def test_what_cannot_be_written_is_never_tried(state: VolumeState) -> None:
    assert order([LARGE._replace(state=state, has_lease=True)], shard(1), Fill.SPREAD) == []


def test_a_drained_volume_takes_nothing_new_but_finishes_what_was_begun() -> None:
    draining = LARGE._replace(draining=True)
    assert order([draining, SMALL], shard(1), Fill.SPREAD) == [1]
    resumed = draining._replace(has_lease=True)
    assert order([SMALL, resumed], shard(1), Fill.FIRST) == [1, 0]


def volumes_of(farm: Farm) -> list[str]:
    return [f"{status.name}:{status.shards}" for status in farm.engine.volumes() if status.shards]


def test_the_engine_obeys_the_setting_and_the_drain(tmp_path: Path) -> None:
    farm = Farm(tmp_path, volumes=3)
    farm.engine.fill = Fill.FIRST
    for number in range(10):
        farm.store(noise(100, number))
    assert volumes_of(farm) == ["volume0:10"]
    first, second, third = farm.engine._slots.opened()
    first.duty = second.duty = Duty(verb=Leaving.DRAIN, since_ms=0)
    farm.store(noise(100, 10))
    assert volumes_of(farm) == ["volume0:10", "volume2:1"]
    assert farm.engine.free_bytes() == third.ground.account.free_bytes
    assert [status.draining for status in farm.engine.volumes()] == [True, True, False]
    third.duty = first.duty
    with pytest.raises(VolumeUnavailableError):
        farm.store(noise(100, 11))
    first.duty = None
    first.ground.health.slowed("tired")
    assert farm.store(noise(100, 12)).shard == shard_of(noise(100, 12))
    assert volumes_of(farm) == ["volume0:11", "volume2:1"]
    farm.engine.close()


def test_a_full_volume_is_passed_over_and_the_number_told_is_the_best(tmp_path: Path) -> None:
    farm = Farm(tmp_path, volumes=2)
    farm.engine.fill = Fill.FIRST
    first, second = farm.engine._slots.opened()
    first.change_quota(first.ground.account.quota_bytes, 1 << 60)
    farm.store(noise(2 * MIB))
    assert volumes_of(farm) == ["volume1:1"]
    with pytest.raises(NoSpaceError) as refused:
        farm.store(noise(60 * MIB))
    assert refused.value.available_bytes == second.ground.account.free_bytes
    farm.engine.close()


@pytest.mark.parametrize(
    "sick",
    [
        lambda health: health.go("its marker is missing"),
        lambda health: health.hang("a read does not return"),
        lambda health: health.read_only("EROFS"),
        lambda health: health.write_failed("EIO"),
    ],
    ids=["gone", "hung", "read-only", "failing"],
)
def test_a_volume_that_takes_nothing_now_has_nothing_free_to_show(tmp_path: Path, sick) -> None:
    """Its owner sees what its renters are told."""
    farm = Farm(tmp_path, volumes=2)
    first, second = farm.engine.opened()
    sick(first.ground.health)
    free = [status.free_bytes for status in farm.engine.volumes()]
    assert free == [0, second.ground.account.free_bytes]
    assert sum(free) == farm.engine.free_bytes()
    farm.engine.close()


def test_a_drained_volume_has_nothing_free_to_show(tmp_path: Path) -> None:
    farm = Farm(tmp_path, volumes=2)
    first, _second = farm.engine.opened()
    first.duty = Duty(verb=Leaving.DRAIN, since_ms=0)
    assert sum(one.free_bytes for one in farm.engine.volumes()) == farm.engine.free_bytes() > 0
    assert farm.engine.volumes()[0].free_bytes == 0
    farm.engine.close()
