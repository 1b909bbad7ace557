"""AUDIT: proofs of one or many shards, in the order asked, within the renter's budget."""

from __future__ import annotations

from twisted.logger import Logger

from farmer.model.audit import AuditEntry, AuditKind, Challenge
from farmer.model.ids import NodeId
from farmer.model.shard import (
    BLOCK_BYTES,
    BLOCK_HASH_BYTES,
    LEAF_BYTES,
    SHARD_BYTES_MAX,
    block_count,
)
from farmer.node.exchange import Exchange
from farmer.node.farm import Farm
from farmer.node.refusals import refused_for
from farmer.node.session import STEP_BYTES
from farmer.protocol.opening import End
from farmer.protocol.proofs import FullProof, ProofItem, encode_item
from farmer.protocol.refusals import Refusal, Refused
from farmer.protocol.transfers import Audit
from farmer.storage.errors import ShardNotFoundError, StorageError

_log = Logger()

_COUNTED_AS = {
    Refusal.NOT_FOUND: "missing",
    Refusal.CORRUPT: "corrupt",
    Refusal.AUDIT_BUDGET: "budget",
}


async def audit(farm: Farm, exchange: Exchange, asked: Audit) -> None:
    """Answer each entry by a proof or a refusal of its own; one does not stop the others."""
    await farm.disk.run(farm.reading_contract, exchange.renter)
    for entry in asked.challenge.entries:
        await exchange.room()
        await _answer(farm, exchange, asked.challenge, entry)
    exchange.answer(End())


def read_bytes(kind: AuditKind, entry: AuditEntry) -> int:
    """Return what an entry can make us read at most: blocks and tree, or the whole shard."""
    if kind is AuditKind.FULL:
        return entry.size_bytes
    blocks = block_count(entry.size_bytes)
    return min(entry.samples, blocks) * BLOCK_BYTES + blocks * BLOCK_HASH_BYTES


async def _answer(farm: Farm, exchange: Exchange, asked: Challenge, entry: AuditEntry) -> None:
    began_s = farm.clock.seconds()
    proof_bytes = entry.samples * LEAF_BYTES
    await exchange.wait(farm.proofs.enter(exchange.renter, proof_bytes))
    try:
        item = await _budgeted(farm, exchange, asked, entry)
        counted_as = _COUNTED_AS.get(item.refusal, "error") if isinstance(item, Refused) else "ok"
        farm.meter.audited(counted_as, farm.clock.seconds() - began_s)
        raw = encode_item(item)
        del item
        for at in range(0, len(raw), STEP_BYTES):
            await exchange.room()
            exchange.send(raw[at : at + STEP_BYTES])
    finally:
        farm.proofs.leave(exchange.renter, proof_bytes)


async def _budgeted(
    farm: Farm, exchange: Exchange, asked: Challenge, entry: AuditEntry
) -> ProofItem:
    if entry.size_bytes > SHARD_BYTES_MAX:
        return Refused(Refusal.NOT_FOUND)
    renter, cost_bytes = exchange.renter, read_bytes(asked.kind, entry)
    stored_bytes = farm.store.usage(renter).live_bytes
    spent = farm.budget.take(renter, cost_bytes, stored_bytes, farm.clock.seconds())
    if spent is not None:
        return Refused(Refusal.AUDIT_BUDGET, spent.retry_after_ms, spent.left_bytes)
    try:
        return await _prove(farm, exchange, asked, entry)
    except ShardNotFoundError:
        farm.budget.give_back(renter, cost_bytes)
        return Refused(Refusal.NOT_FOUND)
    except StorageError as error:
        refused = refused_for(error, farm.now_ms())
        _log.debug("an audit was answered {refused}: {error}", refused=str(refused), error=error)
        return refused


async def _prove(farm: Farm, exchange: Exchange, asked: Challenge, entry: AuditEntry) -> ProofItem:
    if asked.kind is AuditKind.SAMPLE:
        return await farm.disk.run(_prove_sample, farm, exchange.renter, asked.nonce, entry)
    await exchange.wait(farm.full_audits.acquire())
    try:
        return await farm.disk.run(_prove_full, farm, exchange.renter, asked.nonce, entry)
    finally:
        farm.full_audits.release()


def _prove_sample(farm: Farm, renter: NodeId, nonce: bytes, entry: AuditEntry) -> ProofItem:
    _check_size(farm, renter, entry)
    return farm.store.prove_sample(renter, nonce, entry)


def _prove_full(farm: Farm, renter: NodeId, nonce: bytes, entry: AuditEntry) -> ProofItem:
    _check_size(farm, renter, entry)
    return FullProof(farm.store.prove_full(renter, nonce, entry))


def _check_size(farm: Farm, renter: NodeId, entry: AuditEntry) -> None:
    """Raise `ShardNotFoundError` if the renter speaks of another size: no such shard."""
    if farm.store.stat(renter, entry.shard).size_bytes != entry.size_bytes:
        raise ShardNotFoundError
