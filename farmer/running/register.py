"""The home remembers every volume that was ever made: where, how large, and its id."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from farmer.running.answering import answer_of
from farmer.running.files import read_json, write_json
from farmer.running.home import Home
from farmer.running.locks import for_a_moment
from farmer.storage.outside import Holdings, holdings, volume_id
from farmer.units import counted

REGISTER_FILE: Final = "volumes.json"
REGISTER_LOCK: Final = "volumes.lock"

_Retired = dict[str, Any]
"""By path."""


@dataclass(frozen=True, slots=True)
class KnownVolume:
    """A volume that was made for this home, as far as it can be seen without opening it."""

    path: Path
    quota_bytes: int
    """As it was last opened."""
    volume: str
    """Its id, in hex; empty if it was never seen."""
    held: Holdings | None
    """What it holds; None if that cannot be told now: a disk that is not mounted."""

    @property
    def was_used(self) -> bool:
        """Whether a shard lies on it, or may."""
        return self.held is None or self.held.shards > 0

    @property
    def shown(self) -> str:
        """Return `with 3 shards`, for a person."""
        if self.held is None:
            return "that cannot be read now"
        return f"with {counted(self.held.shards, 'shard')}"


@dataclass(frozen=True, slots=True)
class RetiredVolume:
    """A volume that its owner gave up, and whose shards are elsewhere."""

    path: Path
    why: str
    """For a person: what became of its shards."""
    at_ms: int


def quotas(home: Home) -> dict[str, int]:
    """Return path and quota in bytes of all volumes that the home knows."""
    made = _register(home).get("made")
    return made if isinstance(made, dict) else {}


def known_volumes(home: Home) -> list[KnownVolume]:
    """Return all volumes that the home knows; looks at their disks, if they answer."""
    return _looked_at(home, quotas(home))


def not_among(
    home: Home, paths: Iterable[Path], silent: Collection[Path] = ()
) -> list[KnownVolume]:
    """
    Return the volumes that the home knows, that hold shards, and that *paths* leave out.

    A volume that lies at one of *paths* now, since its disk was mounted elsewhere, is none.
    The disks of the *silent* ones do not answer, and are not asked.
    """
    listed, remembered = list(paths), _ids(home)
    ids = {
        (None if path in silent else answer_of(partial(volume_id, path)))
        or remembered.get(str(path), "")
        for path in listed
    } - {""}
    left = {path: quota for path, quota in quotas(home).items() if Path(path) not in listed}
    return [
        known for known in _looked_at(home, left) if known.volume not in ids and known.was_used
    ]


def _looked_at(home: Home, quotas_bytes: dict[str, int]) -> list[KnownVolume]:
    ids = _ids(home)
    found = []
    for path, quota_bytes in quotas_bytes.items():
        volume, held = answer_of(partial(_look, Path(path), home.annexes)) or ("", None)
        found.append(KnownVolume(Path(path), quota_bytes, volume or ids.get(path, ""), held))
    return found


def _look(path: Path, annexes: Path) -> tuple[str, Holdings | None]:
    volume = volume_id(path)
    return volume, holdings(path, annexes) if volume else None


def remember(home: Home, volumes: Iterable[tuple[Path, int]]) -> None:
    """Note, durably, that these volumes have been made, and with which quota in bytes."""
    # Asked before the lock is taken: a disk may keep us waiting.
    seen = [(str(path), quota, answer_of(partial(volume_id, path))) for path, quota in volumes]
    with _changed(home) as (made, ids, given_up):
        for path, quota_bytes, volume in seen:
            given_up.pop(path, None)
            made[path] = quota_bytes
            ids[path] = volume or ids.get(path, "")


def forget(home: Home, path: Path) -> None:
    """Note, durably, that nothing is to be known of this volume any more."""
    with _changed(home) as all_known:
        for known in all_known:
            known.pop(str(path), None)


def retire(home: Home, volume: RetiredVolume) -> None:
    """Note, durably, that this volume was emptied and given up."""
    with _changed(home) as (made, ids, given_up):
        made.pop(str(volume.path), None)
        ids.pop(str(volume.path), None)
        given_up[str(volume.path)] = {"why": volume.why, "at_ms": volume.at_ms}


def retired(home: Home) -> list[RetiredVolume]:
    """Return the volumes that were given up; asks no disk but the home's."""
    found = []
    for path, fields in _retired(home).items():
        if isinstance(fields, dict) and isinstance(at_ms := fields.get("at_ms"), int):
            found.append(RetiredVolume(Path(path), str(fields.get("why", "")), at_ms))
    return found


@contextmanager
def _changed(home: Home) -> Iterator[tuple[dict[str, int], dict[str, str], _Retired]]:
    """Give what is known at this moment to be changed, and write it; others wait meanwhile."""
    with for_a_moment(home.state / REGISTER_LOCK):
        known = dict(quotas(home)), _ids(home), _retired(home)
        yield known
        _write(home, *known)


def _write(home: Home, made: dict[str, int], ids: dict[str, str], given_up: _Retired) -> None:
    document = {"made": made, "ids": ids, "retired": given_up}
    if document != _register(home):
        write_json(home.state / REGISTER_FILE, document)


def _retired(home: Home) -> _Retired:
    given_up = _register(home).get("retired")
    return dict(given_up) if isinstance(given_up, dict) else {}


def _ids(home: Home) -> dict[str, str]:
    ids = _register(home).get("ids")
    return dict(ids) if isinstance(ids, dict) else {}


def _register(home: Home) -> dict[str, Any]:
    return read_json(home.state / REGISTER_FILE) or {}
