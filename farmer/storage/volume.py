"""One volume, open: stores, reads and deletes on one disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from farmer.model.ids import ContractId, NodeId, ShardId
from farmer.model.shard import Deletion, ShardState, StoredShard
from farmer.model.status import ScrubStatus, VolumeState, VolumeStatus
from farmer.storage.cutting import cut_overhangs
from farmer.storage.damage import Examined
from farmer.storage.directory import VolumeSettings
from farmer.storage.duty import read_duty
from farmer.storage.errors import (
    ShardNotFoundError,
    StorageError,
    VolumeClosedError,
    VolumeUnavailableError,
)
from farmer.storage.generation import Witness
from farmer.storage.ground import Ground
from farmer.storage.handles import Handles
from farmer.storage.index_errors import is_for_memory, is_for_room
from farmer.storage.index_questions import Listed, ListPlace, Table
from farmer.storage.journal import Journal
from farmer.storage.leases import Leases
from farmer.storage.marks import Action
from farmer.storage.met import note_met
from farmer.storage.operations import (
    Delete,
    Quarantine,
    Remove,
    Restate,
    Undelete,
    mark_of,
    new_mark,
)
from farmer.storage.places import Key, Row
from farmer.storage.reader import VolumeReader
from farmer.storage.reclaim import Reclaimer
from farmer.storage.sweeping import LOOK_AT_ONCE, Sweeping
from farmer.storage.tombstones import Tombstone
from farmer.storage.uploads import Uploads
from farmer.storage.writer import Writer

REMOVE_AT_ONCE: Final = 32
"""Shards removed by one operation of a sweep: a store behind it waits for little."""

RECLAIM_BYTES: Final = 64 * 1024 * 1024
"""Given up by a purge before its space is given back."""

_OPEN_TRIES: Final = 8
"""A record may move between look-up and pin; compaction moves it once, not eight times."""

_STORING: Final = frozenset({VolumeState.HEALTHY, VolumeState.SLOW, VolumeState.FULL})


class Volume:
    """
    One open volume.  Every call may block; every call is safe from any thread.

    Made by `farmer.storage.opening.open_volume`.
    """

    def __init__(
        self, settings: VolumeSettings, ground: Ground, handles: Handles, writer: Writer, lock: int
    ) -> None:
        self.settings = settings
        self.ground = ground
        self.writer = writer
        self.handles = handles
        self._lock_fd = lock
        self.reclaimer = Reclaimer(ground, handles, writer)
        writer.release = self.reclaimer.releaser.release
        writer.end_readers = handles.end_readers
        self.witness = Witness(ground.files, ground.paths)
        self.leases = Leases(ground)
        self.uploads = Uploads(ground, self.leases, writer.submit)
        self.examined = Examined()
        self.scrub_status: Callable[[], ScrubStatus | None] = lambda: None
        self.before_close: list[Callable[[bool], None]] = []
        """What works on this volume in the background and has to let go first; told whether
        names below its directory may still be used."""
        self.journal = Journal(ground.files, ground.paths.root, ground.in_need)
        self.duty = read_duty(ground.files, ground.paths.root)
        """What its owner wants done with it besides serving; None for nothing."""
        self._allocated = (0, 0)
        self._sweeping = Sweeping(ground, self.leases, self.remove, self._index_errors)
        self._is_closed = False
        self._met_after = -1
        """How often tombstones had changed when it was noted that all are met; see `note_met`."""

    @property
    def draining(self) -> bool:
        """Whether it takes no new shards, because those it has are being moved away."""
        return self.duty is not None

    @property
    def takes_stores(self) -> bool:
        """Whether bytes may be written here; a full one may have room again."""
        return self.ground.health.state in _STORING

    @property
    def takes_new(self) -> bool:
        """Whether new shards may be laid here."""
        return self.takes_stores and not self.draining

    def find(self, renter: NodeId, shard: ShardId) -> Row | None:
        """Return a shard's row, or None; raises `InDoubtError` if neither can be said."""
        self.ground.health.check_readable()
        self.ground.doubts.check((renter, shard))
        with self.ground.watch.visit("look-up"), self._index_errors():
            return self.ground.index.find(renter, shard)

    def has_rest_of(self, renter: NodeId, shard: ShardId) -> bool:
        """Say whether a record of a shard that was given up is on the disk; raises as `find`."""
        self.ground.health.check_readable()
        with self.ground.watch.visit("look-up"), self._index_errors():
            return self.ground.index.has_doomed(renter, shard)

    @property
    def changes(self) -> int | None:
        """
        How often rows have changed or gone; None while some do.

        If it is the same before a look-up and after it, what was found is so still.
        """
        count = self.ground.index.rows_changed
        return None if count % 2 else count

    def tombstone(self, renter: NodeId, shard: ShardId) -> Tombstone | None:
        """Return a shard's tombstone; free of cost where there is none."""
        if not self.ground.index.has_tombstones:
            return None
        with self.ground.watch.visit("look-up"), self._index_errors():
            return self.ground.index.tombstone(renter, shard)

    def page(self, renter: NodeId, after: ShardId, limit: int) -> list[Row]:
        """Return a renter's shards above an id, ascending; raises as `find`."""
        self.ground.health.check_readable()
        self.ground.doubts.check_all(renter)
        with self.ground.watch.visit("list"), self._index_errors():
            return self.ground.index.page(renter, after, limit)

    def tell(self, told: Callable[[Iterable[bytes]], None] | None) -> None:
        """Have *told* hear of what is entered, as the index does; raises as `find`."""
        # It waits for a commit that is under way, which may hang.
        with self.ground.watch.visit("listen"):
            self.ground.index.tell(told)

    def listed(self, table: Table, after: ListPlace, limit: int) -> list[Listed]:
        """Return which shards are in a table of the index, as it does; raises as `find`."""
        self.ground.health.check_readable()
        with self.ground.watch.visit("list"), self._index_errors():
            return self.ground.index.listed(table, after, limit)

    def open(self, row: Row, *, salvage: bool = True, as_of: int | None = None) -> VolumeReader:
        """
        Open a shard that is not in the trash; raises as `ShardStore.open` of the ports.

        Without *salvage* also one of which nothing can be told right from wrong.  *as_of* is
        what `changes` was before the row was looked up: it is not looked up again in vain.
        The reader ends when the shard is given up for good.
        """
        for _ in range(_OPEN_TRIES):
            if row.state is ShardState.TRASH:
                break
            reader, again = self.open_as_is(row, salvage=salvage, as_of=as_of, gives_way=True)
            if reader is not None:
                return reader
            if again is None:
                break
            row, as_of = again, None
        raise ShardNotFoundError

    def open_as_is(
        self,
        row: Row,
        *,
        salvage: bool = True,
        as_of: int | None = None,
        gives_way: bool = False,
    ) -> tuple[VolumeReader | None, Row | None]:
        """Open a shard in whatever state; without a reader the row is what became of it."""
        pin = self.handles.pin(row.place, gives_way=gives_way)
        try:
            # Only what is still there after the pin cannot be given back any more: whoever gives
            # it back sees it gone from the index first, and asks for pins then.
            is_same = as_of is not None and as_of == self.changes and not self._is_closed
            again = row if is_same else self.find(row.renter, row.shard)
            if again == row:
                reader = VolumeReader(
                    self.ground, self.handles, pin, row, self.quarantine, self.examined
                )
                if salvage:
                    reader.check()
                return reader, row
        except BaseException:
            self.handles.unpin(pin)
            raise
        self.handles.unpin(pin)
        return None, again

    @property
    def readers(self) -> int:
        """How many records are being read."""
        return self.handles.pinned

    def check_single(self, key: Key) -> None:
        """Refuse to change a shard that may lie on a volume that is away, too."""
        if key in self.journal.open.keys:
            raise VolumeUnavailableError("the shard was being moved when a volume went away")

    def delete(
        self, renter: NodeId, shard: ShardId, observed_ms: int, *, erase: bool, is_alone: bool
    ) -> Future[Deletion]:
        """Give a shard up; *is_alone*: others that may have older copies could not be asked."""
        self.check_single((renter, shard))
        self._relieve()
        action = Action.GONE if erase else Action.TRASH
        now_ms = self.ground.facts.clock_ms()
        mark = new_mark(renter, shard, action, now_ms, observed_ms)
        return self.writer.submit(Delete(mark, erase=erase, is_alone=is_alone))

    def undelete(self, renter: NodeId, shard: ShardId) -> Future[StoredShard]:
        """Take a shard out of the trash."""
        self.check_single((renter, shard))
        self._relieve()
        now_ms = self.ground.facts.clock_ms()
        return self.writer.submit(Undelete(new_mark(renter, shard, Action.UNDELETE, now_ms, 0)))

    def remove(self, rows: list[Row], *, hurried: bool = False, ends_readers: bool = False) -> int:
        """
        Remove shards for good, if they are still as given; return how many were.

        With *ends_readers* whoever reads one is told that it went.  It rests between its steps,
        unless somebody waits and it is *hurried*.
        """
        done = 0
        for start in range(0, len(rows), REMOVE_AT_ONCE):
            twins = self.journal.open.keys
            some = [
                row
                for row in rows[start : start + REMOVE_AT_ONCE]
                if (row.renter, row.shard) not in twins
            ]
            with self.ground.rests.after(hurried=hurried):
                now_ms = self.ground.facts.clock_ms()
                removal = Remove(some, now_ms, ends_readers=ends_readers)
                done += self.writer.submit(removal).result()
        return done

    def purge(
        self,
        renter: NodeId,
        contract: ContractId | None,
        is_waited_for: Callable[[], bool] = lambda: False,
    ) -> int:
        """
        Remove all shards and leases of a renter, or of one of its contracts.

        Returns how many shards went.  The space of the last comes back when it is tidied next.
        It does not rest while it *is_waited_for*.

        Raises:
            VolumeUnavailableError: the volume failed, or some had to stay: repeat it later.

        """
        removed, after, is_left = 0, ShardId(bytes(32)), False
        unreclaimed_bytes = 0
        while rows := self.page(renter, after, LOOK_AT_ONCE):
            after = rows[-1].shard
            theirs = [row for row in rows if contract in {None, row.contract}]
            count = self.remove(theirs, hurried=is_waited_for(), ends_readers=True)
            removed += count
            # It may lie on another volume too, or have been written anew since the look.
            is_left |= count < len(theirs)
            unreclaimed_bytes += sum(row.charge_bytes for row in theirs)
            if unreclaimed_bytes >= RECLAIM_BYTES:
                unreclaimed_bytes = 0
                self.tidy(hurried=is_waited_for())
        for lease in self.leases.of(renter, contract):
            self.leases.end(lease)
        if is_left:
            raise VolumeUnavailableError("some shards were being moved, or changed meanwhile")
        return removed

    def sweep(self, now_ms: int, observed_ms: int) -> int:
        """Empty the trash and end leases that are over; return how many shards went."""
        removed = self._sweeping.sweep(now_ms, observed_ms)
        self.tidy()
        self.ground.refresh_filesystem()
        return removed

    def tidy(self, *, hurried: bool = False) -> None:
        """Give back what can be, or leave it to the next time: what came before it is done."""
        with suppress(StorageError):
            self.reclaim(hurried=hurried)

    def reclaim(self, *, hurried: bool = False) -> int:
        """Give back what can be, *hurried* some of it, without rests; return how many bytes."""
        if self.ground.is_apart:
            return 0
        with self._index_errors():
            try:
                return self.reclaimer.run(hurried=hurried)
            except OSError as error:
                self.ground.health.count("reclaim")
                raise VolumeUnavailableError(f"the disk failed: {error}") from error

    def note_met(self, sequence: int, changes: int) -> None:
        """
        Note, durably, that no tombstone below a sequence means anything; raises as `find`.

        *changes* is how often tombstones had changed before that sequence was looked up: if it
        is as it was the last time, all is noted.
        """
        ground = self.ground
        if changes == self._met_after:
            return
        try:
            note_met(ground.files, ground.paths.root, sequence)
        except OSError as error:
            raise VolumeUnavailableError(f"the disk failed: {error}") from error
        self._met_after = changes

    def settle_doubts(self) -> None:
        """Try once more to undo on the disk what was refused; raises `StorageError`."""
        ground = self.ground
        if ground.doubts.concerns_log:
            ground.health.check_writable()
            # What is written next goes to a new segment, which says where the last one ended.
            self.writer.submit(Restate(lambda _transaction: [], 1)).result()
        try:
            cut_overhangs(ground)
            ground.doubts.remove_leftovers(ground.files)
        except OSError as error:
            raise VolumeUnavailableError(f"the disk failed: {error}") from error

    def change_quota(self, quota_bytes: int, keep_free_bytes: int) -> None:
        """Apply new numbers; a quota below what is used only stops new stores."""
        self.settings = replace(
            self.settings, quota_bytes=quota_bytes, keep_free_bytes=keep_free_bytes
        )
        self.ground.ledger.change_quota(self.ground.account, quota_bytes, keep_free_bytes)

    def note_allocated(
        self, allocated_bytes: int, drift_bytes: int, explained_before_bytes: int
    ) -> None:
        """
        Keep what the last comparison with the disk found; tell of what cannot be explained.

        What went amid the walk over the files may have been counted there: it is explained by
        what the ledger said before.  Of a volume that was closed amid it nothing is told.
        """
        explained_bytes = max(explained_before_bytes, self.ground.account.explained_bytes)
        if self._is_closed:
            return
        self._allocated = (allocated_bytes, drift_bytes)
        self.ground.health.note_beyond(allocated_bytes - explained_bytes, self.settings.path)

    def status(self) -> VolumeStatus:
        """Return the numbers as they are in memory; never waits for the disk."""
        account, health = self.ground.account, self.ground.health
        state = health.state
        if state is VolumeState.HEALTHY and not account.free_bytes:
            state = VolumeState.FULL
        return VolumeStatus(
            name=self.settings.label,
            path=str(self.settings.path),
            state=state,
            reason=health.reason,
            draining=self.draining,
            quota_bytes=account.quota_bytes,
            used_bytes=account.total.live_bytes,
            reserved_bytes=account.reserved_bytes,
            trash_bytes=account.total.trash_bytes,
            allowance_bytes=account.allowance_bytes,
            free_bytes=account.free_bytes if self.takes_new else 0,
            shards=account.total.shards,
            quarantined=account.total.quarantined,
            allocated_bytes=self._allocated[0],
            drift_bytes=self._allocated[1],
            filesystem_size_bytes=account.filesystem_size_bytes,
            filesystem_free_bytes=account.filesystem_free_bytes,
            errors=health.errors(),
            waits_s=self.ground.watch.waits_s(),
            scrub=self.scrub_status(),
        )

    def held_files(self) -> list[tuple[Path, int]]:
        """Return the names below the directory whose files are kept open, with descriptors."""
        held = [(self.ground.paths.lock, self._lock_fd)]
        tail = self.writer.tail
        return [*held, (self.ground.paths.segment(tail.number), tail.fd)] if tail else held

    def forsake(self) -> None:
        """
        Give up what was opened, whose directory is not there or not the right one any more.

        No name below it is used, but by stores whose end is under way.  What was promised to
        unfinished stores is given back; what is stored leaves the ledger, and comes back with
        the next opening.
        """
        self._is_closed = True
        self.ground.rests.end()
        ground = self.ground
        # A dead disk fails in any of these; what concerns the ledger is done all the same.
        steps: list[Callable[[], object]] = [
            *(partial(let_go, False) for let_go in self.before_close),
            partial(self.writer.close, in_order=False),
            self.handles.close,
            self.witness.close,
            partial(ground.index.close, clean=False),
            partial(ground.files.close, self._lock_fd),
        ]
        for step in steps:
            with suppress(OSError, sqlite3.Error, StorageError):
                step()
        self._let_go()
        self.leave_ledger()

    def close(self) -> None:
        """Finish what is under way, leave a clean mark, unlock; it is in the ledger still."""
        self._is_closed = True
        self.ground.rests.end()
        for let_go in self.before_close:
            let_go(True)
        clean = self.writer.close()
        self._let_go()
        self.handles.close()
        with suppress(OSError):
            # What counts was synced, and the lock has yet to go.
            self.witness.close()
        try:
            self.ground.index.close(clean=clean)
        except sqlite3.Error:
            self.ground.health.count("index")
        with suppress(OSError):
            self.ground.files.close(self._lock_fd)

    def leave_ledger(self) -> None:
        """Count no more; an opening finds all of it again."""
        self.ground.ledger.forget(self.ground.account)

    def _let_go(self) -> None:
        """Give back what is promised: an opening finds what is in staging, and goes by that."""
        self.leases.let_go()
        self.ground.doubts.let_go()

    def quarantine(self, row: Row) -> None:
        """Note, for good, that a record is damaged; a volume that cannot be written forgets it."""
        mark = mark_of(row, Action.QUARANTINE, self.ground.facts.clock_ms(), 0)
        try:
            self.writer.submit(Quarantine(mark)).result()
        except StorageError:
            # A volume that cannot be written finds the damage again at the next read.
            self.ground.health.count("quarantine")

    def _relieve(self) -> None:
        """Before a mark is added: let whoever gives up shards one by one pay for the tidying."""
        self.ground.health.check_writable()
        if self.reclaimer.is_due:
            # A bounded part of it.  What follows fails by itself if it must.
            self.tidy(hurried=True)

    def _index_errors(self) -> _IndexErrors:
        return _IndexErrors(self.index_failed)

    def index_failed(self, error: sqlite3.Error) -> VolumeUnavailableError:
        """Note that the index could not be read, and return what whoever asked is told."""
        if self._is_closed:
            return VolumeClosedError("the volume was closed")
        self.ground.health.count("index")
        if not (is_for_room(error) or is_for_memory(error)):
            self.ground.health.fail(f"the index cannot be read ({error})")
            self.ground.index.condemn()
        return VolumeUnavailableError(f"the index cannot be read: {error}")


class _IndexErrors:
    """A context in which what SQLite raises becomes what the volume makes of it."""

    # Not by contextlib: each look-up goes through here, and a generator takes four times as long.

    __slots__ = ("_understand",)

    def __init__(self, understand: Callable[[sqlite3.Error], Exception]) -> None:
        self._understand = understand

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise self._understand(error) from error
