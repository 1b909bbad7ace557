"""While a sync is under way: nothing is told, entered or declared that it may still lose."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import pytest

from farmer.model.shard import ShardState, charge_bytes
from farmer.storage.doubts import InDoubtError
from farmer.storage.errors import BusyError, ShardNotFoundError, VolumeUnavailableError
from farmer.storage.places import Key
from tests.storage.bench import ALICE, MIB, Farm, noise, shard_of
from tests.storage.recording import Fault, HeldFiles, RecordingFiles
from tests.waiting import wait_until

R = TypeVar("R")


@pytest.fixture
def files() -> Iterator[HeldFiles]:
    files = HeldFiles()
    yield files
    files.let_go.set()


@pytest.fixture
def held(tmp_path: Path, files: HeldFiles) -> Farm:
    farm = Farm(tmp_path, files=files)
    farm.store(b"the first segment exists")
    return farm


def test_a_shard_is_neither_told_nor_known_before_its_sync(held: Farm, files: HeldFiles) -> None:
    data = noise(5000)
    upload = held.begin(data)
    upload.write(data)
    files.hold()
    future = upload.commit()
    assert files.reached.wait(20)
    assert not future.done()
    with pytest.raises(ShardNotFoundError):
        held.engine.stat(ALICE, shard_of(data))
    files.let_go.set()
    assert future.result(20) == held.engine.stat(ALICE, shard_of(data))
    held.engine.close()


@pytest.mark.parametrize("erase", [False, True])
def test_a_deletion_is_neither_told_nor_known_before_its_sync(
    held: Farm, files: HeldFiles, erase: bool
) -> None:
    shard = held.store(noise(5000)).shard
    files.hold()
    future = held.engine.delete(ALICE, shard, erase=erase)
    assert files.reached.wait(20)
    assert not future.done()
    assert held.engine.stat(ALICE, shard).state is ShardState.LIVE
    files.let_go.set()
    future.result(20)
    held.engine.close()


def test_an_erasure_is_not_told_before_the_hole_is_synced(held: Farm, files: HeldFiles) -> None:
    shard = held.store(noise(5000)).shard
    files.forget()
    files.hold(passing=1)
    future = held.engine.delete(ALICE, shard, erase=True)
    assert files.reached.wait(20)
    assert files.names("punch") == ["punch"]
    assert not future.done()
    files.let_go.set()
    future.result(20)
    held.engine.close()


def test_a_store_that_breaks_off_is_not_begun_again_before_its_lease_is_there(
    held: Farm, files: HeldFiles
) -> None:
    """Else it begins at the first byte, in a file of its own, with space of its own."""
    data = noise(3 * MIB)
    upload = held.begin(data)
    upload.write(data[: 2 * MIB])
    files.hold(suffix=".part")
    leaving = threading.Thread(target=upload.abandon)
    leaving.start()
    assert files.reached.wait(20)
    files.hold(passing=-1)
    upload.abandon()
    with pytest.raises(BusyError):
        held.begin(data)
    files.let_go.set()
    leaving.join(20)
    assert held.begin(data).offset == 2 * MIB
    assert held.engine.usage(ALICE).reserved_bytes == charge_bytes(len(data))
    held.engine.close()


def test_a_commit_waits_for_no_disk_that_is_declared_hung_while_it_is_submitted(
    held: Farm, files: HeldFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends once, at that moment, and comes true all the same when the disk answers."""
    data = noise(5000)
    volume, (slot,) = held.engine.opened()[0], held.engine._slots
    promises, returned = volume.writer.promises, list[Key]()
    upload = held.begin(data)
    upload.write(data)
    give_back, promise_of = held.engine._claims.give_back, promises.of

    def counted(key: Key) -> None:
        returned.append(key)
        give_back(key)

    def declared_meanwhile(truth: Future[R], *ends: Callable[[], None]) -> Future[R]:
        slot.watch.declare("it sleeps")
        promises.break_all("it sleeps")
        return promise_of(truth, *ends)

    monkeypatch.setattr(held.engine._claims, "give_back", counted)
    monkeypatch.setattr(promises, "of", declared_meanwhile)
    files.hold()
    future = upload.commit()
    with pytest.raises(VolumeUnavailableError, match="it sleeps"):
        future.result(1)
    assert returned == [(ALICE, shard_of(data))]
    promises.break_all("it sleeps")
    assert files.reached.wait(20)
    slot.watch.declare("")
    files.let_go.set()
    monkeypatch.undo()
    assert held.store(noise(100)).size_bytes == 100
    assert held.engine.stat(ALICE, shard_of(data)).size_bytes == len(data)
    assert len(returned) == 1
    assert held.engine.usage(ALICE).reserved_bytes == 0
    held.engine.close()


def break_promise(farm: Farm, future: Future[R]) -> None:
    """Let the disk hang until nobody waits any more, and just answer again."""
    (volume,) = farm.engine.opened()
    volume.writer.promises.break_all("it slept")
    with pytest.raises(VolumeUnavailableError, match="it slept"):
        future.result(1)


def settle(farm: Farm, files: HeldFiles) -> None:
    (volume,) = farm.engine.opened()
    files.let_go.set()
    wait_until(lambda: not volume.ground.doubts.keys)


def test_a_store_that_the_disk_may_still_make_is_in_doubt_until_it_has(
    held: Farm, files: HeldFiles
) -> None:
    """Its renter was told that nobody knows: who erased it must not hear that it is absent."""
    data = noise(5000)
    upload = held.begin(data)
    upload.write(data)
    files.hold()
    future = upload.commit()
    assert files.reached.wait(20)
    break_promise(held, future)
    with pytest.raises(InDoubtError):
        held.engine.stat(ALICE, shard_of(data))
    with pytest.raises(InDoubtError):
        held.delete(shard_of(data), erase=True)
    settle(held, files)
    assert held.read(shard_of(data)) == data
    held.engine.close()


@pytest.mark.parametrize("erase", [False, True])
def test_a_store_is_not_answered_by_what_a_deletion_may_still_take(
    held: Farm, files: HeldFiles, erase: bool
) -> None:
    data = noise(5000)
    shard = held.store(data).shard
    files.hold()
    future = held.engine.delete(ALICE, shard, erase=erase)
    assert files.reached.wait(20)
    break_promise(held, future)
    upload = held.begin(data)
    upload.write(data)
    stored = upload.commit()
    settle(held, files)
    assert stored.result(20) == held.engine.stat(ALICE, shard)
    assert held.read(shard) == data
    held.engine.close()


def test_a_change_that_fails_when_the_disk_answers_is_in_doubt_no_more(
    held: Farm, files: HeldFiles
) -> None:
    data = noise(5000)
    upload = held.begin(data)
    upload.write(data)
    files.hold()
    files.fault = Fault(0, errno.EIO, lambda call: call.name == "sync_data")
    future = upload.commit()
    assert files.reached.wait(20)
    break_promise(held, future)
    settle(held, files)
    with pytest.raises(ShardNotFoundError):
        held.engine.stat(ALICE, shard_of(data))
    held.engine.close()


def test_a_header_never_speaks_of_bytes_that_were_not_synced(tmp_path: Path) -> None:
    """Else a power cut leaves a lease of zeros, and the renter goes on behind them."""
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    data = noise(18 * MIB + 5)
    upload = farm.begin(data)
    files.forget()
    for start in range(0, len(data), MIB):
        upload.write(data[start : start + MIB])
    upload.abandon()
    unsynced, headers = False, 0
    for call in files.calls:
        if call.name == "pwritev" and call.length == 256:
            assert not unsynced
            headers += 1
        elif call.name in {"pwritev", "sync_data"}:
            unsynced = call.name == "pwritev"
    assert headers == 3
    assert files.calls[-1].name == "sync_data"
    farm.engine.close()
