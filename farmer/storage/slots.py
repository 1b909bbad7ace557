"""The volumes of the settings, each of them open or with the reason why it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Final, TypeVar

from farmer.storage.directory import VolumeSettings
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.keeper import Slot
from farmer.storage.opening import Surroundings
from farmer.storage.volume import Volume
from farmer.storage.watch import HUNG_S

R = TypeVar("R")

_STEP_S: Final = 0.05
REOPENED_S: Final = 5.0
"""To look through a log's end; whoever waits longer is told that a volume is missing."""

REOPENED_LOOKS: Final = 16
"""Volumes that were opened anew, one after the other, while somebody looked."""

LOOK_WAIT_S: Final = 1.0
"""Whoever asks for a look gets an answer that is this old at most, of disks that answer."""


class Slots:
    """All of them, in the order of the settings."""

    def __init__(self, settings: Sequence[VolumeSettings], around: Surroundings) -> None:
        self._around = around
        self._slots = [Slot(one, around) for one in settings]

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots)

    def __getitem__(self, number: int) -> Slot:
        return self._slots[number]

    def __len__(self) -> int:
        return len(self._slots)

    def open_all(self) -> None:
        """
        Open what can be; one that hangs is left to itself, and opened when it answers.

        Raises:
            FormatTooNewError: and has closed all.

        """
        try:
            for slot in self._slots:
                slot.look_soon()
            for slot in self._slots:
                self._until_done_or_hung(slot)
                slot.check_not_too_new()
        except BaseException:
            self.close()
            raise

    def find(self, path: Path) -> Slot | None:
        """Return the one in this directory."""
        return next((slot for slot in self._slots if slot.settings.path == path), None)

    def add(self, settings: VolumeSettings) -> None:
        """Open one more, if it can be; raises `FormatTooNewError`."""
        slot = Slot(settings, self._around)
        slot.look_soon()
        self._until_done_or_hung(slot)
        slot.check_not_too_new()
        self._slots = [*self._slots, slot]

    def remove(self, slot: Slot) -> int:
        """Ask it no more, then close it; return how many shards it has, if it could be closed."""
        self._slots = [one for one in self._slots if one is not slot]
        slot.close_soon()
        self._until_done_or_hung(slot)
        return slot.left_shards

    def look_after(self, wait_s: float = LOOK_WAIT_S) -> list[Volume]:
        """Notice what went away or is back; return what can be written."""
        looks = [slot.look_soon() for slot in self._slots]
        for look in wait(looks, wait_s).done:
            look.result()
        return [volume for volume in self.opened() if volume.takes_stores]

    def part(self, slot: Slot) -> Volume | None:
        """Have one opened with an annex if it cannot be written; raises `OSError` and others."""
        slot.part_soon()
        self._until_done_or_hung(slot)
        return slot.volume if slot.can_be_asked else None

    def steadily(
        self, look: Callable[[], R], is_enough: Callable[[R], bool] = lambda _: False
    ) -> R:
        """
        Return what *look* sees, or let it raise.

        What is not enough, or unavailable, is looked at again if that may only be so because a
        volume was closed to be opened anew.
        """
        until_s = self._around.monotonic_s() + REOPENED_S
        for _ in range(REOPENED_LOOKS):
            before = self._reopenings()
            try:
                seen = look()
            except VolumeUnavailableError:
                if before == self._reopenings() and not self._reopening():
                    raise
            else:
                if is_enough(seen) or (before == self._reopenings() and not self._reopening()):
                    return seen
            left_s = until_s - self._around.monotonic_s()
            if left_s <= 0:
                break
            wait(self._reopening(), left_s)
        return look()

    def _reopenings(self) -> int:
        return sum(slot.reopenings for slot in self._slots)

    def _reopening(self) -> list[Future[None]]:
        return [slot.job for slot in self._slots if slot.is_reopening and not slot.is_hung]

    def watch(self) -> None:
        """Notice calls that do not return, that they have, and slow ones; never waits."""
        for slot in self._slots:
            slot.watch_calls()
        now_s = self._around.monotonic_s()
        for slot in self._slots:
            others = [one.watch.meters for one in self._slots if one is not slot]
            slot.tempo.judge(others, now_s)

    def stalled_threads(self) -> dict[int, bool]:
        """Return the threads that wait for a disk, and whether that is in vain."""
        stalled: dict[int, bool] = {}
        for slot in self._slots:
            stalled |= slot.watch.stalled_threads()
        return stalled

    def every(self) -> list[Volume | None]:
        """Return each that is open, and None for each that is not, as of one moment."""
        return [slot.volume for slot in self._slots]

    def opened(self) -> list[Volume]:
        """Return the open ones."""
        return [volume for volume in self.every() if volume is not None]

    def readable(self) -> list[Volume]:
        """Return those that can be asked, the ones that answer first."""
        here = [volume for volume in self.opened() if volume.ground.health.is_here]
        return sorted(here, key=lambda volume: volume.ground.watch.is_stalled)

    def check_complete(self) -> None:
        """Raise unless every volume can be asked: what is missing may lie on that one."""
        missing = [slot for slot in self._slots if not slot.can_be_asked]
        if missing:
            raise VolumeUnavailableError("a volume is missing")

    def is_certain(self) -> bool:
        """Say whether every volume can be asked, and knows of all that it holds."""
        return all(
            slot.can_be_asked and slot.volume is not None and not slot.volume.ground.doubts.keys
            for slot in self._slots
        )

    def close(self) -> None:
        """Finish what the writers have, leave a clean mark on every volume, unlock."""
        for slot in self._slots:
            slot.close_soon()
        for slot in self._slots:
            self._until_done_or_hung(slot)

    def _until_done_or_hung(self, slot: Slot) -> None:
        """Wait as long as there is progress: a rebuild takes its time, a dead disk for ever."""
        job: Future[None] = slot.job
        while not job.done():
            wait([job], _STEP_S)
            slot.watch_calls()
            if slot.is_hung and slot.watch.longest()[0] > HUNG_S:
                return
        job.result()
