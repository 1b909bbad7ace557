"""RETRIEVE: a range of a shard, as fast as the renter takes it."""

from __future__ import annotations

from farmer.audit.ranges import whole_leaves
from farmer.model.ids import NodeId, ShardId
from farmer.model.shard import BLOCK_BYTES
from farmer.node.exchange import Exchange
from farmer.node.farm import Farm
from farmer.node.lending import Lent
from farmer.node.ports import ShardReader
from farmer.protocol.opening import End
from farmer.protocol.transfers import TO_THE_END, Retrieve, Send
from farmer.storage.errors import BadRangeError


async def retrieve(farm: Farm, exchange: Exchange, asked: Retrieve) -> None:
    """Send the range; a refusal may come at any byte, wrong bytes never."""
    lent: Lent[ShardReader] = Lent(lambda late: late.close())
    reader = await lent.fetch(farm.disk, _open, farm, exchange.renter, asked.shard)
    try:
        size = reader.stored.size_bytes
        offset, length = span(asked, size)
        nodes: tuple[bytes, ...] = ()
        if asked.proved:
            nodes = await farm.disk.run(reader.prove_range, offset, length)
        exchange.answer(Send(size, offset, length, nodes))
        await _send(farm, exchange, reader, offset, offset + length)
        exchange.answer(End())
    finally:
        # A thread may still be in it, where the disk hangs; what that reads is dropped.
        await farm.disk.run(reader.close)


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


def _open(farm: Farm, renter: NodeId, shard: ShardId) -> ShardReader:
    farm.reading_contract(renter)
    return farm.store.open(renter, shard)


async def _send(
    farm: Farm, exchange: Exchange, reader: ShardReader, offset: int, end: int
) -> None:
    """Read a step when the wire wants one; one step is in memory, whatever the size."""
    at = offset
    while at < end:
        await exchange.room()
        if end - offset > BLOCK_BYTES:
            await exchange.turn()
        # Steps end at multiples of their size, so that no block is read and checked twice.
        step_bytes = exchange.step_bytes
        step_end = min(end, (at // step_bytes + 1) * step_bytes)
        exchange.send(await farm.disk.run(reader.read, at, step_end - at))
        at = step_end
