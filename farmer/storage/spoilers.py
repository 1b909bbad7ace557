"""
Which volumes did not keep what was copied to them.

A large shard is not copied again soon where its copy was spoiled.  Small ones are, for a bad spot
takes one copy and not the next; but a disk that spoils again and again gets nothing more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from farmer.storage.arriving import SpoiledCopyError
from farmer.storage.places import Key, Row
from farmer.storage.quota import SMALL_BYTES_MAX
from farmer.storage.volume import Volume

AGAIN_S: Final = 6 * 3600.0
"""Then it is tried once more: a cable may have been changed."""

NOTED_MAX: Final = 1024
"""Shards and volumes remembered; of what is forgotten another copy is made in vain."""

TIMES_MAX: Final = 8
"""Crossings that a volume may spoil within `AGAIN_S`: each may be all that fits into memory."""


class Spoilers:
    """Of the copies of one volume's shards; knows volumes by their UUIDs, opened anew or not."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._noted_s: dict[tuple[Key, bytes], float] = {}
        """When the copy of a large shard was spoiled by a volume."""
        self._times_s: dict[bytes, deque[float]] = {}
        """When each volume spoiled something of late."""

    def note(self, volume: Volume, rows: Iterable[Row]) -> None:
        """Note that the copies of these shards, which crossed together, were spoiled there."""
        now_s, uuid = self._monotonic_s(), volume.ground.volume
        self._times_s.setdefault(uuid, deque(maxlen=TIMES_MAX)).append(now_s)
        volume.ground.health.copy_spoiled()
        for row in rows:
            if row.size_bytes > SMALL_BYTES_MAX:
                self._noted_s[_key(row), uuid] = now_s
        while len(self._noted_s) > NOTED_MAX:
            del self._noted_s[next(iter(self._noted_s))]

    def without(self, volumes: Iterable[Volume], large: Row | None = None) -> list[Volume]:
        """Return those to which shards may be copied; raises `SpoiledCopyError` if none may."""
        every = list(volumes)
        since_s = self._monotonic_s() - AGAIN_S
        fit = [one for one in every if self._may_have(one, large, since_s)]
        if every and not fit:
            raise SpoiledCopyError(every[0].settings.label)
        return fit

    def has_spoiled(self, volume: Volume) -> bool:
        """Say whether another one is to be preferred."""
        return bool(self._of_late(volume, self._monotonic_s() - AGAIN_S))

    def _may_have(self, volume: Volume, large: Row | None, since_s: float) -> bool:
        if self._of_late(volume, since_s) >= TIMES_MAX:
            return False
        if large is None:
            return True
        return self._noted_s.get((_key(large), volume.ground.volume), since_s) <= since_s

    def _of_late(self, volume: Volume, since_s: float) -> int:
        return sum(at_s > since_s for at_s in self._times_s.get(volume.ground.volume, ()))


def _key(row: Row) -> Key:
    # The row of a copy, and that of what it was made of, lie elsewhere.
    return row.renter, row.shard
