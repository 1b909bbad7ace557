"""What the writers of two volumes do for a shard that goes from one to the other."""

from __future__ import annotations

from farmer.storage.log import Batch, marks_bytes
from farmer.storage.marks import Action
from farmer.storage.operations import Operation, mark_of
from farmer.storage.places import Key, Row
from farmer.storage.quota import Reservation


class Ask(Operation[dict[Key, Row]]):
    """Look at shards behind everything that was submitted before."""

    def __init__(self, keys: frozenset[Key]) -> None:
        super().__init__(0)
        self._keys = keys
        self._rows: dict[Key, Row] = {}

    def apply(self, batch: Batch) -> None:
        """Look."""
        found = (batch.transaction.find(*key) for key in self._keys)
        self._rows = {(row.renter, row.shard): row for row in found if row is not None}

    def result(self, released: frozenset[int]) -> dict[Key, Row]:
        """Return those that are there."""
        del released
        return self._rows


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
