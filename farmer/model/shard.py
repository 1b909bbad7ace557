"""What is known of a shard, and what one costs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from farmer.model.ids import ContractId, NodeId, ShardId

LEAF_BYTES: Final = 4096
"""Bytes under one leaf of the hash tree: what a sample audit sends."""

BLOCK_BYTES: Final = 16 * LEAF_BYTES
"""Bytes under one stored tree hash and one checksum: what a read verifies."""

SHARD_BYTES_MAX: Final = 4 * 1024**3
"""No shard is larger, whatever a farmer allows: tree and leases stay small."""

RECORD_HEADER_BYTES: Final = 256
RECORD_ALIGNMENT_BYTES: Final = 4096
BLOCK_HASH_BYTES: Final = 32
BLOCK_CHECKSUM_BYTES: Final = 4


def leaf_count(size_bytes: int) -> int:
    """Return how many leaves the tree of a shard has; an empty shard has one empty leaf."""
    return max(1, -(-size_bytes // LEAF_BYTES))


def block_count(size_bytes: int) -> int:
    """Return how many 64 KiB blocks a shard has; an empty shard has one empty block."""
    return max(1, -(-size_bytes // BLOCK_BYTES))


def charge_bytes(size_bytes: int) -> int:
    """
    Return the disk space that a shard of *size_bytes* is charged, in quota and contract alike.

    Record header + shard + one hash and one checksum per block, rounded up to whole
    4 KiB disk blocks: what the shard really allocates (docs/storage-format.md).
    """
    trailer = block_count(size_bytes) * (BLOCK_HASH_BYTES + BLOCK_CHECKSUM_BYTES)
    total = RECORD_HEADER_BYTES + size_bytes + trailer
    return -(-total // RECORD_ALIGNMENT_BYTES) * RECORD_ALIGNMENT_BYTES


class ShardState(IntEnum):
    """What a shard is to its renter.  Wire and disk values: never renumber."""

    LIVE = 0
    TRASH = 1
    QUARANTINED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredShard:
    """One shard that the farmer holds for one renter."""

    renter: NodeId
    shard: ShardId
    contract: ContractId
    size_bytes: int
    stored_at_ms: int
    state: ShardState = ShardState.LIVE
    gone_at_ms: int = 0
    """When a shard in the trash is removed for good, in Unix ms; 0 unless in the trash."""

    @property
    def charge_bytes(self) -> int:
        """The space this shard is charged."""
        return charge_bytes(self.size_bytes)


@dataclass(frozen=True, slots=True)
class BadBlocks:
    """Which 64 KiB blocks of a shard are not what was stored."""

    size_bytes: int
    """Of the whole shard."""
    blocks: tuple[int, ...]
    """Counted from 0, ascending."""

    @property
    def wanted_bytes(self) -> int:
        """How many bytes these blocks have together."""
        ends = (min((block + 1) * BLOCK_BYTES, self.size_bytes) for block in self.blocks)
        return sum(ends) - sum(block * BLOCK_BYTES for block in self.blocks)


class DeletionOutcome(IntEnum):
    """How far a deletion got before it was answered.  Wire values: never renumber."""

    TRASHED = 0
    ERASED = 1
    ERASED_AT_COMPACTION = 2


@dataclass(frozen=True, slots=True)
class Deletion:
    """The durable answer to a delete."""

    outcome: DeletionOutcome
    gone_at_ms: int
    """When the trash is emptied, in Unix ms; 0 when nothing waits in the trash."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one renter's contract uses now, in charged bytes (see `charge_bytes`)."""

    live_bytes: int = 0
    trash_bytes: int = 0
    reserved_bytes: int = 0
    shards: int = 0

    @property
    def total_bytes(self) -> int:
        """All that counts against the contract's space."""
        return self.live_bytes + self.trash_bytes + self.reserved_bytes
