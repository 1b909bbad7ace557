"""
Which volumes a farmer has: those of the settings, else one small one in its home.

The home remembers every volume that was ever made (`register`).  A path that was never made
is made; one that was made and now lacks its marker is a disk that is not mounted: it is
reported, and never written to.  One that holds shards and is missing from the settings is
reported too: its shards are unavailable, which is not the same as absent.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from farmer.model.ids import NodeId
from farmer.running import register
from farmer.running.answering import answer_of
from farmer.running.filesystems import warning_of
from farmer.running.home import Home
from farmer.settings.kinds import VOLUME_BYTES_MIN
from farmer.settings.schema import Settings, VolumeSettings
from farmer.storage.directory import MARKER_NAME, VolumeSetupError, read_marker
from farmer.storage.errors import StorageError
from farmer.storage.files import OsFiles
from farmer.storage.outside import holdings
from farmer.storage.quota import VolumeAccount
from farmer.units import Space, format_size

R = TypeVar("R")

SMALL_QUOTA_BYTES: Final = 10 * 10**9
SMALL_SHARE_OF_FREE: Final = 10
"""A farmer that was told nothing takes at most a tenth of what is free, at most 10 GB."""

KEEP_FREE: Final = Space(percent=1.0)

WAKE_S: Final = 10.0
"""An owner who names a disk waits for it to spin up."""

NOTHING_FREE_BYTES: Final = 1 << 62
"""Kept free of a disk whose size is not known: so nothing is promised of it."""


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
    is_guess: bool = False
    """Its disk is not there, or did not answer: a guessed quota, and nothing is stored now."""
    why_not: str = ""
    """The error of a disk on which the volume has yet to be made."""


def volume_paths(home: Home, settings: Settings) -> list[Path]:
    """Return where the volumes of a farmer are; asks no disk."""
    named = [Path(volume.path).expanduser() for volume in settings.volumes]
    return named or [home.volume]


def adopting(mine: Settings, theirs: Settings, path: Path) -> Settings:
    """Return settings that have one volume as others have it, or have not; the rest as it is."""
    if not (mine.volumes and theirs.volumes):
        # The one in the home is not named while it is the only one.
        return replace(mine, volumes=theirs.volumes)
    there = [Path(volume.path).expanduser() for volume in theirs.volumes]
    volumes = [one for one in mine.volumes if Path(one.path).expanduser() != path]
    if path in there:
        place = there.index(path)
        volumes.insert(place, theirs.volumes[place])
    return replace(mine, volumes=tuple(volumes))


def answers(path: Path) -> bool:
    """Say whether the disk there answers; waits for one that sleeps."""
    return answer_of(partial(filesystem_bytes, path), WAKE_S) is not None


def plan_volumes(
    home: Home, settings: Settings, silent: Collection[Path] = ()
) -> list[VolumePlan]:
    """
    Return the volumes of a farmer; reads filesystem sizes, changes nothing.

    The disks of the *silent* ones are known not to answer, and are not asked.

    Raises:
        HomeError: which volumes were made cannot be told.

    """
    known = register.quotas(home)
    names = volume_names(home, settings)
    if settings.volumes:
        rows = zip(settings.volumes, names, strict=True)
        return [_plan(volume, name, known, silent) for volume, name in rows]
    return [_plan_in_home(home, names[0], known.get(str(home.volume)))]


def volume_names(home: Home, settings: Settings) -> list[str]:
    """
    Return the short names of `volume_paths`, in their order; asks no disk.

    Raises:
        HomeError: which names were given cannot be told.

    """
    return _names(volume_paths(home, settings), register.names(home))


def in_force(home: Home, settings: Settings) -> Settings:
    """Return the settings with the volume in them that a farmer without any has."""
    if settings.volumes:
        return settings
    [plan] = plan_volumes(home, settings)
    volume = VolumeSettings(
        path=str(plan.path), quota=Space(size_bytes=plan.quota_bytes), keep_free=KEEP_FREE
    )
    return replace(settings, volumes=(volume,))


def remember(home: Home, plans: Sequence[VolumePlan]) -> None:
    """Note, durably, that these volumes have been made."""
    # What does not answer was remembered when it did.
    answering = [plan for plan in plans if not plan.is_guess]
    register.remember(
        home,
        [(plan.path, plan.quota_bytes) for plan in answering],
        {plan.path: plan.name for plan in plans if not (plan.is_guess and plan.new)},
    )


def made_at_ms(path: Path, node: NodeId) -> int:
    """Return when a volume was made, by its marker; 0 if its disk does not tell."""
    try:
        marker = answer_of(partial(read_marker, path, node, OsFiles()))
    except (VolumeSetupError, StorageError, OSError):
        return 0
    return marker.created_at_ms if marker is not None else 0


def check_quotas(plans: Sequence[VolumePlan]) -> None:
    """
    Make sure that shares of disks are quotas that volumes can have.

    Raises:
        VolumeSetupError: one is too small on the filesystem that is there now.

    """
    for plan in plans:
        if (why := too_small(plan.path, plan.quota_bytes)) is not None:
            raise VolumeSetupError(why)


def too_small(path: Path, quota_bytes: int) -> str | None:
    """Return why a volume cannot have this quota; None if it can."""
    if quota_bytes >= VOLUME_BYTES_MIN:
        return None
    return (
        f"the quota of {path} is {format_size(quota_bytes)} of the filesystem that is there now, "
        "too small for a volume: at least 64MiB; write a size, or a larger share, as its quota "
        "in the settings"
    )


def doubts(plans: Sequence[VolumePlan]) -> list[str]:
    """Return what an owner had better know of these volumes: what their disks cannot do."""
    found = []
    for plan in plans:
        room_bytes = room_on_disk_bytes(plan)
        if room_bytes is None:
            what = f"the disk of {plan.path} is not there, or does not answer"
            found.append(f"{what}: nothing is known of it now")
        elif plan.quota_bytes > room_bytes:
            found.append(
                f"the quota of {plan.path} is {format_size(plan.quota_bytes)}, but its filesystem "
                f"has room for {format_size(room_bytes)} now: stores beyond that are refused"
            )
        is_there = room_bytes is not None
        if is_there and (warning := answer_of(partial(_warning, plan.path))):
            found.append(f"{plan.path} lies on {warning}")
    together: dict[int, list[str]] = {}
    for plan in plans:
        device = None if plan.is_guess else answer_of(partial(_device, plan.path))
        if device is not None:
            together.setdefault(device, []).append(str(plan.path))
    found += [
        f"{' and '.join(paths)} lie on one filesystem: they share its free space, and one "
        "failing disk takes them all"
        for paths in together.values()
        if len(paths) > 1
    ]
    return found


def room_on_disk_bytes(plan: VolumePlan) -> int | None:
    """Return what the filesystem lets this volume hold, seen from outside; None for silence."""
    return None if plan.is_guess else answer_of(partial(_room_on_disk_bytes, plan))


def _room_on_disk_bytes(plan: VolumePlan) -> int:
    held = None if plan.new else holdings(plan.path)
    there = held.used_bytes + held.trash_bytes if held is not None else 0
    return max(0, there + free_bytes(plan.path) - plan.keep_free_bytes)


def room_if_new_bytes(plan: VolumePlan) -> int | None:
    """Return what shards could take of a volume that has yet to be made; None for silence."""
    return None if plan.is_guess else answer_of(partial(_room_if_new_bytes, plan))


def _room_if_new_bytes(plan: VolumePlan) -> int:
    account = VolumeAccount(plan.quota_bytes, plan.keep_free_bytes)
    account.filesystem_free_bytes = free_bytes(plan.path)
    return account.free_bytes


def small_quota_bytes(free: int) -> int:
    """Return the safe quota of a farmer without settings, in whole MiB."""
    share = min(SMALL_QUOTA_BYTES, free // SMALL_SHARE_OF_FREE)
    return max(VOLUME_BYTES_MIN, share >> 20 << 20)


def offered_quota_bytes(path: Path) -> int:
    """Return a quota to offer for a directory: at most 10 GB, and half of what is free there."""
    free = _asked(lambda: free_bytes(path))
    if not isinstance(free, int) or free >= 2 * SMALL_QUOTA_BYTES:
        return SMALL_QUOTA_BYTES
    step = 10**9 if free >= 2 * 10**9 else 10**6
    return max(VOLUME_BYTES_MIN, free // 2 // step * step)


def filesystem_bytes(path: Path) -> int:
    """Return the size of the filesystem that *path* lies, or would lie, on; may never return."""
    found = os.statvfs(_existing(path))
    return found.f_blocks * found.f_frsize


def free_bytes(path: Path) -> int:
    """Return what the filesystem under *path* has free for us; may never return."""
    found = os.statvfs(_existing(path))
    return found.f_bavail * found.f_frsize


def _plan_in_home(home: Home, name: str, quota_before: int | None) -> VolumePlan:
    """Plan the volume of a farmer that was told nothing; its quota is chosen once."""
    path, new = home.volume, quota_before is None
    sizes = _asked(lambda: (filesystem_bytes(path), free_bytes(path)))
    if sizes is None or isinstance(sizes, OSError):
        return _guess(path, name, quota_before, VOLUME_BYTES_MIN, sizes)
    quota = quota_before or small_quota_bytes(sizes[1])
    return VolumePlan(path, name, quota, KEEP_FREE.of(sizes[0]), new)


def _plan(
    volume: VolumeSettings, name: str, known: dict[str, int], silent: Collection[Path]
) -> VolumePlan:
    path = Path(volume.path).expanduser()
    quota_before = known.get(str(path))
    is_made = quota_before is not None
    size = None if path in silent else _asked(lambda: _size_of_its_disk(path, is_made=is_made))
    if size is None or isinstance(size, OSError):
        least = volume.quota.size_bytes or VOLUME_BYTES_MIN
        return _guess(path, name, quota_before, least, size)
    quota, keep_free = volume.quota.of(size), volume.keep_free.of(size)
    return VolumePlan(path, name, quota, keep_free, new=not is_made)


def _size_of_its_disk(path: Path, *, is_made: bool) -> int | None:
    """Return how large it is; None if it is not mounted, for what answers is another one."""
    if is_made and not (path / MARKER_NAME).exists():
        return None
    return filesystem_bytes(path)


def _asked(ask: Callable[[], R | None]) -> R | OSError | None:
    """Return what a disk answers, which may be an error; None for silence."""
    try:
        return answer_of(ask)
    except OSError as error:
        return error


def _guess(
    path: Path, name: str, quota_before: int | None, quota_bytes: int, error: OSError | None
) -> VolumePlan:
    """
    Plan a volume whose disk is not there, does not answer, or with an *error*.

    It keeps the quota that it had.

    A failing disk stops its volume, not the farmer: what is wrong with one that was made is
    said by whoever opens it.
    """
    new = quota_before is None
    quota = quota_before or quota_bytes
    why_not = "" if error is None else error.strerror or str(error)
    return VolumePlan(
        path, name, quota, NOTHING_FREE_BYTES, new, is_guess=True, why_not=why_not if new else ""
    )


def _names(paths: list[Path], given: Mapping[str, str]) -> list[str]:
    """
    Return the names that were given, else the directories', or the whole paths of who share one.

    A volume that comes changes no other's name: figures of years stand under it.
    """
    called = [given.get(str(path), "") for path in paths]
    taken = Counter(name or path.name for name, path in zip(called, paths, strict=True))
    return [
        name or (path.name if taken[path.name] == 1 and path.name else str(path))
        for name, path in zip(called, paths, strict=True)
    ]


def _warning(path: Path) -> str:
    place = _existing(path)
    try:
        return warning_of(place) if place.is_dir() else ""
    except OSError:
        # As of a disk that fails: whoever makes the volume says so.
        return ""


def _device(path: Path) -> int:
    return _existing(path).stat().st_dev


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())
