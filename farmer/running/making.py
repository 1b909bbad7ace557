"""Making the volumes that never were: at once, or as soon as their disks answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from typing import Final

from farmer.identity.keys import Identity
from farmer.model.status import Alert
from farmer.running.answering import asked
from farmer.running.files import may_not_write
from farmer.running.home import Home, HomeError
from farmer.running.mounts import mount_point
from farmer.running.volumes import VolumePlan, check_quotas, remember
from farmer.storage.annex import annex_of, beside
from farmer.storage.directory import (
    MARKER_NAME,
    VolumeSetupError,
    create_volume,
    read_marker,
)
from farmer.storage.files import OsFiles

MAKE_S: Final = 10.0
"""Some syncs, on a disk that has just answered but may be busy."""


def make_volumes(home: Home, identity: Identity, plans: Sequence[VolumePlan], now_ms: int) -> None:
    """
    Make the volumes that never were, and remember all.

    Raises:
        VolumeSetupError, HomeError, OSError: one cannot be made, or its disk does not answer.

    """
    check_quotas(plans)
    for plan in plans:
        if plan.new:
            _check(plan)
            job = None if plan.is_guess else _begun(home, plan, identity, now_ms)
            if job is None or not _is_over(job):
                raise VolumeSetupError(
                    f"{plan.path}: its disk does not answer, so nothing can be made there now"
                )
            job.result()
    remember(home, plans)


class Unmade:
    """
    Makes the volumes of a farmer that starts, and later those whose disks did not answer then.

    Only where the disk is that was meant: an unmounted one leaves an empty directory behind,
    which answers, and is no place for shards.  One thread at a time.
    """

    def __init__(self, home: Home, identity: Identity, now_ms: Callable[[], int]) -> None:
        self._home = home
        self._identity = identity
        self._now_ms = now_ms
        self._waiting: dict[Path, Path | None] = {}
        """Those that are not made yet, and the mount point that each lies below."""
        self._begun: dict[Path, Future[None]] = {}

    @property
    def waiting(self) -> frozenset[Path]:
        """Those that have yet to be made."""
        return frozenset(self._waiting)

    def make_late(self, plans: Sequence[VolumePlan]) -> list[Alert]:
        """
        Make those that were kept and whose disks answer now.

        Return what keeps others from being made, and from getting their quotas.
        """
        found = []
        for plan in plans:
            is_waiting = plan.path in self._waiting
            try:
                check_quotas([plan])
                if is_waiting:
                    self.make(plan)
            except (VolumeSetupError, HomeError, OSError) as error:
                tell = _cannot_be_made if is_waiting else _cannot_be_sized
                found.append(tell(plan.path, error))
        return found

    def make(self, plan: VolumePlan) -> None:
        """
        Make a volume that never was and remember it; or keep it for later.

        Raises:
            VolumeSetupError, HomeError, OSError: it cannot be made there.

        """
        if plan.new:
            _check(plan)
            if not self._is_made(plan):
                return
        self._waiting.pop(plan.path, None)
        remember(self._home, [plan])

    def _is_made(self, plan: VolumePlan) -> bool:
        path, place = plan.path, mount_point(plan.path)
        meant = self._waiting.setdefault(path, place)
        if plan.is_guess or place != meant:
            return False
        job = self._begun.get(path) or _begun(self._home, plan, self._identity, self._now_ms())
        self._begun[path] = job
        if not _is_over(job):
            return False
        del self._begun[path]
        job.result()
        return True


def _check(plan: VolumePlan) -> None:
    if plan.why_not:
        raise VolumeSetupError(
            f"{plan.path}: {plan.why_not}. No volume was made there yet: mend this, or take it "
            "out of the settings"
        )


def _cannot_be_made(path: Path, error: Exception) -> Alert:
    message = f"The volume {path} could not be made when its disk answered: {error}"
    return _alert("VolumeNotMade", path, message)


def _cannot_be_sized(path: Path, error: Exception) -> Alert:
    return _alert(
        "VolumeNotSized", path, f"The volume {path} keeps the quota that it had: {error}"
    )


def _alert(name: str, path: Path, message: str) -> Alert:
    command = "farmer volume list"
    return Alert(name=name, since_ms=0, message=message, command=command, about=str(path))


def _begun(home: Home, plan: VolumePlan, identity: Identity, now_ms: int) -> Future[None]:
    return asked(partial(_make, home, plan.path, identity, now_ms))


def _is_over(job: Future[None]) -> bool:
    wait([job], MAKE_S)
    return job.done()


def _make(home: Home, path: Path, identity: Identity, now_ms: int) -> None:
    files = OsFiles()
    if path.exists() and not path.is_dir():
        raise VolumeSetupError(f"{path} is a file; a volume is a directory of its own")
    if (path / MARKER_NAME).exists():
        # Made by this identity for a home that has forgotten it, else refused here.
        marker = read_marker(path, identity.node_id, files)
        annex = annex_of(home.annexes, marker.volume)
        read_marker(path, identity.node_id, beside(files, path, annex))
        return
    try:
        create_volume(path, identity.node_id, files, now_ms)
    except PermissionError as error:
        raise VolumeSetupError(f"{path}: {may_not_write(path)}") from error
