"""What the writers of two volumes do for a shard that goes from one to the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from farmer.model.shard import RECORD_HEADER_BYTES
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.files import Files
from farmer.storage.handles import Handles
from farmer.storage.log import Batch, marks_bytes
from farmer.storage.marks import Action
from farmer.storage.operations import Operation, mark_of
from farmer.storage.places import Key, Place, Row
from farmer.storage.quota import Reservation


class Ask(Operation[dict[Key, Row]]):
    """Look at shards behind everything that was submitted before."""

    def __init__(self, keys: frozenset[Key]) -> None:
        super().__init__(0)
        self._keys = keys
        self._rows: dict[Key, Row] = {}

    def apply(self, batch: Batch) -> None:
        """Look, in one order whatever a process gives to its hashes."""
        found = (batch.transaction.find(*key) for key in sorted(self._keys))
        self._rows = {(row.renter, row.shard): row for row in found if row is not None}

    def result(self, released: frozenset[int]) -> dict[Key, Row]:
        """Return those that are there."""
        del released
        return self._rows


class AskTheDisk(Ask):
    """
    Look as `Ask` does, and have memory forget the records: what is read of them is the disk's.

    That is done between two syncs, when nothing around them waits to be written: memory would
    keep it, and them as well.
    """

    def __init__(self, keys: frozenset[Key], files: Files, handles: Handles) -> None:
        super().__init__(keys)
        self._files = files
        self._handles = handles

    def apply(self, batch: Batch) -> None:
        """Look, and forget; raises `VolumeUnavailableError`."""
        super().apply(batch)
        for place, length in _stretches(self._rows.values()):
            try:
                with self._handles.borrow(place) as fd:
                    self._files.uncache(fd, place.offset, length)
            except FileNotFoundError:
                # Nothing of it is read from memory, either.
                continue
            except OSError as error:
                raise VolumeUnavailableError(f"the disk could not be read: {error}") from error


class GiveUp(Operation[bool]):
    """Give up a record of a shard that another volume has durably, in whatever state it is."""

    def __init__(self, row: Row, at_ms: int, leaving: Reservation | None) -> None:
        super().__init__(marks_bytes(1), leaving)
        self._row = row
        self._at_ms = at_ms
        self._is_over = False

    def apply(self, batch: Batch) -> None:
        """Mark it as gone, unless it was replaced meanwhile: that has been acknowledged."""
        row = batch.transaction.find(self._row.renter, self._row.shard)
        self._is_over = row is None or row.sequence == self._row.sequence
        if row is not None and self._is_over:
            batch.mark(mark_of(row, Action.GONE, self._at_ms, 0))

    def result(self, released: frozenset[int]) -> bool:
        """Say whether nothing of the shard is there any more."""
        del released
        return self._is_over


def _stretches(rows: Iterable[Row]) -> Iterator[tuple[Place, int]]:
    """
    Yield where records lie, one stretch for each segment.

    Of a large shard's file it is the header: the rest was read back before that was written.
    """
    ends: dict[int, tuple[int, int]] = {}
    for row in rows:
        place = row.place
        if place.file:
            yield place, RECORD_HEADER_BYTES
        else:
            start, end = ends.get(place.segment, (place.offset, 0))
            end = max(end, place.offset + row.charge_bytes)
            ends[place.segment] = min(start, place.offset), end
    for number, (start, end) in ends.items():
        yield Place(number, start), end - start
