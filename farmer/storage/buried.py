"""
Deletions of which a volume that was away has not heard, in memory.

Each left a tombstone, or a shard in the trash that speaks against older copies.  When the volume
that has those hangs, or goes, just as the other one is back, nobody could be asked of them, and
what was deleted would be seen again until both are there.
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from typing import Final

from farmer.storage.places import Key

BURIED_MAX: Final = 16_384
"""So many are known at most, the latest: 4 MiB."""


class Buried:
    """
    One engine's, since it was opened.  Safe from any thread.

    Nothing may be noted that is not durable, or its shard would be lost to its renter.
    """

    def __init__(self) -> None:
        self._since: dict[Key, int] = {}
        self._lock = Lock()

    def note(self, key: Key, observed_ms: int) -> None:
        """Let no copy of a shard count that was stored before."""
        with self._lock:
            since_ms = self._since.pop(key, 0)
            self._since[key] = max(since_ms, observed_ms)
            if len(self._since) > BURIED_MAX:
                del self._since[next(iter(self._since))]

    def since_ms(self, key: Key) -> int:
        """Return the observed time of a shard's deletion, or 0."""
        return self._since.get(key, 0)

    def forget(self, keys: Iterable[Key]) -> None:
        """Hear that no volume has an older copy of these any more, or that they were stored."""
        with self._lock:
            for key in keys:
                self._since.pop(key, None)
