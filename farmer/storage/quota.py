"""
The ledger: who uses how much of what, and the only place where space is promised.

For each volume, at every return of every method, with any number of threads:

    used + trash + reserved + allowance <= quota

as far as new promises go: `reserve` is the only way to make the left side grow by a shard,
and it refuses what would break the line.  The allowance is what is kept for everything that
is no shard: headers, marks, given-up records that were not returned to the filesystem yet,
the index, and one segment for a compaction to write into.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Self

from farmer.model.contract import Contract
from farmer.model.ids import NodeId, ShardId
from farmer.model.shard import ShardState, Usage, charge_bytes
from farmer.storage.errors import ContractFullError, NoSpaceError, TooManyError

MIB: Final = 1024 * 1024

QUOTA_BYTES_MIN: Final = 64 * MIB
"""Below this the allowance would be most of the volume."""

SEGMENT_BYTES_MAX: Final = 256 * MIB
SEGMENTS_PER_QUOTA: Final = 16
"""One compaction may need one segment; a sixteenth of the quota is the most it may cost."""

SHARD_OVERHEAD_BYTES: Final = 384
"""Index row and trash entry (256: about 200 measured at worst) and one mark (96) a shard."""

FILE_OVERHEAD_BYTES: Final = 8192
"""A shard with a file of its own: an extent block and its share of a directory."""

RESERVE_BYTES: Final = 2 * MIB
"""Held so that a full disk can be emptied: a sweep's 256 marks and pages of the index."""

FIXED_BYTES: Final = 11 * MIB
"""256 directories (1 MiB), the index's write-ahead log (6 MiB at most), marks (2 MiB) that
gather before they are condensed, the reserve (2 MiB)."""

EXTENTS_PER_QUOTA: Final = 128
"""A file's map of extents takes space too: on ext4 12 bytes per 4 KiB when nothing is adjacent,
and what it took once it keeps: 0.71 % of what is alive where that is a fifth of what was written
(`farmer.storage.worthwhile.LIVE_SHARE`)."""

SMALL_BYTES_MAX: Final = MIB
"""Shards up to here are buffered and share segments; larger ones have their own file."""


def segment_bytes(quota_bytes: int) -> int:
    """Return the size that a segment of the log may reach on a volume of this quota."""
    return min(SEGMENT_BYTES_MAX, quota_bytes // SEGMENTS_PER_QUOTA // MIB * MIB)


def overhead_bytes(size_bytes: int) -> int:
    """Return what the allowance keeps for one shard of this size."""
    own_file = size_bytes > SMALL_BYTES_MAX
    return SHARD_OVERHEAD_BYTES + (FILE_OVERHEAD_BYTES if own_file else 0)


def room_bytes(size_bytes: int) -> int:
    """Return how much must be free to promise the space of one shard of this size."""
    return charge_bytes(size_bytes) + overhead_bytes(size_bytes)


@dataclass(slots=True)
class Tally:
    """What one renter has on one volume: charged bytes, and how many shards."""

    live_bytes: int = 0
    trash_bytes: int = 0
    shards: int = 0
    files: int = 0
    quarantined: int = 0

    @classmethod
    def of(cls, charge_bytes: int, state: ShardState) -> Self:
        """Return what one small shard counts for its renter."""
        if state is ShardState.TRASH:
            return cls(trash_bytes=charge_bytes, shards=1)
        return cls(live_bytes=charge_bytes, shards=1)

    def add(self, other: Tally) -> None:
        """Add a change, or another volume's tally."""
        self.live_bytes += other.live_bytes
        self.trash_bytes += other.trash_bytes
        self.shards += other.shards
        self.files += other.files
        self.quarantined += other.quarantined

    def take(self, other: Tally) -> None:
        """Take something out that was added."""
        self.live_bytes -= other.live_bytes
        self.trash_bytes -= other.trash_bytes
        self.shards -= other.shards
        self.files -= other.files
        self.quarantined -= other.quarantined


_NOTHING: Final = Tally()


@dataclass(slots=True)
class Changes:
    """What one transaction of the index changed."""

    renters: dict[NodeId, Tally] = field(default_factory=dict)
    log_bytes: int = 0
    """Allocated on the volume without being rented: headers, marks, given-up records."""

    def of(self, renter: NodeId) -> Tally:
        """Return the change of one renter, to be added to."""
        tally = self.renters.get(renter)
        if tally is None:
            tally = self.renters[renter] = Tally()
        return tally


@dataclass(slots=True)
class VolumeAccount:
    """One volume's side of the ledger.  Changed under the ledger's lock only."""

    quota_bytes: int
    keep_free_bytes: int
    total: Tally = field(default_factory=Tally)
    renters: dict[NodeId, Tally] = field(default_factory=dict)
    """What each has here, so that it can be taken out again when the volume is forsaken."""
    reserved_bytes: int = 0
    unallocated_bytes: int = 0
    """Of the reserved ones, those that the filesystem has not set aside yet."""
    pending_overhead_bytes: int = 0
    log_bytes: int = 0
    index_bytes: int = 0
    filesystem_size_bytes: int = 0
    filesystem_free_bytes: int = 0
    is_forgotten: bool = False
    """Whether the volume was taken out of the ledger: what it has counts nowhere."""

    @property
    def allowance_bytes(self) -> int:
        """What is kept for all that is no shard."""
        rows = self.total.shards * SHARD_OVERHEAD_BYTES + self.total.files * FILE_OVERHEAD_BYTES
        # The index's file never shrinks, but what was freed in it is used first.
        kept = max(rows + self.pending_overhead_bytes, self.index_bytes)
        fixed = FIXED_BYTES + self.quota_bytes // EXTENTS_PER_QUOTA
        return segment_bytes(self.quota_bytes) + fixed + self.log_bytes + kept

    @property
    def explained_bytes(self) -> int:
        """What everything under the volume may take of its disk."""
        taken = self.total.live_bytes + self.total.trash_bytes + self.reserved_bytes
        return taken + self.allowance_bytes

    @property
    def free_bytes(self) -> int:
        """What can still be promised."""
        in_quota = self.quota_bytes - self.explained_bytes
        on_disk = self.filesystem_free_bytes - self.keep_free_bytes - self.unallocated_bytes
        return max(0, min(in_quota, on_disk))


@dataclass(frozen=True, slots=True)
class _Twin:
    """A shard that is on two volumes at this moment: the renter pays for one."""

    tally: Tally
    accounts: tuple[VolumeAccount, VolumeAccount]

    @property
    def counts_twice(self) -> bool:
        """Whether both volumes are in the ledger."""
        return not any(account.is_forgotten for account in self.accounts)


@dataclass(slots=True)
class _Renter:
    tally: Tally = field(default_factory=Tally)
    reserved_bytes: int = 0
    uploads: int = 0
    twins: dict[ShardId, _Twin] = field(default_factory=dict)


class Reservation:
    """
    Space promised to one store; given back exactly once, by `release` or by the settling.

    As a context manager it is released at the end, unless `hold` was called: then it lives
    on with the upload or the lease that took it over.
    """

    def __init__(
        self, ledger: Ledger, account: VolumeAccount, renter: NodeId, size_bytes: int
    ) -> None:
        self.renter = renter
        self.charge_bytes = charge_bytes(size_bytes)
        self.overhead_bytes = overhead_bytes(size_bytes)
        self.account = account
        self.crosses: tuple[ShardId, Tally | None] | None = None
        """A shard that comes to this volume from another, or (None) that leaves this one."""
        self.source = account
        """Of a shard that comes from another volume, that one's."""
        self.is_allocated = False
        self.is_open = True
        self._ledger = ledger
        self._held = False

    def hold(self) -> None:
        """Leave the `with` block with the space still promised."""
        self._held = True

    def allocated(self) -> None:
        """Note that the filesystem has set the space aside."""
        self._ledger.mark_allocated(self)

    def release(self) -> None:
        """Give the space back; safe at any time, also twice."""
        self._ledger.release(self)

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *_exc: object) -> None:
        if not self._held:
            self.release()


class Ledger:
    """All volumes and all renters under one lock; nothing here ever waits for a disk."""

    def __init__(self, uploads_per_renter_max: int, shards_per_contract_max: int) -> None:
        self._uploads_max = uploads_per_renter_max
        self._shards_max = shards_per_contract_max
        self._lock = threading.Lock()
        self._renters: dict[NodeId, _Renter] = {}

    def reserve(self, account: VolumeAccount, contract: Contract, size_bytes: int) -> Reservation:
        """
        Promise the space of a shard.

        Raises:
            NoSpaceError, ContractFullError, TooManyError: nothing was promised.

        """
        wanted = charge_bytes(size_bytes)
        with self._lock:
            renter = self._renters.get(contract.renter) or _Renter()
            if renter.uploads >= self._uploads_max:
                raise TooManyError(renter.uploads, self._uploads_max)
            shards = renter.tally.shards + renter.uploads - len(renter.twins)
            if shards >= self._shards_max:
                raise TooManyError(shards, self._shards_max)
            left = contract.space_bytes - _usage(renter).total_bytes
            if wanted > left:
                raise ContractFullError(wanted, max(0, left))
            if wanted + overhead_bytes(size_bytes) > account.free_bytes:
                raise NoSpaceError(wanted, account.free_bytes)
            return self._take(account, contract.renter, size_bytes)

    def restore(self, account: VolumeAccount, renter: NodeId, size_bytes: int) -> Reservation:
        """Note a promise that was found on the disk, already allocated."""
        with self._lock:
            reservation = self._take(account, renter, size_bytes)
            self._allocated(reservation)
        reservation.hold()
        return reservation

    def reserve_copy(
        self,
        account: VolumeAccount,
        source: VolumeAccount,
        renter: NodeId,
        shard: ShardId,
        size_bytes: int,
    ) -> Reservation:
        """
        Promise the space of a shard that comes from another volume, where it counts already.

        Once it is settled, the renter's usage counts it once until it has left there.

        Raises:
            NoSpaceError: nothing was promised.

        """
        wanted = charge_bytes(size_bytes)
        with self._lock:
            if wanted + overhead_bytes(size_bytes) > account.free_bytes:
                raise NoSpaceError(wanted, account.free_bytes)
            reservation = Reservation(self, account, renter, size_bytes)
            reservation.crosses = (shard, Tally.of(wanted, ShardState.LIVE))
            reservation.source = source
            self._promise(reservation)
        reservation.hold()
        return reservation

    def leaving(self, account: VolumeAccount, renter: NodeId, shard: ShardId) -> Reservation:
        """Return what, once settled, ends the counting of a shard that was on two volumes."""
        reservation = Reservation(self, account, renter, 0)
        reservation.charge_bytes = reservation.overhead_bytes = 0
        reservation.crosses = (shard, None)
        return reservation

    def mark_allocated(self, reservation: Reservation) -> None:
        """See `Reservation.allocated`."""
        with self._lock:
            self._allocated(reservation)

    def release(self, reservation: Reservation) -> None:
        """See `Reservation.release`."""
        with self._lock:
            self._give_back(reservation)

    def settle(
        self, account: VolumeAccount, changes: Changes, kept: Iterable[Reservation] = ()
    ) -> None:
        """Enter a transaction of the index, and end the reservations that it fulfilled."""
        with self._lock:
            for reservation in kept:
                self._give_back(reservation)
                self._cross(reservation)
            for renter, change in changes.renters.items():
                account.total.add(change)
                here = account.renters.setdefault(renter, Tally())
                here.add(change)
                if here == _NOTHING:
                    del account.renters[renter]
                self._renters.setdefault(renter, _Renter()).tally.add(change)
                self._forget_if_empty(renter)
            account.log_bytes += changes.log_bytes

    def forget(self, account: VolumeAccount) -> None:
        """
        Take a volume out that was closed while the others serve; it may be opened anew.

        Space that is still promised there is given back by whoever holds it.  A shard that was
        crossing counts where else it is.
        """
        with self._lock:
            account.is_forgotten = True
            for renter, entry in list(self._renters.items()):
                entry.tally.take(account.renters.get(renter, _NOTHING))
                entry.twins = {key: twin for key, twin in entry.twins.items() if twin.counts_twice}
                self._forget_if_empty(renter)
            account.renters = {}
            account.total = Tally()

    def change_quota(self, account: VolumeAccount, quota_bytes: int, keep_free_bytes: int) -> None:
        """Apply new settings of a volume."""
        with self._lock:
            account.quota_bytes = quota_bytes
            account.keep_free_bytes = keep_free_bytes

    def usage(self, renter: NodeId) -> Usage:
        """Return what a renter uses, over all volumes."""
        with self._lock:
            return _usage(self._renters.get(renter) or _Renter())

    def renters(self) -> tuple[NodeId, ...]:
        """Return everyone who has a shard or a reservation."""
        with self._lock:
            return tuple(self._renters)

    def _take(self, account: VolumeAccount, renter: NodeId, size_bytes: int) -> Reservation:
        reservation = Reservation(self, account, renter, size_bytes)
        self._promise(reservation)
        entry = self._renters.setdefault(renter, _Renter())
        entry.reserved_bytes += reservation.charge_bytes
        entry.uploads += 1
        return reservation

    def _promise(self, reservation: Reservation) -> None:
        account = reservation.account
        account.reserved_bytes += reservation.charge_bytes
        account.unallocated_bytes += reservation.charge_bytes
        account.pending_overhead_bytes += reservation.overhead_bytes

    def _cross(self, reservation: Reservation) -> None:
        if reservation.crosses is None:
            return
        shard, tally = reservation.crosses
        twins = self._renters.setdefault(reservation.renter, _Renter()).twins
        if tally is None:
            twins.pop(shard, None)
            self._forget_if_empty(reservation.renter)
            return
        twin = _Twin(tally, (reservation.source, reservation.account))
        if twin.counts_twice:
            twins[shard] = twin

    def _allocated(self, reservation: Reservation) -> None:
        if reservation.is_open and not reservation.is_allocated:
            reservation.is_allocated = True
            reservation.account.unallocated_bytes -= reservation.charge_bytes

    def _give_back(self, reservation: Reservation) -> None:
        if not reservation.is_open:
            return
        self._allocated(reservation)
        reservation.is_open = False
        reservation.account.reserved_bytes -= reservation.charge_bytes
        reservation.account.pending_overhead_bytes -= reservation.overhead_bytes
        if reservation.crosses is not None:
            return
        entry = self._renters[reservation.renter]
        entry.reserved_bytes -= reservation.charge_bytes
        entry.uploads -= 1
        self._forget_if_empty(reservation.renter)

    def _forget_if_empty(self, renter: NodeId) -> None:
        entry = self._renters[renter]
        if not (entry.uploads or entry.tally.shards or entry.twins):
            del self._renters[renter]


def _usage(renter: _Renter) -> Usage:
    twice = Tally()
    for twin in renter.twins.values():
        twice.add(twin.tally)
    return Usage(
        live_bytes=renter.tally.live_bytes - twice.live_bytes,
        trash_bytes=renter.tally.trash_bytes - twice.trash_bytes,
        reserved_bytes=renter.reserved_bytes,
        shards=renter.tally.shards - twice.shards,
    )
