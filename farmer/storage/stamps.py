"""
Observed times that tell what came later, within the minute between two looks at the clock.

What is stored, or given up, while a volume is away says when that was, and by that is compared
with what the volume has when it comes back (`farmer.storage.copies`).  The observed time stands
still from look to look: two volumes may be away by turns meanwhile, and of two things with the
same time nobody can say which was the last word.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Final

from farmer.storage.clock import START_COUNTS_MS

AHEAD_MS: Final = START_COUNTS_MS
"""
Of the observed time, at most: so far it may itself be behind.  A start leaves as much out
(`farmer.storage.clock`), so that what comes after a restart is later than what came before.
"""


class Stamps:
    """One engine's.  Safe from any thread."""

    def __init__(self, observed_ms: Callable[[], int]) -> None:
        self.observed_ms = observed_ms
        """The observed time as it was last seen."""
        self._last_ms = 0
        self._lock = Lock()

    def later_ms(self) -> int:
        """Return a time that is later than each one before, unless the minute is used up."""
        seen_ms = self.observed_ms()
        with self._lock:
            later_ms = min(self._last_ms + 1, seen_ms + AHEAD_MS - 1)
            self._last_ms = max(self._last_ms, seen_ms, later_ms)
            return self._last_ms
