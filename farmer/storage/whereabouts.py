"""Finding shards: on which volumes they are, which copy counts, and whether all were asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import merge
from itertools import groupby, islice
from typing import Final, TypeVar

from farmer.model.ids import NodeId, ShardId
from farmer.storage.buried import Buried
from farmer.storage.copies import that_count
from farmer.storage.crossing import Crossing
from farmer.storage.doubts import InDoubtError
from farmer.storage.errors import ShardNotFoundError, VolumeUnavailableError
from farmer.storage.hints import Hints
from farmer.storage.places import Key, Row
from farmer.storage.slots import Slots
from farmer.storage.stamps import Stamps
from farmer.storage.tombstones import Tombstone
from farmer.storage.volume import Volume

R = TypeVar("R")

_MORE_OF_EACH: Final = 16
"""Rows of a page beyond a volume's share: of few, chance makes one volume have more."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A shard on one volume."""

    volume: Volume
    row: Row
    as_of: int | None = field(default=None, compare=False)
    """`Volume.changes` before it was looked up there."""


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
    failure: VolumeUnavailableError | None = field(default=None, compare=False)
    """Why a volume that is there could not be asked, if one could not."""

    @property
    def best(self) -> Copy | None:
        """The one that is served, if there is one."""
        return self.counting[0] if self.counting else None

    def alone_ms(self, stamps: Stamps) -> int:
        """Return `Row.alone_ms` of a store that begins now: 0 if nothing can outlive it."""
        if self.is_certain and not self.buried_ms and len(self.every) == len(self.counting):
            return 0
        # Never 0, which would say that nothing can outlive it.
        now_ms = stamps.later_ms()
        return max(1, now_ms, self.buried_ms + 1, *(copy.row.alone_ms + 1 for copy in self.every))


@dataclass(slots=True)
class _Look:
    """A look for one shard at several volumes, under way."""

    is_certain: bool
    buried_ms: int
    """What memory knows of its deletion; see `Buried`."""
    in_doubt: bool = False
    failure: VolumeUnavailableError | None = None
    found: list[Copy] = field(default_factory=list)
    stones: dict[Volume, Tombstone | None] = field(default_factory=dict)

    def ask(self, volume: Volume, question: Callable[[NodeId, ShardId], R], key: Key) -> R | None:
        """Note it if a volume cannot say, or fails: that is no reason to ask no other one."""
        try:
            return question(*key)
        except InDoubtError:
            self.is_certain, self.in_doubt = False, True
        except VolumeUnavailableError as error:
            self.is_certain = False
            if volume.ground.health.is_here:
                self.failure = error
        return None

    def seen(self) -> Copies:
        """Return what it came to."""
        buried_ms = max(self.buried_ms, self._buried_ms()) if self.stones else self.buried_ms
        counting = that_count(self.found, lambda copy: copy.row, buried_ms)
        known = (tuple(self.found), tuple(counting), buried_ms)
        return Copies(*known, self.is_certain, self.in_doubt, self.failure)

    def _buried_ms(self) -> int:
        has = {copy.volume for copy in self.found}
        return max(
            (
                stone.observed_ms
                for volume, stone in self.stones.items()
                if stone is not None and volume not in has
            ),
            default=0,
        )


class Whereabouts:
    """All volumes of one engine.  Safe from any thread."""

    def __init__(self, slots: Slots, crossing: Crossing, hints: Hints, buried: Buried) -> None:
        self._slots = slots
        self._crossing = crossing
        self._hints = hints
        self._buried = buried

    def find(self, renter: NodeId, shard: ShardId, size_bytes: int | None = None) -> Copy:
        """
        Return a shard, if need be only of this size.

        Raises:
            ShardNotFoundError: there is none.
            VolumeUnavailableError: it may be where nobody can look now, or on one that fails.

        """
        copies = self.look_up((renter, shard))
        best = copies.best
        if best is not None and size_bytes in {None, best.row.size_bytes}:
            return best
        if copies.in_doubt:
            raise InDoubtError
        if copies.failure is not None:
            raise copies.failure
        if not copies.is_certain:
            raise VolumeUnavailableError("a volume is missing")
        raise ShardNotFoundError

    def look_up(self, key: Key, *, for_store: bool = False) -> Copies:
        """
        Look for a shard that may be on its way from one volume to another.

        A store does not wait for a volume that stalls, unless all do; for it that one counts as
        not asked.  So does one that fails, for everybody.
        """
        return self._slots.steadily(
            lambda: self._crossing.steadily(
                lambda: self._look(key, for_store=for_store), _is_there
            ),
            _is_there,
        )

    def copies(self, key: Key, *, stalled: bool = True) -> Copies:
        """
        Return all that there is of a shard.

        Volumes that do not answer right now are left out unless *stalled*, or no other does; so
        are those that have nothing of it for certain.
        """
        every = self._slots.opened()
        here = [volume for volume in every if volume.ground.health.is_here]
        may = self._hints.narrow(here, key)
        asked = may if stalled else _awake(may, here)
        are_all_here = len(here) == len(every) == len(self._slots)
        is_certain = are_all_here and len(asked) == len(may)
        look = _Look(is_certain, self._buried.since_ms(key))
        # In this order: a meeting removes older copies before it lifts the tombstones.
        for volume in asked:
            if volume.ground.index.has_tombstones:
                look.stones[volume] = look.ask(volume, volume.tombstone, key)
        for volume in asked:
            as_of = volume.changes
            if (row := look.ask(volume, volume.find, key)) is not None:
                look.found.append(Copy(volume, row, as_of))
        return look.seen()

    def check_heard_of_all(self, key: Key) -> None:
        """Raise unless every volume says what it has of a shard: the trash may be outdated."""
        if not self.copies(key).is_certain:
            raise VolumeUnavailableError(
                "it may have been stored again, or erased, on a volume that is missing"
            )

    def page(self, renter: NodeId, after: ShardId, limit: int) -> list[Row]:
        """Return a renter's shards above an id, ascending; raises `VolumeUnavailableError`."""
        # However many there are: others may have been on a volume that was closed.
        return self._slots.steadily(lambda: self._whole_page(renter, after, limit))

    def _whole_page(self, renter: NodeId, after: ShardId, limit: int) -> list[Row]:
        volumes = self._slots.readable()
        self._slots.check_complete()
        if len(volumes) != len(self._slots):
            raise VolumeUnavailableError("a volume is missing")
        return self._crossing.steadily(
            lambda: list(islice(self._rows(volumes, renter, after, limit), limit))
        )

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

    def _rows(
        self, volumes: Sequence[Volume], renter: NodeId, after: ShardId, limit: int
    ) -> Iterator[Row]:
        """Yield rows that count, in order, as long as each volume's page reaches."""
        # Twice an even share of each: together they read two pages, and not one for each volume.
        each = min(limit, 2 * limit // len(volumes) + _MORE_OF_EACH)
        while True:
            pages = [
                [Copy(volume, row) for row in volume.page(renter, after, each)]
                for volume in volumes
            ]
            full = [page[-1].row.shard for page in pages if len(page) == each]
            ordered = merge(*pages, key=lambda copy: copy.row.shard)
            for shard, group in groupby(ordered, key=lambda copy: copy.row.shard):
                if full and shard > min(full):
                    break
                yield from self._counting(volumes, (renter, shard), list(group))
            if not full:
                return
            after = min(full)

    def _counting(self, volumes: Sequence[Volume], key: Key, copies: list[Copy]) -> list[Row]:
        """Return the row that counts, if one does."""
        has = {copy.volume.ground.volume for copy in copies}
        stones = [
            stone.observed_ms
            for volume in volumes
            if volume.ground.volume not in has and (stone := volume.tombstone(*key)) is not None
        ]
        buried_ms = max(self._buried.since_ms(key), *stones, 0)
        return [copy.row for copy in that_count(copies, lambda copy: copy.row, buried_ms)[:1]]


def _awake(volumes: list[Volume], others: Sequence[Volume]) -> list[Volume]:
    """Return those that answer right now, or all if none does, also of the others."""
    awake = [volume for volume in volumes if not volume.ground.watch.is_stalled]
    if len(awake) == len(volumes) or any(not one.ground.watch.is_stalled for one in others):
        return awake
    return volumes


def _is_there(copies: Copies) -> bool:
    return copies.best is not None
