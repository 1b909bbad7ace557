"""Messages about damage: which blocks of a shard are bad, and sending those again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from farmer.model.ids import ShardId
from farmer.model.shard import SHARD_BYTES_MAX, BadBlocks, block_count
from farmer.protocol.fields import LayoutError, Reader, read_shard, u64
from farmer.protocol.types import Type


@dataclass(frozen=True, slots=True)
class Examine:
    """
    Ask which blocks of a shard are damaged; answered by BAD_BLOCKS.

    0  32  shard id
    """

    TYPE: ClassVar = Type.EXAMINE
    shard: ShardId

    def body(self) -> bytes:
        """Encode."""
        return self.shard.raw

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Decode."""
        return cls(read_shard(reader))


@dataclass(frozen=True, slots=True)
class Repair:
    """
    Have a damaged shard made whole; answered by BAD_BLOCKS, or by STORED if no byte is needed.

    0  32  shard id
    """

    TYPE: ClassVar = Type.REPAIR
    shard: ShardId

    def body(self) -> bytes:
        """Encode."""
        return self.shard.raw

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Decode."""
        return cls(read_shard(reader))


@dataclass(frozen=True, slots=True)
class BadBlocksNamed:
    """
    The damaged 64 KiB blocks of a shard; in a repair: send those in DATA, ascending, then END.

    0  8  size of the shard, bytes; at most 4 GiB
    8  -  one bit for each block, the first the highest bit of the first byte: 1 if it is
          damaged; the spare bits of the last byte are 0
    """

    TYPE: ClassVar = Type.BAD_BLOCKS
    bad: BadBlocks

    def body(self) -> bytes:
        """Encode."""
        size = self.bad.size_bytes
        bits = bytearray(-(-block_count(size) // 8))
        for block in self.bad.blocks:
            bits[block // 8] |= 0x80 >> block % 8
        return u64(size) + bits

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Decode."""
        size = reader.u64()
        if size > SHARD_BYTES_MAX:
            raise LayoutError(f"no shard has {size} bytes")
        count = block_count(size)
        bits = reader.raw(-(-count // 8))
        blocks = tuple(
            at * 8 + bit
            for at, byte in enumerate(bits)
            if byte
            for bit in range(8)
            if byte & 0x80 >> bit
        )
        if blocks and blocks[-1] >= count:
            raise LayoutError("a block behind the shard's end")
        return cls(BadBlocks(size, blocks))
