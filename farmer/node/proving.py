"""
A large sample proof, sent in steps: what a renter takes slowly does not lie in memory.

The first pass makes the whole proof, which checks every block, and keeps its nodes only; the
second reads the leaves again (from the page cache, as a rule), one step at a time, at the
wire's pace.  So a proof in the making is bounded by a gate for as long as a thread is at it,
and one being sent holds a step and the shard's tree, like a retrieve, and its nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Final

from farmer.audit.challenge import sample_leaves
from farmer.model.audit import AuditEntry
from farmer.model.ids import NodeId
from farmer.model.shard import BLOCK_BYTES, BLOCK_HASH_BYTES, LEAF_BYTES
from farmer.node.exchange import Exchange
from farmer.node.farm import Farm
from farmer.node.held import STEP_BYTES
from farmer.node.lending import Lent
from farmer.node.ports import ShardReader
from farmer.protocol.proofs import encode_sample_head
from farmer.storage.errors import ShardNotFoundError

LEAVES_AT_ONCE: Final = STEP_BYTES // LEAF_BYTES
"""A proof with more leaves is read twice and sent in steps of at most so many."""

_BLOCK_LEAVES: Final = BLOCK_BYTES // LEAF_BYTES


async def send_in_steps(farm: Farm, exchange: Exchange, nonce: bytes, entry: AuditEntry) -> None:
    """
    Send the item of an entry.

    Raises:
        StorageError: before the first byte of it, or, if the disk fails between the passes,
            in the middle: then the audit cannot go on.

    """
    lent: Lent[ShardReader] = Lent(lambda late: late.close())
    reader = await lent.fetch(farm.disk, open_entry, farm, exchange.renter, entry)
    try:
        with exchange.keeping_tree_of(reader.stored):
            async with exchange.inside(farm.proofs, entry.samples * LEAF_BYTES):
                nodes = await farm.disk.run(_nodes, reader, nonce, entry.samples)
            with exchange.keeping(len(nodes)):
                await _send_leaves(farm, exchange, reader, nonce, entry, len(nodes))
            await exchange.send_raw(nodes)
    finally:
        # A thread may still be in it, where the disk hangs; what that reads is dropped.
        reader.close()


async def _send_leaves(
    farm: Farm,
    exchange: Exchange,
    reader: ShardReader,
    nonce: bytes,
    entry: AuditEntry,
    nodes_bytes: int,
) -> None:
    """Send all of a proof but its nodes."""
    leaves = sample_leaves(nonce, entry.shard, entry.size_bytes, entry.samples)
    last_bytes = min(LEAF_BYTES, entry.size_bytes - leaves[-1] * LEAF_BYTES)
    nodes = nodes_bytes // BLOCK_HASH_BYTES
    exchange.send(encode_sample_head(len(leaves), last_bytes, nodes))
    for some in steps(leaves, lambda: exchange.step_bytes // LEAF_BYTES):
        await exchange.room()
        await exchange.turn()
        exchange.send(await farm.disk.run(_read, reader, entry.size_bytes, some))


def steps(leaves: Sequence[int], at_once: Callable[[], int]) -> Iterator[list[int]]:
    """
    Return the leaves in groups to be sent at once; those of one block stay together.

    A group has *at_once* leaves, or those of one block if that is more; asked before each.
    """
    group: list[int] = []
    for _, block in groupby(leaves, lambda leaf: leaf // _BLOCK_LEAVES):
        if group and len(group) > at_once() - _BLOCK_LEAVES:
            yield group
            group = []
        group += block
    if group:
        yield group


def open_entry(farm: Farm, renter: NodeId, entry: AuditEntry) -> ShardReader:
    """Open a shard to be audited; one of another size is not the one that is meant.  Blocking."""
    reader = farm.store.open(renter, entry.shard)
    if reader.stored.size_bytes != entry.size_bytes:
        reader.close()
        raise ShardNotFoundError
    return reader


def _nodes(reader: ShardReader, nonce: bytes, samples: int) -> bytes:
    """Return the nodes of a proof joined: each alone would take twice its room."""
    return b"".join(reader.prove_sample(nonce, samples).nodes)


def _read(reader: ShardReader, size_bytes: int, leaves: list[int]) -> bytes:
    """Return some leaves, one after the other; each block is read once."""
    parts = []
    for _, of_block in groupby(leaves, lambda leaf: leaf // _BLOCK_LEAVES):
        block = list(of_block)
        start = block[0] * LEAF_BYTES
        end = min(size_bytes, (block[-1] + 1) * LEAF_BYTES)
        data = memoryview(reader.read(start, end - start))
        for leaf in block:
            at = leaf * LEAF_BYTES - start
            parts.append(data[at : at + LEAF_BYTES])
    return b"".join(parts)
