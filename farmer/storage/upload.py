"""One shard being stored: small ones in memory, large ones in a staging file."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Final, Protocol, TypeVar
from zlib import crc32

from farmer.audit.tree import TreeHasher
from farmer.model.contract import Contract
from farmer.model.ids import ShardId
from farmer.model.shard import BLOCK_BYTES, StoredShard
from farmer.storage.doubts import Leftover
from farmer.storage.errors import (
    StorageError,
    VolumeUnavailableError,
    WrongHashError,
    WrongSizeError,
)
from farmer.storage.files import Buffer
from farmer.storage.ground import Ground
from farmer.storage.leases import Leases
from farmer.storage.operations import Adopt, Operation, StoreRecord, row_of
from farmer.storage.places import Place
from farmer.storage.quota import Reservation
from farmer.storage.records import (
    BlockChecksums,
    Kind,
    RecordHeader,
    trailer_length,
)
from farmer.storage.staging import Lease, Staged

R = TypeVar("R")

_ENDED: Final = "this upload has ended"

PART_BYTES: Final = 16 * 1024
"""What comes at once and is kept as it came; what is smaller is put together."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be stored."""

    contract: Contract
    shard: ShardId
    size_bytes: int
    alone_ms: int = 0
    """See `farmer.storage.places.Row`."""
    instead_of: int | None = None
    """Sequence of the record that must still be the shard's, not in the trash; None for any."""


class Submit(Protocol):
    """Hands an operation to the volume's writer."""

    def __call__(self, operation: Operation[R], ending: Callable[[], None], /) -> Future[R]:
        """Return the operation's future; *ending* is called, once, before it is settled."""


class SmallUpload:
    """A shard of at most 1 MiB: buffered, verified, appended.  See `farmer.node.ports.Upload`."""

    def __init__(
        self,
        ground: Ground,
        wanted: Wanted,
        reservation: Reservation,
        submit: Submit,
    ) -> None:
        self._ground = ground
        self._wanted = wanted
        self._reservation = reservation
        self._submit = submit
        self._parts: list[Buffer] = []
        self._size_bytes = 0
        self._lock = Lock()
        self._is_open = True

    @property
    def offset(self) -> int:
        """Where the next byte belongs."""
        return self._size_bytes

    def write(self, data: Buffer) -> None:
        """Take the next bytes; more than declared end it."""
        size_bytes = self._wanted.size_bytes
        received_bytes = self.offset + len(data)
        if received_bytes > size_bytes:
            self.abandon()
            raise WrongSizeError(size_bytes, received_bytes)
        self._keep(data)
        self._size_bytes = received_bytes

    def commit(self, ending: Callable[[], None] = lambda: None) -> Future[StoredShard]:
        """Check, then append; see the port, and `Submit` for *ending*."""
        if not self._is_open:
            raise VolumeUnavailableError(_ENDED)
        try:
            operation = self._operation()
        except StorageError:
            self.abandon()
            raise
        with self._lock:
            self._is_open = False
        return self._submit(operation, ending)

    def abandon(self) -> None:
        """Forget it, unless it was committed."""
        with self._lock:
            if not self._is_open:
                return
            self._is_open = False
        self._parts, self._size_bytes = [], 0
        self._reservation.release()

    drop = abandon
    """Leave no lease; a small one never does."""

    def _keep(self, data: Buffer) -> None:
        """Keep what is large and cannot change as it came: a copy would be a second shard."""
        if len(data) >= PART_BYTES and _is_lasting(data):
            self._parts.append(data)
        elif self._parts and isinstance(last := self._parts[-1], bytearray):
            last += data
        else:
            self._parts.append(bytearray(data))

    def _operation(self) -> StoreRecord:
        wanted = self._wanted
        if self.offset != wanted.size_bytes:
            raise WrongSizeError(wanted.size_bytes, self.offset)
        tree, checksums = TreeHasher(), BlockChecksums()
        # Block by block: for a checksum zlib lets others run, which hashing does not.
        for part in self._parts:
            view = memoryview(part)
            for start in range(0, len(view), BLOCK_BYTES):
                tree.update(view[start : start + BLOCK_BYTES])
                checksums.update(view[start : start + BLOCK_BYTES])
        finished = tree.finish()
        if finished.shard_id() != wanted.shard:
            raise WrongHashError
        trailer = finished.block_hashes + checksums.finish()
        header = partial(
            RecordHeader,
            kind=Kind.SHARD,
            payload_bytes=wanted.size_bytes,
            trailer_bytes=trailer_length(wanted.size_bytes),
            trailer_crc=crc32(trailer),
            renter=wanted.contract.renter,
            shard=wanted.shard,
            contract=wanted.contract.contract,
            stored_at_ms=self._ground.facts.clock_ms(),
            until_ms=wanted.contract.until_ms,
            alone_ms=wanted.alone_ms,
        )
        key, parts = (wanted.contract.renter, wanted.shard), [*self._parts, trailer]
        return StoreRecord(key, header, parts, self._reservation, wanted.instead_of)


def _is_lasting(data: Buffer) -> bool:
    """Tell whether nobody can change these bytes."""
    return isinstance(data, bytes) or isinstance(memoryview(data).obj, bytes)


class LargeUpload:
    """A larger shard: streamed into its own file.  See `farmer.node.ports.Upload`."""

    def __init__(
        self,
        ground: Ground,
        staged: Staged,
        reservation: Reservation,
        submit: Submit,
        leases: Leases,
        instead_of: int | None = None,
    ) -> None:
        self._ground = ground
        self._staged = staged
        self._reservation = reservation
        self._submit = submit
        self._leases = leases
        self._instead_of = instead_of
        self._lock = Lock()
        self._is_open = True

    @property
    def offset(self) -> int:
        """Where the next byte belongs."""
        return self._staged.offset

    def write(self, data: Buffer) -> None:
        """Take the next bytes; every 8 MiB they are synced.  More than declared end it."""
        if not self._is_open:
            raise VolumeUnavailableError(_ENDED)
        declared_bytes, so_far = self._staged.header.payload_bytes, self.offset + len(data)
        if so_far > declared_bytes:
            self._drop()
            raise WrongSizeError(declared_bytes, so_far)
        try:
            self._staged.write(data, self._ground.facts.clock_ms())
        except OSError as error:
            raise self._failed(error) from error

    def commit(self, ending: Callable[[], None] = lambda: None) -> Future[StoredShard]:
        """Check, make durable, then enter; see the port, and `Submit` for *ending*."""
        if not self._is_open:
            raise VolumeUnavailableError(_ENDED)
        header = self._staged.header
        if self.offset != header.payload_bytes:
            self._drop()
            raise WrongSizeError(header.payload_bytes, self.offset)
        if self._staged.shard_id() != header.shard:
            self._drop()
            raise WrongHashError
        try:
            with self._ground.tenure.lasting() as is_ours:
                stored = self._finish() if is_ours else None
        except OSError as error:
            raise self._failed(error) from error
        if stored is None:
            # Nobody would enter what is stored now; the next opening goes on from what is here.
            self.abandon()
            raise VolumeUnavailableError(_ENDED)
        with self._lock:
            self._is_open = False
        self._staged.close()
        row = row_of(stored, Place(0, 0, stored.segment))
        return self._submit(Adopt(row, self._reservation, self._discard, self._instead_of), ending)

    def abandon(self) -> None:
        """Leave a lease behind if there is a byte to go on from; not after commit or failure."""
        if not self.offset:
            self._drop()
            return
        with self._lock:
            if not self._is_open:
                return
            self._is_open = False
        try:
            with self._ground.tenure.lasting() as is_ours:
                # Else the next opening has looked: by now a shard may be stored in this file.
                if is_ours:
                    self._staged.lease(self._ground.facts.clock_ms())
        except OSError as error:
            self._ground.understand(error, self._reservation.charge_bytes)
            self._discard()
            return
        self._staged.close()
        self._leases.keep(Lease(self._staged.header, self._reservation))

    def drop(self) -> None:
        """Forget it, and leave no lease; not after commit or failure."""
        self._drop()

    def _finish(self) -> RecordHeader:
        facts = self._ground.facts
        return self._staged.finish(facts.sequencer.take(), facts.clock_ms())

    def _failed(self, error: OSError) -> StorageError:
        """Give up after a failure of the disk: what the file holds is not known any more."""
        self._drop()
        return self._ground.understand(error, self._reservation.charge_bytes)

    def _drop(self) -> None:
        with self._lock:
            if not self._is_open:
                return
            self._is_open = False
        self._discard()

    def _discard(self) -> None:
        """Remove the file, or leave it to the next opening, which has found it already."""
        header = self._staged.header
        try:
            with self._ground.tenure.lasting() as is_ours:
                if is_ours:
                    self._staged.remove()
        except OSError:
            self._ground.health.count("unlink")
            key = (header.renter, header.shard) if self._staged.may_be_stored else None
            self._ground.doubts.leave(Leftover(self._staged.path, self._reservation, key))
        else:
            self._staged.close()
            self._reservation.release()
