"""Reading and writing fixed layouts: big-endian integers, raw bytes, short texts."""

from __future__ import annotations

from enum import IntEnum
from typing import TypeVar

from farmer.model.ids import ShardId
from farmer.protocol.limits import TEXT_BYTES_MAX
from farmer.protocol.refusals import Refusal, Refused, RemoteProtocolError

E = TypeVar("E", bound=IntEnum)


class LayoutError(RemoteProtocolError):
    """Bytes that do not follow the layout: too short, too long, or a forbidden value."""

    def __init__(self, detail: str, message_type: int = 0) -> None:
        super().__init__(Refused(Refusal.MALFORMED, message_type), detail)


class Reader:
    """Walks once over a body; `end` makes sure that nothing is left."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def raw(self, size: int) -> bytes:
        """Return the next *size* bytes."""
        part = self._body[self._at : self._at + size]
        if len(part) != size:
            raise LayoutError(f"{size} bytes expected at offset {self._at}, {len(part)} left")
        self._at += size
        return part

    def u8(self) -> int:
        """Return the next byte."""
        return self.raw(1)[0]

    def u16(self) -> int:
        """Return the next 2 bytes as a number."""
        return int.from_bytes(self.raw(2), "big")

    def u32(self) -> int:
        """Return the next 4 bytes as a number."""
        return int.from_bytes(self.raw(4), "big")

    def u64(self) -> int:
        """Return the next 8 bytes as a number; the top bit is never set."""
        value = int.from_bytes(self.raw(8), "big")
        if value >> 63:
            raise LayoutError(f"number too large before offset {self._at}")
        return value

    def flag(self) -> bool:
        """Return the next byte as yes or no; 0 and 1 only."""
        value = self.u8()
        if value > 1:
            raise LayoutError(f"a flag is 0 or 1, not {value}")
        return bool(value)

    def text(self) -> str:
        """Return a length byte's worth of printable ASCII, at most 64 bytes."""
        size = self.u8()
        if size > TEXT_BYTES_MAX:
            raise LayoutError(f"a text has at most {TEXT_BYTES_MAX} bytes, not {size}")
        raw = self.raw(size)
        # What counts as printable beyond ASCII differs between releases of Unicode.
        if not all(0x20 <= byte <= 0x7E for byte in raw):
            raise LayoutError("a text is printable ASCII, 0x20 to 0x7e")
        return raw.decode("ascii")

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.raw(len(self._body) - self._at)

    def end(self) -> None:
        """Raise `LayoutError` if anything is left."""
        if self._at != len(self._body):
            raise LayoutError(f"{len(self._body) - self._at} bytes too many")


def u8(value: int) -> bytes:
    """Return one byte."""
    return value.to_bytes(1, "big")


def u16(value: int) -> bytes:
    """Return 2 bytes."""
    return value.to_bytes(2, "big")


def u32(value: int) -> bytes:
    """Return 4 bytes."""
    return value.to_bytes(4, "big")


def u64(value: int) -> bytes:
    """Return 8 bytes; the top bit must be free."""
    assert 0 <= value < 1 << 63, value
    return value.to_bytes(8, "big")


def text(value: str) -> bytes:
    """Return a length byte and printable ASCII."""
    raw = value.encode("ascii")
    assert len(raw) <= TEXT_BYTES_MAX and value.isprintable(), value
    return u8(len(raw)) + raw


def read_shard(reader: Reader) -> ShardId:
    """Return the next 32 bytes as a shard id."""
    return ShardId(reader.raw(ShardId.SIZE_BYTES))


def read_member(kind: type[E], value: int) -> E:
    """Return the member of an enum with this wire value; raises `LayoutError`."""
    try:
        return kind(value)
    except ValueError:
        raise LayoutError(f"{value} is no {kind.__name__}") from None
