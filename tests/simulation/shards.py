"""The shards that renters store: a pool of bytes of all interesting sizes, made once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from random import Random

from farmer.audit.tree import TreeHasher
from farmer.model.ids import ShardId

MIB = 1024 * 1024
SMALL = (0, 1, 300, 3700, 3804, 4096, 5000, 8000, 12_000, 20_000, 65_536, 65_537, 70_000)
MIDDLING = (150_000, 300_000, 524_288, 900_000, MIB)
LARGE = (MIB + 1, MIB + 65_536, 2 * MIB + 77, 9 * MIB)


@dataclass(frozen=True, slots=True)
class Content:
    """Some bytes and their name."""

    data: bytes
    shard: ShardId


@cache
def content(size_bytes: int, number: int) -> Content:
    """Return the same bytes for the same numbers."""
    data = Random(size_bytes * 1000 + number).randbytes(size_bytes)
    hasher = TreeHasher()
    hasher.update(data)
    return Content(data, hasher.finish().shard_id())


def draw_large(rng: Random) -> Content:
    """Return what is large enough for a lease, and no larger than need be."""
    return content(LARGE[int(rng.random() * 2)], int(rng.random() * 2))


def draw(rng: Random) -> Content:
    """Return some content; the small ones far more often."""
    kind = rng.random()
    if kind < 0.93:
        return content(SMALL[int(rng.random() * len(SMALL))], int(rng.random() * 12))
    if kind < 0.988:
        return content(MIDDLING[int(rng.random() * len(MIDDLING))], int(rng.random() * 3))
    if kind < 0.9995:
        return content(LARGE[int(rng.random() * (len(LARGE) - 1))], int(rng.random() * 2))
    return content(LARGE[-1], 0)
