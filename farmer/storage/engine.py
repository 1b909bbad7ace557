"""The engine: all volumes of a farmer as one store (see `farmer.node.ports.ShardStore`)."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from farmer.model.audit import AuditEntry, SampleProof
from farmer.model.contract import Contract
from farmer.model.ids import ContractId, NodeId, ShardId
from farmer.model.shard import (
    SHARD_BYTES_MAX,
    BadBlocks,
    Deletion,
    ShardState,
    StoredShard,
    Usage,
)
from farmer.model.status import Alert, VolumeStatus
from farmer.storage.at_hand import row_at_hand
from farmer.storage.buried import Buried
from farmer.storage.claims import Claims, EngineUpload
from farmer.storage.crossing import Crossing
from farmer.storage.deleting import Deleting
from farmer.storage.directory import VolumeSettings
from farmer.storage.errors import (
    BusyError,
    CorruptShardError,
    ShardNotFoundError,
    ShardTooLargeError,
    ShardWentError,
    StorageError,
    VolumeClosedError,
    VolumeUnavailableError,
    WrongHashError,
)
from farmer.storage.files import Files
from farmer.storage.fill import Fill
from farmer.storage.hints import Hints
from farmer.storage.keeper import Slot
from farmer.storage.measure import measure
from farmer.storage.mending import Mending, begin_mending, roomier
from farmer.storage.moving import Mover
from farmer.storage.opening import Spawn, Surroundings, at_once
from farmer.storage.places import Key
from farmer.storage.placing import begin_on, candidates
from farmer.storage.quota import SMALL_BYTES_MAX, Ledger
from farmer.storage.reader import VolumeReader
from farmer.storage.recovery import Progress
from farmer.storage.reunion import Reunion
from farmer.storage.scrubs import Scrubs
from farmer.storage.slots import LOOK_WAIT_S, Slots
from farmer.storage.stamps import Stamps
from farmer.storage.upload import Wanted
from farmer.storage.volume import Volume
from farmer.storage.whereabouts import Copies, Copy, Whereabouts

R = TypeVar("R")

_LOOKS: Final = 16
"""Looks for one shard that is gone again from where it was found: a volume is closed, or the
shard crosses, once or twice, and not for ever."""

_GOES_ON: Final = "its volume is being closed, or the shard is moved again and again; try again"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """What one renter may take, besides the space of its contract."""

    uploads_per_renter_max: int = 64
    shards_per_contract_max: int = 20_000_000
    shard_bytes_max: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        if not 0 < self.shard_bytes_max <= SHARD_BYTES_MAX:
            raise ValueError(f"shards have 1 to {SHARD_BYTES_MAX} bytes")


class Engine:
    """
    Stores, serves and forgets shards on one or more volumes.

    A volume that cannot be opened is reported as gone, tried again by every look after the
    disks, and does not keep the others from serving.
    """

    def __init__(  # noqa: PLR0913  # by name, and most have defaults
        self,
        volumes: Sequence[VolumeSettings],
        node: NodeId,
        files: Files,
        *,
        clock_ms: Callable[[], int],
        observed_ms: Callable[[], int],
        limits: EngineLimits = EngineLimits(),
        progress: Progress = lambda _segment, _last: None,
        monotonic_s: Callable[[], float] = time.monotonic,
        spawn: Spawn = at_once,
        annexes: Path | None = None,
    ) -> None:
        """
        Open all volumes.

        *clock_ms* is wall time in Unix ms, *observed_ms* the running time that was really
        observed; both are asked from several threads.  *spawn* lends the threads in which
        volumes are opened and looked after; without it nothing that hangs can be survived.
        *annexes* is a directory on another disk that keeps what left volumes which are only read.

        Raises:
            FormatTooNewError: a volume was written by a newer release; nothing was touched.

        """
        self.fill = Fill.SPREAD
        """Where new shards go; may change at any time."""
        self._limits = limits
        self._stamps = Stamps(observed_ms)
        self._ledger = Ledger(limits.uploads_per_renter_max, limits.shards_per_contract_max)
        around = Surroundings(
            *(node, files, self._ledger, clock_ms, progress, monotonic_s, spawn), annexes=annexes
        )
        self._slots = Slots(volumes, around)
        self._claims = Claims()
        self._crossing = Crossing()
        self.mover = Mover(self._slots.every, self._crossing, monotonic_s)
        self._hints = Hints()
        self._buried = Buried()
        self._where = Whereabouts(self._slots, self._crossing, self._hints, self._buried)
        self._deleting = Deleting(
            *(self._slots, self._where, self._crossing),
            is_moving=lambda: not self.mover.is_idle,
            stamps=self._stamps,
            buried=self._buried,
        )
        self._reunion = Reunion(
            *(self._slots.opened, self._slots.is_certain, self._crossing),
            met=self._buried.forget,
            monotonic_s=monotonic_s,
        )
        self.scrubs = Scrubs(self._slots.readable, monotonic_s)
        self._is_closing = False
        self._slots.open_all()
        self._bring_together()

    def begin(
        self,
        contract: Contract,
        shard: ShardId,
        size_bytes: int,
        again_bytes_max: int | None = None,
    ) -> EngineUpload | StoredShard:
        """See `farmer.node.ports.ShardStore`."""
        if size_bytes > self._limits.shard_bytes_max:
            raise ShardTooLargeError(size_bytes, self._limits.shard_bytes_max)
        if self._is_closing:
            raise VolumeUnavailableError("shutting down")
        key = (contract.renter, shard)
        self._claims.take(key)
        try:
            # Only now does what another upload left stay as it is.
            if size_bytes > SMALL_BYTES_MAX:
                self._check_again(key, again_bytes_max)
            there, answer = self._look_to_store(key, size_bytes)
            if answer is not None:
                self._claims.give_back(key)
                return answer
            room = contract if there.best is None else roomier(contract, there.best.row)
            wanted = Wanted(room, shard, size_bytes, there.alone_ms(self._stamps))
            opened = self._slots.opened()
            volumes = candidates(opened, key, there.best, self.fill, is_bound=there.is_certain)
            watch, upload = begin_on(volumes, wanted)
        except BaseException:
            self._claims.give_back(key)
            raise
        # What was deleted while its bytes came is there again: nothing in memory may say else.
        stored = partial(self._buried.forget, (key,))
        return EngineUpload(upload, watch, lambda: self._claims.give_back(key), stored)

    def open(self, renter: NodeId, shard: ShardId) -> VolumeReader:
        """See `farmer.node.ports.ShardStore`."""
        return self._open(renter, shard, None)

    def prove_sample(self, renter: NodeId, nonce: bytes, entry: AuditEntry) -> SampleProof:
        """See `farmer.node.ports.ShardStore`; a wrong size is an absent shard."""
        reader = self._open_entry(renter, entry)
        try:
            return reader.prove_sample(nonce, entry.samples)
        finally:
            reader.close()

    def prove_full(self, renter: NodeId, nonce: bytes, entry: AuditEntry) -> bytes:
        """See `farmer.node.ports.ShardStore`; a wrong size is an absent shard."""
        reader = self._open_entry(renter, entry)
        try:
            return reader.prove_full(nonce)
        finally:
            reader.close()

    def examine(self, renter: NodeId, shard: ShardId) -> BadBlocks:
        """See `farmer.node.ports.ShardStore`."""
        reader = self._wherever(
            renter,
            shard,
            lambda there: there.volume.open(there.row, salvage=False, as_of=there.as_of),
        )
        try:
            return reader.examine().named
        finally:
            reader.close()

    def repair(self, contract: Contract, shard: ShardId) -> Mending | StoredShard:
        """See `farmer.node.ports.ShardStore`."""
        key = (contract.renter, shard)
        self._claims.take(key)
        try:
            found = self._wherever(*key, lambda there: self._mend(there, contract))
        except BaseException:
            self._claims.give_back(key)
            raise
        if isinstance(found, StoredShard):
            self._claims.give_back(key)
        else:
            found.start()
        return found

    def stat(self, renter: NodeId, shard: ShardId) -> StoredShard:
        """See `farmer.node.ports.ShardStore`."""
        return self._where.find(renter, shard).row.stored()

    def page(self, renter: NodeId, after: ShardId, limit: int) -> list[StoredShard]:
        """See `farmer.node.ports.ShardStore`."""
        return [row.stored() for row in self._where.page(renter, after, limit)]

    def delete(self, renter: NodeId, shard: ShardId, *, erase: bool) -> Future[Deletion]:
        """See `farmer.node.ports.ShardStore`."""
        return self._deleting.delete(renter, shard, erase=erase)

    def undelete(self, renter: NodeId, shard: ShardId) -> Future[StoredShard]:
        """See `farmer.node.ports.ShardStore`."""
        return self._deleting.undelete(renter, shard)

    def purge(self, renter: NodeId, contract: ContractId | None = None) -> int:
        """See `Deleting.purge`."""
        return self._deleting.purge(renter, contract)

    def usage(self, renter: NodeId) -> Usage:
        """See `farmer.node.ports.ShardStore`."""
        return self._ledger.usage(renter)

    def begun_bytes(self, renter: NodeId, shard: ShardId) -> int:
        """See `farmer.node.ports.ShardStore`."""
        key = (renter, shard)
        return max((one.leases.begun_bytes(key) for one in self._slots.opened()), default=0)

    def free_bytes(self) -> int:
        """See `farmer.node.ports.ShardStore`."""
        return sum(
            volume.ground.account.free_bytes for volume in self._slots.opened() if volume.takes_new
        )

    def opened(self) -> list[Volume]:
        """Return the volumes that are open, whatever their state."""
        return self._slots.opened()

    def renters(self) -> tuple[NodeId, ...]:
        """Return everyone who has a shard or an upload here."""
        return self._ledger.renters()

    def sweep(self, now_ms: int, observed_ms: int) -> int:
        """
        Empty the trash, end old leases, give space back, try missing volumes again.

        A shard goes when its time in the trash is over by both clocks.  Returns how many
        went; a failing volume does not stop the others.
        """
        removed = 0
        for volume in self._slots.look_after():
            try:
                removed += volume.sweep(now_ms, observed_ms)
            except StorageError:
                volume.ground.health.count("sweep")
        return removed

    def look_after_disks(self, wait_s: float = LOOK_WAIT_S) -> None:
        """Notice disks that were unmounted, or that are back; cheap, for every few seconds."""
        self._slots.look_after(wait_s)
        self._bring_together()

    def learn(self) -> None:
        """Learn in which volumes a shard need not be looked for; may take long, and rests."""
        self._hints.learn(self._slots.opened(), lambda: self._is_closing)

    def watch_disks(self) -> None:
        """Notice calls that do not return, that they have, and slow ones; never waits."""
        self._slots.watch()

    def stalled_threads(self) -> dict[int, bool]:
        """Return the threads that wait for a disk, and whether that is in vain; never waits."""
        return self._slots.stalled_threads()

    def compare_with_disk(self) -> None:
        """Compare the ledger with what the disk says is allocated; walks over every file."""
        for volume in self._slots.readable():
            explained_before_bytes = volume.ground.account.explained_bytes
            try:
                allocated, drift = measure(volume)
            except OSError:
                volume.ground.health.count("measure")
            else:
                volume.note_allocated(allocated, drift, explained_before_bytes)

    def volumes(self) -> tuple[VolumeStatus, ...]:
        """Return all volumes' numbers; never waits for a disk."""
        return tuple(self._status(slot) for slot in self._slots)

    def trouble(self) -> tuple[Alert, ...]:
        """Return the conditions that stand, over all volumes."""
        return tuple(alert for slot in self._slots for alert in slot.trouble())

    def change_quota(self, path: Path, quota_bytes: int, keep_free_bytes: int) -> None:
        """Apply new settings, also for the next opening; a smaller quota only stops stores."""
        # By path, as the settings have them.
        slot = self._slots.find(path)
        if slot is not None:
            slot.settings = replace(
                slot.settings, quota_bytes=quota_bytes, keep_free_bytes=keep_free_bytes
            )
            if (volume := slot.volume) is not None:
                volume.change_quota(quota_bytes, keep_free_bytes)

    def volume_at(self, path: Path) -> Volume | None:
        """Return the open volume in this directory."""
        slot = self._slots.find(path)
        return slot.volume if slot is not None else None

    def part(self, path: Path) -> None:
        """
        Let a volume that cannot be written be emptied all the same, noting elsewhere what left.

        Raises:
            VolumeUnavailableError, OSError: it cannot be read either, or there is no elsewhere.

        """
        slot = self._slots.find(path)
        volume = None if slot is None else self._slots.part(slot)
        if volume is None or (volume.ground.health.is_read_only and not volume.ground.is_apart):
            raise VolumeUnavailableError(f"{path} cannot be read")

    def silent(self) -> frozenset[Path]:
        """Return the volumes whose disks are known not to answer; never waits."""
        return frozenset(slot.settings.path for slot in self._slots if slot.is_hung)

    def add_volume(self, settings: VolumeSettings) -> None:
        """Use one more volume, unless it is in use; raises `FormatTooNewError`."""
        if self._slots.find(settings.path) is None:
            self._slots.add(settings)
            self._bring_together()

    def remove_volume(self, path: Path) -> int:
        """
        Use a volume no more; return how many shards it has.

        They are not there then: it should be empty.
        """
        slot = self._slots.find(path)
        if slot is None:
            return 0
        with self._crossing.none():
            return self._slots.remove(slot)

    def begin_close(self) -> None:
        """Refuse new stores from now on; those under way may finish, and nothing rests."""
        self._is_closing = True
        for volume in self._slots.opened():
            volume.ground.rests.end()

    def close(self) -> None:
        """Finish what the writers have, leave a clean mark on every volume, unlock."""
        self.begin_close()
        self.mover.stop()
        self._slots.close()

    def _status(self, slot: Slot) -> VolumeStatus:
        status = slot.status()
        work = self.mover.work(slot.volume) if slot.volume is not None else None
        return status if work is None else replace(status, work=work)

    def _bring_together(self) -> None:
        """Let each shard be on one volume, as far as the volumes that are there allow it."""
        self.mover.resolve()
        with suppress(StorageError, OSError, sqlite3.Error):
            # The next look tries again; until then what is older does not count.
            self._reunion.hold()

    def _check_again(self, key: Key, again_bytes_max: int | None) -> None:
        if again_bytes_max is not None and self.begun_bytes(*key) > again_bytes_max:
            raise BusyError

    def _look_to_store(self, key: Key, size_bytes: int) -> tuple[Copies, StoredShard | None]:
        """Look for a shard that is to be stored; return what is held if no bytes are wanted."""
        for _ in range(_LOOKS):
            there = self._look_for_store(key)
            best = there.best
            # What a volume that cannot be asked would say may count more than this copy.
            if best is None or not there.is_certain or best.row.is_damaged:
                return there, None
            try:
                answer = self._stored_already(best, size_bytes)
            except VolumeClosedError:
                # It was closed between the look-up and this, and is looked for anew.
                continue
            return there if answer else self._look_for_store(key), answer
        raise VolumeUnavailableError(_GOES_ON)

    def _look_for_store(self, key: Key) -> Copies:
        """Look on all volumes that answer; raises if the only one fails."""
        there = self._where.look_up(key, for_store=True)
        if there.failure is not None and len(self._slots) == 1:
            raise there.failure
        return there

    def _open(self, renter: NodeId, shard: ShardId, size_bytes: int | None) -> VolumeReader:
        """Open a shard; an audit says the size, and wants it sound."""

        def opened(there: Copy) -> VolumeReader:
            if size_bytes is not None:
                _check_sound(there)
            return there.volume.open(there.row, as_of=there.as_of)

        return self._wherever(renter, shard, opened, size_bytes)

    def _mend(self, there: Copy, contract: Contract) -> Mending | StoredShard:
        key = (there.row.renter, there.row.shard)
        ended, stored = partial(self._claims.give_back, key), partial(self._buried.forget, (key,))
        mending = begin_mending(there.volume, there.row, contract, ended, stored=stored)
        return mending or self._still_stored(key)

    def _still_stored(self, key: Key) -> StoredShard:
        """Return a shard that was read from end to end: somebody may have let go of it since."""
        try:
            row = self._wherever(*key, lambda there: there.row)
        except ShardNotFoundError as error:
            raise ShardWentError from error
        if row.state is ShardState.TRASH:
            raise ShardWentError
        return row.stored()

    def _wherever(
        self,
        renter: NodeId,
        shard: ShardId,
        begin: Callable[[Copy], R],
        size_bytes: int | None = None,
    ) -> R:
        """Begin something with a shard wherever it goes meanwhile; raises as `find`."""
        for _ in range(_LOOKS):
            before = self._crossing.crossed
            try:
                there = self._where.find(renter, shard, size_bytes)
            except ShardNotFoundError:
                if self._crossing.crossed == before:
                    raise
                continue
            try:
                return begin(there)
            except ShardWentError:
                # It was read, and it did go for good.
                raise
            except ShardNotFoundError:
                # It was there a moment ago: if it did not go for good, another volume has it.
                if there.row.state is ShardState.TRASH and self._crossing.crossed == before:
                    self._where.check_heard_of_all((renter, shard))
                    raise
            except VolumeClosedError:
                # It was closed between the look-up and this, and is looked for anew.
                continue
        raise VolumeUnavailableError(_GOES_ON)

    def _open_entry(self, renter: NodeId, entry: AuditEntry) -> VolumeReader:
        return self._open(renter, entry.shard, entry.size_bytes)

    def _stored_already(self, there: Copy, size_bytes: int) -> StoredShard | None:
        """Return what is held, or None if it is not at hand, or went at this moment."""
        if there.row.size_bytes != size_bytes:
            # The id binds the size: no bytes of this length can have it.
            raise WrongHashError
        # The index alone says nothing of what the disk has: who is told "stored" keeps no copy.
        row = row_at_hand(there.volume, there.row, there.as_of)
        if row is None:
            return None
        if row.state is ShardState.LIVE:
            return row.stored()
        try:
            stored = self.undelete(row.renter, row.shard).result()
        except ShardNotFoundError:
            return None
        return stored if stored.state is ShardState.LIVE else None


def _check_sound(there: Copy) -> None:
    """Raise `CorruptShardError` for a shard that is known to be damaged."""
    row = there.row
    if row.state is ShardState.QUARANTINED:
        # A proof says "I hold this shard": of one known to be damaged that would be a lie,
        # whatever leaves happen to be asked for.
        known = there.volume.examined.find(row.sequence)
        first_bad = known.first_bad if known and known.bad_blocks else (0, row.size_bytes)
        raise CorruptShardError(*first_bad)
