"""An index in which a value has become one of another kind: SQLite itself finds nothing wrong."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from farmer.model.ids import ShardId
from farmer.model.status import VolumeState
from farmer.storage import keeper
from farmer.storage.condition import PROBE_EVERY_S, PROOFS_WANTED, Seen
from farmer.storage.directory import VolumeSettings
from farmer.storage.errors import StorageError
from farmer.storage.index import Index
from farmer.storage.index_errors import IndexDamagedError
from farmer.storage.index_file import PAGE_BYTES
from farmer.storage.volume import Volume
from tests.storage.bench import ALICE, MIB, Farm, noise
from tests.storage.house import House
from tests.storage.rot import volume_of
from tests.storage.test_moving import DRAIN


@pytest.mark.parametrize(
    "rot",
    [
        "UPDATE state SET segment = NULL",
        "UPDATE state SET offset = 'x'",
        "UPDATE renters SET renter = 'x'",
        "UPDATE renters SET renter = x'00'",
        "UPDATE usage SET live = NULL",
        "UPDATE segments SET size = NULL",
        "UPDATE segments SET uuid = 'x'",
        "INSERT INTO staged VALUES ('x')",
    ],
)
def test_it_is_made_again_and_no_other_volume_waits(tmp_path: Path, rot: str) -> None:
    farm = Farm(tmp_path, volumes=2)
    shard = farm.store(noise(9000)).shard
    farm.engine.close()
    for path in tmp_path.rglob("index.sqlite"):
        with closing(sqlite3.connect(path)) as index:
            index.execute(rot)
            index.commit()
    farm.open()
    with closing(farm.engine) as engine:
        assert farm.read(shard) == noise(9000)
        assert [volume.state for volume in engine.volumes()] == [VolumeState.HEALTHY] * 2
        assert {alert.name for alert in engine.trouble()} == {"IndexRebuilt"}


def test_a_torn_page_is_told_in_sqlites_words(tmp_path: Path) -> None:
    """Not as a value that is of another kind, which is something else to look into."""
    farm = Farm(tmp_path)
    farm.store(noise(9000))
    farm.engine.close()
    path = tmp_path / "volume0" / "index.sqlite"
    with closing(sqlite3.connect(path)) as index:
        root = "SELECT rootpage FROM sqlite_schema WHERE name = 'segments'"
        page = index.execute(root).fetchone()[0]
        volume = index.execute("SELECT volume FROM state").fetchone()[0]
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE_BYTES)
        file.write(b"x" * PAGE_BYTES)
    torn = Index(path, volume)
    with pytest.raises(IndexDamagedError, match="malformed"):
        torn.totals()
    torn.close(clean=False)


def test_what_nobody_thought_of_stops_one_volume_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = Farm(tmp_path, volumes=2)
    farm.engine.close()
    bad, opened = farm.settings[0], keeper.open_volume

    def surprised(settings: VolumeSettings, *words: Any) -> Volume:
        if settings is bad:
            raise TypeError("no such kind")
        return opened(settings, *words)

    monkeypatch.setattr(keeper, "open_volume", surprised)
    farm.open()
    with closing(farm.engine) as engine:
        states = [volume.state for volume in engine.volumes()]
        assert states == [VolumeState.GONE, VolumeState.HEALTHY]
        farm.store(noise(9000))


def test_a_directory_of_the_systems_own_in_staging_is_left_alone(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    shard = farm.store(noise(3 * MIB)).shard
    farm.engine.close()
    stray = farm.path / "staging" / "@eaDir"
    stray.mkdir()
    farm.open()
    with closing(farm.engine):
        assert farm.read(shard) == noise(3 * MIB)
        assert stray.is_dir()


CHORES = ("scrub", "drain", "page", "read")
OF_ROWS = [
    *[(chore, "state = 9") for chore in CHORES],
    *[(chore, "sequence = NULL") for chore in CHORES],
    # Nobody asks for it by that name: only who goes through all of them comes by.
    *[(chore, "shard = x'01'") for chore in CHORES if chore != "read"],
]


@pytest.mark.parametrize(("chore", "rot"), OF_ROWS)
def test_a_rotten_row_costs_the_index_and_ends_no_chore(
    tmp_path: Path, rot: str, chore: str
) -> None:
    farm = Farm(tmp_path, volumes=2)
    full, other = farm.engine.opened()
    other.duty = DRAIN
    sizes = (9000, 9001, 9002)
    shards = [farm.store(noise(size)).shard for size in sizes]
    other.duty = None
    farm.engine.close()
    with closing(sqlite3.connect(full.ground.paths.index)) as index:
        index.execute(f"UPDATE shards SET {rot} WHERE size = 9001")
        index.commit()
    farm.open()
    with closing(farm.engine) as engine:
        if chore == "scrub":
            engine.scrubs.begin_now()
            with suppress(StorageError):
                engine.scrubs.turn("volume0", 60, farm.clocks.now_ms, 30)
        elif chore == "drain":
            engine.mover.begin(engine.opened()[0], DRAIN)
            while engine.mover.step() is not None:
                pass
        elif chore == "page":
            with suppress(StorageError):
                engine.page(ALICE, ShardId(bytes(32)), 10)
        else:
            with suppress(StorageError):
                farm.read(shards[1])
        assert "index" in engine.volumes()[0].reason
        for _ in range(5):
            farm.clocks.now_ms += 60_000
            engine.look_after_disks()
        farm.reopen()
        assert [farm.read(shard) for shard in shards] == [noise(size) for size in sizes]
        assert [volume.state for volume in farm.engine.volumes()] == [VolumeState.HEALTHY] * 2


@pytest.mark.parametrize(
    "rot",
    [
        "INSERT INTO doomed VALUES (1, 'x', 0, 4096, NULL, 1, NULL)",
        "INSERT INTO doomed VALUES (1, 1, 0, 4096, 'x', 1, NULL)",
        "INSERT INTO marks VALUES (1, 1, 0, 'x')",
        "UPDATE segments SET live = NULL",
    ],
)
def test_rot_that_reclaiming_meets_costs_the_index_and_is_told(tmp_path: Path, rot: str) -> None:
    """Each run would end there, for ever, and nobody hear of it."""
    farm = Farm(tmp_path)
    shard = farm.store(noise(9000)).shard
    volume = volume_of(farm)
    with closing(sqlite3.connect(volume.ground.paths.index)) as index:
        index.execute(rot)
        index.commit()
    with pytest.raises(StorageError):
        volume.reclaim()
    assert "another kind" in farm.engine.volumes()[0].reason
    farm.reopen()
    with closing(farm.engine) as engine:
        assert [alert.name for alert in engine.trouble()] == ["IndexRebuilt"]
        assert farm.read(shard) == noise(9000)
        volume_of(farm).reclaim()


def test_what_is_condemned_stays_so_whatever_becomes_of_a_change_under_way(
    tmp_path: Path,
) -> None:
    farm = Farm(tmp_path)
    shard = farm.store(noise(9000)).shard
    index = volume_of(farm).ground.index
    with pytest.raises(KeyError), index.transaction():
        thread = threading.Thread(target=index.condemn)
        thread.start()
        thread.join()
        raise KeyError
    farm.reopen()
    with closing(farm.engine) as engine:
        assert [alert.name for alert in engine.trouble()] == ["IndexRebuilt"]
        assert farm.read(shard) == noise(9000)


def test_a_page_that_cannot_be_read_stops_no_other_volume_and_is_mended_while_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(farm := Farm(tmp_path, volumes=2))
    with closing(house.engine) as engine:
        first, second = engine.opened()
        first.duty = DRAIN
        shard = farm.store(noise(9000)).shard
        first.duty = None

        def find(*_key: object) -> None:
            raise sqlite3.DatabaseError("database disk image is malformed")

        monkeypatch.setattr(first.ground.index, "find", find)
        for number in range(1 + PROOFS_WANTED[Seen.BROKEN]):
            assert farm.read(shard) == noise(9000)
            farm.store(noise(100, number))
            engine.look_after_disks()
            house.clock.now_s += PROBE_EVERY_S
        assert first not in engine.opened()
        assert [volume.state for volume in engine.volumes()] == [VolumeState.HEALTHY] * 2
        assert farm.read(shard) == noise(9000)
        assert second.find(ALICE, shard) is not None


def test_where_it_is_the_only_one_nothing_is_stored_by_hearsay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would be stored as if an older copy could be elsewhere could never be met."""
    farm = Farm(tmp_path)
    with closing(farm.engine) as engine:

        def find(*_key: object) -> None:
            raise sqlite3.OperationalError("out of memory")

        monkeypatch.setattr(volume_of(farm).ground.index, "find", find)
        with pytest.raises(StorageError, match="out of memory"):
            farm.store(noise(9000))
        assert engine.usage(ALICE).shards == 0
