"""
Every message, drawn by offset: what stands in a frame's body.

A frame is   0  1  type
             1  3  length of the body, bytes
             4  -  body
Integers are big-endian and unsigned; times are Unix ms; u64 never has its top bit set;
nothing may follow the last field.  DATA is the only data frame: its body is passed on as
it arrives and never built as a message.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Final, Self, TypeVar

from farmer.model.audit import NONCE_BYTES, SAMPLES_MAX, AuditEntry, AuditKind, Challenge
from farmer.model.contract import Contract, ContractStage, Price, Receipt
from farmer.model.ids import ShardId
from farmer.model.shard import DeletionOutcome, ShardState, Usage
from farmer.protocol.documents import (
    SIGNATURE_BYTES,
    contract_body,
    price_bytes,
    read_contract,
    read_price,
    read_receipt,
    receipt_bytes,
)
from farmer.protocol.fields import LayoutError, Reader, text, u8, u16, u64
from farmer.protocol.limits import AUDIT_ENTRIES_MAX, LIST_ENTRIES_MAX
from farmer.protocol.refusals import Refusal, Refused

E = TypeVar("E", bound=IntEnum)

MAGIC: Final = b"FARM"
TO_THE_END: Final = (1 << 63) - 1
"""A retrieve's length that means: all that follows the offset."""


class Type(IntEnum):
    """The first byte of a frame.  Wire values: never renumber."""

    HELLO = 0x01
    WELCOME = 0x02
    REFUSE = 0x03
    DATA = 0x04
    END = 0x05
    REDEEM = 0x10
    SHOW_CONTRACT = 0x11
    CONTRACT = 0x12
    STORE = 0x20
    ACCEPT = 0x21
    STORED = 0x22
    RETRIEVE = 0x30
    SEND = 0x31
    AUDIT = 0x40
    STAT = 0x50
    STATED = 0x51
    LIST = 0x52
    LISTED = 0x53
    DELETE = 0x54
    DELETED = 0x55
    UNDELETE = 0x56
    PING = 0x60
    PONG = 0x61


@dataclass(frozen=True, slots=True)
class Hello:
    """
    The renter's first frame.

    0  4  "FARM"
    4  2  lowest protocol version spoken
    6  2  highest protocol version spoken
    8  -  software and its version, text (length byte + UTF-8, at most 64)
    """

    TYPE: ClassVar = Type.HELLO
    version_min: int
    version_max: int
    software: str

    def body(self) -> bytes:
        """Encode."""
        return MAGIC + u16(self.version_min) + u16(self.version_max) + text(self.software)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Decode."""
        if reader.raw(4) != MAGIC:
            raise LayoutError("this is not the farmer protocol")
        lowest, highest = reader.u16(), reader.u16()
        if lowest > highest:
            raise LayoutError("lowest version above highest")
        return cls(lowest, highest, reader.text())


@dataclass(frozen=True, slots=True)
class Welcome:
    """
    The farmer's answer: the version spoken from here on, and its limits.

    0   2  protocol version
    2   8  farmer's clock, Unix ms
    10  8  largest shard it takes, bytes
    18  -  software and its version, text
    """

    TYPE: ClassVar = Type.WELCOME
    version: int
    time_ms: int
    shard_bytes_max: int
    software: str

    def body(self) -> bytes:
        """Encode."""
        head = u16(self.version) + u64(self.time_ms)
        return head + u64(self.shard_bytes_max) + text(self.software)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Decode."""
        return cls(reader.u16(), reader.u64(), reader.u64(), reader.text())


@dataclass(frozen=True, slots=True)
class Refuse:
    """
    The farmer's no, to the oldest open exchange.

    0   2  refusal
    2   8  first number
    10  8  second number
    18  1  final: 1 if the farmer hangs up after it
    """

    TYPE: ClassVar = Type.REFUSE
    refused: Refused
    final: bool = False

    def body(self) -> bytes:
        """Encode."""
        why = self.refused
        return u16(why.refusal) + u64(why.first) + u64(why.second) + u8(self.final)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Decode."""
        code = reader.u16()
        try:
            refusal = Refusal(code)
        except ValueError:
            raise LayoutError(f"unknown refusal {code}") from None
        return cls(Refused(refusal, reader.u64(), reader.u64()), reader.flag())


@dataclass(frozen=True, slots=True)
class End:
    """No body.  After the last DATA of a store, a retrieve or an audit."""

    TYPE: ClassVar = Type.END

    def body(self) -> bytes:
        """Encode."""
        return b""

    @classmethod
    def read(cls, _reader: Reader) -> Self:
        """Decode."""
        return cls()


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
        stage = _member(ContractStage, reader.u8())
        if stage is ContractStage.GONE:
            raise LayoutError("a contract that is gone is never shown")
        usage = Usage(reader.u64(), reader.u64(), reader.u64(), reader.u64())
        return cls(stage, usage, read_contract(reader), reader.raw(SIGNATURE_BYTES))


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
        return cls(_shard(reader), reader.u64())


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
        return cls(_shard(reader), reader.u64(), reader.u64(), reader.flag())


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
        kind = _member(AuditKind, reader.u8())
        nonce = reader.raw(NONCE_BYTES)
        count = reader.u16()
        if not 1 <= count <= AUDIT_ENTRIES_MAX:
            raise LayoutError(f"{count} audit entries, 1 to {AUDIT_ENTRIES_MAX} allowed")
        entries = tuple(_audit_entry(reader, kind) for _ in range(count))
        if sum(entry.samples for entry in entries) > SAMPLES_MAX:
            raise LayoutError(f"more than {SAMPLES_MAX} samples in one challenge")
        return cls(Challenge(nonce, kind, entries))


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
        return cls(_shard(reader))


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
        shard, size, stored_at = _shard(reader), reader.u64(), reader.u64()
        return cls(shard, size, stored_at, _member(ShardState, reader.u8()), reader.u64())


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
        after, limit = _shard(reader), reader.u16()
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
        return cls(_shard(reader), reader.flag())


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
        return cls(_member(DeletionOutcome, reader.u8()), reader.u64())


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
        return cls(_shard(reader))


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
    16  8  space free to rent, bytes
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


Request = Redeem | ShowContract | Store | Retrieve | Audit | Stat | List | Delete | Undelete | Ping
Answer = ContractShown | Stored | Send | Stated | Listed | Deleted | Pong
Message = Hello | Welcome | Refuse | End | Accept | Request | Answer

MESSAGES: Final[dict[Type, type[Message]]] = {
    kind.TYPE: kind
    for kind in (
        *(Hello, Welcome, Refuse, End, Redeem, ShowContract, ContractShown),
        *(Store, Accept, Stored, Retrieve, Send, Audit, Stat, Stated),
        *(List, Listed, Delete, Deleted, Undelete, Ping, Pong),
    )
}


def encode(message: Message) -> bytes:
    """Return the message as one whole frame."""
    body = message.body()
    return u8(message.TYPE) + len(body).to_bytes(3, "big") + body


def decode(kind: Type, body: bytes) -> Message:
    """
    Return the message in a frame's body.

    Raises:
        LayoutError: the body does not follow the layout to its last byte.

    """
    reader = Reader(body)
    try:
        message = MESSAGES[kind].read(reader)
        reader.end()
    except LayoutError as error:
        raise LayoutError(f"{kind.name}: {error}", kind) from error
    return message


def _shard(reader: Reader) -> ShardId:
    return ShardId(reader.raw(ShardId.SIZE_BYTES))


def _audit_entry(reader: Reader, kind: AuditKind) -> AuditEntry:
    entry = AuditEntry(_shard(reader), reader.u64(), reader.u16())
    if (kind is AuditKind.SAMPLE) != (entry.samples > 0):
        raise LayoutError("a sample audit asks for at least one leaf, a full audit for none")
    return entry


def _member(kind: type[E], value: int) -> E:
    try:
        return kind(value)
    except ValueError:
        raise LayoutError(f"{value} is no {kind.__name__}") from None
