"""A repair sends what is damaged and no more; whatever goes wrong, all stays as it was."""

from __future__ import annotations

import errno
import random
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest

from farmer.model.audit import AuditEntry
from farmer.model.ids import ShardId
from farmer.model.shard import (
    BLOCK_BYTES,
    DeletionOutcome,
    ShardState,
    StoredShard,
    charge_bytes,
)
from farmer.storage import operations
from farmer.storage.engine import Engine
from farmer.storage.errors import (
    BusyError,
    NoSpaceError,
    ShardNotFoundError,
    StorageError,
    WrongHashError,
    WrongSizeError,
)
from farmer.storage.files import Buffer
from farmer.storage.mending import Mending
from tests.storage.bench import ALICE, MIB, Farm, contract_of, crash_copy, noise, shard_of
from tests.storage.recording import WRITING, Fault, RecordingFiles
from tests.storage.rot import rot, row_of, volume_of
from tests.storage.test_damage import served, spans

SIZES = [5000, 400_000, 2 * MIB + 77]


def damaged(farm: Farm, size: int, *blocks: int) -> tuple[bytes, ShardId]:
    data = noise(size)
    shard = farm.store(data).shard
    for block in blocks:
        rot(farm, row_of(farm, shard), "payload", block)
    return data, shard


def wanted(data: bytes, mending: Mending) -> bytes:
    return b"".join(
        data[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES] for block in mending.bad.blocks
    )


def begun(engine: Engine, shard: ShardId) -> Mending:
    mending = engine.repair(contract_of(ALICE), shard)
    assert isinstance(mending, Mending)
    return mending


def lose_index(farm: Farm) -> None:
    farm.engine.close()
    for path in farm.path.glob("index.sqlite*"):
        path.unlink()
    farm.open()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", [1 << 30, 50_001])
def test_only_the_damaged_blocks_are_asked_for(farm: Farm, size: int, step: int) -> None:
    last = len(spans(size)) - 1
    data, shard = damaged(farm, size, *{0, last // 2, last})
    used = farm.engine.usage(ALICE)
    mending = begun(farm.engine, shard)
    assert mending.bad.blocks == tuple(sorted({0, last // 2, last}))
    missing = wanted(data, mending)
    assert mending.wanted_bytes == len(missing)
    assert farm.engine.usage(ALICE).reserved_bytes == charge_bytes(size)
    for at in range(0, len(missing), step):
        mending.write(missing[at : at + step])
    stored = mending.commit().result(20)
    assert (stored.state, stored.size_bytes) == (ShardState.LIVE, size)
    assert farm.engine.usage(ALICE) == used
    for again in (lambda: None, farm.reopen, lambda: lose_index(farm)):
        again()
        assert farm.read(shard) == data
        farm.engine.prove_sample(ALICE, bytes(32), AuditEntry(shard, size, 3))
    assert farm.engine.volumes()[0].quarantined == 0


@pytest.mark.parametrize("where", ["header", "tree", "checksums"])
@pytest.mark.parametrize("size", SIZES)
def test_damage_beside_the_bytes_needs_none_of_them(farm: Farm, size: int, where: str) -> None:
    data, shard = damaged(farm, size)
    rot(farm, row_of(farm, shard), where)
    mending = begun(farm.engine, shard)
    assert mending.bad.blocks == ()
    mending.commit().result(20)
    assert farm.engine.examine(ALICE, shard).blocks == ()
    lose_index(farm)
    assert farm.read(shard) == data


def test_where_nothing_is_known_all_is_asked_for(farm: Farm) -> None:
    data, shard = damaged(farm, 400_000, 2)
    rot(farm, row_of(farm, shard), "tree", 2)
    mending = begun(farm.engine, shard)
    assert len(mending.bad.blocks) == len(spans(len(data)))
    mending.write(data)
    mending.commit().result(20)
    assert farm.read(shard) == data


def test_a_sound_shard_is_answered_at_once(farm: Farm) -> None:
    stored = farm.store(noise(5000))
    assert farm.engine.repair(contract_of(ALICE), stored.shard) == stored
    assert farm.engine.repair(contract_of(ALICE), stored.shard) == stored, "and nothing stays busy"
    farm.delete(stored.shard)
    with pytest.raises(ShardNotFoundError):
        farm.engine.repair(contract_of(ALICE), stored.shard)
    with pytest.raises(ShardNotFoundError):
        farm.engine.examine(ALICE, stored.shard)


@pytest.mark.parametrize("size", SIZES)
def test_wrong_too_many_and_too_few_bytes_leave_all_as_it_was(farm: Farm, size: int) -> None:
    data, shard = damaged(farm, size, 0)
    farm.engine.examine(ALICE, shard)
    before = (farm.engine.usage(ALICE), farm.engine.free_bytes(), served(farm, shard, data))
    missing = wanted(data, mending := begun(farm.engine, shard))
    with pytest.raises(WrongHashError):
        mending.write(bytes([missing[0] ^ 1]) + missing[1:])
    mending = begun(farm.engine, shard)
    with pytest.raises(WrongSizeError):
        mending.write(missing + b"x")
    mending = begun(farm.engine, shard)
    mending.write(missing[:-1])
    with pytest.raises(WrongSizeError) as told:
        mending.commit()
    numbers = (told.value.declared_bytes, told.value.received_bytes)
    assert numbers == (len(missing), len(missing) - 1)
    mending = begun(farm.engine, shard)
    mending.abandon()
    mending.abandon()
    now = (farm.engine.usage(ALICE), farm.engine.free_bytes(), served(farm, shard, data))
    assert now == before
    assert farm.engine.stat(ALICE, shard).state is ShardState.QUARANTINED
    assert len(list(farm.path.glob("staging/*.part"))) == (size > MIB), "the damaged one alone"


def test_one_session_repairs_at_a_time_and_nobody_stores_meanwhile(farm: Farm) -> None:
    data, shard = damaged(farm, 400_000, 1)
    mending = begun(farm.engine, shard)
    with pytest.raises(BusyError):
        farm.engine.repair(contract_of(ALICE), shard)
    with pytest.raises(BusyError):
        farm.engine.begin(contract_of(ALICE), shard, len(data))
    mending.abandon()
    begun(farm.engine, shard).abandon()


def test_a_repaired_shard_is_nobodys_before_anybody_hears_that_it_is_whole(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, shard = damaged(farm, 400_000, 1)
    returned = Event()
    futures: list[Future[StoredShard]] = []
    was_known = []

    def give_back(_key: object) -> None:
        returned.wait(20)
        was_known.extend(future.done() for future in futures)

    monkeypatch.setattr(farm.engine._claims, "give_back", give_back)
    mending = begun(farm.engine, shard)
    mending.write(wanted(data, mending))
    futures.append(mending.commit())
    returned.set()
    futures[0].result(20)
    assert was_known == [False]


class HeldParts(RecordingFiles):
    """A disk that hangs in some call with a large shard's file."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.is_held = name, False
        self.reached, self.let_go = Event(), Event()
        self.closed: list[str] = []

    def close(self, fd: int) -> None:
        self.closed.append(self._names[fd])
        super().close(fd)

    def _wait(self, fd: int, name: str) -> None:
        if self.is_held and name == self.name and self._names[fd].endswith(".part"):
            self.is_held = False
            self.reached.set()
            assert self.let_go.wait(20)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        self._wait(fd, "pwritev")
        super().pwritev(fd, buffers, offset)

    def sync_data(self, fd: int) -> None:
        self._wait(fd, "sync_data")
        super().sync_data(fd)


@pytest.mark.parametrize("is_hung", [False, True])
@pytest.mark.parametrize("name", ["pwritev", "sync_data"])
def test_a_repair_given_up_while_the_disk_hangs_keeps_its_file_until_it_answers(
    tmp_path: Path, name: str, is_hung: bool
) -> None:
    """Else the thread inside goes on with a descriptor that may be another file's by then."""
    files = HeldParts(name)
    farm = Farm(tmp_path, files=files)
    data, shard = damaged(farm, 9 * MIB, 0)
    before, staging = farm.engine.usage(ALICE), farm.path / "staging"
    place, watch = row_of(farm, shard).place, farm.engine._slots[0].watch
    mending = begun(farm.engine, shard)
    files.is_held = True
    files.closed.clear()
    inside = Thread(target=mending.write, args=[wanted(data, mending)])
    inside.start()
    assert files.reached.wait(20)
    watch.declare("it sleeps" if is_hung else "")
    mending.abandon()
    files_left, usage = len(list(staging.iterdir())), farm.engine.usage(ALICE)
    is_pinned, closed = volume_of(farm).handles.is_pinned(place), list(files.closed)
    files.let_go.set()
    inside.join(20)
    assert (files_left, usage.reserved_bytes) == (2, charge_bytes(len(data)))
    assert is_pinned
    assert not any(name.endswith(".part") for name in closed)
    watch.declare("")
    watch.catch_up()
    assert len(list(staging.iterdir())) == 1
    assert farm.engine.usage(ALICE) == before
    assert dict(farm.engine.volumes()[0].errors) == {"corrupt": 1}, "found, and nothing failed"
    begun(farm.engine, shard).abandon()
    farm.engine.close()


def test_a_repair_given_up_on_a_disk_that_hangs_waits_for_it_in_no_thread(farm: Farm) -> None:
    _, shard = damaged(farm, 2 * MIB, 1)
    mending, watch = begun(farm.engine, shard), farm.engine._slots[0].watch
    watch.declare("it sleeps")
    mending.abandon()
    assert len(list((farm.path / "staging").iterdir())) == 2
    watch.declare("")
    watch.catch_up()
    assert len(list((farm.path / "staging").iterdir())) == 1
    assert farm.engine.usage(ALICE).reserved_bytes == 0


def test_a_full_contract_can_be_repaired_a_full_disk_not(farm: Farm) -> None:
    data, shard = damaged(farm, 400_000, 1)
    full = replace(contract_of(ALICE), space_bytes=charge_bytes(len(data)))
    mending = farm.engine.repair(full, shard)
    assert isinstance(mending, Mending)
    mending.abandon()
    farm.engine.change_quota(farm.settings[0].path, 64 * MIB, 1 << 60)
    with pytest.raises(NoSpaceError):
        farm.engine.repair(full, shard)
    farm.engine.change_quota(farm.settings[0].path, 64 * MIB, 0)
    mending = farm.engine.repair(full, shard)
    assert isinstance(mending, Mending)
    mending.write(wanted(data, mending))
    mending.commit().result(20)


def test_a_shard_that_is_deleted_meanwhile_may_come_back_but_nothing_else_breaks(
    farm: Farm,
) -> None:
    data, shard = damaged(farm, 400_000, 6)
    mending = begun(farm.engine, shard)
    farm.delete(shard, erase=True)
    mending.write(wanted(data, mending))
    assert mending.commit().result(20).state is ShardState.LIVE, "a store after the deletion"
    assert farm.read(shard) == data


@pytest.mark.parametrize("size", SIZES)
def test_a_kill_at_any_call_leaves_the_old_record_or_the_new_one(
    tmp_path: Path, size: int
) -> None:
    """Every writing call of a repair fails in turn, and a copy of the disk then is opened."""
    number, struck = 0, True
    while struck:
        files = RecordingFiles()
        farm = Farm(tmp_path / str(number), files=files)
        data, shard = damaged(farm, size, 0)
        intact = set(range(len(spans(size)))) - {0}
        assert farm.engine.examine(ALICE, shard).blocks == (0,)
        files.fault = fault = Fault(number, errno.EIO, lambda call: call.name in WRITING)
        repaired: StoredShard | None = None
        with suppress(StorageError):
            mending = begun(farm.engine, shard)
            mending.write(wanted(data, mending))
            repaired = mending.commit().result(20)
        struck, files.fault = fault.struck, None
        crash_copy(tmp_path / str(number), tmp_path / f"copy{number}")
        farm.engine.close()
        again = Farm(tmp_path / f"copy{number}")
        found = served(again, shard, data)
        assert found in (intact, intact | {0})
        if repaired is not None:
            assert again.read(shard) == data, "confirmed means durable"
            assert again.engine.stat(ALICE, shard).state is ShardState.LIVE
        again.engine.close()
        number += 1
    assert number > 2


def test_what_rots_while_it_is_repaired_is_asked_for_next_time(farm: Farm) -> None:
    data, shard = damaged(farm, 3 * MIB, 0)
    mending = begun(farm.engine, shard)
    missing = wanted(data, mending)
    rot(farm, row_of(farm, shard), "payload", 40)
    with suppress(StorageError):
        mending.write(missing)
        pytest.fail("the new rot was copied")
    mending = begun(farm.engine, shard)
    assert mending.bad.blocks == (0, 40)
    mending.write(wanted(data, mending))
    mending.commit().result(20)
    assert farm.read(shard) == data


def test_bytes_of_somebody_else_never_make_a_shard_whole(farm: Farm) -> None:
    chance = random.Random(3)
    data, shard = damaged(farm, 400_000, 1, 3)
    for _ in range(20):
        mending = begun(farm.engine, shard)
        forged = bytearray(wanted(data, mending))
        forged[chance.randrange(len(forged))] ^= 1 << chance.randrange(8)
        with pytest.raises(WrongHashError):
            mending.write(bytes(forged))
            mending.commit().result(20)
    assert shard_of(data) == shard
    assert farm.engine.stat(ALICE, shard).state is ShardState.QUARANTINED


def test_an_examination_reads_what_the_disk_has(tmp_path: Path) -> None:
    """A write that the disk lost is still in the page cache, and looks sound there."""
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    shard = farm.store(noise(5000)).shard
    files.forget()
    assert farm.engine.examine(ALICE, shard).blocks == ()
    assert files.names("uncache", "pread")[:2] == ["pread", "uncache"]
    assert set(files.names("uncache", "pread")[2:]) == {"pread"}
    farm.engine.close()


def mended(farm: Farm, size: int) -> tuple[bytes, ShardId]:
    data, shard = damaged(farm, size, 0)
    mending = begun(farm.engine, shard)
    mending.write(wanted(data, mending))
    mending.commit().result(20)
    return data, shard


def on_the_disk(farm: Farm) -> bytes:
    return b"".join(
        path.read_bytes() for path in [*farm.path.rglob("*.seg"), *farm.path.rglob("*.part")]
    )


@pytest.mark.parametrize("size", SIZES[1:])
def test_an_erased_shard_leaves_nothing_of_the_record_that_a_repair_has_replaced(
    farm: Farm, size: int
) -> None:
    data, shard = mended(farm, size)
    tail = data[-1000:-100]
    assert on_the_disk(farm).count(tail) == 2
    assert farm.delete(shard, erase=True).outcome is DeletionOutcome.ERASED
    assert tail not in on_the_disk(farm)


def test_while_the_replaced_record_stays_nobody_is_told_that_the_shard_is_erased(
    farm: Farm,
) -> None:
    data, shard = mended(farm, SIZES[1])
    (older,) = volume_of(farm).ground.index.doomed()
    pin = volume_of(farm).handles.pin(older.place)
    assert farm.delete(shard, erase=True).outcome is DeletionOutcome.ERASED_AT_COMPACTION
    assert data[-1000:-100] in on_the_disk(farm)
    volume_of(farm).handles.unpin(pin)


def test_so_many_older_records_go_with_an_erased_shard_and_no_more(tmp_path: Path) -> None:
    """Where holes cannot be punched there may be as many as the log has room for."""
    files = RecordingFiles(can_punch=False)
    farm = Farm(tmp_path, files=files)
    for _ in range(3):
        shard = farm.store(noise(100)).shard
        assert farm.delete(shard, erase=True).outcome is DeletionOutcome.ERASED_AT_COMPACTION
    files.can_punch = True
    farm.reopen()
    farm.store(noise(100))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operations, "_OLDER_MAX", 2)
        assert farm.delete(shard, erase=True).outcome is DeletionOutcome.ERASED_AT_COMPACTION
    assert len(volume_of(farm).ground.index.doomed()) == 1
    farm.store(noise(100))
    assert farm.delete(shard, erase=True).outcome is DeletionOutcome.ERASED
    farm.engine.close()
