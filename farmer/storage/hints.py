"""
Which volumes need not be asked for a shard, because they certainly do not have it.

Any shard may lie on any volume, and to ask each of them costs a look-up in its index, which may
wait for its disk.  What is known here is only in memory, and is learned in the background, of
each volume since it was opened; of one that is not known yet nothing is ruled out.  An index says
of each shard, and each tombstone, that it enters it, before anybody else can see that; what is
removed is not heard of, and costs a look-up in vain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Final

from farmer.storage.errors import StorageError
from farmer.storage.index_questions import START, Table
from farmer.storage.keyfilter import COLUMNS_MAX, KeyFilter
from farmer.storage.places import Key, raw_key
from farmer.storage.volume import Volume

LEARN_AT_ONCE: Final = 256
"""Shards in one step: half a millisecond with Python's lock."""

_SPARE_COLUMNS: Final = 1
"""So that one volume that goes and comes back needs nothing but its own column."""

_ROOM_TO_GROW: Final = 2
"""So many times the shards that are there now, before all is learned anew."""


@dataclass(frozen=True, slots=True)
class _Known:
    """Replaced as a whole: whoever looks needs a filter and columns that belong together."""

    filter: KeyFilter
    columns: dict[Volume, int] = field(default_factory=dict)
    """Of the volumes of which it has every shard."""


class Hints:
    """One engine's.  Safe from any thread; one at a time lets it learn."""

    def __init__(self) -> None:
        self._known: _Known | None = None
        self._learning = Lock()
        self._given: dict[Volume, int] = {}
        """Columns, also of volumes that are not learned yet, and that are closed by now."""

    def narrow(self, volumes: list[Volume], key: Key) -> list[Volume]:
        """Return those that may have a shard, or its tombstone, or be in doubt of it."""
        known = self._known
        if known is None:
            return volumes
        may, columns = known.filter.which(raw_key(*key)), known.columns
        return [
            volume
            for volume in volumes
            if (column := columns.get(volume)) is None
            or may >> column & 1
            or volume.ground.doubts.keys
        ]

    def learn(self, volumes: Sequence[Volume], is_over: Callable[[], bool]) -> None:
        """
        Learn what volumes hold, as far as that is not known, until it *is_over*.

        It rests after each step.  A volume that fails is left to the next time; while one hangs
        nothing more is learned.
        """
        # Whoever hangs goes on one day, with the filter that it knew: nobody may have another.
        if self._learning.acquire(blocking=False):
            try:
                self._learn(volumes[:COLUMNS_MAX], is_over)
            finally:
                self._learning.release()

    def _learn(self, some: Sequence[Volume], is_over: Callable[[], bool]) -> None:
        if len(some) < 2:
            self._forget(some)
            return
        if self._known is None or not self._has_room(self._known.filter, some):
            # Until it is learned anew nothing is ruled out: an index tells one filter only.
            self._forget(some)
            self._known = _Known(_filter_for(some))
        for volume in some:
            self._learn_one(self._known, volume, is_over)

    def _forget(self, volumes: Sequence[Volume]) -> None:
        self._known = None
        self._given.clear()
        for volume in volumes:
            # One that hangs goes on telling a filter that nobody asks.
            with suppress(StorageError):
                volume.tell(None)

    def _has_room(self, known: KeyFilter, volumes: Sequence[Volume]) -> bool:
        columns = len(self._given.keys() | set(volumes))
        return columns <= known.columns and max(known.counts) <= known.shards

    def _learn_one(self, known: _Known, volume: Volume, is_over: Callable[[], bool]) -> None:
        if volume in known.columns:
            return
        column = self._given.setdefault(volume, len(self._given))
        add = partial(known.filter.add, column)
        with suppress(StorageError):
            # First it tells, then it is read: what is entered meanwhile is heard of, or read.
            volume.tell(add)
            for keys in _pages(volume):
                with volume.ground.rests.after():
                    add(keys)
                if is_over():
                    return
            self._known = _Known(known.filter, known.columns | {volume: column})


def _filter_for(volumes: Sequence[Volume]) -> KeyFilter:
    most = max(volume.ground.account.total.shards for volume in volumes)
    columns = min(len(volumes) + _SPARE_COLUMNS, COLUMNS_MAX)
    return KeyFilter(columns, _ROOM_TO_GROW * most)


def _pages(volume: Volume) -> Iterator[list[bytes]]:
    """Yield the keys of one volume's shards, and of its tombstones."""
    for table in Table:
        place = START
        while page := volume.listed(table, place, LEARN_AT_ONCE):
            place = page[-1].place
            yield [listed.key for listed in page]
