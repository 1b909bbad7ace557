"""
Which volumes a farmer has: those of the settings, else one small one in its home.

The home remembers every volume that was ever made.  A path that was never made is made; one
that was made and now lacks its marker is a disk that is not mounted: it is reported, and
never written to.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from farmer.running.files import read_json, write_json
from farmer.running.home import Home
from farmer.settings.kinds import VOLUME_BYTES_MIN
from farmer.settings.schema import Settings, VolumeSettings
from farmer.units import Space

REGISTER_FILE: Final = "volumes.json"

SMALL_QUOTA_BYTES: Final = 10 * 10**9
SMALL_SHARE_OF_FREE: Final = 10
"""A farmer that was told nothing takes at most a tenth of what is free, at most 10 GB."""

KEEP_FREE: Final = Space(percent=1.0)


@dataclass(frozen=True, slots=True)
class VolumePlan:
    """One volume to open, in bytes of today's filesystem."""

    path: Path
    name: str
    """Short and unique among the volumes of a farmer."""
    quota_bytes: int
    keep_free_bytes: int
    new: bool
    """Never made before: make it."""


def plan_volumes(home: Home, settings: Settings) -> list[VolumePlan]:
    """Return the volumes of a farmer; reads filesystem sizes, changes nothing."""
    known = _known(home)
    if settings.volumes:
        names = _names([Path(volume.path) for volume in settings.volumes])
        return [_plan(*row, known) for row in zip(settings.volumes, names, strict=True)]
    quota = known.get(str(home.volume)) or small_quota_bytes(free_bytes(home.volume))
    keep_free = KEEP_FREE.of(filesystem_bytes(home.volume))
    new = str(home.volume) not in known
    return [VolumePlan(home.volume, home.volume.name, quota, keep_free, new)]


def remember(home: Home, plans: Iterable[VolumePlan]) -> None:
    """Note, durably, that these volumes have been made."""
    known = _known(home)
    added = {str(plan.path): plan.quota_bytes for plan in plans}
    if not added.keys() <= known.keys():
        write_json(home.state / REGISTER_FILE, {"made": added | known})


def small_quota_bytes(free: int) -> int:
    """Return the safe quota of a farmer without settings, in whole MiB."""
    share = min(SMALL_QUOTA_BYTES, free // SMALL_SHARE_OF_FREE)
    return max(VOLUME_BYTES_MIN, share >> 20 << 20)


def filesystem_bytes(path: Path) -> int:
    """Return the size of the filesystem that *path* lies, or would lie, on."""
    found = os.statvfs(_existing(path))
    return found.f_blocks * found.f_frsize


def free_bytes(path: Path) -> int:
    """Return what the filesystem under *path* has free for us."""
    found = os.statvfs(_existing(path))
    return found.f_bavail * found.f_frsize


def _plan(volume: VolumeSettings, name: str, known: dict[str, int]) -> VolumePlan:
    path = Path(volume.path).expanduser()
    size = filesystem_bytes(path)
    quota, keep_free = volume.quota.of(size), volume.keep_free.of(size)
    return VolumePlan(path, name, quota, keep_free, str(path) not in known)


def _names(paths: list[Path]) -> list[str]:
    """Return the directories' names, or the whole paths of those that share one."""
    names = Counter(path.name for path in paths)
    return [path.name if names[path.name] == 1 and path.name else str(path) for path in paths]


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())


def _known(home: Home) -> dict[str, int]:
    register = read_json(home.state / REGISTER_FILE) or {}
    made = register.get("made")
    return made if isinstance(made, dict) else {}
