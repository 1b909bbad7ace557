"""One copy on its way into a volume: what is there of it when, and what is left if it ends."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from farmer.model.shard import RECORD_HEADER_BYTES, ShardState
from farmer.storage import arriving
from farmer.storage.arriving import LargeCopy, SmallCopy, SpoiledCopyError
from farmer.storage.doubts import InDoubtError
from farmer.storage.errors import (
    CorruptShardError,
    NoSpaceError,
    VolumeClosedError,
    VolumeUnavailableError,
)
from farmer.storage.places import Row
from farmer.storage.reader import VolumeReader
from farmer.storage.records import (
    MOVED,
    Kind,
    RecordHeader,
    decode_record,
    trailer_length,
    tree_offset,
)
from farmer.storage.recovery import read_part
from farmer.storage.volume import Volume
from tests.storage.bench import ALICE, MIB, Farm, contract_of, noise
from tests.storage.recording import Fault, RecordingFiles
from tests.storage.rot import flip

LARGE = MIB + 300_000
STEP = 512 * 1024


class Two:
    """A shard on one of two volumes, which is to cross to the other."""

    def __init__(self, folder: Path) -> None:
        self.files = RecordingFiles()
        self.farm = Farm(folder, files=self.files, volumes=2)
        self.source: Volume
        self.target: Volume
        self.own = ""
        """The file of the shard itself, if it is large."""

    def stored(self, size: int) -> tuple[Row, VolumeReader]:
        shard = self.farm.store(noise(size)).shard
        first, second = self.farm.engine.opened()
        is_first = first.find(ALICE, shard) is not None
        self.source, self.target = (first, second) if is_first else (second, first)
        row = self.source.find(ALICE, shard)
        assert row is not None
        reader, _now = self.source.open_as_is(row)
        assert reader is not None
        self.own = f"{row.place.file.hex()}.part"
        self.files.forget()
        return row, reader

    def staged(self) -> list[Path]:
        return list(self.target.ground.paths.staging.iterdir())

    def open_parts(self) -> list[str]:
        """Return which files of copies are open."""
        names = self.files.is_open.values()
        return [name for name in names if name.endswith(".part") and name != self.own]

    @property
    def promised_bytes(self) -> int:
        return self.target.ground.account.reserved_bytes

    def header(self) -> RecordHeader:
        (path,) = self.staged()
        raw = path.read_bytes()[:RECORD_HEADER_BYTES]
        return decode_record(raw, bytes.fromhex(path.stem), "it")


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Two]:
    monkeypatch.setattr(arriving, "STEP_BYTES", STEP)
    two = Two(tmp_path)
    yield two
    two.farm.engine.close()


def failures(two: Two) -> list[str]:
    return [alert.name for alert in two.farm.engine.trouble()]


def on_part(name: str) -> Fault:
    return Fault(0, errno.EIO, lambda call: (call.name, call.path[-5:]) == (name, ".part"))


def test_a_small_copy_is_entered_as_it_was_stored(two: Two) -> None:
    row, reader = two.stored(5000)
    with closing(reader):
        copy = SmallCopy(reader)
    assert (copy.key, copy.size_bytes) == ((ALICE, row.shard), 5000)
    held = copy.reserve(two.target)
    assert two.promised_bytes == row.charge_bytes
    before = two.farm.engine.usage(ALICE)
    now = replace(row, stored_at_ms=7)
    assert copy.send(two.target, now, held).result(20).stored_at_ms == 7
    arrived = two.target.find(ALICE, row.shard)
    assert arrived is not None
    assert arrived == replace(now, place=arrived.place, sequence=arrived.sequence)
    assert (two.promised_bytes, two.staged()) == (0, [])
    assert two.farm.engine.usage(ALICE) == before, "it counts once"
    read, _now = two.target.open_as_is(arrived)
    assert read is not None
    with closing(read):
        assert read.read(0, 5000) == noise(5000)
        assert read.until_ms == contract_of(ALICE).until_ms
    copy.discard(two.target)


@pytest.mark.parametrize("size", [5000, LARGE])
def test_a_copy_arrives_in_the_state_that_its_shard_has_by_then(two: Two, size: int) -> None:
    row, reader = two.stored(size)
    now = replace(row, state=ShardState.TRASH, gone_at_ms=5, observed_ms=6, alone_ms=7)
    with closing(reader):
        if size > MIB:
            large = LargeCopy(two.target, reader)
            list(large.copy())
            large.send(two.target, now, large.reserve(two.target)).result(20)
            large.close()
        else:
            small = SmallCopy(reader)
            small.send(two.target, now, small.reserve(two.target)).result(20)
    arrived = two.target.find(ALICE, row.shard)
    assert arrived is not None
    assert arrived == replace(now, place=arrived.place, sequence=arrived.sequence)


def test_a_large_copy_takes_its_space_before_a_byte_is_read(two: Two) -> None:
    row, reader = two.stored(LARGE)
    account = two.target.ground.account
    with closing(reader), closing(LargeCopy(two.target, reader)) as copy:
        assert (copy.key, copy.size_bytes) == ((ALICE, row.shard), LARGE)
        assert two.promised_bytes == row.charge_bytes
        assert account.unallocated_bytes == 0
        header = two.header()
        assert (header.kind, header.sequence, header.flags) == (Kind.STAGING, 0, MOVED)
        assert (header.payload_bytes, header.shard) == (LARGE, row.shard)
        assert two.staged()[0].stat().st_size == header.record_bytes
        calls = [call for call in two.files.calls if call.name != "pread"]
        names = [call.name for call in calls]
        assert names == ["open", "preallocate", "pwritev", "sync_data", "sync_directory"]
        assert copy.reserve(two.target).charge_bytes == row.charge_bytes
    assert (two.staged(), two.promised_bytes, two.open_parts()) == ([], 0, [])


def test_a_large_copy_is_written_in_steps_and_read_back(two: Two) -> None:
    _row, reader = two.stored(LARGE)
    with closing(reader), closing(LargeCopy(two.target, reader)) as copy:
        two.files.forget()
        steps = list(copy.copy())
        written = [STEP, STEP, LARGE - 2 * STEP]
        assert steps == [*written, 0, 0, 0]
        (path,) = two.staged()
        own = [call for call in two.files.calls if call.path == path.name]
        lengths = [call.length for call in own if call.name == "pwritev"]
        assert lengths[:3] == written
        assert [call.name for call in own][:8] == ["pwritev", "sync_data"] * 4
        trailer = trailer_length(LARGE)
        assert [call.length for call in own if call.name == "pread"] == [*written, trailer]
        assert two.header().kind is Kind.STAGING, "no start takes it for a shard yet"


def test_a_large_copy_is_there_with_its_last_header(two: Two) -> None:
    row, reader = two.stored(LARGE)
    before = two.farm.engine.usage(ALICE)
    with closing(reader), closing(LargeCopy(two.target, reader)) as copy:
        list(copy.copy())
        (path,) = two.staged()
        sequence = two.target.ground.facts.sequencer.peek()
        two.files.forget()
        future = copy.send(two.target, row, copy.reserve(two.target))
        assert two.files.names()[:2] == ["pwritev", "sync_data"]
        assert future.result(20) == row.stored()
        part = read_part(two.files, path)
        assert part is not None
        assert (part.header.kind, part.header.sequence) == (Kind.SHARD, sequence)
        assert part.header.until_ms == contract_of(ALICE).until_ms
        assert part.header.flags == MOVED
    arrived = two.target.find(ALICE, row.shard)
    assert arrived is not None
    assert (two.staged(), two.open_parts()) == ([path], []), "it stays when the copy is closed"
    assert (two.promised_bytes, two.farm.engine.usage(ALICE)) == (0, before)
    read, _now = two.target.open_as_is(arrived)
    assert read is not None
    with closing(read):
        assert read.read(0, LARGE) == noise(LARGE)
        # Also once more from the trailer, which was made again.
        assert read.prove_range(0, 1024)
    with pytest.raises(VolumeUnavailableError, match="not known yet"):
        copy.discard(two.target)
    assert two.staged() == [path]


def test_what_is_in_doubt_at_the_target_is_not_copied_there(two: Two) -> None:
    row, reader = two.stored(LARGE)
    two.target.ground.doubts.log_not_cut([(ALICE, row.shard)])
    with closing(reader), pytest.raises(InDoubtError):
        LargeCopy(two.target, reader)
    assert (two.staged(), two.promised_bytes) == ([], 0)


@pytest.mark.parametrize("call", ["open", "preallocate", "pwritev", "sync_data"])
def test_a_copy_that_cannot_be_begun_leaves_nothing(two: Two, call: str) -> None:
    _row, reader = two.stored(LARGE)
    two.files.fault = on_part(call)
    with closing(reader), pytest.raises(VolumeUnavailableError, match="the disk failed"):
        LargeCopy(two.target, reader)
    two.files.fault = None
    assert (two.staged(), two.promised_bytes, two.open_parts()) == ([], 0, [])
    assert failures(two) == ["VolumeSyncFailed"], "the next try may choose another one"


def test_without_room_nothing_is_begun(two: Two) -> None:
    _row, reader = two.stored(LARGE)
    two.target.ground.ledger.change_quota(two.target.ground.account, 1, 0)
    with closing(reader):
        with pytest.raises(NoSpaceError):
            LargeCopy(two.target, reader)
        assert (two.staged(), two.files.names("open")) == ([], [])


@pytest.mark.parametrize("call", ["pwritev", "sync_data"])
def test_a_write_that_fails_ends_the_copy_and_is_known(two: Two, call: str) -> None:
    _row, reader = two.stored(LARGE)
    with closing(reader), closing(LargeCopy(two.target, reader)) as copy:
        two.files.fault = on_part(call)
        with pytest.raises(VolumeUnavailableError, match="the disk failed"):
            list(copy.copy())
        two.files.fault = None
    assert (two.staged(), two.promised_bytes) == ([], 0)
    assert failures(two) == ["VolumeSyncFailed"]


def test_bytes_that_are_others_when_they_are_read_back_do_not_arrive(two: Two) -> None:
    row, reader = two.stored(LARGE)
    with closing(reader), closing(LargeCopy(two.target, reader)) as copy:
        steps = copy.copy()
        for _ in range(3):
            next(steps)
        (path,) = two.staged()
        with path.open("r+b") as file:
            file.seek(RECORD_HEADER_BYTES + LARGE - 1)
            last = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([last[0] ^ 1]))
        with pytest.raises(SpoiledCopyError, match=f"copied to {two.target.settings.label}"):
            list(steps)
    assert dict(two.target.ground.health.errors()) == {"corrupt": 1}
    assert two.staged() == []
    assert two.target.find(ALICE, row.shard) is None


def test_a_tree_that_is_another_when_it_is_read_back_does_not_arrive(two: Two) -> None:
    row, reader = two.stored(LARGE)
    with closing(reader), closing(LargeCopy(two.target, reader)) as copy:
        steps = copy.copy()
        while next(steps):
            pass
        (path,) = two.staged()
        flip(path, tree_offset(LARGE) + 5)
        with pytest.raises(SpoiledCopyError):
            list(steps)
    assert dict(two.target.ground.health.errors()) == {"corrupt": 1}
    assert (two.staged(), two.target.find(ALICE, row.shard)) == ([], None)


@pytest.mark.parametrize(
    ("error", "raised"), [(errno.EIO, SpoiledCopyError), (errno.ENODEV, OSError)]
)
def test_a_copy_that_cannot_be_read_back_is_the_targets_fault(
    two: Two, error: int, raised: type[Exception]
) -> None:
    _row, reader = two.stored(LARGE)
    with closing(reader), closing(LargeCopy(two.target, reader)) as copy:
        steps = copy.copy()
        while next(steps):
            pass
        two.files.fault = replace(on_part("pread"), error=error)
        with pytest.raises(raised):
            list(steps)
        two.files.fault = None
    assert dict(two.target.ground.health.errors()) == {"read": 1}
    assert (two.staged(), two.promised_bytes) == ([], 0)


@pytest.mark.parametrize("size", [5000, LARGE])
def test_bytes_that_are_not_the_shards_do_not_arrive(
    two: Two, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Whatever their checksums say."""
    _row, reader = two.stored(size)
    monkeypatch.setattr(reader, "read", lambda _offset, length: bytes(length))
    with closing(reader), pytest.raises(CorruptShardError) as caught:
        if size > MIB:
            with closing(LargeCopy(two.target, reader)) as copy:
                list(copy.copy())
        else:
            SmallCopy(reader)
    assert (caught.value.offset, caught.value.length) == (0, size), "which of them, nobody knows"
    assert (two.staged(), two.promised_bytes) == ([], 0)


def test_a_file_that_was_said_to_be_stored_goes_durably_or_stays_in_doubt(two: Two) -> None:
    row, reader = two.stored(LARGE)
    with closing(reader), closing(LargeCopy(two.target, reader)) as copy:
        list(copy.copy())
        two.files.fault = on_part("sync_data")
        with pytest.raises(OSError, match="Input/output"):
            copy.send(two.target, row, copy.reserve(two.target))
        two.files.fault = on_part("unlink")
        with pytest.raises(OSError, match="Input/output"):
            copy.discard(two.target)
        two.files.fault = None
        (path,) = two.staged()
        assert two.promised_bytes == row.charge_bytes, "its space is taken still"
        with pytest.raises(InDoubtError):
            two.target.find(ALICE, row.shard)
        with pytest.raises(OSError, match="Input/output"):
            copy.discard(two.target)
    two.target.ground.doubts.remove_leftovers(two.files)
    assert (two.staged(), two.promised_bytes) == ([], 0)
    assert not path.exists()
    assert two.target.find(ALICE, row.shard) is None


def test_a_file_that_may_be_taken_for_a_shard_is_removed_from_the_directory_too(
    two: Two,
) -> None:
    row, reader = two.stored(LARGE)
    with closing(reader), closing(LargeCopy(two.target, reader)) as copy:
        list(copy.copy())
        two.files.fault = on_part("sync_data")
        with pytest.raises(OSError, match="Input/output"):
            copy.send(two.target, row, copy.reserve(two.target))
        two.files.fault = None
        two.files.forget()
        copy.discard(two.target)
        assert two.files.names() == ["unlink", "sync_directory"]
        copy.discard(two.target)
        assert two.files.names() == ["unlink", "sync_directory"], "once"
    assert (two.staged(), two.promised_bytes) == ([], 0)


def test_a_file_that_was_never_said_to_be_stored_keeps_its_space_alone(two: Two) -> None:
    row, reader = two.stored(LARGE)
    with closing(reader):
        copy = LargeCopy(two.target, reader)
        two.files.forget()
        two.files.fault = on_part("unlink")
        copy.close()
        two.files.fault = None
        assert two.files.names() == ["unlink"], "no start takes it for a shard"
        assert two.promised_bytes == row.charge_bytes
        assert two.target.find(ALICE, row.shard) is None, "and so it is not in doubt"
        assert dict(two.target.ground.health.errors())["unlink"] == 1
        copy.close()
    assert two.open_parts() == []
    two.target.ground.doubts.remove_leftovers(two.files)
    assert (two.staged(), two.promised_bytes) == ([], 0)


def test_a_copy_to_a_volume_that_was_given_up_leaves_its_file_to_the_next_opening(
    two: Two,
) -> None:
    row, reader = two.stored(LARGE)
    with closing(reader):
        with closing(LargeCopy(two.target, reader)) as copy:
            list(copy.copy())
            two.target.leases.let_go()
            with pytest.raises(VolumeClosedError):
                copy.send(two.target, row, copy.reserve(two.target))
            assert two.header().kind is Kind.STAGING
            with pytest.raises(VolumeClosedError):
                copy.discard(two.target)
        with pytest.raises(VolumeClosedError):
            LargeCopy(two.target, reader)
    assert len(two.staged()) == 1
    assert (two.promised_bytes, two.open_parts()) == (0, [])


def test_a_copy_that_the_writer_refused_is_dropped_and_can_be_discarded(two: Two) -> None:
    row, reader = two.stored(LARGE)
    with closing(reader), closing(LargeCopy(two.target, reader)) as copy:
        list(copy.copy())
        two.target.ground.health.fail("it has just failed")
        with pytest.raises(VolumeUnavailableError):
            copy.send(two.target, row, copy.reserve(two.target)).result(20)
        assert (two.staged(), two.promised_bytes) == ([], 0)
        copy.discard(two.target)
