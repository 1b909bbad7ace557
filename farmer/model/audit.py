"""What a renter asks of a farmer to prove, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from farmer.model.ids import ShardId

NONCE_BYTES: Final = 32
SAMPLES_MAX: Final = 1024
"""Leaves in one audit exchange, over all its shards: bounds the reads and the answer."""


class AuditKind(IntEnum):
    """What is proved.  Wire values: never renumber."""

    SAMPLE = 1
    FULL = 2


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One shard to prove: its id and size as the renter knows them, and how many leaves."""

    shard: ShardId
    size_bytes: int
    samples: int


@dataclass(frozen=True, slots=True)
class Challenge:
    """One fresh nonce over one or many shards."""

    nonce: bytes
    kind: AuditKind
    entries: tuple[AuditEntry, ...]

    def __post_init__(self) -> None:
        if len(self.nonce) != NONCE_BYTES:
            raise ValueError(f"a nonce has {NONCE_BYTES} bytes, not {len(self.nonce)}")


@dataclass(frozen=True, slots=True)
class SampleProof:
    """The challenged leaves in ascending order, and the tree nodes that lead to the root."""

    leaves: tuple[bytes, ...]
    nodes: tuple[bytes, ...]
