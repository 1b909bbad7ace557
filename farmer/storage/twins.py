"""
One shard on two volumes: which of the two counts.

That is so for a moment while a shard crosses from one volume to another, and for longer only
after a crash within that moment.  What was deleted on the way never comes back by this: while
a shard may be on two volumes, and one of them is away, nobody may delete it.  But a journal
also names shards that crossed long ago; of these the one volume may have another record by
now, and which counts is what counts of all copies (`farmer.storage.copies`).
"""

from __future__ import annotations

from enum import Enum
from operator import itemgetter

from farmer.storage.copies import that_stays
from farmer.storage.places import Row


class Keep(Enum):
    """Where the shard is to be from now on."""

    SOURCE = "source"
    TARGET = "target"
    BOTH = "both"
    """Until all volumes meet, for only together they know what becomes of it."""


def which_counts(source: Row | None, target: Row | None) -> Keep:
    """
    Decide between a shard at the volume that it leaves and at the one that it goes to.

    The newer one counts if they differ in that (`Row.alone_ms`), but damaged it does not take
    an older sound one along.  Otherwise a sound one beats one that is known to be damaged; then
    the later store; then the target, so that every crossing that began ends in the same
    direction.
    """
    if source is None or target is None:
        return Keep.TARGET if source is None else Keep.SOURCE
    stays = that_stays([(Keep.TARGET, target), (Keep.SOURCE, source)], itemgetter(1), 0)
    assert stays is not None
    keep, row = stays
    is_older = row.alone_ms < max(source.alone_ms, target.alone_ms)
    return Keep.BOTH if is_older else keep
