"""
Volumes that were given up, shown for a while: their owner wants to know when he may unplug them.

A retired volume is none of the engine's, and of no farmer's; that it was one is known to the
home alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from farmer.model.status import VolumeState, VolumeStatus
from farmer.running import register
from farmer.running.home import Home
from farmer.running.register import RetiredVolume

SHOWN_MS: Final = 30 * 86_400_000
"""Who has not unplugged a disk by then knows of it, or does not mind."""


class Retired:
    """One home's; from memory, as the register has it."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._volumes = register.retired(home)

    def add(self, path: Path, why: str, now_ms: int) -> None:
        """Note one, durably."""
        register.retire(self._home, RetiredVolume(path, why, now_ms))
        self.look_again()

    def look_again(self) -> None:
        """Take over what somebody else has changed: a volume in the same place, perhaps."""
        self._volumes = register.retired(self._home)

    def shown(self, now_ms: int) -> tuple[VolumeStatus, ...]:
        """Return them as they are shown beside the volumes."""
        return tuple(
            VolumeStatus(
                # Whole, for its short name may be another volume's by now.
                name=str(one.path),
                path=str(one.path),
                state=VolumeState.RETIRED,
                reason=one.why,
            )
            for one in self._volumes
            if now_ms - one.at_ms < SHOWN_MS
        )
