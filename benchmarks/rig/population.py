"""Which shards are there: numbers that both the filler and the measuring renters understand."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Final, Self

from farmer.audit.tree import TreeHasher
from farmer.model.ids import ShardId

MIXED: Final = 0
"""As a size: each shard has another one, 1 to 64 KiB."""

_MIXED_KIB: Final = 64
_STRIDE: Final = 7919
"""A prime, so that neighbours in number differ in size."""

_NUMBER_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Population:
    """Shards number *first* to *first + count - 1*, dealt out to the renters in turn."""

    count: int
    renters: int = 1
    size_bytes: int = 1024
    first: int = 0

    def owner(self, number: int) -> int:
        """Return the number of the renter whose shard it is."""
        return number % self.renters

    def size_of(self, number: int) -> int:
        """Return a shard's size in bytes."""
        if self.size_bytes != MIXED:
            return self.size_bytes
        return 1024 * (1 + number * _STRIDE % _MIXED_KIB)

    def data(self, number: int) -> bytes:
        """Return a shard's bytes: its number, then always the same noise."""
        noise = _noise(self.size_of(number))
        return number.to_bytes(_NUMBER_BYTES, "big") + noise[_NUMBER_BYTES:]

    @property
    def numbers(self) -> range:
        """All of them."""
        return range(self.first, self.first + self.count)

    def to_fields(self) -> dict[str, Any]:
        """Return it as it goes to another process."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        """Return what `to_fields` gave."""
        return cls(**fields)


def shard_id(data: bytes) -> ShardId:
    """Return the id of some bytes."""
    hasher = TreeHasher()
    hasher.update(data)
    return hasher.finish().shard_id()


@lru_cache(maxsize=_MIXED_KIB + 1)
def _noise(size_bytes: int) -> bytes:
    return random.Random(size_bytes).randbytes(max(size_bytes, _NUMBER_BYTES))
