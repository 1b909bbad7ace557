"""A shard that was stored again while the volume that held it was away."""

from __future__ import annotations

from pathlib import Path

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import ShardState
from farmer.storage.directory import MARKER_NAME
from farmer.storage.errors import ShardNotFoundError
from tests.storage.bench import ALICE, Farm, noise


def away_and_stored_again(farm: Farm, data: bytes) -> ShardId:
    """Let a volume go with a shard in its trash; store the shard; let the volume come back."""
    shard = farm.store(data).shard
    farm.delete(shard)
    place = next(
        settings.path
        for settings, status in zip(farm.settings, farm.engine.volumes(), strict=True)
        if status.shards
    )
    (place / MARKER_NAME).rename(place / "aside")
    farm.engine.look_after_disks()
    farm.store(data)
    (place / "aside").rename(place / MARKER_NAME)
    for _ in range(5):
        farm.engine.look_after_disks()
    return shard


def test_what_was_stored_last_counts_when_the_volume_is_back(tmp_path: Path) -> None:
    """The older copy in the trash does not hide the one that was acknowledged later."""
    farm = Farm(tmp_path, volumes=2)
    data = noise(5000)
    shard = away_and_stored_again(farm, data)
    page = farm.engine.page(ALICE, ShardId(bytes(32)), 10)
    assert [one.state for one in page] == [ShardState.LIVE]
    assert farm.engine.stat(ALICE, shard).state is ShardState.LIVE
    assert farm.read(shard) == data
    farm.engine.close()


@pytest.mark.parametrize("erase", [True, False])
def test_a_delete_reaches_every_copy(tmp_path: Path, erase: bool) -> None:
    """No older copy comes back from another volume."""
    farm = Farm(tmp_path, volumes=2)
    data = noise(5000)
    shard = away_and_stored_again(farm, data)
    farm.delete(shard, erase=erase)
    if erase:
        with pytest.raises(ShardNotFoundError):
            farm.engine.stat(ALICE, shard)
    else:
        assert farm.engine.stat(ALICE, shard).state is ShardState.TRASH
        assert farm.engine.usage(ALICE).shards == 1
    farm.engine.close()
