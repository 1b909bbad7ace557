"""
Bringing shards of which several volumes know something to one volume, once all are there.

While a volume cannot be asked, shards are stored and given up without it (`Row.alone_ms`,
`farmer.storage.tombstones`).  Here the older copies are removed and tombstones lifted; the
order matters, for a crash may come in between: what an older copy is outlived by stays until
that copy is durably gone.  What was damaged since gets its sound bytes back by this, if an
older copy has them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final

from farmer.storage.copies import that_count, that_stays
from farmer.storage.crossing import Crossing
from farmer.storage.handover import Ask
from farmer.storage.log import Batch, marks_bytes
from farmer.storage.marks import Action
from farmer.storage.operations import Operation, Undelete, mark_of
from farmer.storage.places import Key, Row
from farmer.storage.tombstones import Tombstone
from farmer.storage.volume import Volume

AT_ONCE: Final = 256
"""Shards that are looked at together: what deletes of them may wait for."""

HOLD_S: Final = 1.0
"""A meeting is left to the next look at the disks beyond this: that look, and a start, wait."""


class Reunion:
    """All volumes of one engine."""

    def __init__(
        self,
        volumes: Callable[[], Sequence[Volume]],
        is_certain: Callable[[], bool],
        crossing: Crossing,
        met: Callable[[frozenset[Key]], None] = lambda _keys: None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        *is_certain* says whether every volume is open, and knows what it holds.

        *met* hears of shards that have no older copy any more.
        """
        self._volumes = volumes
        self._is_certain = is_certain
        self._crossing = crossing
        self._met = met
        self._monotonic_s = monotonic_s

    def hold(self) -> None:
        """
        Do what there is to do, if all volumes are there; raises `StorageError`.

        A shard that is being given up, or taken back, at this moment is left to the next time,
        and so is what takes long.
        """
        volumes = self._volumes()
        if len(volumes) < 2:
            return
        until_s = self._monotonic_s() + HOLD_S
        for volume in volumes:
            # In this order: a tombstone in between counts as one that came since.
            changes = volume.ground.index.stones_changed
            sequence = volume.ground.facts.sequencer.peek()
            if not self._hold_for(volume, until_s):
                return
            if self._is_certain() and not _known_alone(volume):
                volume.note_met(sequence, changes)

    def _hold_for(self, volume: Volume, until_s: float) -> bool:
        """Do it for what one volume knows alone; say whether there was time for all of it."""
        left: frozenset[Key] = frozenset()
        while self._is_certain() and (keys := _known_alone(volume) - left):
            if self._monotonic_s() > until_s:
                return False
            # Not patient: disks are looked at behind this, and the next look comes soon.
            with self._crossing.crossing_if_free(keys) as free:
                self._meet(free)
            left |= keys & _known_alone(volume)
        return True

    def _meet(self, keys: frozenset[Key]) -> None:
        if not keys:
            return
        volumes = self._volumes()
        rows = {volume: volume.writer.submit(Ask(keys)).result() for volume in volumes}
        if not self._is_certain() or volumes != self._volumes():
            # One was closed, or came, while we waited for our turn.
            return
        stones = {
            volume: {key: stone for key in sorted(keys) if (stone := volume.tombstone(*key))}
            for volume in volumes
        }
        plan = _Plan()
        for key in sorted(keys):
            copies = [(volume, rows[volume][key]) for volume in volumes if key in rows[volume]]
            buried = [
                stones[volume][key].observed_ms for volume in volumes if key in stones[volume]
            ]
            plan.add(copies, max(buried, default=0))
        # In this order: what outlives an older copy must stay until that one is durably gone.
        # Who looks at the volumes one after the other looks again if that came in between.
        _all(volume.writer.submit(_undelete(volume, row)) for volume, row in plan.taken_back)
        self._crossing.leaves()
        _all(one.writer.submit(Outlived(plan.outlived_on(one), _now(one))) for one in volumes)
        self._crossing.leaves()
        # Not behind the rest: where a disk hangs that comes true though it was said to have
        # failed, and then nobody knows these alone any more, and they do not meet again.
        self._met(keys)
        _all(one.writer.submit(Met(plan.met_on(one), stones[one].values())) for one in volumes)


_Found = tuple[Volume, Row]


@dataclass(slots=True)
class _Plan:
    """What becomes of the copies of some shards."""

    taken_back: list[_Found] = field(default_factory=list)
    """In the trash, though the shard was stored since: only their bytes are sound."""
    outlived: list[_Found] = field(default_factory=list)
    met: list[_Found] = field(default_factory=list)

    def add(self, copies: Sequence[_Found], buried_ms: int) -> None:
        """Decide on the copies of one shard."""
        stays = that_stays(copies, itemgetter(1), buried_ms)
        for copy in copies:
            (self.met if copy == stays else self.outlived).append(copy)
        if stays is not None and stays not in that_count(copies, itemgetter(1), buried_ms):
            self.taken_back.append(stays)

    def outlived_on(self, volume: Volume) -> list[Row]:
        """Return the rows that one volume is to remove."""
        return [row for one, row in self.outlived if one is volume]

    def met_on(self, volume: Volume) -> list[Row]:
        """Return the rows of which one volume learns that nothing older is left."""
        return [row for one, row in self.met if one is volume]


class Outlived(Operation[None]):
    """Remove older copies for good; the shard itself goes on elsewhere, or has gone."""

    def __init__(self, rows: Sequence[Row], at_ms: int) -> None:
        super().__init__(marks_bytes(len(rows)) if rows else 0)
        self.rows = len(rows)
        self._rows = rows
        self._at_ms = at_ms

    def apply(self, batch: Batch) -> None:
        """Mark those that were not replaced meanwhile."""
        for row in self._rows:
            now = batch.transaction.find(row.renter, row.shard)
            if now is not None and now.sequence == row.sequence:
                batch.mark(mark_of(now, Action.GONE, self._at_ms, 0))

    def result(self, released: frozenset[int]) -> None:
        """Nothing to tell."""


class Met(Operation[None]):
    """Note that nothing older is left of some shards; lift tombstones, in the log as well."""

    def __init__(self, rows: Iterable[Row], stones: Iterable[Tombstone]) -> None:
        self._met, self._stones = list(rows), list(stones)
        super().__init__(marks_bytes(len(self._stones)) if self._stones else 0)
        self.rows = len(self._met) + len(self._stones)

    def apply(self, batch: Batch) -> None:
        """Enter it, as far as nothing has changed meanwhile."""
        for row in self._met:
            batch.transaction.met_all(row)
        for stone in self._stones:
            if batch.transaction.tombstones.find(*stone.key) == stone:
                batch.mark(stone.mark(Action.GONE))

    def result(self, released: frozenset[int]) -> None:
        """Nothing to tell."""


def _known_alone(volume: Volume) -> frozenset[Key]:
    index = volume.ground.index
    rows = index.stored_alone(AT_ONCE)
    stones = index.tombstones(AT_ONCE - len(rows))
    return frozenset([(row.renter, row.shard) for row in rows] + [one.key for one in stones])


def _all(futures: Iterable[Future[Any]]) -> None:
    for future in list(futures):
        future.result()


def _undelete(volume: Volume, row: Row) -> Undelete:
    return Undelete(mark_of(row, Action.UNDELETE, _now(volume), 0))


def _now(volume: Volume) -> int:
    return volume.ground.facts.clock_ms()
