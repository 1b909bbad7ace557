"""How a conversation opens, and the two messages that any exchange may end with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Self

from farmer.protocol.fields import LayoutError, Reader, text, u8, u16, u64
from farmer.protocol.refusals import Refusal, Refused
from farmer.protocol.types import Type

MAGIC: Final = b"FARM"


@dataclass(frozen=True, slots=True)
class Hello:
    """
    The renter's first frame.

    0  4  "FARM"
    4  2  lowest protocol version spoken
    6  2  highest protocol version spoken
    8  -  software and its version, text (length byte + ASCII, at most 64)
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
