"""
Asking the log before any of it is given back: the index, a cache without checksums, may err.

One wrong number in it, a rotten bit or a write that the disk lost, must cost the index, which is
made again of the log, and no shard.  But a disk may as well have put a record over another one;
then the index is right, and knows even what can no more be told from the log.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise

from farmer.model.shard import RECORD_HEADER_BYTES
from farmer.storage.files import Files
from farmer.storage.index import Index
from farmer.storage.places import Doomed, Place
from farmer.storage.records import (
    SEGMENT_HEADER_BYTES,
    DamagedError,
    Kind,
    RecordHeader,
    aligned,
    decode_record,
    record_fields,
    segment_uuid,
)
from farmer.storage.scan import Found, Source, scan


@dataclass(frozen=True, slots=True)
class Astray:
    """A given-up record that the log does not have where the index says."""

    record: Doomed
    place: Place
    """Where another one begins that stands there."""
    header: RecordHeader
    """Of that other one; it is sound."""

    def is_known_elsewhere(self, index: Index) -> bool:
        """Say whether the index has the other record at another place."""
        sequence = self.header.sequence
        if self.header.kind is Kind.MARKS:
            places = [one.place for one in index.marks() if one.sequence == sequence]
            return bool(places) and self.place not in places
        row = index.find(self.header.renter, self.header.shard)
        return row is not None and row.sequence == sequence and row.place != self.place


def astray(
    files: Files, fd: int, volume: bytes, number: int, records: Sequence[Doomed]
) -> list[Astray]:
    """
    Return those of a segment's given-up records that the log does not have there.

    What is damaged, or given back already, may be one of them, unless it lies within a sound
    record.  Raises `OSError`.
    """
    uuid = segment_uuid(volume, number)
    wrong: list[Astray] = []
    unsure: list[Doomed] = []
    for one in records:
        try:
            other = _other(files, fd, uuid, one)
        except DamagedError:
            unsure.append(one)
            continue
        if other is not None:
            wrong.append(Astray(one, one.place, other))
    if unsure:
        source = Source(files, fd, uuid, f"segment {number}")
        wrong += _overlapped(unsure, source, files.size(fd))
    return wrong


def is_index_wrong(
    files: Files, fd: int, volume: bytes, number: int, wrong: Sequence[Astray], index: Index
) -> bool:
    """
    Say whether it is the index that errs about some of these, and not the disk.

    What the disk has put there by mistake is known to the index at another place, or stands out
    of order: the sequences of a log rise.  Raises `OSError`.
    """
    unknown = [one for one in wrong if not one.is_known_elsewhere(index)]
    if not unknown:
        return False
    source = Source(files, fd, segment_uuid(volume, number), f"segment {number}")
    with closing(_sound(source, files.size(fd))) as sound:
        disorder = {
            one.offset
            for two in pairwise(sound)
            if two[0].header.sequence > two[1].header.sequence
            for one in two
        }
    return any(one.place.offset not in disorder for one in unknown)


def mistaken(number: int) -> sqlite3.DatabaseError:
    """Return the error of an index that would give back what is not to be given back."""
    return sqlite3.DatabaseError(f"it is wrong about segment {number} of the log")


def _other(files: Files, fd: int, uuid: bytes, record: Doomed) -> RecordHeader | None:
    """Return what stands at a record's place if that is another; raises as `decode_record`."""
    try:
        raw = files.pread(fd, RECORD_HEADER_BYTES, record.place.offset)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        # A bad sector, and a wrong index as well: that is not to be expected.
        return None
    found = record_fields(raw, uuid, record.place)
    length = aligned(RECORD_HEADER_BYTES + found.payload_bytes + found.trailer_bytes)
    is_this = (found.sequence, length) == (record.sequence, record.length)
    return None if is_this else decode_record(raw, uuid, record.place)


def _overlapped(records: Sequence[Doomed], source: Source, size_bytes: int) -> list[Astray]:
    """Return those that share bytes with a sound record."""
    wrong = []
    with closing(_sound(source, size_bytes)) as sound:
        found = next(sound, None)
        for one in sorted(records, key=lambda record: record.place.offset):
            while found is not None and found.end <= one.place.offset:
                found = next(sound, None)
            if found is not None and found.offset < one.place.offset + one.length:
                place = Place(one.place.segment, found.offset)
                wrong.append(Astray(one, place, found.header))
    return wrong


def _sound(source: Source, size_bytes: int) -> Generator[Found, None, None]:
    """Yield the sound records of a segment, as far as it can be read."""
    try:
        for one in scan(source, SEGMENT_HEADER_BYTES, size_bytes, verify=False):
            if isinstance(one, Found):
                yield one
    except OSError as error:
        if error.errno != errno.EIO:
            raise
