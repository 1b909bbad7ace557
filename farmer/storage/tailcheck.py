"""
After a failed sync: what was acknowledged of that segment is read again from the disk itself.

A sync that fails says that something was not written, not what.  Everything before the
acknowledged end had been synced, so it should be there; whether it is, only the disk can say,
past the page cache.  What does not read back right goes into quarantine at once instead of
being found by its renter.  It is an operation like any other, a step at a time, so that
stores go on meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from farmer.storage.files import Access
from farmer.storage.ground import Ground
from farmer.storage.log import Batch, Tail, marks_bytes
from farmer.storage.operations import Operation, state_marks
from farmer.storage.places import Row
from farmer.storage.records import SEGMENT_HEADER_BYTES
from farmer.storage.scan import Damaged, Found, Hole, Source, scan

STEP_BYTES: Final = 8 * 1024 * 1024
"""Read at once, which is how long a store may have to wait behind it."""

_DAMAGED_MAX: Final = 128
"""Shards that one step may put into quarantine; the next one goes on behind them."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A sealed stretch of the log whose last sync failed."""

    number: int
    uuid: bytes
    start: int
    end: int

    @classmethod
    def of(cls, tail: Tail) -> Doubt:
        """Return what was acknowledged of a segment, all of it."""
        return cls(tail.number, tail.uuid, SEGMENT_HEADER_BYTES, tail.end)


class TailCheck(Operation[None]):
    """Reads a step of a doubtful stretch and asks *go_on* for the next; the last calls *ended*."""

    def __init__(
        self,
        ground: Ground,
        doubt: Doubt,
        go_on: Callable[[TailCheck], object],
        ended: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(marks_bytes(2 * _DAMAGED_MAX))
        self.rows = _DAMAGED_MAX
        self._ground = ground
        self._doubt = doubt
        self._go_on = go_on
        self._ended = ended
        self._reached = doubt.start

    def apply(self, batch: Batch) -> None:
        """Quarantine what the disk does not give back as it was stored."""
        for row in islice(self._damaged(batch), _DAMAGED_MAX):
            for mark in state_marks(replace(row, is_damaged=True)):
                batch.mark(mark)
            self._ground.health.count("corrupt")

    def result(self, released: frozenset[int]) -> None:
        """Go on, until the end is reached."""
        del released
        if self._reached < self._doubt.end:
            rest = replace(self._doubt, start=self._reached)
            self._go_on(TailCheck(self._ground, rest, self._go_on, self._ended))
        else:
            self._ended()

    def _damaged(self, batch: Batch) -> Iterator[Row]:
        """Yield the rows of this step whose records are not sound; note how far it got."""
        doubt = self._doubt
        rows = _Rows(batch, doubt.number)
        bad_from: int | None = None
        try:
            for one in self._scan():
                at = one.offset if isinstance(one, Damaged | Found) else None
                if bad_from is not None and at is not None:
                    yield from rows.between(bad_from, at)
                    bad_from = None
                if isinstance(one, Damaged):
                    bad_from = one.offset
                if at is not None:
                    self._reached = at
                if isinstance(one, Found):
                    self._reached = one.end
                    if one.end - doubt.start >= STEP_BYTES:
                        return
        except OSError:
            # What cannot be read is never served; the scrub comes back to it.
            self._ground.health.count("read")
            self._reached = max(self._reached, doubt.start + STEP_BYTES)
            return
        if bad_from is not None:
            yield from rows.between(bad_from, doubt.end)
        self._reached = doubt.end

    def _scan(self) -> Iterator[Found | Damaged | Hole]:
        files, doubt = self._ground.files, self._doubt
        path = self._ground.paths.segment(doubt.number)
        try:
            fd = files.open(path, Access.READ)
        except FileNotFoundError:
            # Compacted away meanwhile: every record in it was read and written again.
            return
        try:
            files.uncache(fd, doubt.start, doubt.end - doubt.start)
            source = Source(files, fd, doubt.uuid, path.name)
            yield from scan(source, doubt.start, doubt.end, verify=True)
        finally:
            files.close(fd)


class _Rows:
    """
    The rows of one segment that are not known to be damaged, by where they lie.

    The index is not sorted by that, and is read whole for each question: so it is asked for
    8 MiB at once, not for each damaged stretch of it.
    """

    def __init__(self, batch: Batch, number: int) -> None:
        self._batch = batch
        self._number = number
        self._start = self._end = 0
        self._rows: list[Row] = []

    def between(self, start: int, end: int) -> Iterator[Row]:
        """Yield those in a stretch."""
        while start < end:
            if not self._start <= start < self._end:
                self._ask(start)
            stop = min(end, self._end)
            yield from (row for row in self._rows if start <= row.place.offset < stop)
            start = stop

    def _ask(self, start: int) -> None:
        self._start, self._end = start, start + STEP_BYTES
        rows = self._batch.transaction.rows_between(self._number, start, self._end)
        self._rows = [row for row in rows if not row.is_damaged]
