"""AUDIT: proofs of one or many shards, in the order asked, within the renter's budget."""

from __future__ import annotations

from typing import Final

from twisted.logger import Logger

from farmer.model.audit import AuditEntry, AuditKind, Challenge
from farmer.model.ids import NodeId
from farmer.model.shard import (
    BLOCK_BYTES,
    BLOCK_HASH_BYTES,
    LEAF_BYTES,
    SHARD_BYTES_MAX,
    block_count,
    leaf_count,
)
from farmer.node.exchange import Exchange, tree_bytes
from farmer.node.farm import Farm
from farmer.node.proving import LEAVES_AT_ONCE, send_in_steps
from farmer.node.refusals import TurnedDownError, refused_for
from farmer.protocol.opening import End
from farmer.protocol.proofs import FullProof, ProofItem, encode_item
from farmer.protocol.refusals import Refusal, Refused
from farmer.protocol.transfers import Audit
from farmer.storage.errors import (
    NoContractError,
    ShardNotFoundError,
    ShardWentError,
    StorageError,
    VolumeUnavailableError,
)

_log = Logger()

_COUNTED_AS: Final = {
    Refusal.NOT_FOUND: "missing",
    Refusal.CORRUPT: "corrupt",
    Refusal.AUDIT_BUDGET: "budget",
    Refusal.BUSY: "later",
    Refusal.UNAVAILABLE: "later",
}

_COSTS_NOTHING: Final = (ShardNotFoundError, VolumeUnavailableError)
"""What is not taken from the budget, unless something was read."""


async def audit(farm: Farm, exchange: Exchange, asked: Audit) -> None:
    """Answer each entry by a proof or a refusal of its own; one does not stop the others."""
    challenge = asked.challenge
    for number, entry in enumerate(challenge.entries, 1):
        is_last = number == len(challenge.entries)
        await exchange.room()
        began_s = farm.clock.seconds()
        refused = await _answered(farm, exchange, challenge, entry, is_last=is_last)
        counted_as = "ok" if refused is None else _COUNTED_AS.get(refused.refusal, "error")
        farm.meter.audited(counted_as, farm.clock.seconds() - began_s)
        if refused is not None:
            exchange.send(encode_item(refused))
    if not exchange.has_ended:
        exchange.answer(End())


def read_bytes(kind: AuditKind, entry: AuditEntry) -> int:
    """
    Return what an entry can make us read at most: blocks and tree, or the whole shard.

    The blocks of a proof with more than 64 leaves are read twice.
    """
    if kind is AuditKind.FULL:
        return entry.size_bytes
    blocks = block_count(entry.size_bytes)
    passes = 2 if _is_large(entry) else 1
    return passes * min(entry.samples, blocks) * BLOCK_BYTES + blocks * BLOCK_HASH_BYTES


def _is_large(entry: AuditEntry) -> bool:
    """Tell whether a sample proof is sent in steps."""
    return min(entry.samples, leaf_count(entry.size_bytes)) > LEAVES_AT_ONCE


def _absence(farm: Farm, renter: NodeId, entry: AuditEntry) -> Refused | None:
    """Return why an entry cannot be proved by anybody, or None.  Blocking."""
    farm.reading_contract(renter)
    try:
        stored = farm.store.stat(renter, entry.shard)
    except StorageError as error:
        return _refused(farm, error)
    same = stored.size_bytes == entry.size_bytes <= SHARD_BYTES_MAX
    return None if same else Refused(Refusal.NOT_FOUND)


async def _answered(
    farm: Farm, exchange: Exchange, asked: Challenge, entry: AuditEntry, *, is_last: bool
) -> Refused | None:
    """
    Send the proof of a shard that is there, or return why not; END may go with the last.

    Whether it is there comes before everything else about it: whatever the budget and the
    load, one that is absent and one that is somebody else's get the same answer.
    """
    renter, cost_bytes = exchange.renter, read_bytes(asked.kind, entry)
    # One small proof is made in the thread that looks for the shard.
    is_quick = exchange.is_known and asked.kind is AuditKind.SAMPLE and not _is_large(entry)
    if not is_quick and (absent := await farm.disk.run(_absence, farm, renter, entry)):
        return absent
    stored_bytes = farm.store.usage(renter).live_bytes
    spent = farm.budget.take(renter, cost_bytes, stored_bytes, farm.clock.seconds())
    if spent is not None:
        absent = await farm.disk.run(_absence, farm, renter, entry) if is_quick else None
        return absent or Refused(Refusal.AUDIT_BUDGET, spent.retry_after_ms, spent.left_bytes)
    sent = exchange.sent_bytes
    try:
        await _prove(farm, exchange, asked, entry, is_last=is_last)
    except NoContractError:
        farm.budget.give_back(renter, cost_bytes)
        raise
    except TurnedDownError as error:
        farm.budget.give_back(renter, cost_bytes)
        return error.refused
    except StorageError as error:
        if exchange.sent_bytes != sent:
            raise
        if isinstance(error, _COSTS_NOTHING) and not isinstance(error, ShardWentError):
            farm.budget.give_back(renter, cost_bytes)
        return _refused(farm, error)
    return None


async def _prove(
    farm: Farm, exchange: Exchange, asked: Challenge, entry: AuditEntry, *, is_last: bool
) -> None:
    """Send the item of one entry; a renter that takes it slowly holds nothing that is shared."""
    if asked.kind is AuditKind.FULL:
        async with exchange.inside(farm.full_audits, 1):
            item = await farm.disk.run(_full, farm, exchange.renter, asked.nonce, entry)
    elif _is_large(entry):
        await send_in_steps(farm, exchange, asked.nonce, entry)
        return
    else:
        async with exchange.inside(farm.proofs, _made_bytes(entry)):
            item = await farm.disk.run(_sample, farm, exchange.renter, asked.nonce, entry)
    await exchange.send_raw(encode_item(item), is_last=is_last)


def _made_bytes(entry: AuditEntry) -> int:
    """
    Return what a proof keeps in memory while it is made: its leaves and the shard's tree.

    The size is only what the renter says; no shard is larger than the largest.
    """
    return entry.samples * LEAF_BYTES + tree_bytes(min(entry.size_bytes, SHARD_BYTES_MAX))


def _sample(farm: Farm, renter: NodeId, nonce: bytes, entry: AuditEntry) -> ProofItem:
    farm.reading_contract(renter)
    return farm.store.prove_sample(renter, nonce, entry)


def _full(farm: Farm, renter: NodeId, nonce: bytes, entry: AuditEntry) -> ProofItem:
    return FullProof(farm.store.prove_full(renter, nonce, entry))


def _refused(farm: Farm, error: StorageError) -> Refused:
    refused = refused_for(error, farm.now_ms())
    if refused.refusal is not Refusal.NOT_FOUND:
        _log.debug("an audit was answered {refused}: {error}", refused=str(refused), error=error)
    return refused
