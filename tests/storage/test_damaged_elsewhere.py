"""A damaged shard is stored again: where it lies, or where that cannot be, on another volume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import ShardState
from farmer.storage.duty import Duty, Leaving
from farmer.storage.errors import ShardNotFoundError, VolumeUnavailableError
from farmer.storage.fill import Fill
from farmer.storage.quota import charge_bytes
from farmer.storage.volume import Volume
from tests.storage.bench import ALICE, MIB, Farm, noise
from tests.storage.test_quarantine import quarantine

SIZES = [5000, 2 * MIB]


def fill(volume: Volume) -> None:
    volume.change_quota(volume.ground.account.quota_bytes, 1 << 60)


def drain(volume: Volume) -> None:
    volume.duty = Duty(verb=Leaving.DRAIN, since_ms=0)


def forbid_writes(volume: Volume) -> None:
    volume.ground.health.read_only("it takes no writes")


WHY = pytest.mark.parametrize("spoil", [fill, drain, forbid_writes])


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    """Two volumes, of which the first gets what is stored."""
    farm = Farm(tmp_path, volumes=2)
    farm.engine.fill = Fill.FIRST
    return farm


def shards(farm: Farm) -> list[tuple[int, int]]:
    """Return shards and quarantined ones of each volume."""
    return [(one.shards, one.quarantined) for one in farm.engine.volumes()]


@WHY
@pytest.mark.parametrize("size", SIZES)
def test_it_goes_to_another_where_it_lies_on_one_that_takes_nothing(
    farm: Farm, size: int, spoil: Callable[[Volume], None]
) -> None:
    data = noise(size)
    shard = quarantine(farm, data)
    spoil(farm.engine.opened()[0])
    farm.store(data)
    assert shards(farm) == [(1, 1), (1, 0)]
    assert farm.engine.stat(ALICE, shard).state is ShardState.LIVE
    assert farm.read(shard) == data
    assert len(farm.engine.page(ALICE, ShardId(bytes(32)), 10)) == 1
    farm.engine.close()


@pytest.mark.parametrize("spoil", [fill, drain])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crash", [False, True])
def test_the_damaged_one_goes_soon_and_counts_no_more(
    farm: Farm, size: int, spoil: Callable[[Volume], None], crash: bool
) -> None:
    """Also after a restart in between; else its volume would never be empty."""
    data = noise(size)
    shard = quarantine(farm, data)
    spoil(farm.engine.opened()[0])
    farm.store(data)
    if crash:
        farm.reopen()
    farm.engine.look_after_disks()
    assert shards(farm) == [(0, 0), (1, 0)]
    usage = farm.engine.usage(ALICE)
    assert (usage.shards, usage.live_bytes) == (1, charge_bytes(size))
    (row,) = farm.engine.opened()[1].ground.index.some(None, 10)
    assert row.alone_ms == 0, "there is nothing left that it outlives"
    farm.delete(shard, erase=True)
    farm.reopen()
    with pytest.raises(ShardNotFoundError):
        farm.engine.stat(ALICE, shard)
    farm.engine.close()


@pytest.mark.parametrize("size", SIZES)
def test_it_stays_where_that_has_room(farm: Farm, size: int) -> None:
    data = noise(size)
    quarantine(farm, data)
    farm.engine.fill = Fill.SPREAD
    fill(farm.engine.opened()[1])
    farm.store(data)
    assert shards(farm) == [(1, 0), (0, 0)]
    (row,) = farm.engine.opened()[0].ground.index.some(None, 10)
    assert row.alone_ms == 0
    farm.engine.close()


def test_a_delete_in_between_takes_both(farm: Farm) -> None:
    data = noise(5000)
    shard = quarantine(farm, data)
    drain(farm.engine.opened()[0])
    farm.store(data)
    farm.delete(shard, erase=True)
    assert shards(farm) == [(0, 0), (0, 0)]
    assert farm.engine.usage(ALICE).shards == 0
    farm.engine.close()


def test_a_large_one_goes_on_where_it_was_begun(farm: Farm) -> None:
    """Also if the volume of the damaged one has room again."""
    data = noise(3 * MIB)
    quarantine(farm, data)
    first, second = farm.engine.opened()
    quota = first.ground.account.quota_bytes
    fill(first)
    upload = farm.begin(data)
    upload.write(data[:MIB])
    upload.abandon()
    first.change_quota(quota, 0)
    again = farm.begin(data)
    assert again.offset == MIB
    again.write(data[MIB:])
    again.commit().result(20)
    assert shards(farm) == [(1, 1), (1, 0)]
    assert second.ground.account.reserved_bytes == 0
    farm.engine.look_after_disks()
    assert shards(farm) == [(0, 0), (1, 0)]
    farm.engine.close()


def test_with_no_other_volume_it_is_refused(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    data = noise(5000)
    quarantine(farm, data)
    forbid_writes(farm.engine.opened()[0])
    with pytest.raises(VolumeUnavailableError):
        farm.store(data)
    farm.engine.close()
