"""The scrubs of all volumes, by the volumes' names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from threading import Lock
from typing import Final

from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.scrub import DAY_MS, Scrub, Turn
from farmer.storage.volume import Volume

PASS_SHARE: Final = 3
"""A pass may take a third of the days and begins when two thirds have passed since the last
began: then no byte waits longer than the days."""


class Scrubs:
    """Made by the engine; a volume that comes gets its scrub at its first turn."""

    def __init__(
        self, opened: Callable[[], Sequence[Volume]], monotonic_s: Callable[[], float]
    ) -> None:
        self._opened = opened
        self._monotonic_s = monotonic_s
        self._lock = Lock()
        self._scrubs: dict[str, tuple[Volume, Scrub]] = {}

    def names(self) -> tuple[str, ...]:
        """Return the volumes that can be scrubbed now."""
        return tuple(volume.settings.label for volume in self._opened())

    def turn(
        self, name: str, work_s: float, now_ms: int, days: float, *, may_wait: bool = False
    ) -> Turn:
        """
        Work on one volume for a moment; nothing to do if it is not open.

        Every byte is to be read within *days*.  If it *may wait*, the turn is put off as long as
        the pass is ahead of one that takes half of the time that it may.

        Raises `VolumeUnavailableError`.
        """
        scrub = self._find(name)
        if scrub is None:
            return Turn(is_idle=True)
        pass_ms = int(days * DAY_MS) // PASS_SHARE
        if may_wait and scrub.put_off(now_ms, pass_ms // 2):
            return Turn(is_put_off=True)
        return scrub.turn(work_s, now_ms, pass_ms * (PASS_SHARE - 1))

    def open_hours(self, *, are_open: bool) -> None:
        """Tell whether the owner's hours allow work now; the next turns heed it."""
        for name in self.names():
            scrub = self._find(name)
            if scrub is not None:
                scrub.is_within_hours = are_open

    def begin_now(self, names: Iterable[str] = ()) -> tuple[str, ...]:
        """
        Begin a pass on these volumes, or on all, at their next turn; return which.

        Raises `VolumeUnavailableError` if one of them hangs, or is not there.
        """
        return self._told(names, Scrub.begin_now)

    def pause(self, names: Iterable[str] = (), *, paused: bool) -> tuple[str, ...]:
        """
        Stop, or go on, on these volumes or on all; kept over restarts.  Return which.

        Raises as `begin_now`.
        """
        return self._told(names, partial(Scrub.pause, paused=paused))

    def _told(self, names: Iterable[str], tell: Callable[[Scrub], None]) -> tuple[str, ...]:
        """Tell each, also behind one that cannot be told."""
        chosen = self._chosen(names)
        untold = []
        for name, scrub in chosen:
            try:
                tell(scrub)
            except VolumeUnavailableError as error:
                untold.append(f"{name}: {error}")
        if untold:
            raise VolumeUnavailableError("; ".join(untold))
        return tuple(name for name, _ in chosen)

    def _chosen(self, names: Iterable[str]) -> list[tuple[str, Scrub]]:
        wanted = tuple(names) or self.names()
        found = [(name, self._find(name)) for name in wanted]
        missing = [name for name, scrub in found if scrub is None]
        if missing:
            raise VolumeUnavailableError(f"there is no open volume {', '.join(missing)}")
        return [(name, scrub) for name, scrub in found if scrub is not None]

    def _find(self, name: str) -> Scrub | None:
        volume = next((one for one in self._opened() if one.settings.label == name), None)
        if volume is None:
            return None
        known = self._scrubs.get(name)
        if known is None or known[0] is not volume:
            # Not under the lock: it reads a file, and the disk may not answer.
            fresh = Scrub(volume, self._monotonic_s)
            with self._lock:
                known = self._scrubs.get(name)
                if known is None or known[0] is not volume:
                    fresh.take_charge()
                    known = self._scrubs[name] = (volume, fresh)
        return known[1]
