"""STORE: from the promise of space to the receipt."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Final

from farmer.identity.signing import sign_receipt
from farmer.model.contract import Contract, Receipt
from farmer.model.ids import NodeId
from farmer.model.shard import StoredShard
from farmer.node.exchange import Exchange
from farmer.node.farm import Farm
from farmer.node.held import STEP_BYTES
from farmer.node.lending import Lent
from farmer.node.ports import Mending, Upload
from farmer.node.refusals import DRAINING_RETRY_MS, TurnedDownError
from farmer.protocol.frames import Piece
from farmer.protocol.refusals import Refusal
from farmer.protocol.transfers import Accept, Store, Stored

SMALL_BYTES_MAX: Final = 1024 * 1024
"""Up to here a shard is held whole in memory until it is committed."""

ONE_STEP_BYTES: Final = 64 * 1024
"""A shard up to here is one step: it takes its place in memory when it is whole, not before."""


async def store(farm: Farm, exchange: Exchange, asked: Store) -> None:
    """Take a shard; STORED goes out after the sync, never before."""
    if farm.draining:
        raise TurnedDownError(Refusal.DRAINING, DRAINING_RETRY_MS)
    if not ONE_STEP_BYTES < asked.size_bytes <= SMALL_BYTES_MAX:
        await _store(farm, exchange, asked)
        return
    if not exchange.is_known:
        # Who has no contract must not stand in the way of those who have.
        await farm.disk.run(farm.storing_contract, exchange.renter)
    async with exchange.inside(farm.small_stores, asked.size_bytes):
        await _store(farm, exchange, asked)


async def _store(farm: Farm, exchange: Exchange, asked: Store) -> None:
    contract, begun = await _begun(farm, exchange, asked)
    if isinstance(begun, StoredShard):
        stored = begun
    else:
        stored = await _receive(farm, exchange, begun, asked.size_bytes)
    exchange.answer(Stored(receipt_of(farm, contract, stored)))


async def _begun(
    farm: Farm, exchange: Exchange, asked: Store
) -> tuple[Contract, Upload | StoredShard]:
    """Begin; going on where an unfinished store stopped has a price, since we read it again."""
    renter = exchange.renter
    is_small = asked.size_bytes <= SMALL_BYTES_MAX
    # A small one leaves nothing to go on with.
    again_bytes = 0 if is_small else farm.store.begun_bytes(renter, asked.shard)
    lent: Lent[tuple[Contract, Upload | StoredShard]] = Lent(_let_go)
    if not again_bytes:
        return await lent.fetch(farm.disk, _begin, farm, renter, asked, 0)
    usage = farm.store.usage(renter)
    held_bytes = usage.live_bytes + usage.reserved_bytes
    spent = farm.resuming.take(renter, again_bytes, held_bytes, farm.clock.seconds())
    if spent is not None:
        raise TurnedDownError(Refusal.BUSY, spent.retry_after_ms)
    try:
        async with exchange.inside(farm.resumes, 1):
            return await lent.fetch(farm.disk, _begin, farm, renter, asked, again_bytes)
    except BaseException:
        farm.resuming.give_back(renter, again_bytes)
        raise


def _begin(
    farm: Farm, renter: NodeId, asked: Store, paid_bytes: int
) -> tuple[Contract, Upload | StoredShard]:
    contract = farm.storing_contract(renter)
    return contract, farm.store.begin(contract, asked.shard, asked.size_bytes, paid_bytes)


async def _receive(farm: Farm, exchange: Exchange, upload: Upload, size_bytes: int) -> StoredShard:
    """Return the shard once it is durable; whatever else happens, the upload is given up."""
    try:
        exchange.answer(Accept(upload.offset))
        rest = await all_but_the_last(farm, exchange, upload, size_bytes - upload.offset)
        if size_bytes > ONE_STEP_BYTES:
            stored = await farm.disk.follow(finish, upload, rest)
        else:
            # Only now: whoever sends nothing holds no place, and what is inside waits for us.
            async with exchange.inside(farm.whole_stores, size_bytes):
                stored = await farm.disk.follow(finish, upload, rest)
    except BaseException:
        # A thread may still be in it, where the disk hangs: then that one ends it.
        await farm.disk.run(upload.abandon)
        raise
    farm.meter.shard_stored(stored.size_bytes)
    return stored


async def all_but_the_last(
    farm: Farm, exchange: Exchange, upload: Upload | Mending, left_bytes: int
) -> Piece:
    """
    Write what comes, step by step, and no byte too many; return what came with END.

    A last step that is no larger than any other waits for END: one thread is woken, not two.
    """
    while True:
        step = await exchange.next_step(max(1, min(left_bytes + 1, STEP_BYTES)))
        left_bytes -= len(step.data)
        if step.last:
            return step.data
        with exchange.keeping(len(step.data)):
            await farm.disk.run(upload.write, step.data)


def _let_go(begun: tuple[Contract, Upload | StoredShard]) -> None:
    if not isinstance(begun[1], StoredShard):
        begun[1].abandon()


def finish(upload: Upload | Mending, rest: Piece) -> Future[StoredShard]:
    """Take the last bytes and commit.  Blocking."""
    if rest:
        upload.write(rest)
    return upload.commit()


def receipt_of(farm: Farm, contract: Contract, stored: StoredShard) -> Receipt:
    """Return our signed word that we hold a shard."""
    receipt = Receipt(
        farmer_key=farm.signer.public_key,
        renter=stored.renter,
        contract=contract.contract,
        shard=stored.shard,
        size_bytes=stored.size_bytes,
        charge_bytes=stored.charge_bytes,
        stored_at_ms=stored.stored_at_ms,
        issued_at_ms=farm.now_ms(),
        until_ms=contract.until_ms,
    )
    return sign_receipt(farm.signer, receipt)
