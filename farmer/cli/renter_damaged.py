"""A damaged shard for which its disk has no room: what that means, and what helps."""

from __future__ import annotations

from farmer.client.refusals import NoSpaceError, sizes
from farmer.model.ids import ShardId


def no_room_beside(shard: ShardId, error: NoSpaceError) -> NoSpaceError:
    """
    Return the refusal in the words of somebody who knows that the shard is damaged there.

    The farmer writes it again where it lies, before the damaged one goes, and on no other disk.
    """
    wanted, left = sizes(error.wanted_bytes, error.available_bytes)
    return error.said_as(
        f"the farmer's copy is damaged, and is written again on the disk where it lies: {wanted}"
        f" are wanted there, and {left} are left. Ask the owner for more room on it; or, as you"
        f" have the bytes, give up what is left of it (renter delete --erase {shard}) and store"
        " it again, which may go to another disk"
    )
