"""The short exchanges: one question, one answer."""

from __future__ import annotations

from concurrent.futures import Future

from farmer.identity.signing import invite_is_ours, sign_contract
from farmer.model.contract import Contract, ContractStage
from farmer.model.ids import NodeId, ShardId
from farmer.model.shard import Deletion, StoredShard
from farmer.node.exchange import Exchange
from farmer.node.farm import SOFTWARE, Farm
from farmer.protocol.documents import read_invite
from farmer.protocol.fields import LayoutError
from farmer.protocol.questions import (
    ContractShown,
    Delete,
    Deleted,
    List,
    Listed,
    Ping,
    Pong,
    Redeem,
    ShowContract,
    Stat,
    Stated,
    Undelete,
)
from farmer.storage.errors import InviteUnknownError, NoContractError


async def redeem(farm: Farm, exchange: Exchange, asked: Redeem) -> None:
    """Spend an invite: durable before the answer."""
    contract, stage = await exchange.of_stranger(_redeem, farm, exchange.renter, asked.invite)
    exchange.known()
    exchange.answer(_shown(farm, contract, stage))


async def show_contract(farm: Farm, exchange: Exchange, _asked: ShowContract) -> None:
    """Show a contract, also one whose shards wait in the trash."""
    contract, stage = await farm.disk.run(farm.book.find, exchange.renter)
    if stage is ContractStage.GONE:
        raise NoContractError
    exchange.answer(_shown(farm, contract, stage))


async def stat(farm: Farm, exchange: Exchange, asked: Stat) -> None:
    """Say what is known of one shard."""
    stored = await farm.disk.run(_stat, farm, exchange.renter, asked.shard)
    exchange.answer(_stated(stored))


async def list_shards(farm: Farm, exchange: Exchange, asked: List) -> None:
    """Give a page of the renter's own shards."""
    found = await farm.disk.run(_page, farm, exchange.renter, asked)
    entries = tuple(_stated(stored) for stored in found[: asked.limit])
    exchange.answer(Listed(entries, more=len(found) > asked.limit))


async def delete(farm: Farm, exchange: Exchange, asked: Delete) -> None:
    """Give a shard up: durable before the answer."""
    deletion = await farm.disk.follow(_delete, farm, exchange.renter, asked)
    exchange.answer(Deleted(deletion.outcome, deletion.gone_at_ms))


async def undelete(farm: Farm, exchange: Exchange, asked: Undelete) -> None:
    """Take a shard out of the trash: durable before the answer."""
    stored = await farm.disk.follow(_undelete, farm, exchange.renter, asked.shard)
    exchange.answer(_stated(stored))


async def ping(farm: Farm, exchange: Exchange, asked: Ping) -> None:
    """Say how we are, to anybody."""
    free, price = max(0, farm.store.free_bytes()), farm.terms.price
    exchange.answer(Pong(asked.token, farm.now_ms(), free, price, SOFTWARE))


def _redeem(farm: Farm, renter: NodeId, raw: bytes) -> tuple[Contract, ContractStage]:
    try:
        invite = read_invite(raw)
    except LayoutError as error:
        raise InviteUnknownError from error
    if not invite_is_ours(farm.signer, invite):
        raise InviteUnknownError
    farm.book.redeem(invite.serial, renter)
    return farm.book.find(renter)


def _stat(farm: Farm, renter: NodeId, shard: ShardId) -> StoredShard:
    farm.reading_contract(renter)
    return farm.store.stat(renter, shard)


def _page(farm: Farm, renter: NodeId, asked: List) -> list[StoredShard]:
    farm.reading_contract(renter)
    return farm.store.page(renter, asked.after, asked.limit + 1)


def _delete(farm: Farm, renter: NodeId, asked: Delete) -> Future[Deletion]:
    farm.reading_contract(renter)
    return farm.store.delete(renter, asked.shard, erase=asked.erase)


def _undelete(farm: Farm, renter: NodeId, shard: ShardId) -> Future[StoredShard]:
    farm.storing_contract(renter)
    return farm.store.undelete(renter, shard)


def _shown(farm: Farm, contract: Contract, stage: ContractStage) -> ContractShown:
    usage = farm.store.usage(contract.renter)
    return ContractShown(stage, usage, contract, sign_contract(farm.signer, contract))


def _stated(stored: StoredShard) -> Stated:
    return Stated(
        stored.shard, stored.size_bytes, stored.stored_at_ms, stored.state, stored.gone_at_ms
    )
