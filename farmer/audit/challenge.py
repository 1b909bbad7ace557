"""
Which leaves a challenge asks for: both sides derive them, nobody chooses them.

    draw i     SHA-256("farmer/audit/1" || nonce, 32 || shard id, 32 || i, 4), i from 0;
               each gives four 8-byte numbers, big-endian, in order
    number v   skipped if v >= 2^64 - 2^64 mod n, where n is the number of leaves, so that
               no leaf is likelier than another; else it names the leaf v mod n
    leaves     the first k different ones, in ascending order; all n if k >= n

The farmer cannot know them before the nonce, and an answer prepared for one shard is no
answer for another, since the shard id takes part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import count
from typing import Final

from farmer.model.ids import ShardId
from farmer.model.shard import leaf_count

SAMPLE_DOMAIN: Final = b"farmer/audit/1"


def sample_leaves(nonce: bytes, shard: ShardId, size_bytes: int, samples: int) -> tuple[int, ...]:
    """Return the leaves to prove, ascending and distinct: *samples* of them, or all if fewer."""
    leaves = leaf_count(size_bytes)
    if samples >= leaves:
        return tuple(range(leaves))
    chosen: set[int] = set()
    numbers = _numbers(SAMPLE_DOMAIN + nonce + shard.raw)
    fair_below = (1 << 64) // leaves * leaves
    while len(chosen) < samples:
        number = next(numbers)
        if number < fair_below:
            chosen.add(number % leaves)
    return tuple(sorted(chosen))


def _numbers(seed: bytes) -> Iterator[int]:
    """Return evenly distributed 64-bit numbers, for ever."""
    for draw in count():
        digest = hashlib.sha256(seed + draw.to_bytes(4, "big")).digest()
        for at in range(0, len(digest), 8):
            yield int.from_bytes(digest[at : at + 8], "big")
