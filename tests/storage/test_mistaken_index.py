"""An index whose numbers are wrong, as SQLite itself cannot see: it costs no shard."""

from __future__ import annotations

import errno
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import DeletionOutcome
from farmer.model.status import VolumeState
from farmer.storage.index_file import PAGE_BYTES
from tests.storage.bench import ALICE, Farm, noise
from tests.storage.recording import Fault, RecordingFiles

SIZE = 900_000
"""A small volume begins its second segment with the fifth of these."""


def store(farm: Farm, *seeds: int) -> list[ShardId]:
    return [farm.store(noise(SIZE, seed)).shard for seed in seeds]


def rot(farm: Farm, change: str) -> None:
    farm.engine.close()
    with closing(sqlite3.connect(farm.path / "index.sqlite")) as index:
        index.execute(change)
        index.commit()
    farm.open()


def is_made_again(farm: Farm) -> None:
    """Look after the volume as long as it takes."""
    assert farm.engine.volumes()[0].state is VolumeState.FAILING
    farm.engine.close()
    farm.open()
    assert farm.engine.volumes()[0].state is VolumeState.HEALTHY
    assert "IndexRebuilt" in {alert.name for alert in farm.engine.trouble()}


@pytest.mark.parametrize("can_punch", [True, False])
def test_a_segment_that_is_wrongly_counted_as_empty_stays(tmp_path: Path, can_punch: bool) -> None:
    farm = Farm(tmp_path, files=RecordingFiles(can_punch=can_punch))
    shards = store(farm, *range(8))
    rot(farm, "UPDATE segments SET live = 0 WHERE number = 1")
    with closing(farm.engine):
        farm.sweep()
        is_made_again(farm)
        farm.sweep()
        assert all(farm.read(shard) == noise(SIZE, n) for n, shard in enumerate(shards))
        farm.engine.close()


def test_a_page_of_counts_that_the_disk_lost_costs_nothing(tmp_path: Path) -> None:
    """Both the length of the segment and what lives in it are then those of some time before."""
    farm = Farm(tmp_path)
    first = store(farm, 0)
    farm.engine.close()
    path = farm.path / "index.sqlite"
    with closing(sqlite3.connect(path)) as index:
        root = "SELECT rootpage FROM sqlite_schema WHERE name = 'segments'"
        at = (index.execute(root).fetchone()[0] - 1) * PAGE_BYTES
    older = path.read_bytes()[at : at + PAGE_BYTES]
    farm.open()
    shards = store(farm, *range(1, 8))
    farm.engine.close()
    with path.open("r+b") as file:
        file.seek(at)
        file.write(older)
    farm.open()
    farm.delete(first[0], erase=True)
    farm.sweep()
    is_made_again(farm)
    farm.sweep()
    assert all(farm.read(shard) == noise(SIZE, n) for n, shard in enumerate(shards, 1))
    farm.engine.close()


@pytest.mark.parametrize(
    "wrong",
    [
        "offset = (SELECT offset FROM shards WHERE offset > 4096 ORDER BY offset LIMIT 1)",
        "offset = offset + 65536 * 14 + 65536",
        "length = length + 4096",
        "sequence = sequence + 1000",
    ],
)
def test_a_given_up_record_is_punched_only_where_the_log_has_it(
    tmp_path: Path, wrong: str
) -> None:
    farm = Farm(tmp_path)
    shards = store(farm, 0, 1, 2)
    given_up(farm, shards[0])
    rot(farm, f"UPDATE doomed SET {wrong}")
    farm.sweep()
    assert all(farm.read(shard) == noise(SIZE, n) for n, shard in enumerate(shards[1:], 1))
    is_made_again(farm)
    farm.sweep()
    assert all(farm.read(shard) == noise(SIZE, n) for n, shard in enumerate(shards[1:], 1))
    assert not farm.engine.opened()[0].ground.index.doomed()
    farm.engine.close()


def given_up(farm: Farm, shard: ShardId) -> int:
    """Let a record wait to be given back; return where it begins."""
    farm.delete(shard)
    volume = farm.engine.opened()[0]
    row = volume.ground.index.find(ALICE, shard)
    assert row is not None
    volume.remove([row])
    return row.place.offset


@pytest.mark.parametrize("what", ["a shard", "one that is gone", "marks"])
def test_what_the_disk_put_over_a_given_up_record_speaks_against_no_index(
    tmp_path: Path, what: str
) -> None:
    """The index knows where that belongs; made again, it would not know of a damaged record."""
    farm = Farm(tmp_path)
    shards = store(farm, 0, 1, 2)
    index = farm.engine.opened()[0].ground.index
    other = index.find(ALICE, shards[2])
    assert other is not None
    place, length = other.place, other.charge_bytes
    if what == "marks":
        farm.delete(shards[2])
        (marks,) = index.marks()
        place, length = marks.place, marks.length
    log = farm.path / "log" / "00000001.seg"
    misplaced = log.read_bytes()[place.offset : place.offset + length]
    if what == "one that is gone":
        given_up(farm, shards[2])
        farm.sweep()
    start = given_up(farm, shards[0])
    with log.open("r+b") as file:
        file.seek(start)
        file.write(misplaced)
    farm.sweep()
    assert farm.engine.volumes()[0].state is VolumeState.HEALTHY
    assert log.read_bytes()[start : start + length] == misplaced
    assert farm.read(shards[1]) == noise(SIZE, 1)
    farm.engine.close()


def spoil(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"rot")


def test_a_record_whose_header_is_rotten_is_given_back(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    shards = store(farm, 0, 1, 2)
    row = farm.engine.opened()[0].ground.index.find(ALICE, shards[1])
    assert row is not None
    spoil(farm.path / "log" / "00000001.seg", row.place.offset)
    assert farm.delete(shards[1], erase=True).outcome is DeletionOutcome.ERASED
    assert noise(SIZE, 1)[:4096] not in (farm.path / "log" / "00000001.seg").read_bytes()
    assert farm.engine.volumes()[0].state is VolumeState.HEALTHY
    farm.engine.close()


def test_one_whose_header_cannot_be_read_is_given_back(tmp_path: Path) -> None:
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    shards = store(farm, 0, 1, 2)
    files.fault = Fault(0, errno.EIO, lambda call: (call.name, call.length) == ("pread", 256))
    assert farm.delete(shards[1], erase=True).outcome is DeletionOutcome.ERASED
    files.fault = None
    assert farm.engine.volumes()[0].state is VolumeState.HEALTHY
    farm.engine.close()
