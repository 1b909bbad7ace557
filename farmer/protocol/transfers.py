"""Messages that go with shard bytes: store, retrieve, audit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Self

from farmer.model.audit import NONCE_BYTES, SAMPLES_MAX, AuditEntry, AuditKind, Challenge
from farmer.model.contract import Receipt
from farmer.model.ids import ShardId
from farmer.protocol.documents import read_receipt, receipt_bytes
from farmer.protocol.fields import LayoutError, Reader, read_member, read_shard, u8, u16, u64
from farmer.protocol.limits import AUDIT_ENTRIES_MAX
from farmer.protocol.types import Type

TO_THE_END: Final = (1 << 63) - 1
"""A retrieve's length that means: all that follows the offset."""


@dataclass(frozen=True, slots=True)
class Store:
    """
    Ask for room for one shard; answered by ACCEPT, or by STORED if it is already held.

    0   32  shard id
    32  8   size, bytes
    """

    TYPE: ClassVar = Type.STORE
    shard: ShardId
    size_bytes: int

    def body(self) -> bytes:
        """Encode."""
        return self.shard.raw + u64(self.size_bytes)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Decode."""
        return cls(read_shard(reader), reader.u64())


@dataclass(frozen=True, slots=True)
class Accept:
    """
    Space is reserved: send DATA from this offset on, then END.

    0  8  offset of the first byte wanted; above 0 when an unfinished store goes on
    """

    TYPE: ClassVar = Type.ACCEPT
    offset: int

    def body(self) -> bytes:
        """Encode."""
        return u64(self.offset)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Decode."""
        return cls(reader.u64())


@dataclass(frozen=True, slots=True)
class Stored:
    """
    The shard is durable.

    0  249  receipt (documents.py), signature included
    """

    TYPE: ClassVar = Type.STORED
    receipt: Receipt

    def body(self) -> bytes:
        """Encode."""
        return receipt_bytes(self.receipt)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Decode."""
        return cls(read_receipt(reader.rest()))


@dataclass(frozen=True, slots=True)
class Retrieve:
    """
    Ask for a range of a shard; answered by SEND, then DATA, then END.

    0   32  shard id
    32  8   offset, bytes
    40  8   length, bytes; 2^63-1 means to the end
    48  1   1 to have the range proved: it is widened to whole leaves
    """

    TYPE: ClassVar = Type.RETRIEVE
    shard: ShardId
    offset: int
    length: int
    proved: bool

    def body(self) -> bytes:
        """Encode."""
        return self.shard.raw + u64(self.offset) + u64(self.length) + u8(self.proved)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Decode."""
        return cls(read_shard(reader), reader.u64(), reader.u64(), reader.flag())


@dataclass(frozen=True, slots=True)
class Send:
    """
    The range that follows in DATA frames.

    0   8   size of the whole shard, bytes
    8   8   offset of the first byte that follows
    16  8   how many bytes follow
    24  2   n, number of proof nodes; 0 unless a proof was asked for
    26  32n proof nodes, in the order of docs/protocol.md
    """

    TYPE: ClassVar = Type.SEND
    size_bytes: int
    offset: int
    length: int
    nodes: tuple[bytes, ...] = ()

    def body(self) -> bytes:
        """Encode."""
        head = u64(self.size_bytes) + u64(self.offset) + u64(self.length)
        return head + u16(len(self.nodes)) + b"".join(self.nodes)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Decode."""
        size, offset, length, count = reader.u64(), reader.u64(), reader.u64(), reader.u16()
        return cls(size, offset, length, tuple(reader.raw(32) for _ in range(count)))


@dataclass(frozen=True, slots=True)
class Audit:
    """
    One challenge over one or many shards; answered by DATA (proof items), then END.

    0   1   kind: 1 sample, 2 full
    1   32  nonce
    33  2   n, number of entries, 1 to 1024
    35  42n entries:  0  32 shard id;  32  8 size, bytes;  40  2 leaves to sample (full: 0)

    The samples of all entries together are at most 1024.
    """

    TYPE: ClassVar = Type.AUDIT
    challenge: Challenge

    def body(self) -> bytes:
        """Encode."""
        asked = self.challenge
        head = u8(asked.kind) + asked.nonce + u16(len(asked.entries))
        return head + b"".join(
            entry.shard.raw + u64(entry.size_bytes) + u16(entry.samples) for entry in asked.entries
        )

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Decode."""
        kind = read_member(AuditKind, reader.u8())
        nonce = reader.raw(NONCE_BYTES)
        count = reader.u16()
        if not 1 <= count <= AUDIT_ENTRIES_MAX:
            raise LayoutError(f"{count} audit entries, 1 to {AUDIT_ENTRIES_MAX} allowed")
        entries = tuple(_audit_entry(reader, kind) for _ in range(count))
        if sum(entry.samples for entry in entries) > SAMPLES_MAX:
            raise LayoutError(f"more than {SAMPLES_MAX} samples in one challenge")
        return cls(Challenge(nonce, kind, entries))


def _audit_entry(reader: Reader, kind: AuditKind) -> AuditEntry:
    entry = AuditEntry(read_shard(reader), reader.u64(), reader.u16())
    if (kind is AuditKind.SAMPLE) != (entry.samples > 0):
        raise LayoutError("a sample audit asks for at least one leaf, a full audit for none")
    return entry
