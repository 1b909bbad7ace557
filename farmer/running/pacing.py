"""
How fast volumes are emptied: in turns, so that whoever stores or retrieves goes first.

Within the owner's bound, too.  The work itself is `farmer.storage.moving`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from farmer.node.ports import Disk
from farmer.running.retiring import Retiring
from farmer.storage.engine import Engine
from farmer.storage.errors import StorageError

TURN_S: Final = 0.25
"""Between two turns of work."""

BURST_S: Final = 2.0
"""A turn lasts so long when nobody is served; one piece of work when somebody is."""

PATIENCE_S: Final = 20.0
"""Until something is tried again that could not be done, or that waits for somebody."""

PASS_S: Final = 2.0
"""Between two passes: for shards that were busy, and uploads that have not ended."""

SPEED_SHARE: Final = 0.2
"""How much the last turns count in the pace that is shown."""

PACE_S_MAX: Final = 120.0
"""Whoever paused for longer has no pace to speak of."""


class Pacing:
    """Does the work of the engine's mover, and has retired what is empty."""

    def __init__(
        self,
        engine: Engine,
        disk: Disk,
        retiring: Retiring,
        busy: Callable[[], bool],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """*busy* says whether a renter is being served at this moment."""
        self._engine = engine
        self._disk = disk
        self._retiring = retiring
        self._busy = busy
        self._monotonic_s = monotonic_s
        self._stopping = False
        self._not_before_s = 0.0
        self._credit_bytes = 0.0
        self._last_turn_s = self._paced_s = monotonic_s()

    def hurry(self) -> None:
        """Let the next turn work, whatever was waited for: the owner has asked for something."""
        self._not_before_s = 0.0

    def stop(self) -> None:
        """Begin nothing more; a turn ends after the piece of work that it is at."""
        self._stopping = True

    async def turn(self) -> None:
        """Do some of the work, as much as rate and foreground allow; call it every `TURN_S`."""
        mover, now_s = self._engine.mover, self._monotonic_s()
        since_s, self._last_turn_s = now_s - self._last_turn_s, now_s
        if self._stopping or now_s < self._not_before_s or mover.is_idle:
            return
        copied = 0
        while not self._stopping:
            try:
                done = await self._disk.run(mover.step)
                if done is None:
                    await self._disk.run(self._retiring.finish)
            except StorageError:
                # A disk does not answer; its volume says so.
                done = None
            if done is None:
                self._retiring.tell()
                self._not_before_s = self._monotonic_s() + self._patience_s()
                break
            copied += done[0]
            if self._is_over(done[0], done[1].rate_bytes, since_s, now_s):
                await self._finish_others()
                break
            since_s = 0.0
        if copied:
            self._note_pace(copied)

    async def _finish_others(self) -> None:
        """Let those go that are empty, while another one keeps us busy; what is stuck can wait."""
        if not self._retiring.stuck:
            with suppress(StorageError):
                await self._disk.run(self._retiring.finish)
            self._retiring.tell()

    def _is_over(self, copied: int, rate_bytes: int, since_s: float, began_s: float) -> bool:
        now_s = self._monotonic_s()
        if rate_bytes:
            earned = rate_bytes * min(since_s, BURST_S)
            self._credit_bytes = min(self._credit_bytes + earned, rate_bytes) - copied
            if self._credit_bytes < 0:
                self._not_before_s = now_s - self._credit_bytes / rate_bytes
                self._credit_bytes = 0.0
                return True
        return self._busy() or now_s - began_s > BURST_S

    def _patience_s(self) -> float:
        """Return how long to wait when a pass is over and something is left."""
        if self._engine.mover.is_idle:
            return 0.0
        works = [volume.work for volume in self._engine.volumes() if volume.work is not None]
        return PATIENCE_S if any(work.problem for work in works) else PASS_S

    def _note_pace(self, copied: int) -> None:
        """Reckon with the pauses too, since the last turn that did something."""
        mover, now_s = self._engine.mover, self._monotonic_s()
        took_s, self._paced_s = max(TURN_S, now_s - self._paced_s), now_s
        if took_s < PACE_S_MAX:
            pace = copied / took_s
            share = SPEED_SHARE if mover.bytes_per_s else 1.0
            mover.bytes_per_s += share * (pace - mover.bytes_per_s)
