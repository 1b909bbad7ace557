"""Which volumes did not keep what was copied to them: a shard is not copied there again soon."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from farmer.storage.arriving import SpoiledCopyError
from farmer.storage.places import Row
from farmer.storage.volume import Volume

AGAIN_S: Final = 6 * 3600.0
"""Then it is tried once more: a cable may have been changed."""

NOTED_MAX: Final = 1024
"""Shards and volumes remembered; of what is forgotten another copy is made in vain."""


class Spoilers:
    """Of the copies of one volume's shards.  A volume that was opened anew is another one."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._noted_s: dict[tuple[Row, Volume], float] = {}

    def note(self, row: Row, volume: Volume) -> None:
        """Note that a copy there was not read back as it was written."""
        self._noted_s[row, volume] = self._monotonic_s()
        if len(self._noted_s) > NOTED_MAX:
            del self._noted_s[next(iter(self._noted_s))]

    def without(self, volumes: Iterable[Volume], row: Row) -> list[Volume]:
        """Return those to which a shard may be copied; raises `SpoiledCopyError` if none may."""
        every = list(volumes)
        since_s = self._monotonic_s() - AGAIN_S
        fit = [one for one in every if self._noted_s.get((row, one), since_s) <= since_s]
        if every and not fit:
            raise SpoiledCopyError(every[0].settings.label)
        return fit
