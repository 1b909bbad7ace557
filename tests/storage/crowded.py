"""
Emptying a volume on a filesystem that somebody else keeps filling to the last block.

Run with the directory of a small filesystem of its own: `python -m tests.storage.crowded DIR`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from farmer.model.shard import DeletionOutcome, ShardState
from farmer.model.status import VolumeState
from farmer.storage.errors import NoSpaceError
from tests.storage.bench import ALICE, MIB, Farm, noise, shard_of

ERASED = {DeletionOutcome.ERASED, DeletionOutcome.ERASED_AT_COMPACTION}
"""The second of a small shard where a hole gives nothing back."""


class Neighbour:
    """Writes until nothing more goes in."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self) -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for step in (MIB, 4096):
                with contextlib.suppress(OSError):
                    while os.write(fd, bytes(step)) == step:
                        pass
        finally:
            os.close(fd)


def refused(farm: Farm, data: bytes) -> None:
    try:
        farm.store(data)
    except NoSpaceError:
        assert farm.engine.volumes()[0].state is VolumeState.FULL
        assert not farm.engine.trouble()
        return
    raise AssertionError("stored on a full disk")


def main(root: Path) -> None:
    farm = Farm(root)
    neighbour = Neighbour(root / "neighbour")
    small = [farm.store(noise(5000, number)).shard for number in range(30)]
    large = [farm.store(noise(2 * MIB, number)).shard for number in range(3)]
    half = farm.begin(noise(3 * MIB))
    half.write(noise(3 * MIB)[:MIB])
    half.abandon()

    neighbour.fill()
    for size in (6000, 2 * MIB):
        refused(farm, noise(size, "new"))
    for shard in (small[0], large[0]):
        assert farm.delete(shard).outcome is DeletionOutcome.TRASHED
        neighbour.fill()
    for shard in (small[1], large[1], shard_of(noise(3 * MIB))):
        assert farm.delete(shard, erase=True).outcome in ERASED
        neighbour.fill()
    assert farm.engine.undelete(ALICE, small[0]).result(20).state is ShardState.LIVE
    neighbour.fill()
    farm.clocks.pass_days(8)
    assert farm.sweep() == 1, farm.engine.volumes()
    neighbour.fill()

    farm.engine.close()
    neighbour.fill()
    farm.open()
    assert not farm.engine.trouble(), "no reason to make the index again"
    assert farm.read(small[5]) == noise(5000, 5)
    assert farm.delete(small[2], erase=True).outcome in ERASED
    for lost, expected in (
        ("index.sqlite*", "IndexRebuilt"),
        ("index.sqlite*", "IndexRebuilt"),
        ("[ir]*e*", "VolumeGone"),
    ):
        neighbour.fill()
        farm.engine.close()
        for path in farm.path.glob(lost):
            path.unlink()
        neighbour.fill()
        farm.open()
        assert [alert.name for alert in farm.engine.trouble()] == [expected]

    neighbour.path.unlink()
    farm.sweep()
    for size in (6000, 2 * MIB):
        assert farm.read(farm.store(noise(size, "new")).shard) == noise(size, "new")
    farm.reopen()
    assert farm.engine.volumes()[0].shards == 31
    farm.engine.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
