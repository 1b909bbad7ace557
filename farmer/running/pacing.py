"""
How fast volumes are emptied: in turns, so that whoever stores or retrieves goes first.

Within the owner's bound, too, which each volume has for itself.  The work itself is
`farmer.storage.moving`.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from farmer.node.ports import Disk
from farmer.running.retiring import Retiring
from farmer.storage.engine import Engine
from farmer.storage.errors import StorageError
from farmer.storage.moving import Step

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


@dataclass(slots=True)
class Pace:
    """One volume's."""

    reckoned_s: float
    """Up to when its rate has earned something."""
    noted_s: float
    """When it was last noted how fast it is."""
    not_before_s: float = 0.0
    credit_bytes: float = 0.0

    def spend(self, step: Step, now_s: float) -> None:
        """Let it wait until what was copied, and what was read back, is within its rate."""
        rate_bytes = step.duty.rate_bytes
        if not rate_bytes:
            return
        earned = rate_bytes * min(max(0.0, now_s - self.reckoned_s), BURST_S)
        self.reckoned_s = max(now_s, self.reckoned_s)
        spent = step.copied_bytes + step.read_back_bytes
        self.credit_bytes = min(self.credit_bytes + earned, rate_bytes) - spent
        if self.credit_bytes < 0:
            self.not_before_s = self.reckoned_s = now_s - self.credit_bytes / rate_bytes
            self.credit_bytes = 0.0


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
        self._paces: dict[bytes, Pace] = {}

    def hurry(self) -> None:
        """Let the next turn work, whatever was waited for: the owner has asked for something."""
        for pace in list(self._paces.values()):
            pace.not_before_s = 0.0
        self._not_before_s = 0.0

    def stop(self) -> None:
        """Begin nothing more; a turn ends after the piece of work that it is at."""
        self._stopping = True

    async def turn(self) -> None:
        """Do some of the work, as much as rates and foreground allow; call it every `TURN_S`."""
        mover, now_s = self._engine.mover, self._monotonic_s()
        if self._stopping or now_s < self._not_before_s or self._is_idle:
            return
        self._look(now_s)
        copied: Counter[bytes] = Counter()
        while not self._stopping:
            try:
                step = await self._disk.run(mover.step, self._may, self._ended)
                if step is None:
                    await self._disk.run(self._retiring.finish)
            except StorageError:
                # A disk does not answer; its volume says so.
                self._retiring.tell()
                self._not_before_s = self._monotonic_s() + PATIENCE_S
                break
            if step is None:
                self._retiring.tell()
                self._not_before_s = self._next_s()
                break
            copied[step.volume] += step.copied_bytes
            step_s = self._monotonic_s()
            if step.volume in self._paces:
                self._paces[step.volume].spend(step, step_s)
            if self._busy() or step_s - now_s > BURST_S:
                await self._finish_others()
                break
        for volume, size in copied.items():
            self._note_pace(volume, size)

    async def _finish_others(self) -> None:
        """Let those go that are empty, while another one keeps us busy; what is stuck can wait."""
        if not self._retiring.stuck:
            with suppress(StorageError):
                await self._disk.run(self._retiring.finish)
            self._retiring.tell()

    @property
    def _is_idle(self) -> bool:
        return self._engine.mover.is_idle and self._retiring.is_idle

    def _look(self, now_s: float) -> None:
        """Have a pace for each volume that is being emptied, and for no other."""
        leaving = self._engine.mover.leaving
        self._paces = {one: self._paces.get(one, Pace(now_s, now_s)) for one in leaving}

    def _may(self, volume: bytes) -> bool:
        pace = self._paces.get(volume)
        return pace is not None and self._monotonic_s() >= pace.not_before_s

    def _ended(self, volume: bytes) -> None:
        """Let a volume wait of which a pass is over and something is left, or which is empty."""
        pace, source = self._paces.get(volume), self._engine.mover.leaving.get(volume)
        if pace is not None and source is not None:
            work = self._engine.mover.work(source)
            patience_s = PATIENCE_S if work is not None and work.problem else PASS_S
            pace.not_before_s = self._monotonic_s() + patience_s

    def _next_s(self) -> float:
        """Return when there may be something to do again, now that there is nothing."""
        now_s = self._monotonic_s()
        if self._engine.mover.is_idle:
            return 0.0 if self._is_idle else now_s + PATIENCE_S
        paces = [self._paces.get(one) for one in self._engine.mover.leaving]
        later = [pace.not_before_s if pace is not None else now_s for pace in paces]
        return min(later, default=now_s + PASS_S)

    def _note_pace(self, volume: bytes, copied: int) -> None:
        """Reckon with the pauses too, since the last turn that did something for it."""
        pace, source = self._paces.get(volume), self._engine.mover.leaving.get(volume)
        if pace is None or source is None or source.duty is None or not copied:
            return
        now_s = self._monotonic_s()
        took_s, pace.noted_s = max(TURN_S, now_s - pace.noted_s), now_s
        if took_s < PACE_S_MAX:
            # What comes at once is waited for afterwards.
            speed = min(copied / took_s, source.duty.rate_bytes or math.inf)
            known = self._engine.mover.bytes_per_s
            before = known.get(volume, 0.0)
            known[volume] = before + (SPEED_SHARE if before else 1.0) * (speed - before)
