"""
Volumes that go out of business: nothing is left in them, and their owner wants them away.

Such a volume is taken out of settings, register and running engine; its directory says from
then on that it is none, or is removed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Final

from twisted.logger import Logger

from farmer.identity.keys import Identity
from farmer.model.status import Alert
from farmer.running.answering import answer_of
from farmer.running.errors import OwnerError
from farmer.running.home import Home, HomeError
from farmer.running.reload import load_again
from farmer.running.retired import Retired
from farmer.running.rewriting import change_settings, settings_now, settings_place
from farmer.running.volumes import volume_paths
from farmer.settings.loader import SettingsError, load_text
from farmer.settings.schema import Settings
from farmer.settings.written import without_volume
from farmer.storage.annex import annex_of, beside, forget_index, remove_annex
from farmer.storage.directory import Paths, remove_volume, retire_marker
from farmer.storage.duty import Duty, Leaving
from farmer.storage.engine import Engine
from farmer.storage.errors import StorageError, VolumeUnavailableError
from farmer.storage.files import OsFiles
from farmer.storage.volume import Volume
from farmer.units import counted

LEAVE_S: Final = 60.0
"""For the files of a retired volume to be removed; beyond it nobody waits for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Household:
    """What belongs to the farmer besides its engine."""

    home: Home
    environ: Mapping[str, str]
    identity: Identity
    now_ms: Callable[[], int]
    adopted: Callable[[Path, Settings], None]
    """Told of settings of which one volume is in force although it was changed since the start."""
    retired: Retired
    """Shows those that were."""
    report: Callable[[list[Alert]], None]
    """Shows what keeps volumes from being retired."""


class _LeftoversError(Exception):
    """Some files of a volume that is retired could not be removed."""


class Retiring:
    """Retires what is empty and was meant to be.  All but `tell` blocks."""

    log = Logger()

    def __init__(self, engine: Engine, household: Household) -> None:
        self._engine = engine
        self._household = household
        self.adopted: list[tuple[Path, Settings]] = []
        """The volumes that came or went, each with settings that say so, until it is told."""
        self.stuck: list[Alert] = []
        """What keeps volumes that are empty from being retired."""
        self._closed: list[tuple[Volume, Duty]] = []
        """Those of which neither home nor disk could be told yet that they are retired."""
        self._held: dict[Path, Lock] = {}

    def tell(self) -> None:
        """Pass on what has changed; on the reactor's thread."""
        adopted, self.adopted = self.adopted, []
        for path, settings in adopted:
            self._household.adopted(path, settings)
        self._household.report(self.stuck)

    def check_settings(self, path: Path) -> None:
        """Make sure, before anything is begun, that we can take it out of the settings."""
        house = self._household
        text = self._without(path, settings_now(house.home))
        if not os.access(settings_place(house.home).parent, os.W_OK):
            raise OwnerError(
                f"the farmer may not write {house.home.settings}, and so could not take {path} "
                f"out of it: use farmer volume drain, then do that by hand and restart"
            )
        load_text(text, str(house.home.settings), house.environ)

    def forget_stuck(self, path: Path) -> None:
        """Say nothing more of what keeps a volume from being retired: that was called off."""
        self.stuck = [alert for alert in self.stuck if alert.about != str(path)]

    def held(self, path: Path) -> Lock:
        """Return what keeps a volume from being retired while its owner asks something of it."""
        return self._held.setdefault(path, Lock())

    @property
    def is_idle(self) -> bool:
        """Whether nothing was begun that has to be tried again; from memory."""
        return not self._closed

    def finish(self) -> None:
        """Retire all that can be; what cannot is among those that are stuck."""
        self.stuck = []
        closed, self._closed = self._closed, []
        for volume, duty in closed:
            with self.held(volume.settings.path):
                # Unless its owner has added it anew.
                if self._engine.volume_at(volume.settings.path) is None:
                    self._tell_of(volume, duty)
        for volume in self._engine.mover.leaving.values():
            held = self.held(volume.settings.path)
            # Not to be waited for: what is asked of it may take long, and there is a next time.
            if held.acquire(blocking=False):
                try:
                    self._retire_if_wanted(volume)
                finally:
                    held.release()

    def _retire_if_wanted(self, volume: Volume) -> None:
        # Only now: what is given up of a volume that its owner wants to keep is lost to renters.
        duty = volume.duty
        if duty is None or duty.verb is Leaving.DRAIN or not self._engine.mover.finish(volume):
            return
        if not volume.ground.account.total.shards:
            self._retire(volume, duty)

    def _retire(self, volume: Volume, duty: Duty) -> None:
        """
        Take an empty volume away: settings, register, the running engine, its marker.

        A crash in between leaves it out of the settings, empty and not opened.
        """
        path = volume.settings.path
        if self._engine.mover.is_held_up:
            # Nothing is closed while a shard may be half way: that would wait, and stop others.
            self.stuck.append(_stuck(path, "is not closed while another disk does not answer"))
            return
        try:
            self.adopted.append((path, self._leave_settings(path)))
        except (OwnerError, HomeError, SettingsError, OSError) as error:
            self.stuck.append(_stuck(path, f"could not be taken out of the settings: {error}"))
            return
        try:
            left = self._engine.remove_volume(path)
            if left:
                self._engine.add_volume(volume.settings)
                raise VolumeUnavailableError(f"{counted(left, 'shard')} had come meanwhile")
        except StorageError as error:
            self.stuck.append(_stuck(path, f"could not be closed yet: {error}"))
            return
        self._tell_of(volume, duty)

    def _tell_of(self, volume: Volume, duty: Duty) -> None:
        """Let home and disk know of a closed volume that it is retired; else it is tried again."""
        path = volume.settings.path
        why = f"moved to {duty.to_path}" if duty.to_path else "its owner retired it"
        told = f"{why}; no shard is on it any more, and it may be unplugged"
        try:
            self._household.retired.add(path, told, self._household.now_ms())
            self._leave(volume, why, remove=duty.remove)
        except _LeftoversError as error:
            self._closed.append((volume, duty))
            self.stuck.append(_stuck(path, f"its files could not all be removed: {error}"))
            return
        except (OSError, OwnerError, HomeError) as error:
            self._closed.append((volume, duty))
            self.stuck.append(_stuck(path, f"that it is retired could not be noted: {error}"))
            return
        self.log.info("volume {path} is empty and retired: {why}", path=str(path), why=why)

    def _leave(self, volume: Volume, why: str, *, remove: bool) -> None:
        """Say in its directory that it is no volume any more; else the home remembers it."""
        path = volume.settings.path
        annex = annex_of(self._household.home.annexes, volume.ground.volume)
        try:
            is_done = answer_of(partial(_mark, path, why, remove=remove), LEAVE_S)
        except OSError as error:
            if not annex.exists():
                raise
            # The disk cannot say itself that it is retired.
            retire_marker(path, beside(OsFiles(), path, annex), why)
            forget_index(annex)
            self.log.warn("{path}: {error}; the home remembers it", path=str(path), error=error)
            return
        if is_done is None:
            self.log.warn("{path}: to give it up takes long; it goes on by itself", path=str(path))
        elif not is_done:
            self.log.warn("{path} is not there any more; the home remembers it", path=str(path))
        elif annex.exists():
            remove_annex(annex)

    def _leave_settings(self, path: Path) -> Settings:
        house = self._household
        settings = load_again(house.home, house.environ)
        if path not in volume_paths(house.home, settings):
            # Only the closing was left: it failed the last time.
            return settings

        def check(settings: Settings) -> None:
            if path in volume_paths(house.home, settings):
                raise OwnerError(f"{path} is named by the environment, too")

        return change_settings(house.home, house.environ, partial(self._without, path), check)

    def _without(self, path: Path, text: str) -> str:
        settings = self._household.home.settings
        try:
            return without_volume(text, str(path))
        except ValueError as error:
            raise OwnerError(f"{settings}: {error}; take {path} out of it by hand") from error


def _stuck(path: Path, why: str) -> Alert:
    return Alert(
        name="VolumeNotRetired",
        since_ms=0,
        message=f"{path} is empty, but {why}. It is tried again by itself",
        command="farmer volume list",
        about=str(path),
    )


def _mark(path: Path, why: str, *, remove: bool) -> bool:
    """
    Say in the directory that it is no volume any more, and remove its files if wanted.

    Returns whether it is there at all: its owner may have unplugged it already.  Raises
    `OSError`, and `_LeftoversError` where all but the removal is done.
    """
    try:
        retire_marker(path, OsFiles(), why)
    except FileNotFoundError:
        if Paths(path).marker.exists():
            raise
        return False
    if remove:
        try:
            remove_volume(path)
        except OSError as error:
            raise _LeftoversError(str(error)) from error
    return True
