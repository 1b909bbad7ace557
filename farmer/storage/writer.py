"""
The writer thread: takes what has arrived, makes it durable with one sync, then tells.

The order within a batch is the promise of the engine: records written, fdatasync, index
committed, ledger entered, space of erased shards given back, futures settled.  A failed
fdatasync is never repeated: the kernel may have dropped the dirty pages, and a second one
would say yes to bytes that are not there.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from threading import Condition, Event
from typing import Any, Final, TypeVar

from farmer.storage.cutting import cut
from farmer.storage.errors import (
    NO_SPACE,
    NoSpaceError,
    StorageError,
    VolumeUnavailableError,
    internal,
)
from farmer.storage.ground import Ground
from farmer.storage.index_errors import CommitInDoubtError
from farmer.storage.log import Batch, Tail, open_segment
from farmer.storage.operations import Operation
from farmer.storage.places import Doomed, Key, Place, Position
from farmer.storage.quota import segment_bytes
from farmer.storage.shelves import Shelves
from farmer.storage.tailcheck import Doubt, TailCheck
from farmer.storage.threads import begin_thread
from farmer.storage.watch import Promises

R = TypeVar("R")

BATCH_BYTES_MAX: Final = 32 * 1024 * 1024
"""Bounds how long a batch takes to write, and so how long the next one waits."""

BATCH_ROWS_MAX: Final = 512
"""Bounds what one transaction adds to the index's write-ahead log (docs/storage-format.md)."""

_ENDED: Final = "its writer has ended, for want of memory"

Release = Callable[[Sequence[Doomed]], list[Doomed]]
"""Gives the space of records back, durably; returns those where that worked."""


class _AppendError(Exception):
    """The log could not be written (or, *at_sync*, not made durable)."""

    def __init__(self, cause: OSError, *, at_sync: bool) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.at_sync = at_sync


class Writer:
    """One volume's writer; `submit` from any thread."""

    def __init__(self, ground: Ground, tail: Tail | None, tail_end: Position) -> None:
        self._ground = ground
        self._tail = tail
        self._last = (tail_end.segment, tail_end.offset)
        """Number and end of the last segment, for the header of the next."""
        self._waiting: deque[Operation[Any]] = deque()
        self._at_hand: list[Operation[Any]] = []
        """Taken, and not yet settled."""
        self._arrived = Condition()
        self._closing = False
        self.doubtful: dict[int, Doubt] = {}
        """By segment, what is not read back to its end: of a failing volume none is."""
        self.promises = Promises()
        """What those who asked wait for; broken when the disk does not answer."""
        self._shelves = Shelves(ground)
        self.release: Release = lambda _doomed: []
        self.end_readers: Callable[[Sequence[Place]], None] = lambda _places: None
        """Told of records that nobody may read any more, before their space is given back."""
        self._broken = ""
        """Why nothing is written any more, until the volume is opened anew; or empty."""
        self._is_started = False
        self._has_ended = Event()
        self._no_more = VolumeUnavailableError(_ENDED)
        """Made now: when it is needed there may be no memory for it."""

    @property
    def is_broken(self) -> bool:
        """Whether nobody knows any more what index and log hold: only an opening finds out."""
        return bool(self._broken)

    def start(self) -> None:
        """Begin to work; raises `OSError` if there is no thread for it."""
        begin_thread(self._live)
        self._is_started = True

    def submit(
        self, operation: Operation[R], ending: Callable[[], None] = lambda: None
    ) -> Future[R]:
        """
        Queue an operation; its future is settled once it is durable, or has failed.

        *ending* is called, once, before anybody can know of that.
        """
        reason, doubts = self._ground.watch.hung_reason, self._ground.doubts
        promise: Future[R] | None = None
        with self._arrived:
            if not (self._closing or reason):
                # What hangs may still come true: until it has, or failed, nobody takes what it
                # speaks of for absent, nor for lasting.
                broken = partial(doubts.until_settled, operation.future, operation.keys)
                promise = self.promises.of(operation.future, ending, broken)
                self._waiting.append(operation)
                self._arrived.notify()
        if promise is None:
            # Without the lock: what is given up may be a file, on a disk that does not answer.
            _fail([operation], VolumeUnavailableError(reason or self._broken or "shutting down"))
            return self.promises.of(operation.future, ending)
        reason = self._ground.watch.hung_reason
        if reason:
            # It may have been declared just now, when this promise was not there to be broken.
            self.promises.break_one(promise, reason)
        return promise

    def read_back(self, doubt: Doubt) -> None:
        """Read again what was acknowledged of a segment whose sync failed, a step at a time."""
        self.doubtful[doubt.number] = doubt
        ended = partial(self.doubtful.pop, doubt.number, None)
        self.submit(TailCheck(self._ground, doubt, self.submit, ended))

    @property
    def active_number(self) -> int:
        """The segment that is appended to; it is never reclaimed."""
        return self._last[0]

    @property
    def tail(self) -> Tail | None:
        """The segment that is appended to, if there is one."""
        return self._tail

    def close(self, *, in_order: bool = True) -> bool:
        """
        Finish what was submitted and stop; say whether nothing is left in the log to be replayed.

        Not *in_order*: no name below the volume's directory is used any more.
        """
        with self._arrived:
            self._closing = True
            self._arrived.notify()
        if self._is_started:
            self._has_ended.wait()
        if self._tail is not None:
            self._let_go(self._tail)
        if in_order:
            self._shelves.checkpoint(forced=True)
        is_at_end = self._tail is not None or not self.active_number
        return in_order and is_at_end and not self._broken

    def _live(self) -> None:
        try:
            # What comes up here is that memory ran out where that was all that could be said.
            with suppress(Exception):
                self._run()
        finally:
            try:
                self._end()
            finally:
                self._has_ended.set()

    def _run(self) -> None:
        while self._take():
            try:
                self._commit(self._at_hand)
            except Exception as error:  # a dead writer would hang every store
                self._broken = said = internal(error)
                try:
                    self._ground.health.fail(said)
                finally:
                    # Before anybody hears of it: until it is opened anew, nobody can say what
                    # has become of these, and whoever deletes one must not take it for absent.
                    self._ground.doubts.log_not_cut(_keys(self._at_hand))
                    _leave(self._at_hand, VolumeUnavailableError(said))
            self._at_hand = []

    def _end(self) -> None:
        """Let nobody wait for what no thread does any more; memory may have run out."""
        with self._arrived:
            is_in_order = self._closing and not (self._at_hand or self._waiting)
            self._closing = True
        if is_in_order:
            return
        self._broken = self._broken or _ENDED
        with suppress(Exception):
            self._ground.health.fail(self._broken)
        with suppress(Exception):
            self._ground.doubts.log_not_cut(_keys(self._at_hand))
        for one in self._at_hand:
            with suppress(Exception):
                _leave([one], self._no_more)
        while self._waiting:
            with suppress(Exception):
                _fail([self._waiting.popleft()], self._no_more)

    def _take(self) -> bool:
        """Wait for work, and take what fits one batch; say whether it is not over."""
        with self._arrived:
            while not self._waiting and not self._closing:
                self._arrived.wait()
            size = rows = 0
            room = self._room()
            while self._waiting:
                one = self._waiting[0]
                size, rows = size + one.log_bytes, rows + one.rows
                if self._at_hand and (size > min(room, BATCH_BYTES_MAX) or rows > BATCH_ROWS_MAX):
                    break
                # In this order: if there is no memory for the one, the other still has it.
                self._at_hand.append(one)
                self._waiting.popleft()
            return bool(self._at_hand)

    def _room(self) -> int:
        end = self._tail.end if self._tail else 0
        return segment_bytes(self._ground.account.quota_bytes) - end

    def _commit(self, operations: list[Operation[Any]], *, has_spent: bool = False) -> None:
        try:
            self._check_writable()
            tail = self._tail_for(operations)
            done, refused, batch = self._write(operations, tail)
        except CommitInDoubtError:
            raise
        except (StorageError, _AppendError, sqlite3.Error, OSError, MemoryError) as error:
            refusal = self._understand(error, operations)
            if has_spent and isinstance(refusal, NoSpaceError):
                self._ground.reserve.was_in_vain()
            self._refuse(operations, refusal)
            return
        tail.end = batch.end
        self._last = (tail.number, tail.end)
        kept = [one.reservation for one in done if one.reservation is not None]
        transaction = batch.transaction
        self._ground.ledger.settle(self._ground.account, transaction.changes, kept)
        self.end_readers(transaction.not_to_be_read)
        released = self._give_back(done, transaction.doomed)
        self._shelves.staged += sum(one.stages for one in done)
        is_durable = self._shelves.checkpoint(forced=any(one.checkpoints for one in done))
        with suppress(sqlite3.Error):
            # All is durable by now; the next batch asks again.
            self._ground.account.index_bytes = self._ground.index.size_bytes()
        if any(one.takes_space for one in done):
            self._ground.health.room()
        for operation, refusal in refused:
            operation.give_up()
            operation.future.set_exception(refusal)
        for operation in done:
            if operation.checkpoints and not is_durable:
                operation.future.set_exception(VolumeUnavailableError("the index is not durable"))
            else:
                operation.future.set_result(operation.result(released))

    def _check_writable(self) -> None:
        """Raise `VolumeUnavailableError` if nothing can be written now."""
        self._ground.check_writable()
        if self._broken:
            # Not even where the disk's state does not count, as with an annex: what comes next
            # in the log would be written over what the index may know.
            raise VolumeUnavailableError(self._broken)

    def _refuse(self, operations: list[Operation[Any]], refusal: StorageError) -> None:
        """Fail them; but on a full disk, what takes no space for good may have the reserve."""
        modest = [one for one in operations if not one.takes_space]
        if not (modest and isinstance(refusal, NoSpaceError)):
            _fail(operations, refusal)
            return
        if not self._ground.reserve.spend():
            self._ground.health.lets_not_delete()
            _fail(operations, refusal)
            return
        _fail([one for one in operations if one.takes_space], refusal)
        self._commit(modest, has_spent=True)

    def _tail_for(self, operations: list[Operation[Any]]) -> Tail:
        """Return the segment to append to, a new one if these would not fit."""
        tail = self._tail
        needed = sum(one.log_bytes for one in operations)
        if tail is not None and needed <= self._room():
            return tail
        return self.roll()

    def roll(self) -> Tail:
        """Begin the next segment; on the writer thread only."""
        ground, (number, end) = self._ground, self._last
        if self._tail is not None:
            self._seal(self._tail)
        tail = open_segment(
            ground.files, ground.paths, ground.volume, number + 1, end, ground.facts
        )
        try:
            with ground.index.transaction() as transaction:
                transaction.open_segment(tail.number, tail.uuid)
                transaction.grow_segment(tail.number, tail.end)
                transaction.set_position(
                    Position(tail.number, tail.end, ground.facts.sequencer.peek())
                )
        except CommitInDoubtError:
            self._let_go(tail)
            raise
        except (sqlite3.Error, MemoryError):
            self._let_go(tail)
            with suppress(OSError):
                # If it stays, the next try removes it.
                ground.files.unlink(ground.paths.segment(tail.number))
            raise
        ground.ledger.settle(ground.account, transaction.changes)
        self._tail, self._last = tail, (tail.number, tail.end)
        ground.doubts.log_ended()
        return tail

    def _write(
        self, operations: list[Operation[Any]], tail: Tail
    ) -> tuple[list[Operation[Any]], list[tuple[Operation[Any], StorageError]], Batch]:
        done: list[Operation[Any]] = []
        refused: list[tuple[Operation[Any], StorageError]] = []
        appended = False
        try:
            with self._ground.index.transaction() as transaction:
                batch = Batch(transaction, tail, self._ground.facts.sequencer)
                for operation in operations:
                    try:
                        operation.apply(batch)
                    except StorageError as error:
                        refused.append((operation, error))
                    else:
                        done.append(operation)
                batch.close()
                appended = bool(batch.buffers)
                if appended:
                    self._append(tail, batch)
        except (_AppendError, CommitInDoubtError):
            raise
        except Exception:
            # Whatever it was, memory too: refused records must not be found by a start.
            if appended and not self._cut(tail, operations, is_synced=True):
                self._end_log(tail)
            raise
        return done, refused, batch

    def _append(self, tail: Tail, batch: Batch) -> None:
        files = self._ground.files
        try:
            files.pwritev(tail.fd, batch.buffers, tail.end)
        except OSError as error:
            raise _AppendError(error, at_sync=False) from error
        try:
            files.sync_data(tail.fd)
        except OSError as error:
            raise _AppendError(error, at_sync=True) from error

    def _understand(self, error: Exception, operations: list[Operation[Any]]) -> StorageError:
        """Put the log in order after a failure and return what the others are told."""
        if isinstance(error, StorageError):
            return error
        if isinstance(error, _AppendError):
            return self._append_failed(error, operations)
        if isinstance(error, MemoryError):
            error = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        if isinstance(error, OSError):
            return self._ground.understand(error, _wanted(operations))
        assert isinstance(error, sqlite3.Error)
        return self._ground.index_failed(error, _wanted(operations))

    def _append_failed(
        self, error: _AppendError, operations: list[Operation[Any]]
    ) -> StorageError:
        tail = self._tail
        assert tail is not None
        is_cut = self._cut(tail, operations, is_synced=not error.at_sync)
        if not is_cut or error.cause.errno not in NO_SPACE:
            # What the cache holds may not be what the disk holds: never append here again.
            self._end_log(tail)
        if error.at_sync:
            self.read_back(Doubt.of(tail))
        return self._ground.understand(error.cause, _wanted(operations), at_sync=error.at_sync)

    def _cut(self, tail: Tail, operations: list[Operation[Any]], *, is_synced: bool) -> bool:
        wanted_bytes, keys = _wanted(operations), _keys(operations)
        return cut(self._ground, tail, wanted_bytes, keys, is_synced=is_synced)

    def _seal(self, tail: Tail) -> None:
        """Append no more to this segment."""
        # In this order: whoever looks at the tail's descriptor asks afterwards for the tail.
        self._tail = None
        self._let_go(tail)

    def _let_go(self, tail: Tail) -> None:
        """Close its file; what counts there was synced, and what a close says means nothing."""
        with suppress(OSError):
            self._ground.files.close(tail.fd)

    def _end_log(self, tail: Tail) -> None:
        """
        Seal, and if possible let the next segment say at once where this one ends.

        Raises `CommitInDoubtError`.
        """
        self._seal(tail)
        try:
            self.roll()
        except CommitInDoubtError:
            raise
        except (OSError, sqlite3.Error):
            # Whoever writes next tries again, and is told what is wrong.
            return

    def _give_back(self, done: list[Operation[Any]], doomed: list[Doomed]) -> frozenset[int]:
        """Return the space of erased shards before their answers go out."""
        if not doomed or not any(one.gives_back for one in done):
            return frozenset()
        released = self.release(doomed)
        if released:
            self.record_released(released)
        return frozenset(record.sequence for record in released)

    def record_released(self, released: Sequence[Doomed]) -> None:
        """Enter returned space; on the writer thread only."""
        try:
            with self._ground.index.transaction() as transaction:
                for record in released:
                    transaction.release(record)
        except sqlite3.Error as error:
            # The space is back all the same; the next reclaim finds the entries and retries.
            self._ground.index_failed(error, 0)
            return
        self._ground.ledger.settle(self._ground.account, transaction.changes)


def _wanted(operations: list[Operation[Any]]) -> int:
    return sum(one.log_bytes for one in operations)


def _keys(operations: list[Operation[Any]]) -> list[Key]:
    return [key for one in operations for key in one.keys]


def _fail(operations: list[Operation[Any]], error: Exception) -> None:
    for operation in operations:
        if operation.future.done():
            continue
        operation.give_up()
        operation.future.set_exception(error)


def _leave(operations: list[Operation[Any]], error: Exception) -> None:
    """Fail them, but undo nothing: nobody knows how far they got; the next opening finds out."""
    for operation in operations:
        if not operation.future.done():
            # Until then nothing is promised here; what they hold would be lost to their renter.
            if operation.reservation is not None:
                operation.reservation.release()
            operation.future.set_exception(error)
