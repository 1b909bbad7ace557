"""A shard in the trash is not gone: who does not find it is told how to bring it back."""

from __future__ import annotations

from typing import Final

from farmer.client.errors import ClientError
from farmer.client.farmer import Farmer
from farmer.client.refusals import NotFoundError
from farmer.model.contract import ContractStage
from farmer.model.ids import ShardId
from farmer.units import format_moment

ENDED: Final = "the contract has ended: undelete brings it back once another invite has renewed it"


async def not_found(farmer: Farmer, shard: ShardId, error: NotFoundError) -> NotFoundError:
    """Return the error, in other words if the farmer says that the shard is in the trash."""
    try:
        return await looked_up(farmer, shard, error)
    except ClientError:
        return error


async def looked_up(farmer: Farmer, shard: ShardId, error: NotFoundError) -> NotFoundError:
    """Return the error as `not_found` does; raises `ClientError` if the farmer does not say."""
    try:
        stated = await farmer.stat(shard)
    except NotFoundError:
        return error
    if not stated.gone_at_ms:
        return error
    shown = await farmer.contract()
    way_back = f"bring it back with: renter undelete {shard} --farmer {farmer.node_id.short}"
    return error.said_as(
        f"it is in the trash until {format_moment(stated.gone_at_ms)}; "
        + (way_back if shown.stage is ContractStage.ACTIVE else ENDED)
    )
