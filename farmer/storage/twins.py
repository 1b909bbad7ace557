"""
One shard on two volumes: which of the two counts.

That is so for a moment while a shard crosses from one volume to another, and for longer only
after a crash within that moment.  What was deleted on the way never comes back by this: while
a shard may be on two volumes, and one of them is away, nobody may delete it.
"""

from __future__ import annotations

from enum import Enum

from farmer.storage.places import Row


class Keep(Enum):
    """Where the shard is to be from now on."""

    SOURCE = "source"
    TARGET = "target"


def which_counts(source: Row | None, target: Row | None) -> Keep:
    """
    Decide between a shard at the volume that it leaves and at the one that it goes to.

    A sound one beats one that is known to be damaged; then the later store; then the target,
    so that every crossing that began ends in the same direction.
    """
    if source is None or target is None:
        return Keep.TARGET if source is None else Keep.SOURCE
    if source.is_damaged != target.is_damaged:
        return Keep.TARGET if source.is_damaged else Keep.SOURCE
    source_age = (source.alone_ms, source.stored_at_ms)
    if source_age > (target.alone_ms, target.stored_at_ms):
        return Keep.SOURCE
    return Keep.TARGET
