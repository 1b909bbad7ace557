"""Reading the settings again while serving: all of it or nothing, and said what happened."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from farmer.model.status import Alert
from farmer.running.alerts import AlertBoard
from farmer.running.errors import OwnerError
from farmer.running.home import Home
from farmer.running.notify import ServiceNotifier
from farmer.running.volumes import adopting
from farmer.settings.changes import changes
from farmer.settings.loader import SettingsError, load
from farmer.settings.schema import Settings
from farmer.storage.directory import VolumeSetupError
from farmer.storage.errors import StorageError
from farmer.units import counted


class Reloaded(Protocol):
    """Counts reloads."""

    def __call__(self, *, good: bool) -> None:
        """One was done."""


def load_again(home: Home, environ: Mapping[str, str]) -> Settings:
    """Return the settings as they are now; raises `SettingsError`.  Blocking."""
    return load(home.settings_to_read, environ).settings


class Reloader:
    """
    Applies what can change while serving, and names what waits for a restart.

    Args:
        read: the settings as they are now, by a disk that may hang; raises `SettingsError`.
        started: those that this process was started with.
        apply: puts the live ones in force.
        turns: held meanwhile; reloads go one after the other, each of them whole.
        board: shows bad settings until they are mended.
        notifier: tells the service manager.
        reloaded: counts.

    """

    log = Logger()

    def __init__(
        self,
        *,
        read: Callable[[], Awaitable[Settings]],
        started: Settings,
        apply: Callable[[Settings], Awaitable[None]],
        turns: DeferredLock,
        board: AlertBoard,
        notifier: ServiceNotifier,
        reloaded: Reloaded,
    ) -> None:
        self._read = read
        self._started = started
        self._current = started
        self._apply = apply
        self._turns = turns
        self._board = board
        self._notifier = notifier
        self._reloaded = reloaded
        self.waiting: tuple[str, ...] = ()
        """The names of settings that were read again, and wait for a restart."""

    def adopt(self, path: Path, settings: Settings) -> None:
        """Take one of their volumes as in force: somebody else opened or closed it."""
        self._started = adopting(self._started, settings, path)
        self._current = adopting(self._current, settings, path)
        self.waiting = changes(self._started, self._current).restart

    async def reload(self) -> None:
        """Read and apply; bad settings change nothing, and whatever fails is told."""
        async with self._turns:
            await self._reload()

    async def _reload(self) -> None:
        self._notifier.reloading(time.monotonic_ns() // 1000)
        try:
            await self._take(await self._read())
        except SettingsError as error:
            self._refuse(error)
        except (OwnerError, VolumeSetupError, StorageError, OSError) as error:
            self._tell_failed(str(error) or type(error).__name__)
        except Exception as error:
            # Our bug; the service manager waits for an answer all the same.
            self.log.failure("the settings could not be put in force")
            self._tell_failed(repr(error))
        self._notifier.ready("serving")

    def _refuse(self, error: SettingsError) -> None:
        for fault in error.faults:
            self.log.error("settings: {fault}", fault=str(fault))
        self._tell_bad(
            "SettingsBad",
            f"the settings have {counted(len(error.faults), 'mistake')}: {error.faults[0]}; "
            "the farmer goes on with those from before",
            "farmer config check",
        )

    def _tell_failed(self, why: str) -> None:
        self.log.error("settings: {fault}", fault=why)
        self._tell_bad(
            "SettingsNotApplied",
            f"the settings were read again and could not be put in force: {why}; mend that and "
            "reload (SIGHUP)",
            "farmer volume list",
        )

    def _tell_bad(self, name: str, message: str, command: str) -> None:
        self._board.report(
            "settings", Alert(name=name, since_ms=0, message=message, command=command)
        )
        self._reloaded(good=False)

    async def _take(self, settings: Settings) -> None:
        live = changes(self._current, settings).live
        await self._apply(settings)
        self._current = settings
        self.waiting = changes(self._started, settings).restart
        self._board.report("settings")
        self._reloaded(good=True)
        self.log.info("settings read again; changed: {names}", names=", ".join(live) or "nothing")
        if self.waiting:
            names = ", ".join(self.waiting)
            self.log.warn("these settings wait for a restart: {names}", names=names)
