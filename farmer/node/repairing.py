"""EXAMINE and REPAIR: which blocks are damaged, and taking those again from their renter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from farmer.model.contract import Contract
from farmer.model.ids import NodeId, ShardId
from farmer.model.shard import BadBlocks, ShardState, StoredShard
from farmer.node.exchange import Exchange
from farmer.node.farm import Farm
from farmer.node.lending import Lent
from farmer.node.ports import Mending
from farmer.node.refusals import DRAINING_RETRY_MS, TurnedDownError
from farmer.node.storing import SMALL_BYTES_MAX, all_but_the_last, finish, receipt_of
from farmer.protocol.frames import Piece
from farmer.protocol.refusals import Refusal
from farmer.protocol.repairs import BadBlocksNamed, Examine, Repair
from farmer.protocol.transfers import Stored
from farmer.storage.errors import BusyError, ShardNotFoundError, ShardWentError


async def examine(farm: Farm, exchange: Exchange, asked: Examine) -> None:
    """Read a shard and name its damaged blocks; counts as an audit of all of it."""
    size_bytes = await farm.disk.run(_readable_bytes, farm, exchange.renter, asked.shard)
    async with _reading(farm, exchange, size_bytes):
        bad = await farm.disk.run(_examine, farm, exchange.renter, asked.shard)
    exchange.answer(BadBlocksNamed(bad))


async def repair(farm: Farm, exchange: Exchange, asked: Repair) -> None:
    """Make a damaged shard whole; STORED goes out after the sync, never before."""
    if farm.draining:
        raise TurnedDownError(Refusal.DRAINING, DRAINING_RETRY_MS)
    size_bytes = await farm.disk.run(_storable_bytes, farm, exchange.renter, asked.shard)
    if size_bytes > SMALL_BYTES_MAX:
        await _repair(farm, exchange, asked, size_bytes)
        return
    async with exchange.inside(farm.small_stores, size_bytes):
        await _repair(farm, exchange, asked, size_bytes)


async def _repair(farm: Farm, exchange: Exchange, asked: Repair, size_bytes: int) -> None:
    async with _reading(farm, exchange, size_bytes):
        lent: Lent[tuple[Contract, Mending | StoredShard]] = Lent(_let_go)
        contract, begun = await lent.fetch(farm.disk, _begin, farm, exchange.renter, asked.shard)
    stored = begun if isinstance(begun, StoredShard) else await _receive(farm, exchange, begun)
    exchange.answer(Stored(receipt_of(farm, contract, stored)))


@asynccontextmanager
async def _reading(farm: Farm, exchange: Exchange, size_bytes: int) -> AsyncIterator[None]:
    """Let whole shards be read: as much as the renter's audit budget holds, two at once."""
    renter, now_s = exchange.renter, farm.clock.seconds()
    spent = farm.budget.take(renter, size_bytes, farm.store.usage(renter).live_bytes, now_s)
    if spent is not None:
        raise TurnedDownError(Refusal.AUDIT_BUDGET, spent.retry_after_ms, spent.left_bytes)
    try:
        async with exchange.inside(farm.full_audits, 1):
            yield
    except ShardWentError:
        # It was read: who deletes, and takes out of the trash, may not have that for nothing.
        raise
    except (ShardNotFoundError, BusyError, TurnedDownError):
        farm.budget.give_back(renter, size_bytes)
        raise


async def _receive(farm: Farm, exchange: Exchange, mending: Mending) -> StoredShard:
    """Return the shard once it is durable; whatever else happens, all stays as it was."""
    try:
        rest: Piece = b""
        if mending.wanted_bytes:
            exchange.answer(BadBlocksNamed(mending.bad))
            rest = await all_but_the_last(farm, exchange, mending, mending.wanted_bytes)
        return await farm.disk.follow(finish, mending, rest)
    except BaseException:
        # A thread may still be in it, where the disk hangs: then that one finds it ended.
        await farm.disk.run(mending.abandon)
        raise


def _let_go(begun: tuple[Contract, Mending | StoredShard]) -> None:
    if not isinstance(begun[1], StoredShard):
        begun[1].abandon()


def _readable_bytes(farm: Farm, renter: NodeId, shard: ShardId) -> int:
    farm.reading_contract(renter)
    return _size_bytes(farm, renter, shard)


def _storable_bytes(farm: Farm, renter: NodeId, shard: ShardId) -> int:
    farm.storing_contract(renter)
    return _size_bytes(farm, renter, shard)


def _size_bytes(farm: Farm, renter: NodeId, shard: ShardId) -> int:
    stored = farm.store.stat(renter, shard)
    if stored.state is ShardState.TRASH:
        raise ShardNotFoundError
    return stored.size_bytes


def _examine(farm: Farm, renter: NodeId, shard: ShardId) -> BadBlocks:
    return farm.store.examine(renter, shard)


def _begin(farm: Farm, renter: NodeId, shard: ShardId) -> tuple[Contract, Mending | StoredShard]:
    contract = farm.storing_contract(renter)
    return contract, farm.store.repair(contract, shard)
