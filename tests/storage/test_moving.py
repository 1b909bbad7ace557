"""Emptying a volume: every shard stays what it was, wherever it is, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import pytest

from farmer.model.contract import TRASH_MS
from farmer.model.ids import ShardId
from farmer.model.shard import DeletionOutcome, ShardState, StoredShard, Usage
from farmer.storage.duty import Duty, Leaving
from farmer.storage.errors import CorruptShardError, NoSpaceError, ShardNotFoundError
from farmer.storage.moving import Mover
from farmer.storage.records import crc_bytes, decode_record
from farmer.storage.volume import Volume
from tests.storage.bench import ALICE, BOB, MIB, Farm, noise, shard_of

SIZES = (0, 1, 5000, 70_000, 900_000, MIB + 1, 3 * MIB)
DRAIN = Duty(verb=Leaving.DRAIN, since_ms=1)


def step_until(mover: Mover, is_so: Callable[[], object], most: int = 1000) -> None:
    """Let shards move on step by step until it is so."""
    for _ in range(most):
        if is_so():
            return
        assert mover.step() is not None, "all is moved, and it was never so"
    raise AssertionError(f"not so after {most} steps")


class Street:
    """A farmer with two volumes, of which the first is to be emptied."""

    def __init__(self, root: Path, **options: object) -> None:
        self.farm = Farm(root, volumes=2, **options)  # type: ignore[arg-type]  # a test's shorthand
        self.data = {shard_of(data): data for data in (noise(size) for size in SIZES)}
        self.hold(1)
        for data in self.data.values():
            self.farm.store(data)
        self.release(1)

    @property
    def volumes(self) -> list[Volume]:
        return self.farm.engine._slots.opened()

    @property
    def source(self) -> Volume:
        return self.volumes[0]

    @property
    def target(self) -> Volume:
        return self.volumes[1]

    def hold(self, number: int) -> None:
        self.volumes[number].duty = DRAIN

    def release(self, number: int) -> None:
        self.volumes[number].duty = None

    def begin(self) -> None:
        self.farm.engine.mover.begin(self.source, DRAIN)

    def steps(self) -> None:
        while self.farm.engine.mover.step() is not None:
            pass

    def page(self) -> list[StoredShard]:
        return self.farm.engine.page(ALICE, ShardId(bytes(32)), 100)

    def usage(self) -> Usage:
        return self.farm.engine.usage(ALICE)

    def check_bytes(self) -> None:
        for shard, data in self.data.items():
            if self.farm.engine.stat(ALICE, shard).state is ShardState.LIVE:
                assert self.farm.read(shard) == data

    def check_disks(self) -> None:
        self.farm.engine.compare_with_disk()
        for status in self.farm.engine.volumes():
            taken = status.used_bytes + status.trash_bytes + status.reserved_bytes
            assert taken + status.allowance_bytes <= status.quota_bytes
            assert abs(status.drift_bytes) <= 4096 * 8, status


@pytest.fixture
def street(tmp_path: Path):  # type: ignore[no-untyped-def]  # a fixture
    street = Street(tmp_path)
    yield street
    street.farm.engine.close()


def test_all_that_is_known_of_a_shard_moves_with_it(street: Street) -> None:
    """State, times and contract are what they were; the source is empty, both disks agree."""
    shards = list(street.data)
    street.farm.delete(shards[2])
    street.farm.delete(shards[6])
    street.farm.clocks.pass_days(1)
    before, usage = street.page(), street.usage()
    assert street.source.status().shards == len(SIZES)

    street.begin()
    street.steps()

    assert (street.page(), street.usage()) == (before, usage)
    street.check_bytes()
    street.check_disks()
    assert [one.shards for one in street.farm.engine.volumes()] == [0, len(SIZES)]
    street.farm.reopen()
    assert (street.page(), street.usage()) == (before, usage)
    assert street.source.draining, "a restart goes on with it"


def test_the_trash_is_emptied_when_it_would_have_been(street: Street) -> None:
    """Both clocks of a shard in the trash go with it."""
    shard = list(street.data)[3]
    street.farm.delete(shard)
    street.farm.clocks.pass_days(6)
    street.begin()
    street.steps()
    assert street.farm.sweep() == 0
    street.farm.clocks.pass_days(1)
    assert street.farm.sweep() == 1
    with pytest.raises(ShardNotFoundError):
        street.farm.engine.stat(ALICE, shard)
    assert TRASH_MS == 7 * 86_400_000


def test_nothing_that_was_deleted_comes_back_when_an_index_is_lost(street: Street) -> None:
    """Neither from the log of the volume that it left, nor from that of the one it came to."""
    shards = list(street.data)
    street.begin()
    street.steps()
    for shard in shards[:4]:
        street.farm.delete(shard, erase=True)
        del street.data[shard]
    expected = street.page()
    for lost in (0, 1):
        street.farm.engine.close()
        for path in street.farm.settings[lost].path.glob("index.sqlite*"):
            path.unlink()
        street.farm.open()
        assert street.page() == expected
        street.check_bytes()


def test_a_delete_during_the_copy_wins(street: Street) -> None:
    """A large shard that is erased, or trashed, while its bytes are copied is just that."""
    large = [shard for shard, data in street.data.items() if len(data) > MIB]
    street.begin()
    mover = street.farm.engine.mover
    staging = street.target.ground.paths.staging
    step_until(mover, lambda: any(path.suffix == ".part" for path in staging.iterdir()))
    street.farm.delete(large[0], erase=True)
    street.farm.delete(large[1])
    street.steps()
    del street.data[large[0]]
    assert {row.shard for row in street.page()} == set(street.data)
    assert street.farm.engine.stat(ALICE, large[1]).state is ShardState.TRASH
    assert street.source.status().shards == 0
    street.check_disks()


@pytest.mark.parametrize("number", [2, 6])
def test_a_shard_is_erased_from_the_disk_only_where_the_one_that_it_left_has_nothing_of_it(
    street: Street, number: int
) -> None:
    """What left waits there for its space to be given back, which is done for many at once."""
    shard = list(street.data)[number]
    street.begin()
    step_until(street.farm.engine.mover, lambda: not street.source.find(ALICE, shard))
    assert street.source.has_rest_of(ALICE, shard)
    told = street.farm.delete(shard, erase=True).outcome
    assert told is DeletionOutcome.ERASED_AT_COMPACTION
    street.steps()
    street.farm.sweep()
    assert not street.source.has_rest_of(ALICE, shard)
    left = list(street.data)[3]
    assert street.farm.delete(left, erase=True).outcome is DeletionOutcome.ERASED


def test_a_damaged_shard_stays_and_is_not_made_to_look_sound(street: Street) -> None:
    """Its bytes are not the ones that its id names; the others go."""
    shard = list(street.data)[3]
    row = street.source.find(ALICE, shard)
    assert row is not None
    path = street.source.ground.paths.segment(row.place.segment)
    with path.open("r+b") as file:
        file.seek(row.place.offset + 300)
        file.write(b"rot")
    street.begin()
    street.steps()
    assert street.source.status().shards == 1
    work = street.farm.engine.volumes()[0].work
    assert work is not None
    assert (work.left_shards, work.damaged, work.moved_shards) == (1, 1, len(SIZES) - 1)
    with pytest.raises(CorruptShardError):
        street.farm.read(shard)


def test_bytes_that_pass_their_checksums_but_not_the_id_stay(street: Street) -> None:
    """Checksums find rot; only the id tells that these are not the renter's bytes."""
    shard = list(street.data)[1]
    row = street.source.find(ALICE, shard)
    assert row is not None
    path, start = street.source.ground.paths.segment(row.place.segment), row.place.offset
    raw = path.read_bytes()[start : start + 4096]
    header = decode_record(raw, raw[16:32], "")
    data = bytes([raw[256] ^ 1])
    trailer = raw[257:289] + crc_bytes(data)
    header = replace(header, trailer_crc=crc32(trailer))
    with path.open("r+b") as file:
        file.seek(start)
        file.write(header.encode() + data + trailer)
    street.begin()
    street.steps()
    assert street.target.find(ALICE, shard) is None
    assert street.source.status().shards == 1


def test_a_full_contract_is_full_and_no_more(street: Street) -> None:
    """While a shard is on two volumes its renter pays for one; uploads wait at the source."""
    upload = street.farm.begin(noise(2 * MIB, "half"))
    seen = street.usage()
    street.begin()
    while street.farm.engine.mover.step() is not None:
        assert street.usage() == seen
    assert street.usage() == seen
    upload.abandon()
    street.farm.store(noise(MIB, "other"), BOB)
    assert street.farm.engine.usage(BOB).shards == 1


def test_without_room_it_says_so_and_goes_on_later(tmp_path: Path) -> None:
    """The shards that have no room stay where they are and are served."""
    street = Street(tmp_path)
    with closing(street.farm.engine):
        target = street.target
        target.change_quota(64 * MIB, 1 << 60)
        assert not street.farm.engine.mover.room(street.source).is_enough
        street.begin()
        street.steps()
        work = street.farm.engine.volumes()[0].work
        assert work is not None
        assert "available" in work.problem
        street.check_bytes()
        with pytest.raises(NoSpaceError):
            street.farm.store(noise(100, "new"))
        target.change_quota(64 * MIB, 0)
        target.ground.refresh_filesystem()
        street.steps()
        assert street.source.status().shards == 0
        street.check_bytes()


def test_shards_go_to_a_slow_volume_only_where_no_other_has_room(tmp_path: Path) -> None:
    farm = Farm(tmp_path, volumes=3, quota_bytes=256 * MIB)
    with closing(farm.engine):
        first, slow, quick = farm.engine._slots.opened()
        slow.duty = quick.duty = DRAIN
        for number in range(3):
            farm.store(noise(1000, number))
        farm.store(noise(60 * MIB))
        slow.duty = quick.duty = None
        quick.change_quota(64 * MIB, 0)
        slow.ground.health.slowed("tired")
        farm.engine.mover.begin(first, DRAIN)
        while farm.engine.mover.step() is not None:
            pass
        assert [one.shards for one in farm.engine.volumes()] == [0, 1, 3]


def test_a_cancelled_one_stays_where_it_is(street: Street) -> None:
    """What has left stays away; what is there is served, and new shards may come."""
    street.begin()
    assert street.farm.engine.mover.step() is not None
    street.farm.engine.mover.cancel(street.source)
    street.steps()
    assert not street.source.draining
    street.farm.reopen()
    assert not street.source.draining
    street.check_bytes()
    assert not list(street.target.ground.paths.staging.iterdir())
