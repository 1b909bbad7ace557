"""
Asking the log before any of it is given back: the index, a cache without checksums, may err.

One wrong number in it, a rotten bit or a write that the disk lost, must cost the index, which is
made again of the log, and no shard.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import closing

from farmer.model.shard import RECORD_HEADER_BYTES
from farmer.storage.files import Files
from farmer.storage.places import Doomed
from farmer.storage.records import (
    SEGMENT_HEADER_BYTES,
    DamagedError,
    aligned,
    record_fields,
    segment_uuid,
)
from farmer.storage.scan import Found, Source, scan


def astray(
    files: Files, fd: int, volume: bytes, number: int, records: Sequence[Doomed]
) -> list[Doomed]:
    """
    Return those of a segment's given-up records that the log does not have there.

    What is damaged, or given back already, may be one of them, unless it lies within a sound
    record.  Raises `OSError`.
    """
    uuid = segment_uuid(volume, number)
    wrong, unsure = [], []
    for one in records:
        stands = _stands(files, fd, uuid, one)
        if stands is None:
            unsure.append(one)
        elif not stands:
            wrong.append(one)
    if unsure:
        source = Source(files, fd, uuid, f"segment {number}")
        wrong += _overlapped(unsure, source, files.size(fd))
    return wrong


def mistaken(number: int) -> sqlite3.DatabaseError:
    """Return the error of an index that would give back what is not to be given back."""
    return sqlite3.DatabaseError(f"it is wrong about segment {number} of the log")


def _stands(files: Files, fd: int, uuid: bytes, record: Doomed) -> bool | None:
    """Say whether a record's header stands there; None if there is no sound one."""
    try:
        raw = files.pread(fd, RECORD_HEADER_BYTES, record.place.offset)
        header = record_fields(raw, uuid, record.place)
    except DamagedError:
        return None
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        # A bad sector, and a wrong index as well: that is not to be expected.
        return True
    length = aligned(RECORD_HEADER_BYTES + header.payload_bytes + header.trailer_bytes)
    return (header.sequence, length) == (record.sequence, record.length)


def _overlapped(records: Sequence[Doomed], source: Source, size_bytes: int) -> list[Doomed]:
    """Return those that share bytes with a sound record."""
    wrong = []
    with closing(_sound(source, size_bytes)) as sound:
        found = next(sound, None)
        for one in sorted(records, key=lambda record: record.place.offset):
            while found is not None and found.end <= one.place.offset:
                found = next(sound, None)
            if found is not None and found.offset < one.place.offset + one.length:
                wrong.append(one)
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
