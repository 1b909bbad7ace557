"""A damaged shard is not lost: who hears of it is told where it is damaged, and what mends it."""

from __future__ import annotations

from farmer.client.refusals import CorruptError, NoSpaceError
from farmer.model.ids import NodeId, ShardId
from farmer.model.shard import BLOCK_BYTES
from farmer.units import two_sizes


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


def no_room_beside(shard: ShardId, error: NoSpaceError) -> NoSpaceError:
    """
    Return the refusal in the words of somebody who knows that the shard is damaged there.

    The farmer writes it again where it lies, before the damaged one goes, and on no other disk.
    """
    wanted, left = two_sizes(error.wanted_bytes, error.available_bytes)
    return error.said_as(
        f"the farmer's copy is damaged, and is written again on the disk where it lies: {wanted}"
        f" are wanted there, and {left} are left. Ask the owner for more room on it; or, as you"
        f" have the bytes, give up what is left of it (renter delete --erase {shard}) and store"
        " it again, which may go to another disk"
    )
