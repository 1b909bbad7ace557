"""What goes from a volume with time: shards in its trash, and stores that nobody goes on with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from farmer.model.contract import TRASH_MS
from farmer.model.shard import ShardState
from farmer.storage.ground import Ground
from farmer.storage.leases import Leases
from farmer.storage.places import Row
from farmer.storage.staging import Lease

LOOK_AT_ONCE: Final = 256
"""Shards that a sweep or a purge looks up by one question."""

NOT_YET_MAX: Final = 4096
"""Shards looked at, one after the other, whose trash is over by wall time but not by observed
time: with a farmer that was off for long there may be millions, at every sweep."""


class Sweeping:
    """One volume's; one sweep at a time."""

    def __init__(
        self,
        ground: Ground,
        leases: Leases,
        remove: Callable[[list[Row]], int],
        index_errors: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """*remove* lets go of shards for good, and says of how many."""
        self._ground = ground
        self._leases = leases
        self._remove = remove
        self._index_errors = index_errors
        self._emptied_to: Row | None = None
        """Where the next sweep goes on behind what comes first in the trash."""

    def sweep(self, now_ms: int, observed_ms: int) -> int:
        """Empty the trash and end leases that are over; return how many shards went."""
        for lease in self._leases.of():
            lease.not_after(now_ms)
            if lease.gone_at_ms <= now_ms or self._is_stored(lease):
                self._leases.end(lease)
        return self._empty_trash(now_ms, observed_ms - TRASH_MS)

    def _is_stored(self, lease: Lease) -> bool:
        """Say whether the shard has come another way: while its disk hung, it was begun anew."""
        with self._index_errors():
            row = self._ground.index.find(lease.header.renter, lease.header.shard)
        return row is not None and row.state is ShardState.LIVE

    def _empty_trash(self, now_ms: int, trashed_before_ms: int) -> int:
        """
        Remove what is over by both clocks; return how many shards went.

        What was put into the trash first is over first, by the one clock and the other, but for a
        wall clock that was wrong and shards that came from another volume.  So it is enough to
        begin at the front, and to go on each time with a little of what lies behind.
        """
        removed, stopped = self._empty_behind(None, now_ms, trashed_before_ms)
        if stopped is None:
            self._emptied_to = None
            return removed
        onward = self._emptied_to or stopped
        more, self._emptied_to = self._empty_behind(onward, now_ms, trashed_before_ms)
        return removed + more

    def _empty_behind(
        self, after: Row | None, now_ms: int, trashed_before_ms: int
    ) -> tuple[int, Row | None]:
        """Do that behind one shard while some go; return where it stopped, None at the end."""
        removed = not_yet = 0
        while not_yet < NOT_YET_MAX:
            with self._index_errors():
                rows = self._ground.index.in_trash(now_ms, after, LOOK_AT_ONCE)
            if not rows:
                return removed, None
            after = rows[-1]
            due = [row for row in rows if row.observed_ms <= trashed_before_ms]
            not_yet = 0 if due else not_yet + len(rows)
            removed += self._remove(due)
        return removed, after
