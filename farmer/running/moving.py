"""What the owner asks of a running farmer's volumes: to use one more, to empty one, or to stop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from farmer.running.errors import OwnerError, system_words
from farmer.running.home import HomeError
from farmer.running.making import make_volumes
from farmer.running.reload import load_again
from farmer.running.retiring import Household, Retiring
from farmer.running.stores import volume_settings
from farmer.running.volumes import plan_volumes, volume_paths
from farmer.settings.loader import SettingsError
from farmer.storage.directory import VolumeSetupError
from farmer.storage.duty import Duty, Leaving
from farmer.storage.engine import Engine
from farmer.storage.errors import NO_SPACE, StorageError
from farmer.storage.volume import Volume
from farmer.units import format_size
from farmer.version import SCHEMA


class Movings:
    """Answers what has to do with emptying volumes.  All but `tell` blocks."""

    def __init__(
        self,
        engine: Engine,
        household: Household,
        retiring: Retiring,
        hurry: Callable[[], None],
    ) -> None:
        """*hurry* has what was asked for done soon."""
        self._engine = engine
        self._household = household
        self._retiring = retiring
        self._hurry = hurry
        self.verbs: Final[dict[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
            "volume-open": self._open,
            "volume-drain": self._drain,
            "volume-cancel": self._cancel,
        }

    def do(self, verb: str, words: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one command; raises `OwnerError`."""
        try:
            with self._retiring.held(Path(words["path"])):
                answer = {"schema": SCHEMA} | self.verbs[verb](words)
        except (KeyError, TypeError, ValueError) as error:
            raise OwnerError(f"{verb} was not understood: {error}") from error
        except OSError as error:
            raise OwnerError(system_words(error)) from error
        except (StorageError, VolumeSetupError, SettingsError, HomeError) as error:
            raise OwnerError(str(error) or type(error).__name__) from error
        self._hurry()
        return answer

    def tell(self) -> None:
        """Pass on what the last command has changed; on the reactor's thread."""
        self._retiring.tell()

    def _open(self, words: dict[str, Any]) -> dict[str, Any]:
        """Use a volume of the settings that was added since the start."""
        house = self._household
        path = Path(words["path"])
        settings = load_again(house.home, house.environ)
        planned = plan_volumes(house.home, settings, self._engine.silent())
        plans = [plan for plan in planned if plan.path == path]
        if not plans:
            raise OwnerError(f"{path} is not in {house.home.settings}")
        make_volumes(house.home, house.identity, plans, house.now_ms())
        house.retired.look_again()
        self._engine.add_volume(volume_settings(plans[0]))
        if self._engine.volume_at(path) is None:
            rows = [one for one in self._engine.volumes() if one.path == str(path)]
            why = rows[0].reason if rows else "see: farmer volume list"
            raise OwnerError(f"{path} cannot be opened: {why}")
        self._retiring.adopted.append((path, settings))
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
            self._retiring.check_settings(source.settings.path)
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
        self._begin(source, duty)
        total = source.ground.account.total
        return {
            "path": str(source.settings.path),
            "shards": total.shards,
            "bytes": total.live_bytes + total.trash_bytes,
            "available_bytes": room.available_bytes,
        }

    def _begin(self, source: Volume, duty: Duty) -> None:
        path = source.settings.path
        try:
            self._engine.mover.begin(source, duty)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            raise OwnerError(
                f"the disk of {path} is full: there is no room for the note that it is to be "
                "emptied, and nothing was begun. Free space on that disk, and try again"
            ) from error

    def _cancel(self, words: dict[str, Any]) -> dict[str, Any]:
        source = self._named(words["path"])
        if source.duty is None:
            raise OwnerError(f"{source.settings.path} is not being emptied")
        self._check_named(source.settings.path)
        self._engine.mover.cancel(source)
        self._retiring.forget_stuck(source.settings.path)
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
