"""The home remembers every volume that was ever made: where, how large, and its id."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from farmer.running.files import read_json, write_json
from farmer.running.home import Home
from farmer.storage.outside import Holdings, holdings, volume_id
from farmer.units import counted

REGISTER_FILE: Final = "volumes.json"


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


def quotas(home: Home) -> dict[str, int]:
    """Return path and quota in bytes of all volumes that the home knows."""
    made = _register(home).get("made")
    return made if isinstance(made, dict) else {}


def known_volumes(home: Home) -> list[KnownVolume]:
    """Return all volumes that the home knows; looks at their disks."""
    ids = _ids(home)
    return [
        KnownVolume(
            path=Path(path),
            quota_bytes=quota_bytes,
            volume=volume_id(Path(path)) or ids.get(path, ""),
            held=holdings(Path(path)) if volume_id(Path(path)) else None,
        )
        for path, quota_bytes in quotas(home).items()
    ]


def not_among(home: Home, paths: Iterable[Path]) -> list[KnownVolume]:
    """
    Return the volumes that the home knows, that hold shards, and that *paths* leave out.

    A volume that lies at one of *paths* now, since its disk was mounted elsewhere, is none.
    """
    listed, remembered = list(paths), _ids(home)
    ids = {volume_id(path) or remembered.get(str(path), "") for path in listed} - {""}
    return [
        known
        for known in known_volumes(home)
        if known.path not in listed and known.volume not in ids and known.was_used
    ]


def remember(home: Home, volumes: Iterable[tuple[Path, int]]) -> None:
    """Note, durably, that these volumes have been made, and with which quota in bytes."""
    made, ids = dict(quotas(home)), _ids(home)
    for path, quota_bytes in volumes:
        made[str(path)] = quota_bytes
        ids[str(path)] = volume_id(path) or ids.get(str(path), "")
    _write(home, made, ids)


def forget(home: Home, path: Path) -> None:
    """Note, durably, that this volume is given up."""
    made, ids = dict(quotas(home)), _ids(home)
    made.pop(str(path), None)
    ids.pop(str(path), None)
    _write(home, made, ids)


def _write(home: Home, made: dict[str, int], ids: dict[str, str]) -> None:
    document = {"made": made, "ids": ids}
    if document != _register(home):
        write_json(home.state / REGISTER_FILE, document)


def _ids(home: Home) -> dict[str, str]:
    ids = _register(home).get("ids")
    return dict(ids) if isinstance(ids, dict) else {}


def _register(home: Home) -> dict[str, Any]:
    return read_json(home.state / REGISTER_FILE) or {}
