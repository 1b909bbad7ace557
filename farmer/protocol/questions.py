"""Small questions and their answers: contracts, what is held, deletions, pings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from farmer.model.contract import Contract, ContractStage, Price
from farmer.model.ids import ShardId
from farmer.model.shard import DeletionOutcome, ShardState, Usage
from farmer.protocol.documents import (
    SIGNATURE_BYTES,
    contract_body,
    price_bytes,
    read_contract,
    read_price,
)
from farmer.protocol.fields import LayoutError, Reader, read_member, read_shard, text, u8, u16, u64
from farmer.protocol.limits import LIST_ENTRIES_MAX
from farmer.protocol.types import Type


@dataclass(frozen=True, slots=True)
class Redeem:
    """
    Spend an invite; answered by CONTRACT.

    0  -  invite (documents.py), the decoded part of the link after the last slash
    """

    TYPE: ClassVar = Type.REDEEM
    invite: bytes

    def body(self) -> bytes:
        """Encode."""
        return self.invite

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Decode."""
        return cls(reader.rest())


@dataclass(frozen=True, slots=True)
class ShowContract:
    """No body; answered by CONTRACT."""

    TYPE: ClassVar = Type.SHOW_CONTRACT

    def body(self) -> bytes:
        """Encode."""
        return b""

    @classmethod
    def read(cls, _reader: Reader) -> Self:
        """Decode."""
        return cls()


@dataclass(frozen=True, slots=True)
class ContractShown:
    """
    The contract and what it uses.

    0   1  stage: 0 active, 1 grace, 2 trash
    1   8  live, charged bytes
    9   8  trash, charged bytes
    17  8  reserved by stores under way, charged bytes
    25  8  shards, live and in the trash
    33  -  contract (documents.py)
    -  64  signature
    """

    TYPE: ClassVar = Type.CONTRACT
    stage: ContractStage
    usage: Usage
    contract: Contract
    signature: bytes

    def body(self) -> bytes:
        """Encode."""
        use = self.usage
        counts = u64(use.live_bytes) + u64(use.trash_bytes) + u64(use.reserved_bytes)
        head = u8(self.stage) + counts + u64(use.shards)
        return head + contract_body(self.contract) + self.signature

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Decode."""
        stage = read_member(ContractStage, reader.u8())
        if stage is ContractStage.GONE:
            raise LayoutError("a contract that is gone is never shown")
        usage = Usage(reader.u64(), reader.u64(), reader.u64(), reader.u64())
        return cls(stage, usage, read_contract(reader), reader.raw(SIGNATURE_BYTES))


@dataclass(frozen=True, slots=True)
class Stat:
    """
    Ask about one shard; answered by STATED.

    0  32  shard id
    """

    TYPE: ClassVar = Type.STAT
    shard: ShardId

    def body(self) -> bytes:
        """Encode."""
        return self.shard.raw

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Decode."""
        return cls(read_shard(reader))


@dataclass(frozen=True, slots=True)
class Stated:
    """
    What the farmer knows of one shard of the asking renter.

    0   32  shard id
    32  8   size, bytes
    40  8   stored at, Unix ms
    48  1   state: 0 live, 1 in the trash, 2 quarantined (its bytes are damaged)
    49  8   gone at, Unix ms: when the trash is emptied; 0 unless in the trash
    """

    TYPE: ClassVar = Type.STATED
    shard: ShardId
    size_bytes: int
    stored_at_ms: int
    state: ShardState
    gone_at_ms: int

    def body(self) -> bytes:
        """Encode."""
        head = self.shard.raw + u64(self.size_bytes) + u64(self.stored_at_ms)
        return head + u8(self.state) + u64(self.gone_at_ms)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Decode."""
        shard, size, stored_at = read_shard(reader), reader.u64(), reader.u64()
        return cls(shard, size, stored_at, read_member(ShardState, reader.u8()), reader.u64())


@dataclass(frozen=True, slots=True)
class List:
    """
    Ask for a page of one's own shards, ascending by id; answered by LISTED.

    0   32  list shards above this id; zeros to begin (an id of zeros is never listed)
    32  2   most entries wanted, 1 to 1000
    """

    TYPE: ClassVar = Type.LIST
    after: ShardId
    limit: int

    def body(self) -> bytes:
        """Encode."""
        return self.after.raw + u16(self.limit)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Decode."""
        after, limit = read_shard(reader), reader.u16()
        if not 1 <= limit <= LIST_ENTRIES_MAX:
            raise LayoutError(f"a page of {limit}, 1 to {LIST_ENTRIES_MAX} allowed")
        return cls(after, limit)


@dataclass(frozen=True, slots=True)
class Listed:
    """
    A page of shards.

    0  1   more: 1 if shards follow after the last entry
    1  2   n, number of entries
    3  57n entries, each as in STATED
    """

    TYPE: ClassVar = Type.LISTED
    entries: tuple[Stated, ...]
    more: bool

    def body(self) -> bytes:
        """Encode."""
        head = u8(self.more) + u16(len(self.entries))
        return head + b"".join(entry.body() for entry in self.entries)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Decode."""
        more, count = reader.flag(), reader.u16()
        return cls(tuple(Stated.read(reader) for _ in range(count)), more)


@dataclass(frozen=True, slots=True)
class Delete:
    """
    Give a shard up; answered by DELETED.

    0   32  shard id
    32  1   0 to the trash, 1 erase now
    """

    TYPE: ClassVar = Type.DELETE
    shard: ShardId
    erase: bool

    def body(self) -> bytes:
        """Encode."""
        return self.shard.raw + u8(self.erase)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Decode."""
        return cls(read_shard(reader), reader.flag())


@dataclass(frozen=True, slots=True)
class Deleted:
    """
    The deletion is durable.

    0  1  0 in the trash, 1 erased from the disk, 2 gone, erased at the next compaction
    1  8  gone at, Unix ms: when the trash is emptied; 0 unless in the trash
    """

    TYPE: ClassVar = Type.DELETED
    outcome: DeletionOutcome
    gone_at_ms: int

    def body(self) -> bytes:
        """Encode."""
        return u8(self.outcome) + u64(self.gone_at_ms)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Decode."""
        return cls(read_member(DeletionOutcome, reader.u8()), reader.u64())


@dataclass(frozen=True, slots=True)
class Undelete:
    """
    Take a shard out of the trash; answered by STATED.

    0  32  shard id
    """

    TYPE: ClassVar = Type.UNDELETE
    shard: ShardId

    def body(self) -> bytes:
        """Encode."""
        return self.shard.raw

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Decode."""
        return cls(read_shard(reader))


@dataclass(frozen=True, slots=True)
class Ping:
    """
    Answered by PONG.

    0  8  any number
    """

    TYPE: ClassVar = Type.PING
    token: int

    def body(self) -> bytes:
        """Encode."""
        return u64(self.token)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Decode."""
        return cls(reader.u64())


@dataclass(frozen=True, slots=True)
class Pong:
    """
    How the farmer is.

    0   8  the number of the PING
    8   8  farmer's clock, Unix ms
    16  8  free to rent, charged bytes over all volumes; not what a contract has left
    24  -  Price for new contracts (documents.py)
    -   -  software and its version, text
    """

    TYPE: ClassVar = Type.PONG
    token: int
    time_ms: int
    free_bytes: int
    price: Price
    software: str

    def body(self) -> bytes:
        """Encode."""
        head = u64(self.token) + u64(self.time_ms) + u64(self.free_bytes)
        return head + price_bytes(self.price) + text(self.software)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Decode."""
        token, time_ms, free = reader.u64(), reader.u64(), reader.u64()
        return cls(token, time_ms, free, read_price(reader), reader.text())
