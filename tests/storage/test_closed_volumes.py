"""Volumes that are closed while somebody still uses them: nothing is lost, held or waited for."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import pytest

from farmer.model.shard import RECORD_HEADER_BYTES, StoredShard
from farmer.storage import slots
from farmer.storage.directory import Paths
from farmer.storage.errors import (
    ShardNotFoundError,
    StorageError,
    VolumeClosedError,
    VolumeUnavailableError,
)
from farmer.storage.files import Access, OsFiles
from farmer.storage.generation import Witness
from farmer.storage.handles import Handles
from farmer.storage.index import Index
from farmer.storage.places import Place
from farmer.storage.quota import Ledger
from farmer.storage.records import Kind, decode_record
from farmer.storage.volume import Volume
from tests.storage.bench import ALICE, MIB, Farm, noise, open_files, shard_of


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    farm = Farm(tmp_path)
    yield farm
    farm.engine.close()


def opened_anew(farm: Farm) -> Volume:
    """Give the volume up and open it, as after a disk that proved itself."""
    (slot,) = farm.engine._slots
    assert slot.volume is not None
    slot._open_anew(slot.volume)
    assert slot.volume is not None
    return slot.volume


def test_who_reads_on_from_a_volume_that_was_closed_leaves_no_descriptor(farm: Farm) -> None:
    shard = farm.store(noise(MIB)).shard
    reader = farm.engine.open(ALICE, shard)
    assert reader.read(0, 10) == noise(MIB)[:10]
    opened_anew(farm)
    assert reader.read(MIB - 10, 10) == noise(MIB)[-10:]
    reader.close()
    # The writer's own.
    assert len(open_files(farm.path / "log")) == 1


@pytest.mark.parametrize("size", [100, MIB, 2 * MIB])
@pytest.mark.parametrize("has_begun", [False, True])
def test_what_was_given_back_since_a_volume_was_opened_anew_is_no_damage(
    farm: Farm, size: int, has_begun: bool
) -> None:
    shard = farm.store(noise(size)).shard
    reader = farm.engine.open(ALICE, shard)
    if has_begun:
        reader.prepare()
    volume = opened_anew(farm)
    farm.delete(shard, erase=True)
    for look in (lambda: reader.read(0, size), reader.examine):
        with pytest.raises(VolumeClosedError):
            look()
    reader.close()
    assert volume.ground.health.errors() == ()
    assert not farm.engine.trouble()


def test_a_volume_that_was_removed_and_added_again_counts_once(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    engine, [settings] = farm.engine, farm.settings
    farm.store(noise(100))
    upload = farm.begin(noise(12 * MIB))
    upload.write(noise(12 * MIB)[: 9 * MIB])
    upload.abandon()
    before = engine.usage(ALICE)
    engine.remove_volume(settings.path)
    assert engine.usage(ALICE).total_bytes == 0
    engine.add_volume(settings)
    assert engine.usage(ALICE) == before
    engine.close()


def test_a_volume_leaves_the_ledger_when_nobody_can_take_it_for_an_empty_one(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm.store(noise(100))
    seen: list[list[Volume]] = []
    monkeypatch.setattr(Ledger, "forget", lambda *_: seen.append(farm.engine.opened()))
    farm.engine.close()
    assert seen == [[]]


def test_a_file_that_does_not_open_holds_up_no_other_reader(tmp_path: Path) -> None:
    class Hanging(OsFiles):
        let_go = threading.Event()

        def open(self, path: Path, access: Access) -> int:
            if path.name == "00000002.seg":
                self.let_go.wait(20)
            return super().open(path, access)

    paths, files = Paths(tmp_path), Hanging()
    paths.log.mkdir()
    for number in (1, 2):
        paths.segment(number).touch()
    handles = Handles(files, paths)

    def read(number: int) -> None:
        with handles.borrow(Place(number, 0)):
            pass

    waits = threading.Thread(target=read, args=(2,))
    waits.start()
    others = threading.Thread(target=read, args=(1,))
    others.start()
    others.join(10)
    is_held_up = others.is_alive()
    files.let_go.set()
    waits.join(10)
    others.join(10)
    handles.close()
    assert not is_held_up


def test_an_upload_that_outlives_its_volume_holds_no_space(farm: Farm) -> None:
    """Its file is the new opening's lease, with space of its own."""
    data = noise(12 * MIB)
    upload = farm.begin(data)
    upload.write(data[: 9 * MIB])
    volume = opened_anew(farm)
    upload.abandon()
    assert farm.engine.usage(ALICE).reserved_bytes == volume.ground.account.reserved_bytes
    (lease,) = volume.leases.of()
    volume.leases.end(lease)
    assert farm.engine.usage(ALICE).reserved_bytes == 0


def test_an_upload_that_outlives_its_volume_is_not_entered_and_goes_on(farm: Farm) -> None:
    data = noise(12 * MIB)
    upload = farm.begin(data)
    upload.write(data)
    opened_anew(farm)
    with pytest.raises(StorageError):
        upload.commit().result(20)
    upload.abandon()
    with pytest.raises(ShardNotFoundError):
        farm.engine.stat(ALICE, shard_of(data))
    farm.store(data)
    assert farm.engine.usage(ALICE).shards == 1
    assert farm.engine.usage(ALICE).reserved_bytes == 0


class SlowEnd(OsFiles):
    """A disk on which the last sync of a large store takes until the test lets it go."""

    def __init__(self) -> None:
        self.reached, self.let_go = threading.Event(), threading.Event()
        self.renter: threading.Thread | None = None

    def sync_data(self, fd: int) -> None:
        super().sync_data(fd)
        is_renters = threading.current_thread() is self.renter
        if is_renters and os.pread(fd, RECORD_HEADER_BYTES, 0)[10] == Kind.SHARD:
            self.reached.set()
            assert self.let_go.wait(20)


@pytest.mark.parametrize("in_order", [False, True])
def test_a_large_store_in_its_last_sync_keeps_its_file_when_its_volume_is_closed(
    tmp_path: Path, in_order: bool
) -> None:
    """It may be entered by the next opening: whoever was refused meanwhile must not remove it."""
    files = SlowEnd()
    farm, data = Farm(tmp_path, files=files), noise(2 * MIB)
    upload = farm.begin(data)
    upload.write(data)
    outcomes: list[StoredShard | StorageError] = []

    def commit() -> None:
        try:
            outcomes.append(upload.commit().result(20))
        except StorageError as error:
            outcomes.append(error)

    def close() -> None:
        if in_order:
            farm.reopen()
        else:
            opened_anew(farm)

    files.renter, closing = threading.Thread(target=commit), threading.Thread(target=close)
    files.renter.start()
    assert files.reached.wait(20)
    closing.start()
    closing.join(0.3)
    files.let_go.set()
    for thread in (files.renter, closing):
        thread.join(20)
    upload.abandon()
    assert isinstance(outcomes[0], VolumeUnavailableError)
    assert farm.store(data).shard == shard_of(data)
    assert farm.read(shard_of(data)) == data
    assert farm.engine.usage(ALICE).reserved_bytes == 0
    farm.engine.close()


def test_a_volume_whose_files_do_not_close_is_counted_once(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm.store(noise(100))
    before = farm.engine.usage(ALICE)

    def fail(_handles: Handles) -> None:
        raise OSError("not connected")

    with monkeypatch.context() as patch:
        patch.setattr(Handles, "close", fail)
        opened_anew(farm)
    assert farm.engine.usage(ALICE) == before


def test_a_volume_whose_note_does_not_close_is_closed_all_the_same(
    farm: Farm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_witness: Witness) -> None:
        raise OSError("not connected")

    farm.store(noise(100))
    with monkeypatch.context() as patch:
        patch.setattr(Witness, "close", fail)
        farm.engine.close()
    again = Farm(tmp_path)
    assert again.engine.usage(ALICE).shards == 1
    again.engine.close()


def test_nobody_waits_long_for_a_volume_that_is_being_opened(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "REOPENED_S", 0.3)
    (slot,) = farm.engine._slots
    slot.reopenings += 1
    job, slot.job = slot.job, Future()
    began = time.monotonic()
    with pytest.raises(ShardNotFoundError):
        farm.engine.stat(ALICE, shard_of(b"x"))
    assert time.monotonic() - began < 3
    slot.job = job
    slot.reopenings += 1


@pytest.mark.parametrize("is_settled_late", [False, True])
def test_what_was_given_up_while_the_disk_hung_writes_over_no_shard(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, is_settled_late: bool
) -> None:
    """Neither where it is let go before the next opening looks, nor where that comes too late."""
    (slot,) = farm.engine._slots
    data = noise(12 * MIB)
    first = farm.begin(data)
    first.write(data[: 9 * MIB])
    slot.watch.declare("it hangs")
    first.abandon()
    slot.watch.declare("")
    with monkeypatch.context() as patch:
        if is_settled_late:
            patch.setattr(slot.watch, "catch_up", lambda: None)
        opened_anew(farm)
    assert len(slot.watch._later) == is_settled_late
    farm.store(data)
    farm.engine.look_after_disks()
    (part,) = (farm.path / "staging").iterdir()
    raw = part.read_bytes()[:RECORD_HEADER_BYTES]
    assert decode_record(raw, raw[16:32], part).kind is Kind.SHARD
    opened_anew(farm)
    assert not farm.engine.opened()[0].leases.of()
    farm.sweep()
    assert farm.read(shard_of(data)) == data
    assert farm.engine.usage(ALICE).reserved_bytes == 0


class Unmounted(OsFiles):
    """A disk whose segments cannot be opened any more; it takes a thousand tries, and no more."""

    def __init__(self) -> None:
        self.is_gone, self.tries = False, 0

    def open(self, path: Path, access: Access) -> int:
        if self.is_gone and path.suffix == ".seg":
            self.tries += 1
            assert self.tries < 1000, "nobody may ask for ever"
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return super().open(path, access)


def test_who_wants_a_shard_of_a_volume_that_is_being_closed_does_not_ask_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its index is the last thing that is closed, and says until then that the shard is there."""
    files = Unmounted()
    farm = Farm(tmp_path, files=files)
    data = noise(1000)
    shard = farm.store(data).shard
    told: list[str] = []

    def ask(index: Index, *, clean: bool) -> None:
        files.is_gone = True
        for wanted in (partial(farm.engine.open, ALICE, shard), partial(farm.begin, data)):
            files.tries = 0
            with pytest.raises(VolumeUnavailableError) as refusal:
                wanted()
            told.append(str(refusal.value))
        close(index, clean=clean)

    close = Index.close
    monkeypatch.setattr(Index, "close", ask)
    farm.engine._slots[0].close_soon().result()
    assert [text for text in told if "being closed" in text] == told
    assert len(told) == 2
