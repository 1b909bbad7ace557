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
from farmer.storage.places import Row
from farmer.storage.volume import Volume

AGAIN_S: Final = 6 * 3600.0
"""Then it is tried once more: a cable may have been changed."""

NOTED_MAX: Final = 1024
"""Shards and volumes remembered; of what is forgotten another copy is made in vain."""

TIMES_MAX: Final = 8
"""Crossings that a volume may spoil within `AGAIN_S`: each may be all that fits into memory."""


class Spoilers:
    """Of the copies of one volume's shards.  A volume that was opened anew is another one."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._noted_s: dict[tuple[Row, Volume], float] = {}
        self._times_s: dict[Volume, deque[float]] = {}
        """When each volume spoiled something of late."""

    def note(self, volume: Volume, large: Row | None = None) -> None:
        """Note that a copy there, of one *large* shard or of small ones, was spoiled."""
        now_s = self._monotonic_s()
        self._times_s.setdefault(volume, deque(maxlen=TIMES_MAX)).append(now_s)
        volume.ground.health.copy_spoiled()
        if large is not None:
            self._noted_s[large, volume] = now_s
            if len(self._noted_s) > NOTED_MAX:
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
        return large is None or self._noted_s.get((large, volume), since_s) <= since_s

    def _of_late(self, volume: Volume, since_s: float) -> int:
        return sum(at_s > since_s for at_s in self._times_s.get(volume, ()))
