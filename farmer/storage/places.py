"""Where records are, and what the index knows of them, as values."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from farmer.model.ids import ContractId, NodeId, ShardId
from farmer.model.shard import ShardState, StoredShard, charge_bytes

Key = tuple[NodeId, ShardId]
"""What a farmer tells shards apart by: each renter has a copy of its own."""


def raw_key(renter: NodeId, shard: ShardId) -> bytes:
    """Return a key as 64 bytes."""
    return renter.raw + shard.raw


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record is: in a segment of the log, or (segment 0) in a file of its own."""

    segment: int
    offset: int
    file: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One shard as the index knows it."""

    renter: NodeId
    shard: ShardId
    place: Place
    size_bytes: int
    contract: ContractId
    stored_at_ms: int
    sequence: int
    state: ShardState = ShardState.LIVE
    gone_at_ms: int = 0
    observed_ms: int = 0
    is_damaged: bool = False
    """Always so in quarantine, and kept in the trash: out of it there is no other way back."""
    alone_ms: int = 0
    """Observed running time when it was stored while a volume that may hold an older copy could
    not be asked; 0 if all could, or have been since."""

    @property
    def charge_bytes(self) -> int:
        """What the record takes."""
        return charge_bytes(self.size_bytes)

    @classmethod
    def of(cls, columns: tuple[Any, ...]) -> Row:
        """
        Make a row of the index's columns, in the order of `farmer.storage.transaction.ROW`.

        Raises as `of_key`.
        """
        try:
            renter, shard = NodeId(columns[0]), ShardId(columns[1])
        except (TypeError, ValueError) as error:
            raise _rotten() from error
        return cls.of_key(renter, shard, columns)

    @classmethod
    def of_key(cls, renter: NodeId, shard: ShardId, columns: tuple[Any, ...]) -> Row:
        """
        Make a row of such columns, of which renter and shard are known already.

        Raises:
            sqlite3.DatabaseError: they are none.  SQLite keeps no checksums, so that a bit which
                flips can make another kind of value of one; it says the same of its own structure.

        """
        _, _, segment, offset, file, size, contract, stored, *rest = columns
        sequence, state, gone, observed, damaged, alone = rest
        numbers = (segment, offset, size, stored, sequence, gone, observed, damaged, alone)
        if {*map(type, numbers)} != {int} or not isinstance(file, bytes | None):
            raise _rotten()
        try:
            return cls(
                renter=renter,
                shard=shard,
                place=Place(segment, offset, file or b""),
                size_bytes=size,
                contract=ContractId(contract),
                stored_at_ms=stored,
                sequence=sequence,
                state=ShardState(state),
                gone_at_ms=gone,
                observed_ms=observed,
                is_damaged=bool(damaged),
                alone_ms=alone,
            )
        except (TypeError, ValueError) as error:
            raise _rotten() from error

    def stored(self) -> StoredShard:
        """Return what others may know of it."""
        return StoredShard(
            renter=self.renter,
            shard=self.shard,
            contract=self.contract,
            size_bytes=self.size_bytes,
            stored_at_ms=self.stored_at_ms,
            state=self.state,
            gone_at_ms=self.gone_at_ms,
        )


def _rotten() -> sqlite3.DatabaseError:
    return sqlite3.DatabaseError("a value in a row is of another kind")


@dataclass(frozen=True, slots=True)
class Doomed:
    """A record that nobody may read again, whose space is still to be given back."""

    sequence: int
    place: Place
    length: int

    @classmethod
    def of(cls, columns: tuple[Any, ...]) -> Doomed:
        """Make one of sequence, segment, offset, length and file; raises as `Row.of_key`."""
        sequence, segment, offset, length, file = columns
        if {*map(type, columns[:4])} != {int} or not isinstance(file, bytes | None):
            raise _rotten()
        return cls(sequence, Place(segment, offset, file or b""), length)


@dataclass(frozen=True, slots=True)
class Position:
    """Up to where in the log the index is right, and the next unused sequence."""

    segment: int
    offset: int
    next_sequence: int


@dataclass(slots=True)
class Segment:
    """What is in one segment of the log, in bytes."""

    number: int
    uuid: bytes
    size_bytes: int = 0
    live_bytes: int = 0
    punched_bytes: int = 0

    @classmethod
    def of(cls, columns: tuple[Any, ...]) -> Segment:
        """Make one of number, uuid, size, live and punched; raises as `Row.of_key`."""
        number, uuid, *sizes = columns
        if {*map(type, (number, *sizes))} != {int} or not isinstance(uuid, bytes):
            raise _rotten()
        return cls(number, uuid, *sizes)

    @property
    def idle_bytes(self) -> int:
        """Allocated but not rented: headers, marks, given-up records."""
        return self.size_bytes - self.live_bytes - self.punched_bytes
