"""
The hash tree over a shard: what its id binds, and what every proof leads back to.

RFC 6962, section 2.1, with SHA-256 and leaves of 4 KiB:

    hash of a leaf    SHA-256(0x00 || leaf)            the last leaf may be shorter
    hash of a node    SHA-256(0x01 || left || right)   left has the largest power of two of
                                                       leaves below the number of all
    shard id          SHA-256("farmer/shard/1" || size, 8 || leaf size, 4 || root, 32)

An empty shard has one empty leaf.  Only the hashes of 64 KiB blocks are kept (32 bytes per
block): a block is 16 leaves, a power of two, so the tree over block hashes has the same
upper nodes and the same root, and one read of a block gives back the nodes below.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from farmer.model.ids import ShardId
from farmer.model.shard import BLOCK_BYTES, BLOCK_HASH_BYTES, LEAF_BYTES, block_count

SHARD_DOMAIN: Final = b"farmer/shard/1"
LEAF_PREFIX: Final = b"\0"
NODE_PREFIX: Final = b"\1"

HASH_BYTES: Final = BLOCK_HASH_BYTES
BLOCK_LEAVES: Final = BLOCK_BYTES // LEAF_BYTES

Buffer = bytes | bytearray | memoryview
"""Contiguous bytes; a memoryview must be of single bytes."""

_LEAF_BEGUN: Final = hashlib.sha256(LEAF_PREFIX)
_NODE_BEGUN: Final = hashlib.sha256(NODE_PREFIX)
# Copied for each leaf and node: half as long as to begin one.

_CUTS: Final = (2047, 4031)
"""
Where a leaf is cut, so that hashlib keeps Python's lock: for 2048 bytes and more it lets go.

It is free for 2 us then, and may be had back only after 5 ms.  Beside a thread that computes, a
block took 8.7 ms and not 0.1; four threads that hash do 1.6 times as much without letting go.
Others wait for 60 us a block; who hashes much at once has to let them run in between.
With the prefix these are whole blocks of SHA-256.
"""


def hash_leaf(leaf: Buffer) -> bytes:
    """Return the hash of one leaf."""
    return hashlib.sha256(LEAF_PREFIX + leaf).digest()


def hash_leaves(block: Buffer) -> list[bytes]:
    """Return the hashes of the leaves in some whole leaves; only the last may be shorter."""
    view, (first, second) = memoryview(block), _CUTS
    hashes = []
    for start in range(0, len(view) or 1, LEAF_BYTES):
        digest = _LEAF_BEGUN.copy()
        digest.update(view[start : start + first])
        digest.update(view[start + first : start + second])
        digest.update(view[start + second : start + LEAF_BYTES])
        hashes.append(digest.digest())
    return hashes


def hash_node(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node over its two children."""
    return hashlib.sha256(NODE_PREFIX + left + right).digest()


def fold(hashes: Iterable[bytes]) -> bytes:
    """
    Return the root over some neighbouring hashes of one level.

    Pairs level by level, the odd one out moves up as it is: the shape of RFC 6962.
    """
    level = list(hashes)
    while len(level) > 1:
        above = []
        ones = iter(level)
        for left, right in zip(ones, ones, strict=False):
            digest = _NODE_BEGUN.copy()
            digest.update(left + right)
            above.append(digest.digest())
        level = above + level[-1:] if len(level) & 1 else above
    return level[0]


def hash_block(block: Buffer) -> bytes:
    """Return the hash that is kept for one block of at most 64 KiB."""
    return fold(hash_leaves(block))


def shard_id(size_bytes: int, root: bytes) -> ShardId:
    """Return the id of the shard of this size whose tree has this root."""
    size, leaf_size = size_bytes.to_bytes(8, "big"), LEAF_BYTES.to_bytes(4, "big")
    return ShardId(hashlib.sha256(SHARD_DOMAIN + size + leaf_size + root).digest())


@dataclass(frozen=True, slots=True)
class ShardTree:
    """The kept part of a shard's tree: one hash per 64 KiB block, one after the other."""

    size_bytes: int
    block_hashes: bytes

    def __post_init__(self) -> None:
        expected = block_count(self.size_bytes) * HASH_BYTES
        if len(self.block_hashes) != expected:
            raise ValueError(f"{len(self.block_hashes)} bytes of block hashes, not {expected}")

    def block_hash(self, block: int) -> bytes:
        """Return the hash of one block, counted from 0."""
        assert 0 <= block < block_count(self.size_bytes), block
        return self.block_hashes[block * HASH_BYTES : (block + 1) * HASH_BYTES]

    def fold_blocks(self, first: int, end: int) -> bytes:
        """Return the node over the blocks from *first* up to, not with, *end*."""
        hashes = self.block_hashes
        return fold(
            hashes[at : at + HASH_BYTES]
            for at in range(first * HASH_BYTES, end * HASH_BYTES, HASH_BYTES)
        )

    def root(self) -> bytes:
        """Return the root of the tree."""
        return self.fold_blocks(0, block_count(self.size_bytes))

    def shard_id(self) -> ShardId:
        """Return the id of the shard with this tree."""
        return shard_id(self.size_bytes, self.root())


class TreeHasher:
    """Makes the tree of a shard from its bytes in any slices; keeps less than a block of them."""

    def __init__(self) -> None:
        self.size_bytes = 0
        """What has been taken so far."""
        self._hashes = bytearray()
        self._pending = bytearray()

    def update(self, data: Buffer) -> None:
        """Take the next bytes; they are not kept, except an unfinished block."""
        view = memoryview(data)
        self.size_bytes += len(view)
        at = 0
        if self._pending:
            at = BLOCK_BYTES - len(self._pending)
            self._pending += view[:at]
            if len(self._pending) < BLOCK_BYTES:
                return
            self._hashes += hash_block(self._pending)
            self._pending = bytearray()
        whole = at + (len(view) - at) // BLOCK_BYTES * BLOCK_BYTES
        for start in range(at, whole, BLOCK_BYTES):
            self._hashes += hash_block(view[start : start + BLOCK_BYTES])
        self._pending += view[whole:]

    def finish(self) -> ShardTree:
        """Return the tree of all that was taken; more may be taken, and finished, afterwards."""
        hashes = bytes(self._hashes)
        if self._pending or not hashes:
            hashes += hash_block(self._pending)
        return ShardTree(self.size_bytes, hashes)
