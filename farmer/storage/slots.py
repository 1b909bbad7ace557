"""The volumes of the settings, each of them open or with the reason why it is not."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from farmer.model.status import Alert, VolumeState, VolumeStatus
from farmer.storage.directory import VolumeSettings, VolumeSetupError
from farmer.storage.errors import StorageError, VolumeUnavailableError
from farmer.storage.opening import Surroundings, open_volume
from farmer.storage.volume import Volume


@dataclass(slots=True)
class Slot:
    """One volume of the settings: open, or why it is not."""

    settings: VolumeSettings
    volume: Volume | None = None
    alert: Alert | None = None

    def status(self) -> VolumeStatus:
        """Return its numbers; never waits for a disk."""
        if self.volume is not None:
            return self.volume.status()
        is_offered = self.settings.left_shut is None
        return VolumeStatus(
            name=self.settings.label,
            path=str(self.settings.path),
            state=VolumeState.GONE,
            reason=self.alert.message if self.alert else "closed",
            quota_bytes=self.settings.quota_bytes if is_offered else 0,
        )

    def trouble(self) -> tuple[Alert, ...]:
        """Return the conditions that stand."""
        if self.volume is not None:
            return self.volume.ground.health.alerts()
        return (self.alert,) if self.alert is not None else ()


class Slots:
    """All of them, in the order of the settings."""

    def __init__(self, settings: Sequence[VolumeSettings], around: Surroundings) -> None:
        self._around = around
        self._slots = [Slot(one) for one in settings]

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots)

    def __getitem__(self, number: int) -> Slot:
        return self._slots[number]

    def open_all(self) -> None:
        """Open what can be; raises `FormatTooNewError`, and has closed all then."""
        try:
            for slot in self._slots:
                self._open(slot)
        except BaseException:
            self.close()
            raise

    def look_after(self) -> list[Volume]:
        """Notice what went away or is back; return what can be written."""
        writable = []
        for slot in self._slots:
            with suppress(StorageError):
                if slot.volume is None:
                    self._open(slot)
                else:
                    _check_presence(slot.volume)
                    writable.append(slot.volume)
        return writable

    def opened(self) -> list[Volume]:
        """Return the open ones."""
        return [slot.volume for slot in self._slots if slot.volume is not None]

    def readable(self) -> list[Volume]:
        """Return those that can be asked."""
        return [
            volume
            for volume in self.opened()
            if volume.ground.health.state is not VolumeState.GONE
        ]

    def check_complete(self) -> None:
        """Raise unless every volume can be asked: what is missing may lie on that one."""
        if len(self.readable()) < len(self._slots):
            raise VolumeUnavailableError("a volume is missing")

    def is_complete(self) -> bool:
        """Say whether every volume is open."""
        return all(slot.volume is not None for slot in self._slots)

    def close(self) -> None:
        """Finish what the writers have, leave a clean mark on every volume, unlock."""
        for slot in self._slots:
            if slot.volume is not None:
                slot.volume.close()
                slot.volume = None

    def _open(self, slot: Slot) -> None:
        if slot.settings.left_shut is not None:
            slot.alert = slot.settings.left_shut
            return
        try:
            slot.volume = open_volume(slot.settings, self._around)
        except (VolumeSetupError, VolumeUnavailableError, OSError, sqlite3.Error) as error:
            since_ms = slot.alert.since_ms if slot.alert else self._around.clock_ms()
            slot.alert = Alert(
                name="VolumeGone",
                since_ms=since_ms,
                message=f"{slot.settings.label} cannot be used: {error}",
                command="farmer volume list",
            )
        else:
            slot.alert = None


def _check_presence(volume: Volume) -> None:
    """Notice a disk that was unmounted, or that is back; raises if it cannot be written."""
    health, ground = volume.ground.health, volume.ground
    if not ground.files.exists(ground.paths.marker):
        health.go("its marker is gone: the disk may not be mounted")
    elif health.state is VolumeState.GONE:
        health.come_back()
    health.check_writable()
