"""The file of a retrieve while it is written: beside its target, for one program at a time."""

from __future__ import annotations

import fcntl
import filecmp
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from farmer.cli.exits import CommandError
from farmer.client.replacing import beside, give_name, guard, mode_of_new
from farmer.model.ids import ShardId


class Draft:
    """
    The file beside the target that is written until all its bytes are checked.

    Left behind only when the connection was lost for good, the farmer cannot go on now, or
    whoever waits has interrupted it: the next retrieve of the same shard to the same target goes
    on from there, with at most *keep_bytes* of it.
    """

    def __init__(self, target: Path, shard: ShardId, keep_bytes: int) -> None:
        self._target = target
        self._path = beside(target, shard.short)
        descriptor = None
        while descriptor is None:
            descriptor = self._claimed()
        self.file = cast(BinaryIO, os.fdopen(descriptor, "r+b"))
        guard(descriptor, target)
        if os.fstat(descriptor).st_size > keep_bytes:
            self.file.truncate(keep_bytes)

    def _claimed(self) -> int | None:
        """Return the draft, locked; or None if its name stands for another, or nothing, now."""
        descriptor, is_made = self._opened()
        try:
            self._lock(descriptor)
            # It may just have been given its name, or discarded, by whoever had it before.
            if self._has_name(descriptor):
                if is_made or _is_ours_alone(os.fstat(descriptor)):
                    return descriptor
                self._path.unlink()
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def _opened(self) -> tuple[int, bool]:
        """Open the draft; say whether we made it: then it is ours, whatever its owner is here."""
        while True:
            with suppress(FileNotFoundError):
                return os.open(self._path, os.O_RDWR | os.O_NOFOLLOW), False
            with suppress(FileExistsError):
                mode = mode_of_new(self._target)
                return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode), True

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CommandError(f"{self._target} is being retrieved by another program") from error

    def _has_name(self, descriptor: int) -> bool:
        try:
            there = self._path.lstat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(descriptor))

    def publish(self, give: Callable[[int, Path, Path], None] = give_name) -> int:
        """Give the file its name, as *give* does, durably; return its size in bytes."""
        self.file.flush()
        size_bytes = os.fstat(self.file.fileno()).st_size
        give(self.file.fileno(), self._path, self._target)
        directory = os.open(self._target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        self.file.close()
        return size_bytes

    def holds_what_is_there(self) -> bool:
        """Say whether the file that has the name already holds these same bytes."""
        self.file.flush()
        return filecmp.cmp(self._path, self._target, shallow=False)

    def discard(self) -> None:
        """Leave nothing behind but what has got its name."""
        if self._has_name(self.file.fileno()):
            self._path.unlink()
        self.file.close()


def _is_ours_alone(status: os.stat_result) -> bool:
    """Say whether nobody else has a file open or under another name, who only put it there."""
    is_ours = status.st_uid == os.geteuid() and status.st_nlink == 1
    return is_ours and stat.S_ISREG(status.st_mode)
