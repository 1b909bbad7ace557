"""One volume's writer: whom it turns away, how it begins and ends, and when it writes no more."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from farmer.model.status import VolumeState
from farmer.storage import writer as writer_module
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.index import Index
from farmer.storage.index_errors import CommitInDoubtError
from farmer.storage.operations import Upkeep
from farmer.storage.transaction import Transaction
from farmer.storage.writer import Writer
from tests.storage.bench import Farm, noise, open_files
from tests.storage.recording import Fault, RecordingFiles


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    farm = Farm(tmp_path, files=RecordingFiles())
    yield farm
    farm.engine.close()


def writer_of(farm: Farm) -> Writer:
    return farm.engine.opened()[0].writer


class Slowly(Upkeep):
    """What takes long to be given up: until others have been turned away too."""

    def __init__(self, writer: Writer) -> None:
        super().__init__(lambda _transaction: None)
        self._writer = writer
        self.is_held_up = True

    def give_up(self) -> None:
        other = threading.Thread(target=self._submit)
        other.start()
        other.join(5)
        self.is_held_up = other.is_alive()

    def _submit(self) -> None:
        self._writer.submit(Upkeep(lambda _transaction: None))


def test_whoever_is_turned_away_waits_for_no_other(farm: Farm) -> None:
    """What is given up may be a file, on a disk that does not answer."""
    writer = writer_of(farm)
    farm.engine.close()
    operation = Slowly(writer)
    with pytest.raises(VolumeUnavailableError, match="shutting down"):
        writer.submit(operation).result(20)
    assert not operation.is_held_up


def test_without_a_thread_for_it_the_volume_is_opened_later(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_work: object) -> None:
        raise OSError(errno.ENOMEM, "no thread can be begun")

    shard = farm.store(noise(100)).shard
    farm.engine.close()
    with monkeypatch.context() as patched:
        patched.setattr(writer_module, "begin_thread", none)
        farm.open()
        assert "no thread can be begun" in farm.engine.volumes()[0].reason
        assert open_files(farm.path) == []
    farm.engine.look_after_disks()
    assert farm.engine.volumes()[0].state is VolumeState.HEALTHY
    assert farm.read(shard) == noise(100)


def test_nothing_is_left_to_replay_where_nothing_was_written_or_all_of_it_was(farm: Farm) -> None:
    for size in (None, 100):
        if size is not None:
            farm.store(noise(size))
        farm.reopen()
        assert farm.engine.opened()[0].ground.index.was_clean


def test_a_commit_in_doubt_in_the_wake_of_a_failed_sync_is_heard(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the next segment too, nobody knows whether the index has it."""
    kept = farm.store(noise(100)).shard
    slot, now = farm.engine._slots[0], [0.0]
    slot._around = replace(slot._around, monotonic_s=lambda: now[0])
    commit = Index._commit

    def in_doubt(self: Index, transaction: Transaction) -> None:
        commit(self, transaction)
        raise CommitInDoubtError

    assert isinstance(farm.files, RecordingFiles)
    failing = Fault(0, errno.EIO, lambda call: call.name == "sync_data")
    with monkeypatch.context() as patched:
        patched.setattr(Index, "_commit", in_doubt)
        farm.files.fault = failing
        with pytest.raises(VolumeUnavailableError, match="CommitInDoubt"):
            farm.store(noise(200))
    farm.files.fault = None
    assert failing.struck
    assert writer_of(farm).is_broken
    assert farm.engine.volumes()[0].state is VolumeState.FAILING
    for _ in range(5):
        now[0] += 6
        farm.engine.look_after_disks()
    assert farm.engine.volumes()[0].state is VolumeState.HEALTHY
    assert not writer_of(farm).is_broken
    shard = farm.store(noise(200)).shard
    farm.reopen()
    assert [farm.read(one) for one in (kept, shard)] == [noise(100), noise(200)]
