"""
Compaction: what is alive in a sparse segment is written again, and the segment unlinked.

It is for filesystems that cannot punch holes, and for segments with a bad spot in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from itertools import islice
from typing import Final

from farmer.model.shard import RECORD_HEADER_BYTES
from farmer.storage.condensing import Condenser, pass_over
from farmer.storage.files import Access, read_head
from farmer.storage.ground import Ground
from farmer.storage.handles import Handles
from farmer.storage.operations import Move, Restate
from farmer.storage.places import Place, Row
from farmer.storage.records import (
    SEGMENT_HEADER_BYTES,
    DamagedError,
    Kind,
    decode_segment,
    segment_uuid,
    tree_offset,
)
from farmer.storage.recovery import gone_segments
from farmer.storage.scan import Found, Source, scan
from farmer.storage.steps import Steps
from farmer.storage.vouching import mistaken
from farmer.storage.writer import Writer

MOVING_MAX: Final = 8
_MOVING_BYTES: Final = 1024 * 1024
"""Copies of one step, which ends as soon as it has so many of them or of bytes: bounds memory,
and how long a store behind them waits."""

_SCANNED_PER_STEP: Final = 64
"""Records looked at without a rest, to find those that are alive."""


class Compactor:
    """One volume's, for one run at a time."""

    def __init__(self, ground: Ground, handles: Handles, writer: Writer, steps: Steps) -> None:
        self._ground = ground
        self._handles = handles
        self._writer = writer
        self._steps = steps
        self._condenser = Condenser(ground, handles, writer, steps)

    def live_bytes(self, number: int) -> int:
        """Return how much of a segment is alive; 0 if there is no such segment."""
        segment = self._ground.index.segment(number)
        return segment.live_bytes if segment is not None else 0

    def compact(self, number: int) -> bool:
        """
        Copy what is alive in a sealed segment, then unlink it, if all of it can be read.

        Returns whether all was copied, and is there twice, because somebody reads it still.
        Raises as `Reclaimer.run`; `sqlite3.DatabaseError` too where the index has more there than
        it has counted.
        """
        files, paths = self._ground.files, self._ground.paths
        if not self.live_bytes(number) and gone_segments(files, paths, [number]):
            # An earlier run was cut off after the unlink, when all had been done but this.
            self._drop(number)
            return False
        try:
            self._copy_live(number)
            for _ in self._condenser.condense(self._ground.index.marks(number), release=None):
                pass
            self._end_before(number)
        except OSError as error:
            # Of these files alone: what the writer could not write comes back as a refusal.
            if not pass_over(error, self._ground, paths.segment(number)):
                raise
            return False
        self._writer.submit(Restate(lambda _tx: [], 1)).result()
        # In this order: a reader pins what was alive, and looks whether it is so still.
        if self.live_bytes(number):
            return False
        if self._handles.is_segment_pinned(number):
            return True
        self._handles.forget(Place(number, 0))
        files.unlink(paths.segment(number))
        self._drop(number)
        return False

    def _end_before(self, number: int) -> None:
        """
        Let the segment before this one end where its header says, durably: it alone says so.

        Behind that may stand what was refused, where the disk did not let it be cut off for good.
        """
        files, paths = self._ground.files, self._ground.paths
        raw = read_head(files, paths.segment(number), SEGMENT_HEADER_BYTES)
        try:
            end = decode_segment(raw, paths.segment(number).name).previous_end
        except DamagedError:
            return
        if not end or not files.exists(paths.segment(number - 1)):
            return
        fd = files.open(paths.segment(number - 1), Access.WRITE)
        try:
            if files.size(fd) > end:
                files.truncate(fd, end)
            files.sync_data(fd)
        finally:
            files.close(fd)

    def _drop(self, number: int) -> None:
        """Make the end of a segment durable, then let the index forget it."""
        self._ground.files.sync_directory(self._ground.paths.log)
        self._steps.forget_segment(number)

    def _copy_live(self, number: int) -> None:
        """
        Copy what the log has there and the index calls alive, however much that is by its counts.

        To the end of the file, and where nothing is said to be alive too: the log says what is
        there, and an index that has lost a write may have counted for a part of it only.
        """
        files, name = self._ground.files, self._ground.paths.segment(number).name
        with self._handles.borrow(Place(number, 0)) as fd:
            source = Source(files, fd, segment_uuid(self._ground.volume, number), name)
            records = scan(source, SEGMENT_HEADER_BYTES, files.size(fd), verify=False)
            is_more = True
            while is_more:
                with self._steps.one():
                    is_more = self._copy_some(number, source, records)

    def _copy_some(self, number: int, source: Source, records: Iterator[object]) -> bool:
        """Copy what is alive among the next few records; say whether there was any record."""
        # Before the look at the rows: of a sealed segment they only become fewer.
        counted_bytes = self.live_bytes(number)
        moving: list[tuple[Found, Row]] = []
        size, is_more = 0, False
        for found in islice(records, _SCANNED_PER_STEP):
            is_more = True
            if not isinstance(found, Found) or found.header.kind is not Kind.SHARD:
                continue
            row = self._ground.index.find(found.header.renter, found.header.shard)
            if row is None or row.place != Place(number, found.offset):
                continue
            moving.append((found, row))
            size += row.charge_bytes
            if len(moving) == MOVING_MAX or size >= _MOVING_BYTES:
                break
        if size > counted_bytes:
            raise mistaken(number)
        for future in [self._move(source, *one) for one in moving]:
            future.result()
        return is_more

    def _move(self, source: Source, found: Found, row: Row) -> Future[bool]:
        """Copy a record as it is: a damaged one stays damaged, and will be found."""
        header = found.header
        start = found.offset + RECORD_HEADER_BYTES
        length = tree_offset(header.payload_bytes) - RECORD_HEADER_BYTES + header.trailer_bytes
        data = source.read(start, length)
        return self._writer.submit(Move(row, header, [data]))
