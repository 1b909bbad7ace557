"""
Giving space back to the filesystem: what is worth doing, and doing it.

Given-up records are punched out of their segments, or unlinked where they have a file of
their own.  Where the filesystem cannot punch, the live records of a sparse segment are
written again at the end of the log and the segment is unlinked.  Marks that speak of
nothing any more go with the records that carry them.

Nothing of the log goes before the index that no longer needs it is durable: after a power
loss an older index would replay what is not there.

It works in steps and rests after each, so that those who are served feel little of it.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from threading import Lock
from typing import Final

from farmer.model.ids import NodeId, ShardId
from farmer.model.shard import RECORD_HEADER_BYTES
from farmer.storage.files import Access
from farmer.storage.ground import Ground
from farmer.storage.handles import Handles
from farmer.storage.marks import MARK_BYTES, Action, Mark, decode_marks
from farmer.storage.operations import Move, Restate, Upkeep, new_mark, state_marks
from farmer.storage.places import Doomed, Place, Row, Segment
from farmer.storage.records import (
    SEGMENT_HEADER_BYTES,
    DamagedError,
    Kind,
    decode_segment,
    tree_offset,
)
from farmer.storage.scan import Found, Source, read_marks, scan
from farmer.storage.transaction import Transaction
from farmer.storage.writer import Writer

MARKS_SLACK_BYTES: Final = 1024 * 1024
"""Marks that may gather before they are condensed: 256 lone deletes."""

SPARSE_SHARE: Final = 4
"""A segment of which a quarter is idle is worth writing again."""

RELEASED_AT_ONCE: Final = 4096
"""Records looked up to be given back: bounds memory, 2 MiB."""

_BAD_SPOT: Final = errno.EIO
"""One sector may be lost and all others sound; any other failure to read is the whole disk's, or
the system's, and ends a run."""

_MARKS_PER_STEP: Final = 64
_ENTERED_PER_STEP: Final = 32
"""What the writer enters at once: a store behind it waits for little."""

_RELEASED_PER_STEP: Final = 512
"""Records whose space is given back without a rest: many lie side by side, and are one hole."""

MOVING_MAX: Final = 8
_MOVING_BYTES: Final = 1024 * 1024
"""Copies of one step, which ends as soon as it has so many of them or of bytes: bounds memory,
and how long a store behind them waits."""

_SCANNED_PER_STEP: Final = 64
"""Records looked at without a rest, to find those that are alive."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is worth doing."""

    condense: bool
    compact: tuple[int, ...]
    """Sealed segments, the emptiest first; without live records there is nothing to copy."""


def plan(segments: Iterable[Segment], active: int, marks_bytes: int, marks_needed: int) -> Plan:
    """Decide; *marks_needed* is how many marks were needed when last counted."""
    sparse = [
        one
        for one in segments
        if one.number != active
        and (
            one.live_bytes == 0
            or one.idle_bytes - SEGMENT_HEADER_BYTES > one.size_bytes // SPARSE_SHARE
        )
    ]
    sparse.sort(key=lambda one: one.live_bytes)
    enough = 2 * marks_needed * MARK_BYTES + MARKS_SLACK_BYTES // 2
    return Plan(marks_bytes > enough, tuple(one.number for one in sparse))


class Reclaimer:
    """One volume's.  `release` from any thread, `run` one at a time."""

    def __init__(self, ground: Ground, handles: Handles, writer: Writer) -> None:
        self._ground = ground
        self._handles = handles
        self._writer = writer
        self._running = Lock()
        self._settled_bytes = ground.account.log_bytes
        self._restated = 0
        """Marks that the last condensing found needed."""
        self._is_hurried = False
        """Whether somebody waits for the run that is under way."""

    @property
    def is_due(self) -> bool:
        """Whether so much has gathered since the last run that it should not wait."""
        return self._ground.account.log_bytes - self._settled_bytes > MARKS_SLACK_BYTES

    @property
    def is_running(self) -> bool:
        """Whether a run is under way."""
        return self._running.locked()

    def release(self, doomed: Sequence[Doomed]) -> list[Doomed]:
        """Give back what nobody reads, durably; return what was given back."""
        released: list[Doomed] = []
        free = [one for one in doomed if not self._handles.is_pinned(one.place)]
        free.sort(key=_where)
        for number, group in groupby(free, key=lambda one: one.place.segment):
            records = list(group)
            try:
                released += self._punch(number, records) if number else self._unlink(records)
            except OSError:
                self._ground.health.count("reclaim")
        return released

    def run(self, *, hurried: bool = False) -> int:
        """
        Give back all that is worth it now; return the bytes that came free.

        What stands at a spot that cannot be read is left for the next run.  Returns 0 at once if
        another run is under way.  It rests between its steps unless somebody waits for it, and
        it is *hurried*.

        Raises:
            StorageError, OSError, sqlite3.Error: the volume failed; all that is done is done.

        """
        if not self._begin(hurried=hurried):
            return 0
        try:
            return self._run()
        finally:
            self._settled_bytes = self._ground.account.log_bytes
            self._running.release()

    def rewrite(self, number: int) -> bool:
        """
        Write what is alive in a segment again; say whether nothing is left in it.

        Its file goes as soon as nobody reads it.  Not the segment that is appended to, and not
        while another run is under way.  Without rests: a scrub has its own.  Raises as `run`.
        """
        if number == self._writer.active_number or not self._begin(hurried=True):
            return False
        try:
            self._compact(number)
        finally:
            self._running.release()
        return not self._live_bytes(number)

    def _begin(self, *, hurried: bool) -> bool:
        """Begin a run, if none is under way."""
        if not self._running.acquire(blocking=False):
            return False
        self._is_hurried = hurried
        return True

    def _step(self) -> AbstractContextManager[None]:
        return self._ground.rests.after(hurried=self._is_hurried)

    def _run(self) -> int:
        index, before = self._ground.index, self._ground.account.log_bytes
        self._drop_missing()
        self._release_all()
        marks = index.marks()
        chosen = plan(
            index.segments(),
            self._writer.active_number,
            sum(one.length for one in marks),
            self._restated,
        )
        if chosen.condense:
            self._restated = self._condense(marks, punch=True)
        for number in chosen.compact:
            self._compact(number)
        return max(0, before - self._ground.account.log_bytes)

    def _drop_missing(self) -> None:
        """
        Forget segments that an earlier run has unlinked, if the index came back from before.

        After a power loss it may list what a compaction has emptied and removed.  Nothing of
        such a segment can be read any more, and nothing of it is needed.
        """
        files, paths = self._ground.files, self._ground.paths
        for segment in self._ground.index.segments():
            is_idle = not segment.live_bytes and segment.number != self._writer.active_number
            if is_idle and not files.exists(paths.segment(segment.number)):
                if not files.exists(paths.marker):
                    # It is the whole disk that is not there.
                    return
                self._enter(partial(_drop_segment, segment.number))

    def _release_all(self) -> None:
        # Step by step: after an expired contract there may be as many as there were shards.
        after = 0
        while doomed := self._ground.index.doomed(after, RELEASED_AT_ONCE):
            after = doomed[-1].sequence
            doomed.sort(key=_where)
            for some in _portions(doomed, _RELEASED_PER_STEP):
                with self._step():
                    released = self.release(some)
                for entered in _portions(released, _ENTERED_PER_STEP):
                    self._enter(partial(_release, entered))

    def _punch(self, number: int, records: Iterable[Doomed]) -> list[Doomed]:
        files = self._ground.files
        fd = files.open(self._ground.paths.segment(number), Access.WRITE)
        try:
            done = []
            for stretch in _stretches(records):
                if files.punch(fd, stretch[0].place.offset, sum(one.length for one in stretch)):
                    done += stretch
            if done:
                files.sync_data(fd)
        finally:
            files.close(fd)
        return done

    def _unlink(self, records: Iterable[Doomed]) -> list[Doomed]:
        files, paths, done = self._ground.files, self._ground.paths, []
        touched = set()
        for one in records:
            self._handles.forget(one.place)
            # Both names, and in this order: the writer may move it out of staging meanwhile, and
            # an earlier try may have removed the one or the other without making that durable.
            for path in (paths.part(one.place.file), paths.shard(one.place.file)):
                files.unlink(path)
                if files.exists(path.parent):
                    touched.add(path.parent)
            done.append(one)
        for directory in sorted(touched):
            files.sync_directory(directory)
        return done

    def _condense(self, records: Sequence[Doomed], *, punch: bool) -> int:
        """Write the marks of these records again, as far as they are needed; return how many."""
        restated = 0
        for start in range(0, len(records), _MARKS_PER_STEP):
            some = deque(records[start : start + _MARKS_PER_STEP])
            while some:
                with self._step():
                    restated += self._condense_some(some, punch=punch)
        return restated

    def _condense_some(self, records: deque[Doomed], *, punch: bool) -> int:
        step, mentioned = self._mentioned(records, is_lenient=punch)
        choose = partial(_needed, mentioned)
        restated = self._writer.submit(Restate(choose, max(1, len(mentioned)))).result()
        if punch:
            punched = self.release(step)
            self._writer.submit(Upkeep(partial(_drop_marks, punched))).result()
        return restated

    def _mentioned(
        self, records: deque[Doomed], *, is_lenient: bool
    ) -> tuple[list[Doomed], dict[tuple[NodeId, ShardId], int]]:
        """
        Take the first records that fit one step; return them, and whom they speak of.

        If *is_lenient*, one that cannot be read is taken too, and not returned: it must stay.
        """
        step: list[Doomed] = []
        mentioned: dict[tuple[NodeId, ShardId], int] = {}
        while records and len(mentioned) < _MARKS_PER_STEP:
            record = records.popleft()
            try:
                marks = self._read_marks(record)
            except OSError as error:
                if not is_lenient or error.errno != _BAD_SPOT:
                    raise
                self._ground.health.count("reclaim")
                continue
            for mark in marks:
                key = (mark.renter, mark.shard)
                mentioned[key] = max(mark.sequence, mentioned.get(key, 0))
            step.append(record)
        return step, mentioned

    def _read_marks(self, record: Doomed) -> list[Mark]:
        with self._handles.borrow(record.place) as fd:
            raw = self._ground.files.pread(fd, RECORD_HEADER_BYTES, record.place.offset)
            source = Source(self._ground.files, fd, raw[16:32], str(record.place))
            try:
                header = source.header(record.place.offset)
                return list(decode_marks(read_marks(source, record.place.offset, header)))
            except DamagedError:
                # What they said is in the index; only a rebuild would have needed them.
                self._ground.health.count("corrupt")
                return []

    def _compact(self, number: int) -> None:
        """Copy what is alive in a sealed segment, then unlink it, if all of it can be read."""
        path = self._ground.paths.segment(number)
        if not self._live_bytes(number) and not self._ground.files.exists(path):
            # An earlier run was cut off after the unlink, when all had been done but this.
            self._drop(number)
            return
        try:
            self._copy_live(number)
            self._condense(self._ground.index.marks(number), punch=False)
            self._end_before(number)
        except OSError as error:
            # Of these files alone: what the writer could not write comes back as a refusal.
            if error.errno != _BAD_SPOT:
                raise
            self._ground.health.count("reclaim")
            return
        self._writer.submit(Restate(lambda _tx: [], 1)).result()
        # In this order: a reader pins what was alive, and looks whether it is so still.
        if self._live_bytes(number) or self._handles.is_segment_pinned(number):
            return
        self._handles.forget(Place(number, 0))
        self._ground.files.unlink(path)
        self._drop(number)

    def _end_before(self, number: int) -> None:
        """
        Let the segment before this one end where its header says, durably: it alone says so.

        Behind that may stand what was refused, where the disk did not let it be cut off for good.
        """
        files, paths = self._ground.files, self._ground.paths
        fd = files.open(paths.segment(number), Access.READ)
        try:
            raw = files.pread(fd, SEGMENT_HEADER_BYTES, 0)
        finally:
            files.close(fd)
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
        self._enter(lambda transaction: transaction.drop_segment(number))

    def _live_bytes(self, number: int) -> int:
        segment = self._ground.index.segment(number)
        return segment.live_bytes if segment is not None else 0

    def _copy_live(self, number: int) -> None:
        segment = self._ground.index.segment(number)
        if segment is None or not segment.live_bytes:
            return
        with self._handles.borrow(Place(number, 0)) as fd:
            source = Source(
                self._ground.files, fd, segment.uuid, self._ground.paths.segment(number).name
            )
            records = scan(source, SEGMENT_HEADER_BYTES, segment.size_bytes, verify=False)
            is_more = True
            while is_more:
                with self._step():
                    is_more = self._copy_some(number, source, records)

    def _copy_some(self, number: int, source: Source, records: Iterator[object]) -> bool:
        """Copy what is alive among the next few records; say whether there was any record."""
        moving: list[Future[bool]] = []
        size, is_more = 0, False
        for found in islice(records, _SCANNED_PER_STEP):
            is_more = True
            if not isinstance(found, Found) or found.header.kind is not Kind.SHARD:
                continue
            row = self._ground.index.find(found.header.renter, found.header.shard)
            if row is None or row.place != Place(number, found.offset):
                continue
            moving.append(self._move(source, found, row))
            size += row.charge_bytes
            if len(moving) == MOVING_MAX or size >= _MOVING_BYTES:
                break
        for future in moving:
            future.result()
        return is_more

    def _move(self, source: Source, found: Found, row: Row) -> Future[bool]:
        """Copy a record as it is: a damaged one stays damaged, and will be found."""
        header = found.header
        start = found.offset + RECORD_HEADER_BYTES
        length = tree_offset(header.payload_bytes) - RECORD_HEADER_BYTES + header.trailer_bytes
        data = source.read(start, length)
        return self._writer.submit(Move(row, header, [data]))

    def _enter(self, work: Callable[[Transaction], None]) -> None:
        with self._step():
            self._writer.submit(Upkeep(work)).result()


def _where(record: Doomed) -> tuple[int, int]:
    return record.place.segment, record.place.offset


def _portions(records: Sequence[Doomed], length: int) -> Iterator[Sequence[Doomed]]:
    for start in range(0, len(records), length):
        yield records[start : start + length]


def _stretches(records: Iterable[Doomed]) -> Iterator[list[Doomed]]:
    """Yield records of one segment, in order, by what stands without a gap: one hole, not many."""
    stretch: list[Doomed] = []
    end = 0
    for record in records:
        if stretch and record.place.offset != end:
            yield stretch
            stretch = []
        stretch.append(record)
        end = record.place.offset + record.length
    if stretch:
        yield stretch


def _release(records: Sequence[Doomed], transaction: Transaction) -> None:
    for record in records:
        transaction.release(record)


def _drop_segment(number: int, transaction: Transaction) -> None:
    transaction.drop_segment(number)


def _drop_marks(records: Sequence[Doomed], transaction: Transaction) -> None:
    for record in records:
        transaction.drop_marks(record)


def _needed(mentioned: dict[tuple[NodeId, ShardId], int], transaction: Transaction) -> list[Mark]:
    """Return what must still be said of these shards, at this very moment."""
    needed = []
    for (renter, shard), sequence in mentioned.items():
        row = transaction.find(renter, shard)
        if row is not None and row.sequence <= sequence:
            needed += state_marks(row)
        elif stone := transaction.tombstones.find(renter, shard):
            needed.append(stone.mark(Action.TOMBSTONE))
        elif row is None and transaction.has_doomed(renter, shard):
            needed.append(new_mark(renter, shard, Action.GONE, 0, 0, sequence))
    return needed
