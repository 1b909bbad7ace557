"""
One pass of the scrub over a volume, as generators: each step reads at most about 1 MiB.

Everything that is looked at is pinned first and asked of the index again, so that what moves,
goes or is written meanwhile is never taken for damage; damage is read twice, past the page
cache, before it is believed.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from farmer.model.ids import NodeId, ShardId
from farmer.model.shard import RECORD_HEADER_BYTES
from farmer.storage.bad_spots import BadSpots, check_disk
from farmer.storage.damage import Examination, ReadRecord, examining, read_header
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.files import Access, read_head
from farmer.storage.ground import Ground
from farmer.storage.handles import Handles
from farmer.storage.marks import Mark, decode_marks
from farmer.storage.operations import row_of
from farmer.storage.places import Doomed, Place, Row, Segment
from farmer.storage.records import (
    SEGMENT_HEADER_BYTES,
    DamagedError,
    Kind,
    RecordHeader,
    decode_record,
    decode_segment,
)
from farmer.storage.recovery import part_uuid
from farmer.storage.rights import NOT_LET, file_of
from farmer.storage.scan import Found, Source, read_marks, scan
from farmer.storage.scrub_check import check_database
from farmer.storage.scrub_notes import Notes, is_named, name_segment

ROWS_AT_ONCE: Final = 64
SHELVES: Final = 256
Steps = Generator[int, None, None]
"""Yields the bytes read since the last yield."""


class Findings(Protocol):
    """Who hears of what was found, and does something about it.  Blocking."""

    def sound(self, row: Row) -> None:
        """Nothing is wrong with a shard."""

    def damaged(self, row: Row, found: Examination) -> None:
        """Its record is not what was written."""

    def disagree(self, what: str, row: Row | None, marks: list[Mark]) -> None:
        """The log holds a newer record than the index knows; *row* is right but for *marks*."""

    def marks_damaged(self, what: str) -> None:
        """The marks somewhere in the log cannot be read."""

    def segment_damaged(self, segment: Segment) -> None:
        """A segment's header is damaged: a rebuild would not know whose it is."""

    def index_damaged(self, what: str) -> None:
        """SQLite finds its own file damaged."""


@dataclass(frozen=True, slots=True)
class Walk:
    """What one pass goes over; *notes* always say where to go on after a restart."""

    ground: Ground
    handles: Handles
    notes: Notes
    findings: Findings
    is_reclaiming: Callable[[], bool]
    """Whether records that nobody needs are being given back right now."""

    def steps(self) -> Steps:
        """Go from where the notes say to the end of the pass."""
        for phase, walk in (
            ("log", self._log),
            ("files", self._files),
            ("rows", self._rows),
            ("index", self._index),
        ):
            if self.notes.phase == phase:
                yield from walk()
                following = {"log": "files", "files": "rows", "rows": "index", "index": ""}
                self.notes.phase = following[phase]
                self.notes.segment = 0

    # The log: every record of every segment.

    def _log(self) -> Steps:
        notes = self.notes
        while segment := self._segment_from(notes.segment):
            number = segment.number
            if number != notes.segment:
                notes.segment, notes.offset = number, SEGMENT_HEADER_BYTES
            with self._pinned(Place(number, 0)):
                try:
                    yield from self._segment(segment)
                except OSError as error:
                    self._survive(error, self.ground.paths.segment(number))
                    name_segment(notes.spotted, number)
                    name_segment(notes.doubtful, number)
            notes.segment, notes.offset = number + 1, SEGMENT_HEADER_BYTES

    def _segment_from(self, number: int) -> Segment | None:
        return next(iter(self.ground.index.segments(number, 1)), None)

    def _segment(self, segment: Segment) -> Steps:
        index, number = self.ground.index, segment.number
        path = self.ground.paths.segment(number)
        spots = self._spots()
        fd = self.ground.files.open(path, Access.READ)
        try:
            self.ground.files.uncache(fd, 0, 0)
            if not self._is_header_sound(spots, fd, segment) and self._is_listed(number):
                self.findings.segment_damaged(segment)
            yield SEGMENT_HEADER_BYTES
            source = Source(spots, fd, segment.uuid, path.name)
            start = max(self.notes.offset, SEGMENT_HEADER_BYTES)
            for found in scan(source, start, segment.size_bytes, verify=False):
                if spots.met:
                    # Now: whatever ends this pass, the notes of it may be read before its end.
                    name_segment(self.notes.spotted, number)
                if isinstance(found, Found):
                    self.notes.offset = found.offset
                    if found.header.kind is Kind.SHARD:
                        place = Place(number, found.offset)
                        yield from self._record(found.header, place, fd, source.where)
                    else:
                        yield found.end - found.offset
            for marks in index.marks(number):
                yield marks.length
                if not self._read_marks(source, marks.place.offset):
                    name_segment(self.notes.doubtful, number)
        finally:
            self.ground.files.close(fd)
            if spots.met:
                name_segment(self.notes.spotted, number)
                self.ground.health.count("read")

    def _spots(self) -> BadSpots:
        return BadSpots(self.ground.files, self.ground.paths)

    def _is_header_sound(self, spots: BadSpots, fd: int, segment: Segment) -> bool:
        raw = spots.pread(fd, SEGMENT_HEADER_BYTES, 0)
        try:
            header = decode_segment(raw, str(segment.number))
        except DamagedError:
            return False
        found = (header.volume, header.segment, header.number)
        return found == (self.ground.volume, segment.uuid, segment.number)

    def _is_listed(self, number: int) -> bool:
        return self.ground.index.segment(number) is not None

    def _read_marks(self, source: Source, offset: int) -> list[Mark]:
        fresh = Source(source.files, source.fd, source.uuid, source.where)
        try:
            return list(decode_marks(read_marks(fresh, offset, fresh.header(offset))))
        except (DamagedError, ValueError):
            return []

    def _record(self, header: RecordHeader, place: Place, fd: int, where: str) -> Steps:
        """Look at one sound header: whether its shard is all right, and the index knows it."""
        with self._pinned(place):
            index = self.ground.index
            row = index.find(header.renter, header.shard)
            if row is not None and (row.place, row.sequence) == (place, header.sequence):
                yield from self._examine(row)
            elif row is None or row.sequence <= header.sequence:
                if index.is_doomed(header.sequence) or index.find(*_key(header)) != row:
                    return
                # What was given back, or dropped with its segment, while we looked is no news.
                raw = self._spots().pread(fd, RECORD_HEADER_BYTES, place.offset)
                if raw == header.encode() and self._is_listed(place.segment):
                    yield from self._unknown(header, place, where)

    def _unknown(self, header: RecordHeader, place: Place, where: str) -> Steps:
        """Look at a record that the index should know, and have it entered if it is all right."""
        row = row_of(header, place)
        found = yield from examining(self._reading(row), row)
        known = self.ground.index.find(row.renter, row.shard)
        if known is not None and known.sequence > row.sequence:
            return
        what = f"shard {row.shard} at {place.offset} of {where} is not in the index"
        sound = row if not found.bad_blocks else None
        self.findings.disagree(what, sound, self._marks_of(row) if sound else [])

    def _marks_of(self, row: Row) -> list[Mark]:
        """Return all that the log says became of a record, in the order of the log."""
        about: list[Mark] = []
        for record in self.ground.index.marks():
            about += [
                mark
                for mark in self._borrowed_marks(record)
                if (mark.renter, mark.shard) == (row.renter, row.shard)
                and mark.sequence >= row.sequence
            ]
        return about

    def _borrowed_marks(self, record: Doomed) -> list[Mark]:
        spots, at = self._spots(), record.place.offset
        with self.handles.borrow(record.place) as fd:
            raw = spots.pread(fd, RECORD_HEADER_BYTES, at)
            return self._read_marks(Source(spots, fd, raw[16:32], str(record.place)), at)

    # Large shards: every file must have a row.

    def _files(self) -> Steps:
        files, paths = self.ground.files, self.ground.paths
        while self.notes.shelf < SHELVES:
            shelf = paths.shards / f"{self.notes.shelf:02x}"
            try:
                names = files.list(shelf) if files.exists(shelf) else []
            except OSError as error:
                # Its files are looked for by the rows, too.
                self._survive(error, shelf)
                names = []
            for name in names:
                path = shelf / name
                try:
                    yield from self._file(path)
                except OSError as error:
                    self._survive(error, path)
            self.notes.shelf += 1

    def _file(self, path: Path) -> Steps:
        uuid = part_uuid(path)
        if uuid is None:
            return  # not ours
        try:
            header = self._header_of(path, uuid)
        except DamagedError:
            return  # a row will show it
        yield RECORD_HEADER_BYTES
        if header.kind is not Kind.SHARD or self._is_file_known(uuid, header):
            return
        place = Place(0, 0, uuid)
        with self._pinned(place):
            if self.ground.files.exists(path) and not self._is_file_known(uuid, header):
                yield from self._unknown(header, place, path.name)

    def _header_of(self, path: Path, uuid: bytes) -> RecordHeader:
        raw = read_head(self.ground.files, path, RECORD_HEADER_BYTES)
        return decode_record(raw, uuid, path.name)

    def _is_file_known(self, uuid: bytes, header: RecordHeader) -> bool:
        row = self.ground.index.find(header.renter, header.shard)
        is_older = row is not None and row.sequence > header.sequence
        return is_older or self.ground.index.knows_file(uuid, header.renter, header.shard)

    # The index: every row must have its record; large shards are read here.

    def _rows(self) -> Steps:
        notes = self.notes
        while page := self.ground.index.some(notes.last_key, ROWS_AT_ONCE):
            for row in page:
                with self._pinned(row.place):
                    if self.ground.index.find(row.renter, row.shard) == row:
                        yield from self._row(row)
                notes.renter, notes.shard = row.renter.raw.hex(), row.shard.raw.hex()

    def _row(self, row: Row) -> Steps:
        if row.place.file:
            yield from self._examine(row)
            return
        yield RECORD_HEADER_BYTES
        try:
            raw = self._reading(row)(0, RECORD_HEADER_BYTES)
        except OSError:
            raw = b""
        is_spotted = is_named(self.notes.spotted, row.place.segment)
        if is_spotted or read_header(raw, row) is None:
            yield from self._examine(row)

    # One record.

    def _examine(self, row: Row) -> Steps:
        """Read a pinned record; what looks damaged is read again before it is said."""
        found = Examination.of_nothing(row.size_bytes)
        for is_second in (False, True):
            try:
                if is_second or row.place.file:
                    with self.handles.borrow(row.place) as fd:
                        self.ground.files.uncache(fd, row.place.offset, row.charge_bytes)
                found = yield from examining(self._reading(row), row)
            except OSError as error:
                self._survive(error, self.handles.usual_path(row.place))
                if error.errno in NOT_LET:
                    # What nobody can read is not known to be damaged.
                    return
            if found.is_sound and not row.is_damaged:
                self.findings.sound(row)
                return
            if self.ground.index.find(row.renter, row.shard) != row:
                return
        self.findings.damaged(row, found)

    def _reading(self, row: Row) -> ReadRecord:
        def read(offset: int, length: int) -> bytes:
            with self.handles.borrow(row.place) as fd:
                return self.ground.files.pread(fd, length, row.place.offset + offset)

        return read

    @contextmanager
    def _pinned(self, place: Place) -> Iterator[None]:
        pin = self.handles.pin(place)
        try:
            yield
        finally:
            self.handles.unpin(pin)

    def _survive(self, error: OSError, path: Path) -> None:
        """
        Return if only this file is missing, has a bad spot, or is refused by the system.

        Raises:
            VolumeUnavailableError: it is the volume that cannot be read.

        """
        path = file_of(error, path)
        if error.errno in NOT_LET and self.ground.unopened.is_known(path):
            return
        if error.errno in {errno.ENOENT, errno.EIO} | NOT_LET:
            try:
                check_disk(self.ground.files, self.ground.paths)
            except OSError as worse:
                raise VolumeUnavailableError(f"the disk could not be read: {worse}") from worse
            self.ground.health.count("read")
            self.ground.not_let(error, path)
            return
        raise VolumeUnavailableError(f"{path.name} could not be read: {error}") from error

    # What is left for the end: marks in doubt, and the index's own structure.

    def _doubtful_marks(self) -> Steps:
        """Marks that cannot be read and are listed, while nothing is given back, are damaged."""
        notes = self.notes
        while segment := self._segment_from(notes.segment):
            read_bytes = 0
            if is_named(notes.doubtful, segment.number):
                for marks in self.ground.index.marks(segment.number):
                    read_bytes += marks.length
                    self._look_at_doubtful(marks)
            notes.segment = segment.number + 1
            yield read_bytes

    def _look_at_doubtful(self, marks: Doomed) -> None:
        try:
            is_sound = bool(self._borrowed_marks(marks))
        except OSError as error:
            self._survive(error, self.handles.usual_path(marks.place))
            is_sound = error.errno in NOT_LET
        # In this order: what is given back is listed until that is over.
        if is_sound or self.is_reclaiming() or not self._are_listed(marks):
            return
        where = f"at {marks.place.offset} of segment {marks.place.segment}"
        self.findings.marks_damaged(f"a record of marks {where}")

    def _are_listed(self, marks: Doomed) -> bool:
        return any(marks == one for one in self.ground.index.marks(marks.place.segment))

    def _index(self) -> Steps:
        yield from self._doubtful_marks()
        index = self.ground.index
        with self.ground.watch.call("check of the index"):
            wrong = check_database(self.ground.paths.index, gives_way=index.gives_way)
        if wrong:
            self.findings.index_damaged(wrong)
        yield 0


def _key(header: RecordHeader) -> tuple[NodeId, ShardId]:
    return header.renter, header.shard
