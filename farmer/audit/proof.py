"""
Sample proofs: some leaves of a shard, and the nodes that lead from them to its id.

The nodes are one proof for all leaves together: for each gap between proved leaves, from
left to right, the fewest sub-trees that cover it.  Each node is needed exactly once, so a
proof has one form, and a node too many or too few is a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from farmer.audit.challenge import sample_leaves
from farmer.audit.subtrees import Climb, Subtree, beside
from farmer.audit.tree import (
    BLOCK_LEAVES,
    HASH_BYTES,
    Buffer,
    ShardTree,
    fold,
    hash_leaf,
    hash_leaves,
    shard_id,
)
from farmer.model.audit import SampleProof
from farmer.model.ids import ShardId
from farmer.model.shard import BLOCK_BYTES, LEAF_BYTES, block_count, leaf_count

ReadBlock = Callable[[int], Buffer]
"""Gives the bytes of one 64 KiB block, counted from 0; only the last may be shorter."""


class ProofError(Exception):
    """The proof does not prove what was asked; the message says why."""


def prove_sample(tree: ShardTree, leaves: Sequence[int], read_block: ReadBlock) -> SampleProof:
    """
    Return the proof of some leaves (ascending, distinct) of a shard.

    Reads each block that holds one of them once, in order, and keeps one at a time.  What
    *read_block* raises passes through.
    """
    blocks = _Blocks(tree, read_block)
    wanted = set(leaves)
    found, nodes = [], []
    for subtree in beside(leaves, leaf_count(tree.size_bytes)):
        if subtree.first in wanted:
            found.append(blocks.leaf(subtree.first))
        else:
            nodes.append(blocks.node(subtree))
    return SampleProof(tuple(found), tuple(nodes))


def prove_gaps(
    tree: ShardTree, subtrees: Iterable[Subtree], read_block: ReadBlock
) -> tuple[bytes, ...]:
    """Return the nodes of some sub-trees, in order; reads only blocks that they cut."""
    blocks = _Blocks(tree, read_block)
    return tuple(blocks.node(subtree) for subtree in subtrees)


def verify_sample(
    shard: ShardId, size_bytes: int, nonce: bytes, samples: int, proof: SampleProof
) -> None:
    """
    Check a proof against the id and size of the shard and the renter's own challenge.

    Raises:
        ProofError: not exactly the leaves that were asked for, or not of this shard.

    """
    wanted = sample_leaves(nonce, shard, size_bytes, samples)
    count = leaf_count(size_bytes)
    if len(proof.leaves) != len(wanted):
        raise ProofError(f"{len(proof.leaves)} leaves instead of {len(wanted)}")
    leaves = dict(zip(wanted, proof.leaves, strict=True))
    nodes = iter_nodes(proof.nodes)
    climb = Climb()
    for subtree in beside(wanted, count):
        leaf = leaves.get(subtree.first)
        node = next_node(nodes) if leaf is None else _checked(subtree.first, leaf, size_bytes)
        climb.push(subtree.end - subtree.first, node)
    end_of_nodes(nodes)
    check_root(shard, size_bytes, climb.root())


def leaf_bytes(leaf: int, size_bytes: int) -> int:
    """Return the length of one leaf of a shard; only the last may be shorter than 4 KiB."""
    return min(LEAF_BYTES, size_bytes - leaf * LEAF_BYTES)


def iter_nodes(nodes: Sequence[bytes]) -> Iterator[bytes]:
    """Return the nodes one by one; raises `ProofError` for one of the wrong length."""
    for node in nodes:
        if len(node) != HASH_BYTES:
            raise ProofError(f"a node of {len(node)} bytes instead of {HASH_BYTES}")
        yield node


def next_node(nodes: Iterator[bytes]) -> bytes:
    """Return the next node; raises `ProofError` when there is none."""
    node = next(nodes, None)
    if node is None:
        raise ProofError("a node is missing")
    return node


def end_of_nodes(nodes: Iterator[bytes]) -> None:
    """Raise `ProofError` if a node is left."""
    if next(nodes, None) is not None:
        raise ProofError("a node too many")


def check_root(shard: ShardId, size_bytes: int, root: bytes) -> None:
    """Raise `ProofError` unless this root and size make the shard's id."""
    if shard_id(size_bytes, root) != shard:
        raise ProofError("the hashes do not lead to the shard's id")


def _checked(leaf: int, data: bytes, size_bytes: int) -> bytes:
    expected = leaf_bytes(leaf, size_bytes)
    if len(data) != expected:
        raise ProofError(f"leaf {leaf} has {len(data)} bytes instead of {expected}")
    return hash_leaf(data)


class _Blocks:
    """Gives leaves and nodes of a shard, asked for from left to right; holds one block."""

    def __init__(self, tree: ShardTree, read_block: ReadBlock) -> None:
        self._tree = tree
        self._read_block = read_block
        self._leaves = leaf_count(tree.size_bytes)
        self._block = -1
        self._view = memoryview(b"")

    def leaf(self, leaf: int) -> bytes:
        return bytes(self._bytes_of(leaf, leaf + 1))

    def node(self, subtree: Subtree) -> bytes:
        first, end = subtree.first, subtree.end
        whole = first % BLOCK_LEAVES == 0 and (end % BLOCK_LEAVES == 0 or end == self._leaves)
        if whole:
            return self._tree.fold_blocks(first // BLOCK_LEAVES, -(-end // BLOCK_LEAVES))
        # Narrower than a block, so a wanted leaf or the edge of a range lies in the same one.
        return fold(hash_leaves(self._bytes_of(first, end)))

    def _bytes_of(self, first: int, end: int) -> memoryview:
        """Return the bytes of some leaves of one block."""
        block = first // BLOCK_LEAVES
        if block != self._block:
            self._turn_to(block)
        start = block * BLOCK_BYTES
        return self._view[first * LEAF_BYTES - start : end * LEAF_BYTES - start]

    def _turn_to(self, block: int) -> None:
        assert block > self._block, (block, self._block)
        size = min(BLOCK_BYTES, self._tree.size_bytes - block * BLOCK_BYTES)
        view = memoryview(self._read_block(block))
        assert len(view) == size and block < block_count(self._tree.size_bytes), (block, len(view))
        self._block, self._view = block, view
