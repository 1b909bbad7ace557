"""
Range proofs: the nodes on both sides of a run of leaves, so that a renter checks a part.

The nodes stand from left to right: the fewest sub-trees over all leaves before the range,
then the fewest over all leaves after it.  A whole shard needs none.
"""

from __future__ import annotations

from collections.abc import Sequence

from farmer.audit.proof import (
    ProofError,
    ReadBlock,
    check_root,
    end_of_nodes,
    iter_nodes,
    next_node,
    prove_gaps,
)
from farmer.audit.subtrees import Climb, Subtree, covering
from farmer.audit.tree import BLOCK_LEAVES, Buffer, ShardTree, fold, hash_leaves
from farmer.model.ids import ShardId
from farmer.model.shard import BLOCK_BYTES, LEAF_BYTES, leaf_count


def whole_leaves(size_bytes: int, offset: int, length: int) -> tuple[int, int]:
    """
    Return offset and length of the smallest run of whole leaves around a range of a shard.

    At least one leaf, also around nothing.  The range must lie within the shard.
    """
    assert 0 <= offset <= offset + length <= size_bytes, (offset, length, size_bytes)
    first = min(offset // LEAF_BYTES, leaf_count(size_bytes) - 1)
    end = max(first + 1, -(-(offset + length) // LEAF_BYTES))
    start = first * LEAF_BYTES
    return start, min(end * LEAF_BYTES, size_bytes) - start


def prove_range(
    tree: ShardTree, first_leaf: int, end_leaf: int, read_block: ReadBlock
) -> tuple[bytes, ...]:
    """Return the nodes that prove the leaves [first_leaf, end_leaf); reads two blocks at most."""
    count = leaf_count(tree.size_bytes)
    assert 0 <= first_leaf < end_leaf <= count, (first_leaf, end_leaf)
    gaps = [*covering(0, first_leaf, count), *covering(end_leaf, count, count)]
    return prove_gaps(tree, gaps, read_block)


class RangeVerifier:
    """
    Checks a run of whole leaves while its bytes stream by; keeps less than a block of them.

    That the bytes are right is known only when `finish` has returned.
    """

    def __init__(
        self, shard: ShardId, size_bytes: int, offset: int, length: int, nodes: Sequence[bytes]
    ) -> None:
        """
        Begin.

        Raises:
            ProofError: the range is not one of whole leaves of the shard, or a node is missing.

        """
        if not 0 <= offset <= offset + length <= size_bytes:
            raise ProofError(f"{length} bytes from {offset} of a shard of {size_bytes}")
        if whole_leaves(size_bytes, offset, length) != (offset, length):
            raise ProofError(f"{length} bytes from {offset} are not whole leaves")
        self._shard, self._size_bytes = shard, size_bytes
        self._left = length
        self._count = leaf_count(size_bytes)
        self._next_leaf = offset // LEAF_BYTES
        self._pending = bytearray()
        self._nodes = iter_nodes(nodes)
        self._climb = Climb()
        self._push_nodes(0, self._next_leaf)

    def update(self, data: Buffer) -> None:
        """Take the next bytes of the range; raises `ProofError` for more than its length."""
        view = memoryview(data)
        self._left -= len(view)
        if self._left < 0:
            raise ProofError(f"{-self._left} bytes beyond the range")
        while len(self._pending) + len(view) >= (room := self._room()):
            taken = room - len(self._pending)
            if self._pending:
                self._pending += view[:taken]
                self._push_block(self._pending)
                self._pending = bytearray()
            else:
                self._push_block(view[:taken])
            view = view[taken:]
        self._pending += view

    def finish(self) -> None:
        """
        Return if all bytes of the range came and are those of the shard.

        Raises:
            ProofError: they are not, or the nodes do not fit.

        """
        if self._left:
            raise ProofError(f"{self._left} bytes of the range are missing")
        if self._pending or self._size_bytes == 0:
            self._push_block(self._pending)
        self._push_nodes(self._next_leaf, self._count)
        end_of_nodes(self._nodes)
        check_root(self._shard, self._size_bytes, self._climb.root())

    def _room(self) -> int:
        """Return how many bytes reach from the next leaf to the end of its block."""
        return BLOCK_BYTES - self._next_leaf % BLOCK_LEAVES * LEAF_BYTES

    def _push_block(self, part: Buffer) -> None:
        """Take the leaves in what is a block, or one end of it."""
        hashes = hash_leaves(part)
        if len(hashes) == BLOCK_LEAVES:
            self._climb.push(BLOCK_LEAVES, fold(hashes))
        else:
            for node in hashes:
                self._climb.push(1, node)
        self._next_leaf += len(hashes)

    def _push_nodes(self, first: int, end: int) -> None:
        for subtree in covering(first, end, self._count):
            self._push_node(subtree)

    def _push_node(self, subtree: Subtree) -> None:
        self._climb.push(subtree.end - subtree.first, next_node(self._nodes))
