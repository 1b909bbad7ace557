"""Finding shards: on which volumes they are, which copy counts, and whether all were asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from itertools import groupby, islice

from farmer.model.ids import NodeId, ShardId
from farmer.storage.copies import that_count
from farmer.storage.crossing import Crossing
from farmer.storage.doubts import InDoubtError
from farmer.storage.errors import ShardNotFoundError, VolumeUnavailableError
from farmer.storage.places import Key, Row
from farmer.storage.slots import Slots
from farmer.storage.volume import Volume


@dataclass(frozen=True, slots=True)
class Copy:
    """A shard on one volume."""

    volume: Volume
    row: Row


@dataclass(frozen=True, slots=True)
class Copies:
    """All that is known of one shard."""

    every: tuple[Copy, ...]
    counting: tuple[Copy, ...]
    """The best first: sound, live, stored last."""
    buried_ms: int
    """Observed time of the latest tombstone, or 0."""
    is_certain: bool
    """Whether every volume could be asked, and said what it has."""
    in_doubt: bool = False
    """Whether a volume that was asked could not say."""

    @property
    def best(self) -> Copy | None:
        """The one that is served, if there is one."""
        return self.counting[0] if self.counting else None

    def alone_ms(self, observed_ms: int) -> int:
        """Return `Row.alone_ms` of a store that begins now: 0 if nothing can outlive it."""
        if self.is_certain and not self.buried_ms and len(self.every) == len(self.counting):
            return 0
        return max(
            observed_ms, self.buried_ms + 1, *(copy.row.alone_ms + 1 for copy in self.every)
        )


class Whereabouts:
    """All volumes of one engine.  Safe from any thread."""

    def __init__(self, slots: Slots, crossing: Crossing) -> None:
        self._slots = slots
        self._crossing = crossing

    def find(self, renter: NodeId, shard: ShardId, size_bytes: int | None = None) -> Copy:
        """
        Return a shard, if need be only of this size.

        Raises:
            ShardNotFoundError: there is none.
            VolumeUnavailableError: it may be where nobody can look now.

        """
        copies = self.look_up((renter, shard))
        best = copies.best
        if best is not None and size_bytes in {None, best.row.size_bytes}:
            return best
        if copies.in_doubt:
            raise InDoubtError
        if not copies.is_certain:
            raise VolumeUnavailableError("a volume is missing")
        raise ShardNotFoundError

    def look_up(self, key: Key, *, for_store: bool = False) -> Copies:
        """
        Look for a shard that may be on its way from one volume to another.

        A store does not wait for a volume that stalls; for it that one counts as not asked.
        Raises `VolumeUnavailableError` if a volume fails.
        """
        return self._slots.steadily(
            lambda: self._look_up_once(key, for_store=for_store),
            lambda copies: copies.best is not None,
        )

    def copies(self, key: Key, *, stalled: bool = True) -> Copies:
        """
        Return all that there is of a shard.

        Volumes that do not answer right now are left out unless *stalled*.  Raises as `look_up`.
        """
        found: list[Copy] = []
        buried_ms, is_certain, in_doubt = 0, self._slots.is_complete(), False
        for volume in self._slots.opened():
            if not volume.ground.health.is_here or (
                volume.ground.watch.is_stalled and not stalled
            ):
                is_certain = False
                continue
            try:
                row = volume.find(*key)
                if row is not None:
                    found.append(Copy(volume, row))
                elif (stone := volume.tombstone(*key)) is not None:
                    buried_ms = max(buried_ms, stone.observed_ms)
            except InDoubtError:
                is_certain, in_doubt = False, True
            except VolumeUnavailableError:
                if volume.ground.health.is_here:
                    raise
                is_certain = False
        counting = that_count(found, lambda copy: copy.row, buried_ms)
        return Copies(tuple(found), tuple(counting), buried_ms, is_certain, in_doubt)

    def page(self, renter: NodeId, after: ShardId, limit: int) -> list[Row]:
        """Return a renter's shards above an id, ascending; raises `VolumeUnavailableError`."""
        return self._slots.steadily(
            lambda: self._whole_page(renter, after, limit),
            # However many there are: others may have been on a volume that was closed.
            lambda _: False,
        )

    def _whole_page(self, renter: NodeId, after: ShardId, limit: int) -> list[Row]:
        self._slots.check_complete()
        return self._crossing.steadily(
            lambda: list(islice(self._rows(renter, after, limit), limit))
        )

    def _look_up_once(self, key: Key, *, for_store: bool) -> Copies:
        found = self._look(key, for_store=for_store)
        if found.best is not None:
            return found
        return self._crossing.steadily(lambda: self._look(key, for_store=for_store))

    def _look(self, key: Key, *, for_store: bool) -> Copies:
        """
        Look on each volume, on those that stall only if need be.

        Nor does a read wait that has found the shard elsewhere: whatever the copies' ages, their
        bytes are the same.
        """
        quick = self.copies(key, stalled=False)
        if for_store or quick.is_certain or (quick.best and not quick.best.row.is_damaged):
            return quick
        return self.copies(key)

    def _rows(self, renter: NodeId, after: ShardId, limit: int) -> Iterator[Row]:
        """Yield rows that count, in order, as long as each volume's page reaches."""
        while True:
            pages = [
                [Copy(volume, row) for row in volume.page(renter, after, limit)]
                for volume in self._slots.readable()
            ]
            full = [page[-1].row.shard for page in pages if len(page) == limit]
            ordered = merge(*pages, key=lambda copy: copy.row.shard)
            for shard, group in groupby(ordered, key=lambda copy: copy.row.shard):
                if full and shard > min(full):
                    break
                yield from self._counting((renter, shard), list(group))
            if not full:
                return
            after = min(full)

    def _counting(self, key: Key, copies: list[Copy]) -> list[Row]:
        """Return the row that counts, if one does."""
        has = {copy.volume.ground.volume for copy in copies}
        stones = [
            stone.observed_ms
            for volume in self._slots.readable()
            if volume.ground.volume not in has and (stone := volume.tombstone(*key)) is not None
        ]
        return [
            copy.row
            for copy in that_count(copies, lambda copy: copy.row, max(stones, default=0))[:1]
        ]
