"""RETRIEVE: a range of a shard, as fast as the renter takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from farmer.audit.ranges import whole_leaves
from farmer.model.ids import NodeId
from farmer.model.shard import BLOCK_BYTES, BLOCK_HASH_BYTES, block_count
from farmer.node.budget import Spent
from farmer.node.exchange import Exchange, tree_bytes
from farmer.node.farm import Farm
from farmer.node.lending import Lent
from farmer.node.ports import ShardReader
from farmer.node.refusals import TurnedDownError
from farmer.protocol.frames import Chunk
from farmer.protocol.opening import End
from farmer.protocol.refusals import Refusal
from farmer.protocol.transfers import TO_THE_END, Retrieve, Send
from farmer.storage.errors import BadRangeError

PROVED_AT_ONCE_BYTES: Final = 64 * 1024 * 1024
"""A proved range of a larger shard has thousands of hashes to fold, and passes a gate first."""


FREE_PART: Final = 8
"""
What is read counts in no budget up to so many times what is sent: a player that asks for a film
by blocks, proved and across their edges, takes five times as much of a shard of 64 MiB.
"""


@dataclass(frozen=True, slots=True)
class _Found:
    """A shard, open, and the range of it that is wanted."""

    reader: ShardReader
    offset: int
    length: int
    nodes: tuple[bytes, ...] | None
    """What proves the range; None if that has yet to be made."""
    whole: bytes | None
    """The range, if it was so short that it was read at once; the reader is closed then."""
    cost_bytes: int
    """What is read for it beyond `FREE_PART`."""


async def retrieve(farm: Farm, exchange: Exchange, asked: Retrieve) -> None:
    """Send the range; a refusal may come at any byte, wrong bytes never."""
    lent: Lent[_Found] = Lent(lambda late: late.reader.close())
    spent = _spent(farm, exchange, asked)
    found = await lent.fetch(farm.disk, _find, farm, exchange.renter, asked, spent)
    if found.cost_bytes:
        farm.parts.charge(exchange.renter, found.cost_bytes)
    if found.whole is not None:
        assert found.nodes is not None, "read before it was proved"
        send = _head(found, found.nodes)
        if found.whole:
            exchange.send_last(found.whole, send)
            return
        exchange.answer(send)
        exchange.answer(End())
        return
    try:
        nodes = found.nodes
        if nodes is None:
            with exchange.keeping_tree_of(found.reader.stored):
                nodes = await _proved(farm, exchange, found)
        with exchange.keeping(found.reader.kept_bytes):
            exchange.answer(_head(found, nodes))
            await _send(farm, exchange, found)
        exchange.answer(End())
    finally:
        # A thread may still be in it, where the disk hangs; what that reads is dropped.
        found.reader.close()


def _spent(farm: Farm, exchange: Exchange, asked: Retrieve) -> Spent | None:
    """Return why a small part cannot be read now; a whole shard is none."""
    is_whole = asked.length == TO_THE_END and not asked.offset
    # Strangers, whose keys cost nothing, would push others out of the budget.
    if is_whole or not exchange.is_known:
        return None
    stored_bytes = farm.store.usage(exchange.renter).live_bytes
    return farm.parts.spent(exchange.renter, stored_bytes, farm.clock.seconds())


def cost_bytes(size_bytes: int, offset: int, length: int, *, proved: bool) -> int:
    """Return what a range makes us read, blocks and tree, beyond `FREE_PART` of its length."""
    blocks = -(-(offset + length) // BLOCK_BYTES) - offset // BLOCK_BYTES
    if proved:
        # Those at its edges once more, for their leaves.
        blocks += 2
    data_bytes = blocks * min(BLOCK_BYTES, size_bytes)
    return max(0, data_bytes + tree_bytes(size_bytes) - FREE_PART * length)


def _head(found: _Found, nodes: tuple[bytes, ...]) -> Send:
    return Send(found.reader.stored.size_bytes, found.offset, found.length, nodes)


async def _proved(farm: Farm, exchange: Exchange, found: _Found) -> tuple[bytes, ...]:
    """Prove a range of a large shard: a few at once, and of one renter fewer."""
    hashes_bytes = block_count(found.reader.stored.size_bytes) * BLOCK_HASH_BYTES
    async with exchange.inside(farm.proofs, hashes_bytes):
        return await farm.disk.run(_prove, found)


def _prove(found: _Found) -> tuple[bytes, ...]:
    """Prove a range, and keep of what that takes only what it is compared with when it is sent."""
    nodes = found.reader.prove_range(found.offset, found.length)
    found.reader.prepare()
    return nodes


def span(asked: Retrieve, size_bytes: int) -> tuple[int, int]:
    """
    Return offset and length of what to send.

    Raises:
        BadRangeError: it reaches beyond the end.

    """
    to_the_end = asked.length == TO_THE_END
    end = max(asked.offset, size_bytes) if to_the_end else asked.offset + asked.length
    if end > size_bytes:
        raise BadRangeError(end, size_bytes)
    if asked.proved:
        return whole_leaves(size_bytes, asked.offset, end - asked.offset)
    return asked.offset, end - asked.offset


def _find(farm: Farm, renter: NodeId, asked: Retrieve, spent: Spent | None) -> _Found:
    """
    Open a shard, and read what is wanted of it if that is little.  Blocking.

    Raises:
        TurnedDownError: it costs some of a budget of which nothing is left.

    """
    farm.reading_contract(renter)
    reader = farm.store.open(renter, asked.shard)
    is_done = True
    try:
        size_bytes = reader.stored.size_bytes
        offset, length = span(asked, size_bytes)
        cost = cost_bytes(size_bytes, offset, length, proved=asked.proved)
        if cost and spent is not None:
            raise TurnedDownError(Refusal.BUSY, spent.retry_after_ms)
        nodes: tuple[bytes, ...] | None = ()
        if asked.proved:
            is_small = size_bytes <= PROVED_AT_ONCE_BYTES
            nodes = reader.prove_range(offset, length) if is_small else None
        is_little = length <= BLOCK_BYTES and nodes is not None
        whole = reader.read(offset, length) if is_little else None
        if whole is None and nodes is not None:
            reader.prepare()
        is_done = whole is not None
    finally:
        if is_done:
            reader.close()
    return _Found(reader, offset, length, nodes, whole, cost)


async def _send(farm: Farm, exchange: Exchange, found: _Found) -> None:
    """Read a step when the wire wants one; one step is in memory, whatever the size."""
    at, end = found.offset, found.offset + found.length
    while at < end:
        await exchange.room()
        await exchange.turn()
        # Steps end at multiples of their size, so that no block is read and checked twice.
        step_bytes = exchange.step_bytes
        step_end = min(end, (at // step_bytes + 1) * step_bytes)
        exchange.send(await _read(farm, found.reader, at, step_end - at))
        at = step_end


async def _read(farm: Farm, reader: ShardReader, offset: int, length: int) -> Chunk:
    """
    Read a step: here and now if memory holds it, else in a thread.

    One that is at work may keep Python's lock from us for 5 ms, each time we let go of it.
    """
    at_once = reader.read_cached(offset, length) if farm.disk.is_idle else None
    if at_once is not None:
        return at_once
    return await farm.disk.run(reader.read, offset, length)
