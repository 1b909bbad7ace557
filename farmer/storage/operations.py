"""What the writer thread can be asked to do, each as one step of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Final, Generic, TypeVar

from farmer.model.contract import TRASH_MS
from farmer.model.ids import NodeId, ShardId
from farmer.model.shard import (
    RECORD_HEADER_BYTES,
    Deletion,
    DeletionOutcome,
    ShardState,
    StoredShard,
)
from farmer.storage.errors import BusyError, ShardNotFoundError
from farmer.storage.files import Buffer
from farmer.storage.log import Batch, marks_bytes
from farmer.storage.marks import Action, Mark
from farmer.storage.places import Key, Place, Row
from farmer.storage.quota import Reservation
from farmer.storage.records import DAMAGED, MOVED, RecordHeader, aligned
from farmer.storage.transaction import Transaction

R = TypeVar("R")

_OLDER_MAX: Final = 64
"""Older records of a shard that go with it at once; where holes cannot be punched there may be
many, and all stores wait meanwhile."""


class Operation(Generic[R]):
    """
    One step, which `apply` does wholly, or raises a `StorageError` having done nothing.

    It is called again where its batch could not be written and is tried once more.  The
    future is settled after the sync and the index's commit, by the writer thread.
    """

    rows = 1
    """Rows of the index that it may touch: bounds a batch."""
    gives_back = False
    """Whether its answer waits until the space of what it removed was returned."""
    checkpoints = False
    """Whether its answer waits until the index is durable, because log records will go."""
    stages = 0
    """Files that it leaves in the staging directory."""
    takes_space = False
    """Whether it adds to what is stored: on a full disk it must stand back behind the rest."""
    keys: tuple[Key, ...] = ()
    """Shards that become something else by it."""

    def __init__(self, log_bytes: int, reservation: Reservation | None = None) -> None:
        self.log_bytes = log_bytes
        """What it may append at most."""
        self.reservation = reservation
        """Ended when this is durable."""
        self.future: Future[R] = Future()
        self.future.set_running_or_notify_cancel()

    def apply(self, batch: Batch) -> None:
        """Take part in a batch."""
        raise NotImplementedError

    def result(self, released: frozenset[int]) -> R:
        """Return the answer; *released* are the sequences whose space has been returned."""
        raise NotImplementedError

    def give_up(self) -> None:
        """Undo what was done before it was asked for: it was refused, nothing of it counts."""
        if self.reservation is not None:
            self.reservation.release()


class StoreRecord(Operation[StoredShard]):
    """Append a small shard whose bytes were found right."""

    takes_space = True

    def __init__(
        self,
        key: Key,
        header: Callable[..., RecordHeader],
        parts: list[Buffer],
        held: Reservation,
        instead_of: int | None = None,
        *,
        only_new: bool = False,
    ) -> None:
        """
        Make it by *header*, told `segment` and `sequence` once they are known.

        *only_new*: whatever is there of the shard by then counts more.
        """
        super().__init__(aligned(RECORD_HEADER_BYTES + sum(map(len, parts))), held)
        self._instead_of = instead_of
        self._only_new = only_new
        self.keys = (key,)
        self._header = header
        self._parts = parts
        self._row: Row | None = None

    def apply(self, batch: Batch) -> None:
        """Append record and row; a damaged record that it replaces is given up by that."""
        _check_still(batch, self.keys[0], self._instead_of, only_new=self._only_new)
        header = self._header(segment=batch.tail.uuid, sequence=batch.sequencer.take())
        place = batch.append(header, self._parts)
        self._row = row_of(header, place)
        batch.transaction.put(self._row)

    def result(self, released: frozenset[int]) -> StoredShard:
        """Return the stored shard."""
        del released
        assert self._row is not None
        return self._row.stored()


class Adopt(Operation[StoredShard]):
    """Enter a large shard whose file is complete and synced."""

    stages = 1
    takes_space = True

    def __init__(
        self,
        row: Row,
        held: Reservation,
        discard: Callable[[], None],
        instead_of: int | None = None,
        *,
        only_new: bool = False,
    ) -> None:
        """*only_new*: see `StoreRecord`."""
        super().__init__(0, held)
        self._instead_of = instead_of
        self._only_new = only_new
        self.keys = ((row.renter, row.shard),)
        self._row = row
        self._discard = discard

    def apply(self, batch: Batch) -> None:
        """Enter its row; a damaged record that it replaces is given up by that."""
        _check_still(batch, self.keys[0], self._instead_of, only_new=self._only_new)
        batch.transaction.put(self._row)
        batch.transaction.stage(self._row.place.file)

    def result(self, released: frozenset[int]) -> StoredShard:
        """Return the stored shard."""
        del released
        return self._row.stored()

    def give_up(self) -> None:
        """Remove the file: a start would take it for a stored shard, which was never said."""
        self._discard()


class Delete(Operation[Deletion]):
    """Give a shard up: into the trash, or for good."""

    def __init__(self, mark: Mark, *, erase: bool, is_alone: bool = False) -> None:
        """*is_alone*: a volume that may have an older copy could not be asked."""
        super().__init__(marks_bytes(1))
        self.keys = ((mark.renter, mark.shard),)
        self.gives_back = erase
        self._mark = mark
        self._is_alone = is_alone
        self._row: Row | None = None
        self._records: frozenset[int] = frozenset()
        """Sequences of all that the disk has of it."""

    def apply(self, batch: Batch) -> None:
        """Mark it; one that is in the trash stays there with its first date."""
        row = batch.transaction.find(self._mark.renter, self._mark.shard)
        if row is None:
            raise ShardNotFoundError
        if self.gives_back:
            # An older record that was replaced, as by a repair, has the same bytes.
            older = batch.transaction.doomed_of(row.renter, row.shard, _OLDER_MAX + 1)
            batch.transaction.doomed += older[:_OLDER_MAX]
            self._records = frozenset([row.sequence, *(one.sequence for one in older)])
            batch.transaction.not_to_be_read += [row.place, *(one.place for one in older)]
        if self.gives_back or self._is_alone or row.state is not ShardState.TRASH:
            batch.mark(self._mark_for(row))
            row = batch.transaction.find(row.renter, row.shard) or row
        self._row = row

    def _mark_for(self, row: Row) -> Mark:
        mark = replace(self._mark, sequence=row.sequence)
        if self.gives_back:
            return _for_good(row, mark, is_alone=self._is_alone)
        if not self._is_alone:
            return mark
        is_there = row.state is ShardState.TRASH
        at_ms = row.gone_at_ms - TRASH_MS if is_there else mark.at_ms
        return replace(mark, action=Action.TRASH_ALONE, at_ms=at_ms)

    def result(self, released: frozenset[int]) -> Deletion:
        """Return how far it got."""
        assert self._row is not None
        if not self.gives_back:
            return Deletion(DeletionOutcome.TRASHED, self._row.gone_at_ms)
        if self._records <= released:
            return Deletion(DeletionOutcome.ERASED, 0)
        return Deletion(DeletionOutcome.ERASED_AT_COMPACTION, 0)


class Undelete(Operation[StoredShard]):
    """Take a shard out of the trash; a damaged one goes back into quarantine."""

    def __init__(self, mark: Mark) -> None:
        super().__init__(marks_bytes(1))
        self.keys = ((mark.renter, mark.shard),)
        self._mark = mark
        self._row: Row | None = None

    def apply(self, batch: Batch) -> None:
        """Mark it; one that is not in the trash stays as it is."""
        row = batch.transaction.find(self._mark.renter, self._mark.shard)
        if row is None:
            raise ShardNotFoundError
        if row.state is ShardState.TRASH:
            batch.mark(replace(self._mark, sequence=row.sequence))
            row = batch.transaction.find(row.renter, row.shard) or row
        self._row = row

    def result(self, released: frozenset[int]) -> StoredShard:
        """Return the shard as it is now."""
        del released
        assert self._row is not None
        return self._row.stored()


class Quarantine(Operation[bool]):
    """Note, for good, that a record was found damaged."""

    def __init__(self, mark: Mark) -> None:
        super().__init__(marks_bytes(2))
        self._mark = mark
        self._done = False

    def apply(self, batch: Batch) -> None:
        """Mark it, if this record is still the shard's; what is in the trash stays there."""
        row = batch.transaction.find(self._mark.renter, self._mark.shard)
        if row is None or row.sequence != self._mark.sequence or row.is_damaged:
            return
        for mark in state_marks(replace(row, is_damaged=True)):
            batch.mark(mark)
        self._done = True

    def result(self, released: frozenset[int]) -> bool:
        """Say whether that was news."""
        del released
        return self._done


class Remove(Operation[int]):
    """Remove shards for good; their space is given back later."""

    def __init__(self, rows: Sequence[Row], at_ms: int, *, ends_readers: bool = False) -> None:
        """*ends_readers*: the shards are nowhere else, and nobody may read them any more."""
        super().__init__(marks_bytes(len(rows)))
        self.rows = len(rows)
        self.keys = tuple((row.renter, row.shard) for row in rows)
        self._rows = rows
        self._at_ms = at_ms
        self._ends_readers = ends_readers
        self._count = 0

    def apply(self, batch: Batch) -> None:
        """Mark those that are still what they were when they were chosen."""
        self._count = 0
        for row in self._rows:
            now = batch.transaction.find(row.renter, row.shard)
            if now is not None and (now.sequence, now.state) == (row.sequence, row.state):
                batch.mark(_for_good(now, mark_of(now, Action.GONE, self._at_ms, 0)))
                if self._ends_readers:
                    batch.transaction.not_to_be_read.append(now.place)
                self._count += 1

    def result(self, released: frozenset[int]) -> int:
        """Return how many were removed."""
        del released
        return self._count


class Move(Operation[bool]):
    """Write a record of a sparse segment again, at the end of the log."""

    takes_space = True

    def __init__(self, row: Row, header: RecordHeader, parts: list[Buffer]) -> None:
        super().__init__(header.record_bytes)
        self._row = row
        self._header = header
        self._parts = parts
        self._done = False

    def apply(self, batch: Batch) -> None:
        """Append the copy, if the record is still the shard's."""
        row = batch.transaction.find(self._row.renter, self._row.shard)
        if row is None or row.sequence != self._row.sequence:
            return
        header = replace(
            self._header,
            segment=batch.tail.uuid,
            sequence=batch.sequencer.take(),
            flags=MOVED | (DAMAGED if row.is_damaged else 0),
            state=row.state,
            gone_at_ms=row.gone_at_ms,
            observed_ms=row.observed_ms,
            alone_ms=row.alone_ms,
        )
        batch.transaction.put(row_of(header, batch.append(header, self._parts)))
        self._done = True

    def result(self, released: frozenset[int]) -> bool:
        """Say whether the copy counts now."""
        del released
        return self._done


class Restate(Operation[int]):
    """Write marks again that are still needed, so that their old records may go."""

    checkpoints = True

    def __init__(self, choose: Callable[[Transaction], Sequence[Mark]], count_max: int) -> None:
        """*count_max* shards are spoken of at most, each by two marks at most."""
        super().__init__(marks_bytes(2 * count_max))
        self.rows = count_max
        self._choose = choose
        self._count = 0

    def apply(self, batch: Batch) -> None:
        """Append what is needed at this very moment; the index knows it all already."""
        marks = self._choose(batch.transaction)
        batch.marks += marks
        self._count = len(marks)

    def result(self, released: frozenset[int]) -> int:
        """Return how many were needed."""
        del released
        return self._count


class Upkeep(Operation[None]):
    """Change the index alone."""

    def __init__(self, work: Callable[[Transaction], None]) -> None:
        super().__init__(0)
        self._work = work

    def apply(self, batch: Batch) -> None:
        """Do it."""
        self._work(batch.transaction)

    def result(self, released: frozenset[int]) -> None:
        """Nothing to tell."""


def _check_still(batch: Batch, key: Key, instead_of: int | None, *, only_new: bool) -> None:
    """
    Raise unless a record may be entered.

    Raises:
        ShardNotFoundError: the one that it replaces is not the shard's any more, or in the trash.
        BusyError: there is one by now, where there was none.

    """
    if instead_of is None and not only_new:
        return
    now = batch.transaction.find(*key)
    if only_new:
        if now is not None:
            raise BusyError
        return
    if now is None or now.sequence != instead_of or now.state is ShardState.TRASH:
        raise ShardNotFoundError


def row_of(header: RecordHeader, place: Place) -> Row:
    """Return the index row of a record."""
    return Row(
        renter=header.renter,
        shard=header.shard,
        place=place,
        size_bytes=header.payload_bytes,
        contract=header.contract,
        stored_at_ms=header.stored_at_ms,
        sequence=header.sequence,
        state=header.state,
        gone_at_ms=header.gone_at_ms,
        observed_ms=header.observed_ms,
        is_damaged=bool(header.flags & DAMAGED) or header.state is ShardState.QUARANTINED,
        alone_ms=header.alone_ms,
    )


def state_marks(row: Row) -> list[Mark]:
    """Return the marks that together say what this row is, whatever earlier ones said."""
    marks = [mark_of(row, Action.QUARANTINE, 0, 0)] if row.is_damaged else []
    if row.state is ShardState.TRASH:
        action = Action.TRASH_ALONE if row.alone_ms else Action.TRASH
        marks.append(mark_of(row, action, row.gone_at_ms - TRASH_MS, row.observed_ms))
    elif not marks:
        marks.append(mark_of(row, Action.UNDELETE, 0, 0))
    return marks


def mark_of(row: Row, action: Action, at_ms: int, observed_ms: int) -> Mark:
    """Return a mark about the record of a row."""
    return new_mark(row.renter, row.shard, action, at_ms, observed_ms, row.sequence)


def new_mark(
    renter: NodeId, shard: ShardId, action: Action, at_ms: int, observed_ms: int, sequence: int = 0
) -> Mark:
    """Return a mark; the record that it means may be found out later."""
    return Mark(
        action=action,
        at_ms=at_ms,
        observed_ms=observed_ms,
        renter=renter,
        shard=shard,
        sequence=sequence,
    )


def _for_good(row: Row, mark: Mark, *, is_alone: bool = False) -> Mark:
    """Return what gives a shard up: a tombstone where an older copy may come back."""
    if not (row.alone_ms or is_alone):
        return mark
    observed_ms = max(mark.observed_ms, row.alone_ms)
    return replace(mark, action=Action.TOMBSTONE, observed_ms=observed_ms)
