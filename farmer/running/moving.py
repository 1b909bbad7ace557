"""
Volumes being emptied, in a running farmer: what the owner asks, the pace, and what comes after.

The work itself is `farmer.storage.moving`.  Here it is done in turns, so that whoever stores
or retrieves goes first, and within the owner's bound; and a volume that is to be retired is
taken out of settings and register when nothing is left in it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from twisted.logger import Logger

from farmer.identity.keys import Identity
from farmer.model.status import Alert
from farmer.node.ports import Disk
from farmer.running.answering import answer_of
from farmer.running.errors import OwnerError
from farmer.running.home import Home, HomeError
from farmer.running.making import make_volumes
from farmer.running.reload import load_again
from farmer.running.retired import Retired
from farmer.running.rewriting import change_settings, settings_now, settings_place
from farmer.running.stores import volume_settings
from farmer.running.volumes import VolumePlan, plan_volumes, volume_paths
from farmer.settings.loader import SettingsError, load_text
from farmer.settings.schema import Settings
from farmer.settings.written import without_volume
from farmer.storage.annex import annex_of, beside, forget_index, remove_annex
from farmer.storage.directory import VolumeSetupError, remove_volume, retire_marker
from farmer.storage.duty import Duty, Leaving
from farmer.storage.engine import Engine
from farmer.storage.errors import StorageError
from farmer.storage.files import OsFiles
from farmer.storage.volume import Volume
from farmer.units import format_size
from farmer.version import SCHEMA

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

LEAVE_S: Final = 60.0
"""For the files of a retired volume to be removed; beyond it nobody waits for that."""

PACE_S_MAX: Final = 120.0
"""Whoever paused for longer has no pace to speak of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Household:
    """What belongs to the farmer besides its engine."""

    home: Home
    environ: Mapping[str, str]
    identity: Identity
    now_ms: Callable[[], int]
    adopted: Callable[[Settings], None]
    """Told of settings that are in force although they were changed since the start."""
    retired: Retired
    """Shows those that were."""
    report: Callable[[list[Alert]], None]
    """Shows what keeps volumes from being retired."""


class Movings:
    """Does and answers what has to do with emptying volumes.  Its verbs block."""

    log = Logger()

    def __init__(
        self,
        engine: Engine,
        disk: Disk,
        household: Household,
        busy: Callable[[], bool],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """*busy* says whether a renter is being served at this moment."""
        self._engine = engine
        self._disk = disk
        self._household = household
        self._busy = busy
        self._monotonic_s = monotonic_s
        self._stopping = False
        self._adopted: Settings | None = None
        self._stuck: list[Alert] = []
        self._not_before_s = 0.0
        self._credit_bytes = 0.0
        self._last_turn_s = self._paced_s = monotonic_s()
        self.verbs: Final[dict[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
            "volume-open": self._open,
            "volume-drain": self._drain,
            "volume-cancel": self._cancel,
        }

    def do(self, verb: str, words: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one command; raises `OwnerError`."""
        try:
            answer = {"schema": SCHEMA} | self.verbs[verb](words)
        except (KeyError, TypeError, ValueError) as error:
            raise OwnerError(f"{verb} was not understood: {error}") from error
        except (StorageError, VolumeSetupError, SettingsError, HomeError, OSError) as error:
            raise OwnerError(str(error) or type(error).__name__) from error
        self._not_before_s = 0.0
        return answer

    def tell(self) -> None:
        """Pass on what the last command or turn has changed; on the reactor's thread."""
        if self._adopted is not None:
            self._household.adopted(self._adopted)
            self._adopted = None
        self._household.report(self._stuck)

    def stop(self) -> None:
        """Begin nothing more; a turn ends after the piece of work that it is at."""
        self._stopping = True

    # What the owner asks.

    def _open(self, words: dict[str, Any]) -> dict[str, Any]:
        """Use a volume of the settings that was added since the start."""
        house = self._household
        path = Path(words["path"])
        settings = load_again(house.home, house.environ)
        plans = [plan for plan in self._plans(settings) if plan.path == path]
        if not plans:
            raise OwnerError(f"{path} is not in {house.home.settings}")
        make_volumes(house.home, house.identity, plans, house.now_ms())
        house.retired.look_again()
        self._engine.add_volume(volume_settings(plans[0]))
        if self._engine.volume_at(path) is None:
            rows = [one for one in self._engine.volumes() if one.path == str(path)]
            why = rows[0].reason if rows else "see: farmer volume list"
            raise OwnerError(f"{path} cannot be opened: {why}")
        self._adopted = settings
        return {"path": str(path)}

    def _drain(self, words: dict[str, Any]) -> dict[str, Any]:
        """Begin to empty a volume: to drain, to retire or to move it."""
        source, verb = self._named(words["path"]), Leaving(words["verb"])
        to_path = str(words.get("to_path", ""))
        target = self._named(to_path) if to_path else None
        if target is source:
            raise OwnerError("a volume cannot move to where it is")
        only = target.ground.volume.hex() if target is not None else ""
        room = self._engine.mover.room(source, only)
        if not room.is_enough and not words.get("partly"):
            raise OwnerError(
                f"{source.settings.path} holds {format_size(room.wanted_bytes)}, but "
                f"{to_path or 'the other volumes'} can take {format_size(room.available_bytes)}: "
                "nothing was begun. Add a volume, or give one more quota"
            )
        if verb is not Leaving.DRAIN:
            self._check_settings(source.settings.path)
        duty = Duty(
            verb=verb,
            since_ms=self._household.now_ms(),
            to=only,
            to_path=to_path,
            rate_bytes=int(words.get("rate_bytes", 0)),
            force=bool(words.get("give_up_damaged")),
            remove=bool(words.get("remove")),
        )
        if not source.takes_stores:
            # What leaves it is noted elsewhere, also this wish.
            self._engine.part(source.settings.path)
            source = self._named(words["path"])
        self._engine.mover.begin(source, duty)
        total = source.ground.account.total
        return {
            "path": str(source.settings.path),
            "shards": total.shards,
            "bytes": total.live_bytes + total.trash_bytes,
            "available_bytes": room.available_bytes,
        }

    def _cancel(self, words: dict[str, Any]) -> dict[str, Any]:
        source = self._named(words["path"])
        if source.duty is None:
            raise OwnerError(f"{source.settings.path} is not being emptied")
        self._check_named(source.settings.path)
        self._engine.mover.cancel(source)
        return {"path": str(source.settings.path), "shards": source.ground.account.total.shards}

    def _check_named(self, path: Path) -> None:
        """Make sure that the next start still opens what is to take stores again."""
        house = self._household
        if path not in volume_paths(house.home, load_again(house.home, house.environ)):
            raise OwnerError(
                f"{path} is out of the settings already, and the next start would not open it: "
                "let it go, or add it there again before"
            )

    def _named(self, path: str) -> Volume:
        found = self._engine.volume_at(Path(path))
        if found is None:
            raise OwnerError(f"{path} is no open volume of this farmer; see: farmer volume list")
        return found

    # The work.

    async def turn(self) -> None:
        """Do some of the work, as much as rate and foreground allow."""
        mover, now_s = self._engine.mover, self._monotonic_s()
        since_s, self._last_turn_s = now_s - self._last_turn_s, now_s
        if self._stopping or now_s < self._not_before_s or mover.is_idle:
            return
        copied = 0
        while not self._stopping:
            try:
                done = await self._disk.run(mover.step)
                if done is None:
                    await self._disk.run(self._finish)
            except StorageError:
                # A disk does not answer; its volume says so.
                done = None
            if done is None:
                self.tell()
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
        if not self._stuck:
            with suppress(StorageError):
                await self._disk.run(self._finish)
            self.tell()

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

    # What comes after it.

    def _finish(self) -> None:
        self._stuck = []
        for volume in self._engine.mover.finished():
            if volume.duty is not None and volume.duty.verb is not Leaving.DRAIN:
                self._retire(volume, volume.duty)

    def _retire(self, volume: Volume, duty: Duty) -> None:
        """
        Take an empty volume away: settings, register, the running engine, its marker.

        A crash in between leaves it out of the settings, empty and not opened.
        """
        path = volume.settings.path
        if self._engine.mover.is_held_up:
            # Nothing is closed while a shard may be half way: that would wait, and stop others.
            self._stuck.append(_stuck(path, "is not closed while another disk does not answer"))
            return
        try:
            settings = self._leave_settings(path)
        except (OwnerError, HomeError, SettingsError) as error:
            self._stuck.append(_stuck(path, f"could not be taken out of the settings: {error}"))
            return
        try:
            self._engine.remove_volume(path)
        except StorageError as error:
            self._stuck.append(_stuck(path, f"could not be closed yet: {error}"))
            return
        why = f"moved to {duty.to_path}" if duty.to_path else "its owner retired it"
        told = f"{why}; no shard is on it any more, and it may be unplugged"
        self._household.retired.add(path, told, self._household.now_ms())
        self._leave(volume, why, remove=duty.remove)
        self._adopted = settings
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
        elif annex.exists():
            remove_annex(annex)

    def _check_settings(self, path: Path) -> None:
        """Make sure, before anything is begun, that we can take it out of the settings."""
        house = self._household
        text = self._without(path, settings_now(house.home))
        if not os.access(settings_place(house.home).parent, os.W_OK):
            raise OwnerError(
                f"the farmer may not write {house.home.settings}, and so could not take {path} "
                f"out of it: use farmer volume drain, then do that by hand and restart"
            )
        load_text(text, str(house.home.settings), house.environ)

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

    def _plans(self, settings: Settings) -> list[VolumePlan]:
        return plan_volumes(self._household.home, settings, self._engine.silent())

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
    """Say in the directory that it is no volume any more, and remove its files if wanted."""
    retire_marker(path, OsFiles(), why)
    if remove:
        remove_volume(path)
    return True
