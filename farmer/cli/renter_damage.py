"""A damaged shard is not lost: who hears of it is told where it is damaged, and what mends it."""

from __future__ import annotations

from farmer.client.refusals import CorruptError
from farmer.model.ids import NodeId, ShardId
from farmer.model.shard import BLOCK_BYTES


def mendable(
    error: CorruptError, shard: ShardId, size_bytes: int | None, farmer: NodeId
) -> CorruptError:
    """
    Return the error in words with the command that helps.

    A farmer that has not read the shard since it began calls all of it damaged, which is not so.
    *size_bytes* is the shard's, if that is known.
    """
    is_all = (error.offset, error.length) == (0, size_bytes) and error.length > BLOCK_BYTES
    where = (
        "somewhere, renter stat says where"
        if is_all
        else f"in block {error.offset // BLOCK_BYTES} of 64 KiB"
    )
    return error.said_as(
        f"the farmer's copy is damaged, {where}; send it what is missing with: "
        f"renter repair {shard} --farmer {farmer.short}"
    )
