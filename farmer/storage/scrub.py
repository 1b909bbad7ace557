"""
The scrub of one volume: reads everything again, a little at a time, and acts on what it finds.

`turn` is called as often as its caller likes and works for a moment; where it stopped is noted
in the volume, so that a restart goes on there.  What is damaged is put into quarantine, what
can be made right without the renter is made right, all of it is told.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock
from typing import Final

from farmer.model.status import ScrubStatus
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.index_errors import is_for_rot
from farmer.storage.scrub_notes import read_notes, write_notes
from farmer.storage.scrub_reactions import Reactions
from farmer.storage.scrub_walk import Steps, Walk
from farmer.storage.volume import Volume

DAY_MS: Final = 86_400_000
SAVE_S: Final = 30.0
"""Work between two notes of the position: what a crash makes the scrub read again."""

LOOK_S: Final = 0.1
"""Who waits for the end of a turn sees so soon that its disk does not answer."""

PINNED_S: Final = 5.0
"""What was being read stays pinned so long when a turn is put off; then it may be given back."""

ALERTS: Final = ("ScrubFoundDamage", "IndexDisagrees", "LogDamaged", "IndexDamaged")
"""What a pass that finds nothing clears."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn did."""

    read_bytes: int = 0
    worked_s: float = 0.0
    is_idle: bool = False
    """Nothing is to be done now."""
    is_put_off: bool = False
    """There is time, and others are to go first."""


class Scrub:
    """One volume's.  Safe from any thread; one turn at a time."""

    def __init__(self, volume: Volume, monotonic_s: Callable[[], float]) -> None:
        self._volume = volume
        self._clock_s = monotonic_s
        self._lock = Lock()
        self._steps: Steps | None = None
        self._notes = read_notes(volume.ground)
        self._is_wanted_now = False
        self._unsaved_s = 0.0
        self._worked_s = 0.0
        """When the last turn ended, by the clock."""
        self._is_closed = False
        self._speed = _Speed()
        self.is_within_hours = True
        """Whether the owner's hours allow work now; told by whoever calls."""

    def take_charge(self) -> None:
        """Be the volume's scrub: tell how far it is, and end with it.  Of several made, one."""
        self._volume.scrub_status = self.status
        self._volume.before_close.append(self.close)

    def turn(self, work_s: float, now_ms: int, pass_every_ms: int) -> Turn:
        """
        Work for about *work_s* seconds; begin a pass if the last began *pass_every_ms* ago.

        Raises:
            VolumeUnavailableError: the disk cannot be read; what was found stays found.

        """
        if not self._lock.acquire(blocking=False):
            return Turn(is_idle=True)  # a turn still waits for a disk that hangs
        try:
            return self._turn(work_s, now_ms, pass_every_ms)
        finally:
            self._lock.release()

    def begin_now(self) -> None:
        """
        Begin a pass at the next turn, also outside the owner's hours and while paused.

        Raises `VolumeUnavailableError` if a turn waits for a disk that does not answer.
        """
        with self._between_turns():
            self._is_wanted_now = True
            self._notes.is_paused = False

    def put_off(self, now_ms: int, pass_ms: int) -> bool:
        """
        Put a turn off, if there is time; say whether it is.

        There is if nobody waits for this pass, and it is ahead of one that takes *pass_ms*.
        """
        status = self.status()
        has_time = status.state == "running" and status.is_ahead(now_ms, pass_ms)
        if self._is_wanted_now or not has_time or not self._lock.acquire(blocking=False):
            return False
        try:
            self._speed.interrupt()
            if self._steps is not None and self._clock_s() - self._worked_s > PINNED_S:
                self._rest()
        finally:
            self._lock.release()
        return True

    def pause(self, *, paused: bool) -> None:
        """Stop for as long as the owner wants, over restarts; or go on.  Raises as `begin_now`."""
        with self._between_turns():
            self._notes.is_paused = paused
            self._is_wanted_now = self._is_wanted_now and not paused
            self._rest()

    def close(self, in_order: bool = True) -> None:  # a callback
        """Stop for good; note where it was, if the volume's directory may still be used."""
        self._is_closed = True
        if in_order:
            with self._lock:
                self._rest()

    def status(self) -> ScrubStatus:
        """Return how far it is; never waits for the disk."""
        notes, account = self._notes, self._volume.ground.account
        total_bytes = account.total.live_bytes + account.total.trash_bytes + account.log_bytes
        done_bytes = min(notes.done_bytes, total_bytes) if notes.phase else 0
        return ScrubStatus(
            state=self._state(),
            total_bytes=total_bytes,
            done_bytes=done_bytes,
            bytes_per_s=self._speed.bytes_per_s if notes.phase else 0.0,
            began_at_ms=notes.began_ms,
            ended_at_ms=notes.ended_ms,
            checked=notes.checked,
            damaged=notes.damaged,
            mended=notes.mended,
            disagreements=notes.disagreements,
        )

    @contextmanager
    def _between_turns(self) -> Iterator[None]:
        while not self._lock.acquire(timeout=LOOK_S):
            self._volume.ground.health.check_readable()
        try:
            yield
        finally:
            self._lock.release()

    def _turn(self, work_s: float, now_ms: int, pass_every_ms: int) -> Turn:
        if self._is_closed:
            return Turn(is_idle=True)
        if not self._goes_on(now_ms, pass_every_ms):
            if self._steps is not None:
                self._rest()  # nothing stays pinned for hours
            return Turn(is_idle=True)
        began_s = self._clock_s()
        try:
            read_bytes = self._work(began_s + work_s, now_ms)
        except sqlite3.Error as error:
            self._rest()
            if is_for_rot(error):
                raise self._volume.index_failed(error) from error
            raise VolumeUnavailableError(f"the index cannot be read: {error}") from error
        except BaseException:
            self._rest()
            raise
        self._worked_s = self._clock_s()
        worked_s = self._worked_s - began_s
        self._unsaved_s += worked_s
        if self._unsaved_s >= SAVE_S:
            self._save()
        return Turn(read_bytes, worked_s)

    def _state(self) -> str:
        if self._notes.is_paused:
            return "paused"
        if not self._notes.phase and not self._is_wanted_now:
            return "idle"
        return "running" if self.is_within_hours or self._is_wanted_now else "waiting"

    def _goes_on(self, now_ms: int, pass_every_ms: int) -> bool:
        notes = self._notes
        if not self._volume.ground.health.is_here:
            return False
        if not self._is_wanted_now and (notes.is_paused or not self.is_within_hours):
            return False
        if notes.phase:
            return True
        # A clock that was ahead when the last pass began makes the next one due, not never.
        is_due = not notes.began_ms or not 0 <= now_ms - notes.began_ms < pass_every_ms
        if is_due or self._is_wanted_now:
            notes.begin(now_ms)
            self._speed = _Speed()
            self._save()
        return bool(notes.phase)

    def _work(self, end_s: float, now_ms: int) -> int:
        """Take steps until the time is over; return the bytes read."""
        if self._steps is None:
            findings = Reactions(self._volume, self._notes)
            volume = self._volume
            self._steps = Walk(
                *(volume.ground, volume.handles, self._notes, findings),
                is_reclaiming=lambda: volume.reclaimer.is_running,
            ).steps()
        total_bytes = 0
        while True:
            try:
                step_bytes = next(self._steps)
            except StopIteration:
                self._end(now_ms)
                break
            total_bytes += step_bytes
            self._notes.done_bytes += step_bytes
            if self._clock_s() >= end_s:
                break
        self._speed.add(self._clock_s(), total_bytes)
        return total_bytes

    def _end(self, now_ms: int) -> None:
        self._steps = None
        self._is_wanted_now = False
        self._notes.end(now_ms)
        if not self._notes.findings:
            for name in ALERTS:
                self._volume.ground.health.clear_alert(name)
        self._save()

    def _rest(self) -> None:
        if self._steps is not None:
            self._steps.close()
            self._steps = None
        self._save()

    def _save(self) -> None:
        self._unsaved_s = 0.0
        with suppress(OSError):
            # Without it a restart begins this pass anew: no harm, and the disk has other worries.
            write_notes(self._volume.ground, self._notes)


class _Speed:
    """How fast a pass really goes, rests included; forgets slowly."""

    _MEMORY_S: Final = 600.0

    def __init__(self) -> None:
        self.bytes_per_s = 0.0
        self._last_s: float | None = None
        self._weight_s = 0.0

    def interrupt(self) -> None:
        """Do not count the time until the next turn."""
        self._last_s = None

    def add(self, now_s: float, read_bytes: int) -> None:
        if self._last_s is not None and now_s > self._last_s:
            passed_s = now_s - self._last_s
            known_s = min(self._weight_s, self._MEMORY_S)
            total_s = known_s + passed_s
            self.bytes_per_s = (self.bytes_per_s * known_s + read_bytes) / total_s
            self._weight_s = total_s
        self._last_s = now_s
