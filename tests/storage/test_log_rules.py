"""What a batch adds to the log and to the index, and how a segment begins."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import cast

import pytest

from farmer.storage.directory import Paths
from farmer.storage.log import (
    Batch,
    Facts,
    Sequencer,
    Tail,
    marks_bytes,
    open_segment,
)
from farmer.storage.marks import Action, Mark, encode_marks
from farmer.storage.places import Place, Position
from farmer.storage.records import decode_segment, segment_uuid
from farmer.storage.scan import Found, scan
from farmer.storage.transaction import Transaction
from tests.storage.bench import ALICE, noise, shard_of
from tests.storage.log_bytes import PAGE, SEGMENT, Memory, header_of
from tests.storage.recording import WRITING, Always, Fault, RecordingFiles

MARK = Mark(
    action=Action.GONE,
    at_ms=1,
    observed_ms=2,
    renter=ALICE,
    shard=shard_of(b"a shard"),
    sequence=3,
)
VOLUME = b"v" * 16


class Told:
    """Stands in for a change of the index: what it is told."""

    def __init__(self) -> None:
        self.said: list[object] = []

    def apply(self, mark: Mark) -> None:
        self.said.append(mark)

    def add_marks(self, sequence: int, place: Place, length: int) -> None:
        self.said.append(("marks", sequence, place, length))

    def grow_segment(self, number: int, size_bytes: int) -> None:
        self.said.append(("segment", number, size_bytes))

    def set_position(self, position: Position) -> None:
        self.said.append(position)


class Log:
    """A batch that begins at the second page of the fourth segment."""

    def __init__(self) -> None:
        self.told = Told()
        self.sequencer = Sequencer(20)
        tail = Tail(4, SEGMENT, -1, PAGE)
        self.batch = Batch(cast(Transaction, self.told), tail, self.sequencer)

    def append(self, size: int) -> Place:
        sequence = self.sequencer.take()
        header = header_of(size, sequence)
        trailer = bytes(header.trailer_bytes)
        return self.batch.append(header, [noise(size, sequence), trailer])

    def found(self) -> list[Found]:
        """Return the records that a walk finds in what would be written."""
        raw = bytes(PAGE) + b"".join(map(bytes, self.batch.buffers))
        assert len(raw) == self.batch.end
        found = list(scan(Memory(raw).source(), PAGE, len(raw), verify=False))
        return [one for one in found if isinstance(one, Found)]


def test_each_sequence_is_handed_out_once_in_order() -> None:
    sequencer = Sequencer(5)
    assert sequencer.peek() == 5
    assert [sequencer.take() for _ in range(3)] == [5, 6, 7]
    assert sequencer.peek() == sequencer.peek() == 8


def test_records_follow_each_other_in_whole_pages() -> None:
    log = Log()
    sizes = (10, 3804, 3805, 0)
    assert [log.append(size) for size in sizes] == [
        Place(4, offset) for offset in (PAGE, 2 * PAGE, 3 * PAGE, 5 * PAGE)
    ]
    assert log.batch.end == 6 * PAGE
    found = log.found()
    assert [one.offset for one in found] == [PAGE, 2 * PAGE, 3 * PAGE, 5 * PAGE]
    assert [one.header.sequence for one in found] == [20, 21, 22, 23]


def test_a_batch_without_marks_brings_the_index_up_to_its_end() -> None:
    log = Log()
    log.append(10)
    log.batch.close()
    assert log.told.said == [("segment", 4, 2 * PAGE), Position(4, 2 * PAGE, 21)]


def test_all_marks_of_a_batch_share_one_record_behind_the_others() -> None:
    log = Log()
    log.batch.mark(MARK)
    log.append(10)
    log.batch.mark(MARK)
    log.batch.close()
    assert log.told.said == [
        MARK,
        MARK,
        ("marks", 21, Place(4, 2 * PAGE), PAGE),
        ("segment", 4, 3 * PAGE),
        Position(4, 3 * PAGE, 22),
    ]
    shard, marks = log.found()
    assert shard.header.sequence == 20
    assert (marks.offset, marks.header.sequence, len(marks.payload)) == (2 * PAGE, 21, 2 * 96)


def test_an_empty_batch_grows_nothing() -> None:
    log = Log()
    log.batch.close()
    assert log.told.said == [Position(4, PAGE, 20)]
    assert log.batch.buffers == []


def test_a_record_of_marks_takes_no_more_than_was_reckoned() -> None:
    for count in range(1, 300):
        header, _ = encode_marks([MARK] * count, SEGMENT, 1)
        assert header.record_bytes <= marks_bytes(count) <= header.record_bytes + PAGE


class Files(RecordingFiles):
    """Closing fails, having closed the file, where it is told to."""

    is_close_failing = False

    def close(self, fd: int) -> None:
        super().close(fd)
        if self.is_close_failing:
            raise OSError(errno.ENOSPC, "closing failed, too")


def begun(files: Files, root: Path) -> Tail:
    paths = Paths(root)
    paths.log.mkdir(exist_ok=True)
    return open_segment(files, paths, VOLUME, 7, 8192, Facts(Sequencer(33), lambda: 99))


def test_a_new_segment_is_durable_with_its_name_before_anything_stands_in_it(
    tmp_path: Path,
) -> None:
    files = Files()
    tail = begun(files, tmp_path)
    assert files.names() == ["open", "pwritev", "sync_data", "sync_directory"]
    uuid = segment_uuid(VOLUME, 7)
    assert (tail.number, tail.uuid, tail.end) == (7, uuid, PAGE)
    assert list(files.is_open) == [tail.fd]
    (path,) = Paths(tmp_path).log.iterdir()
    header = decode_segment(path.read_bytes(), "")
    assert path.stat().st_size == PAGE
    assert (header.volume, header.segment, header.number) == (VOLUME, uuid, 7)
    assert (header.first_sequence, header.previous_end, header.created_at_ms) == (33, 8192, 99)
    files.close(tail.fd)


@pytest.mark.parametrize("is_close_failing", [False, True])
@pytest.mark.parametrize("number", range(4))
def test_a_segment_that_cannot_be_made_leaves_no_file(
    tmp_path: Path, number: int, is_close_failing: bool
) -> None:
    files = Files()
    files.is_close_failing = is_close_failing
    files.fault = Fault(number, errno.EIO, lambda call: call.name in WRITING)
    with pytest.raises(OSError, match="Input/output"):
        begun(files, tmp_path)
    assert files.fault.struck
    assert not files.is_open
    assert list(Paths(tmp_path).log.iterdir()) == []


def test_what_an_earlier_try_left_of_a_segment_is_made_once_more(tmp_path: Path) -> None:
    files = Files()
    files.fault = Always(errno.EIO, lambda call: call.name in {"sync_directory", "unlink"})
    with pytest.raises(OSError, match="Input/output"):
        begun(files, tmp_path)
    assert [path.stat().st_size for path in Paths(tmp_path).log.iterdir()] == [PAGE]
    files.fault = None
    files.forget()
    files.close(begun(files, tmp_path).fd)
    wanted = ["unlink", "open", "pwritev", "sync_data", "sync_directory"]
    assert [name for name in files.names() if name in WRITING][1:] == wanted


def test_a_segment_with_records_is_not_made_once_more(tmp_path: Path) -> None:
    files = Files()
    tail = begun(files, tmp_path)
    files.pwritev(tail.fd, [b"a record"], PAGE)
    files.close(tail.fd)
    (path,) = Paths(tmp_path).log.iterdir()
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        begun(files, tmp_path)
    assert path.read_bytes() == before
    assert not files.is_open
