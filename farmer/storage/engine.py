"""The engine: all volumes of a farmer as one store (see `farmer.node.ports.ShardStore`)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from typing import TypeVar

from farmer.model.audit import AuditEntry, SampleProof
from farmer.model.contract import Contract
from farmer.model.ids import ContractId, NodeId, ShardId
from farmer.model.shard import (
    SHARD_BYTES_MAX,
    Deletion,
    DeletionOutcome,
    ShardState,
    StoredShard,
    Usage,
)
from farmer.model.status import Alert, VolumeState, VolumeStatus
from farmer.storage.claims import Claims, EngineUpload
from farmer.storage.directory import VolumeSettings, VolumeSetupError
from farmer.storage.errors import (
    NoSpaceError,
    ShardNotFoundError,
    ShardTooLargeError,
    StorageError,
    VolumeUnavailableError,
    WrongHashError,
)
from farmer.storage.files import Files
from farmer.storage.measure import measure
from farmer.storage.opening import Surroundings, open_volume
from farmer.storage.places import Row
from farmer.storage.quota import Ledger
from farmer.storage.reader import VolumeReader
from farmer.storage.recovery import Progress
from farmer.storage.volume import AnyUpload, Key, Volume

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """What one renter may take, besides the space of its contract."""

    uploads_per_renter_max: int = 64
    shards_per_contract_max: int = 20_000_000
    shard_bytes_max: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        if not 0 < self.shard_bytes_max <= SHARD_BYTES_MAX:
            raise ValueError(f"shards have 1 to {SHARD_BYTES_MAX} bytes")


@dataclass(slots=True)
class _Slot:
    """One volume of the settings: open, or why it is not."""

    settings: VolumeSettings
    volume: Volume | None = None
    alert: Alert | None = None


class Engine:
    """
    Stores, serves and forgets shards on one or more volumes.

    A volume that cannot be opened is reported as gone, tried again by every sweep, and does
    not keep the others from serving.
    """

    def __init__(
        self,
        volumes: Sequence[VolumeSettings],
        node: NodeId,
        files: Files,
        *,
        clock_ms: Callable[[], int],
        observed_ms: Callable[[], int],
        limits: EngineLimits = EngineLimits(),
        progress: Progress = lambda _segment, _last: None,
    ) -> None:
        """
        Open all volumes.

        *clock_ms* is wall time in Unix ms, *observed_ms* the running time that was really
        observed; both are asked from several threads.

        Raises:
            FormatTooNewError: a volume was written by a newer release; nothing was touched.

        """
        self._limits = limits
        self._clock_ms = clock_ms
        self._observed_ms = observed_ms
        self._ledger = Ledger(limits.uploads_per_renter_max, limits.shards_per_contract_max)
        self._around = Surroundings(node, files, self._ledger, clock_ms, progress)
        self._claims = Claims()
        self._is_closing = False
        self._slots = [_Slot(settings) for settings in volumes]
        try:
            for slot in self._slots:
                self._open(slot)
        except BaseException:
            self.close()
            raise

    def begin(
        self, contract: Contract, shard: ShardId, size_bytes: int
    ) -> EngineUpload | StoredShard:
        """See `farmer.node.ports.ShardStore`."""
        if size_bytes > self._limits.shard_bytes_max:
            raise ShardTooLargeError(size_bytes, self._limits.shard_bytes_max)
        if self._is_closing:
            raise VolumeUnavailableError("shutting down")
        key = (contract.renter, shard)
        self._claims.take(key)
        try:
            there = self._look_up(key)
            if there is not None and not there[1].is_damaged:
                answer = self._stored_already(*there, size_bytes)
                if answer is not None:
                    self._claims.give_back(key)
                    return answer
                there = self._look_up(key)
            upload = self._begin_on(self._candidates(key, there), contract, shard, size_bytes)
        except BaseException:
            self._claims.give_back(key)
            raise
        return EngineUpload(upload, lambda: self._claims.give_back(key))

    def open(self, renter: NodeId, shard: ShardId) -> VolumeReader:
        """See `farmer.node.ports.ShardStore`."""
        volume, row = self._find(renter, shard)
        return volume.open(row)

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

    def stat(self, renter: NodeId, shard: ShardId) -> StoredShard:
        """See `farmer.node.ports.ShardStore`."""
        return self._find(renter, shard)[1].stored()

    def page(self, renter: NodeId, after: ShardId, limit: int) -> list[StoredShard]:
        """See `farmer.node.ports.ShardStore`."""
        pages = [volume.page(renter, after, limit) for volume in self._readable()]
        ordered = merge(*pages, key=lambda row: row.shard)
        return [row.stored() for row in islice(ordered, limit)]

    def delete(self, renter: NodeId, shard: ShardId, *, erase: bool) -> Future[Deletion]:
        """See `farmer.node.ports.ShardStore`."""
        key = (renter, shard)
        dropped = [volume.drop_lease(key) for volume in self._readable()]
        found = self._look_up(key)
        if found is None and any(dropped):
            return _settled(Deletion(DeletionOutcome.ERASED, 0))
        volume, _row = found or self._find(renter, shard)
        return volume.delete(renter, shard, self._observed_ms(), erase=erase)

    def undelete(self, renter: NodeId, shard: ShardId) -> Future[StoredShard]:
        """See `farmer.node.ports.ShardStore`."""
        volume, _row = self._find(renter, shard)
        return volume.undelete(renter, shard)

    def usage(self, renter: NodeId) -> Usage:
        """See `farmer.node.ports.ShardStore`."""
        return self._ledger.usage(renter)

    def free_bytes(self) -> int:
        """See `farmer.node.ports.ShardStore`."""
        return sum(
            volume.ground.account.free_bytes
            for volume in self._open_volumes()
            if volume.ground.health.state is VolumeState.HEALTHY
        )

    def renters(self) -> tuple[NodeId, ...]:
        """Return everyone who has a shard or an upload here."""
        return self._ledger.renters()

    def purge(self, renter: NodeId, contract: ContractId | None = None) -> int:
        """
        Remove all shards of a renter, or of one of its contracts, for good.

        Returns how many; safe to repeat after a crash.

        Raises:
            VolumeUnavailableError: a volume is missing or failed; repeat it later.

        """
        removed = sum(volume.purge(renter, contract) for volume in self._readable())
        self._check_complete()
        return removed

    def sweep(self, now_ms: int, observed_ms: int) -> int:
        """
        Empty the trash, end old leases, give space back, try missing volumes again.

        A shard goes when its time in the trash is over by both clocks.  Returns how many
        went; a failing volume does not stop the others.
        """
        removed = 0
        for slot in self._slots:
            if slot.volume is None:
                with suppress(StorageError):
                    self._open(slot)
                continue
            try:
                self._check_presence(slot.volume)
                removed += slot.volume.sweep(now_ms, observed_ms)
            except StorageError:
                slot.volume.ground.health.count("sweep")
        return removed

    def look_after_disks(self) -> None:
        """Notice disks that were unmounted, or that are back; cheap, for every minute."""
        for slot in self._slots:
            with suppress(StorageError):
                if slot.volume is None:
                    self._open(slot)
                else:
                    self._check_presence(slot.volume)

    def compare_with_disk(self) -> None:
        """Compare the ledger with what the disk says is allocated; walks over every file."""
        for volume in self._open_volumes():
            try:
                allocated, drift = measure(volume)
            except OSError:
                volume.ground.health.count("measure")
            else:
                volume.note_allocated(allocated, drift)

    def volumes(self) -> tuple[VolumeStatus, ...]:
        """Return all volumes' numbers; never waits for a disk."""
        return tuple(
            _absent(slot) if slot.volume is None else slot.volume.status() for slot in self._slots
        )

    def trouble(self) -> tuple[Alert, ...]:
        """Return the conditions that stand, over all volumes."""
        alerts: list[Alert] = []
        for slot in self._slots:
            if slot.volume is not None:
                alerts += slot.volume.ground.health.alerts()
            elif slot.alert is not None:
                alerts.append(slot.alert)
        return tuple(alerts)

    def change_quota(self, name: str, quota_bytes: int, keep_free_bytes: int) -> None:
        """Apply new settings to an open volume; a smaller quota only stops new stores."""
        for volume in self._open_volumes():
            if volume.settings.label == name:
                volume.change_quota(quota_bytes, keep_free_bytes)

    def begin_close(self) -> None:
        """Refuse new stores from now on; those under way may finish."""
        self._is_closing = True

    def close(self) -> None:
        """Finish what the writers have, leave a clean mark on every volume, unlock."""
        self._is_closing = True
        for slot in self._slots:
            if slot.volume is not None:
                slot.volume.close()
                slot.volume = None

    def _open(self, slot: _Slot) -> None:
        if slot.settings.left_shut is not None:
            slot.alert = slot.settings.left_shut
            return
        try:
            slot.volume = open_volume(slot.settings, self._around)
        except (VolumeSetupError, VolumeUnavailableError, OSError, sqlite3.Error) as error:
            since_ms = slot.alert.since_ms if slot.alert else self._clock_ms()
            slot.alert = Alert(
                name="VolumeGone",
                since_ms=since_ms,
                message=f"{slot.settings.label} cannot be used: {error}",
                command="farmer volume list",
            )
        else:
            slot.alert = None

    def _check_presence(self, volume: Volume) -> None:
        """Notice a disk that was unmounted, or that is back."""
        health, ground = volume.ground.health, volume.ground
        if not ground.files.exists(ground.paths.marker):
            health.go("its marker is gone: the disk may not be mounted")
        elif health.state is VolumeState.GONE:
            health.come_back()
        health.check_writable()

    def _open_volumes(self) -> list[Volume]:
        return [slot.volume for slot in self._slots if slot.volume is not None]

    def _readable(self) -> list[Volume]:
        return [
            volume
            for volume in self._open_volumes()
            if volume.ground.health.state is not VolumeState.GONE
        ]

    def _check_complete(self) -> None:
        """Raise unless every volume can be asked: what is missing may lie on that one."""
        if len(self._readable()) < len(self._slots):
            raise VolumeUnavailableError("a volume is missing")

    def _look_up(self, key: Key) -> tuple[Volume, Row] | None:
        damaged = None
        for volume in self._readable():
            row = volume.find(*key)
            if row is not None and not row.is_damaged:
                return volume, row
            if row is not None:
                damaged = (volume, row)
        return damaged

    def _find(self, renter: NodeId, shard: ShardId) -> tuple[Volume, Row]:
        found = self._look_up((renter, shard))
        if found is not None:
            return found
        self._check_complete()
        raise ShardNotFoundError

    def _open_entry(self, renter: NodeId, entry: AuditEntry) -> VolumeReader:
        volume, row = self._find(renter, entry.shard)
        if row.size_bytes != entry.size_bytes:
            raise ShardNotFoundError
        return volume.open(row)

    def _stored_already(self, volume: Volume, row: Row, size_bytes: int) -> StoredShard | None:
        """Return what is held, or None if it went, or was found damaged, at this moment."""
        if row.size_bytes != size_bytes:
            # The id binds the size: no bytes of this length can have it.
            raise WrongHashError
        if row.state is ShardState.LIVE:
            return row.stored()
        try:
            stored = volume.undelete(row.renter, row.shard).result()
        except ShardNotFoundError:
            return None
        return stored if stored.state is ShardState.LIVE else None

    def _candidates(self, key: Key, damaged: tuple[Volume, Row] | None) -> list[Volume]:
        """Return the volumes to try, in order: where it already lies, then the emptiest."""
        volumes = [
            volume
            for volume in self._open_volumes()
            if volume.ground.health.state is VolumeState.HEALTHY
        ]
        if damaged is not None:
            return [volume for volume in volumes if volume is damaged[0]]
        volumes.sort(
            key=lambda volume: (volume.has_lease(key), volume.ground.account.free_bytes),
            reverse=True,
        )
        return volumes

    def _begin_on(
        self, volumes: list[Volume], contract: Contract, shard: ShardId, size_bytes: int
    ) -> AnyUpload:
        best: NoSpaceError | None = None
        for volume in volumes:
            try:
                return volume.begin(contract, shard, size_bytes)
            except NoSpaceError as error:
                if best is None or error.available_bytes > best.available_bytes:
                    best = error
        if best is not None:
            raise best
        raise VolumeUnavailableError("no volume can be written")


def _settled(value: R) -> Future[R]:
    future: Future[R] = Future()
    future.set_result(value)
    return future


def _absent(slot: _Slot) -> VolumeStatus:
    is_offered = slot.settings.left_shut is None
    return VolumeStatus(
        name=slot.settings.label,
        path=str(slot.settings.path),
        state=VolumeState.GONE,
        reason=slot.alert.message if slot.alert else "closed",
        quota_bytes=slot.settings.quota_bytes if is_offered else 0,
    )
