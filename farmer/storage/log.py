"""
The log: one thread per volume appends what has arrived, syncs once, then tells everyone.

There is no timer.  While one batch is being synced the next one gathers; so a lone store
waits for one sync, and sixty-four stores at once share two or three.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from farmer.storage.directory import Paths
from farmer.storage.files import Access, Buffer, Files
from farmer.storage.marks import MARK_BYTES, Mark, encode_marks
from farmer.storage.places import Place, Position
from farmer.storage.records import (
    SEGMENT_HEADER_BYTES,
    RecordHeader,
    SegmentHeader,
    aligned,
    padding,
    segment_uuid,
)
from farmer.storage.transaction import Transaction


class Sequencer:
    """Hands out sequences, each once, to any thread."""

    def __init__(self, first: int) -> None:
        self._next = first
        self._lock = Lock()

    def take(self) -> int:
        """Return the next sequence."""
        with self._lock:
            self._next += 1
            return self._next - 1

    def peek(self) -> int:
        """Return the sequence that comes next."""
        with self._lock:
            return self._next


@dataclass(slots=True)
class Tail:
    """The segment that is appended to."""

    number: int
    uuid: bytes
    fd: int
    end: int
    """Everything before is synced; what lies behind was never acknowledged."""


@dataclass(slots=True)
class Batch:
    """What one sync will make durable: records to append, and their change of the index."""

    transaction: Transaction
    tail: Tail
    sequencer: Sequencer
    buffers: list[Buffer] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    end: int = 0

    def __post_init__(self) -> None:
        self.end = self.tail.end

    def append(self, header: RecordHeader, parts: list[Buffer]) -> Place:
        """Add a record made for this batch's segment; return where it will stand."""
        place = Place(self.tail.number, self.end)
        length = sum(map(len, parts)) + len(raw := header.encode())
        self.buffers += [raw, *parts, padding(length)]
        self.end += aligned(length)
        return place

    def mark(self, mark: Mark) -> None:
        """Say what became of a record, in the log and in the index."""
        self.marks.append(mark)
        self.transaction.apply(mark)

    def close(self) -> None:
        """Add the marks record, if there are marks, and bring the index up to the end."""
        if self.marks:
            sequence = self.sequencer.take()
            header, parts = encode_marks(self.marks, self.tail.uuid, sequence)
            place = self.append(header, parts)
            self.transaction.add_marks(sequence, place, header.record_bytes)
        if self.buffers:
            self.transaction.grow_segment(self.tail.number, self.end)
        self.transaction.set_position(Position(self.tail.number, self.end, self.sequencer.peek()))


def marks_bytes(count: int) -> int:
    """Return what a record of so many marks takes at most."""
    return aligned(count * MARK_BYTES + 512)


def open_segment(
    files: Files, paths: Paths, volume: bytes, number: int, previous_end: int, facts: Facts
) -> Tail:
    """
    Make the next segment, durably.

    Raises `OSError`, and leaves no file then, or one without a record that the next try removes.
    """
    uuid = segment_uuid(volume, number)
    header = SegmentHeader(
        volume=volume,
        segment=uuid,
        number=number,
        first_sequence=facts.sequencer.peek(),
        previous_end=previous_end,
        created_at_ms=facts.clock_ms(),
    )
    path = paths.segment(number)
    fd = _create(files, path)
    try:
        files.pwritev(fd, [header.encode()], 0)
        files.sync_data(fd)
        files.sync_directory(paths.log)
    except BaseException:
        # Whatever they say: the file has to go, and what counts is why it could not be made.
        with suppress(OSError):
            files.close(fd)
        with suppress(OSError):
            files.unlink(path)
        raise
    return Tail(number, uuid, fd, SEGMENT_HEADER_BYTES)


def _create(files: Files, path: Path) -> int:
    """Make a segment's file, also where an earlier try has left one; raises `OSError`."""
    try:
        return files.open(path, Access.CREATE)
    except OSError as error:
        if error.errno != errno.EEXIST or has_records(files, path):
            raise
    files.unlink(path)
    return files.open(path, Access.CREATE)


def has_records(files: Files, path: Path) -> bool:
    """Say whether there is more in a segment's file than its header; raises `OSError`."""
    fd = files.open(path, Access.READ)
    try:
        return files.size(fd) > SEGMENT_HEADER_BYTES
    finally:
        files.close(fd)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a new segment records besides its place."""

    sequencer: Sequencer
    clock_ms: Callable[[], int]
