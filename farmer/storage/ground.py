"""What all parts of one volume stand on, and what it means when the ground gives way."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from farmer.storage.condition import VANISHED_ERRORS
from farmer.storage.directory import Paths
from farmer.storage.doubts import Doubts
from farmer.storage.errors import NO_SPACE, NoSpaceError, StorageError, VolumeUnavailableError
from farmer.storage.files import Files
from farmer.storage.health import Health
from farmer.storage.index import Index
from farmer.storage.index_errors import is_for_memory, is_for_room, is_for_rot
from farmer.storage.log import Facts
from farmer.storage.quota import Ledger, VolumeAccount
from farmer.storage.reserve import SPEND_BYTES, Reserve
from farmer.storage.rests import Rests
from farmer.storage.rights import NOT_LET
from farmer.storage.tenure import Tenure
from farmer.storage.unopened import Unopened
from farmer.storage.watch import Watch

NOT_THE_DISK: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EFBIG, errno.EACCES, errno.EPERM}
)
"""Limits and permissions: they say nothing of the disk's health and pass, or are put right."""


@dataclass(frozen=True, slots=True)
class Ground:
    """One volume's files, index, account and health; shared, never replaced."""

    files: Files
    paths: Paths
    volume: bytes
    index: Index
    ledger: Ledger
    account: VolumeAccount
    health: Health
    facts: Facts
    reserve: Reserve
    watch: Watch
    rests: Rests
    doubts: Doubts = field(default_factory=Doubts)
    tenure: Tenure = field(default_factory=Tenure)
    unopened: Unopened = field(default_factory=Unopened)
    is_apart: bool = False
    """Whether the volume is only read, and what becomes of its shards noted in its annex."""

    def check_writable(self) -> None:
        """Raise `VolumeUnavailableError` if no mark can be written."""
        if self.is_apart:
            self.health.check_readable()
        else:
            self.health.check_writable()

    def refresh_filesystem(self) -> None:
        """Ask the filesystem how much room there is."""
        try:
            answer = self.files.filesystem(self.paths.root)
        except OSError as error:
            raise VolumeUnavailableError(f"the disk does not answer: {error}") from error
        account = self.account
        account.filesystem_size_bytes = answer.size_bytes
        account.filesystem_free_bytes = answer.free_bytes
        if missing_bytes := self.reserve.missing_bytes:
            # First of all what comes free goes there; until it does, nothing is promised of it.
            account.filesystem_free_bytes = max(0, answer.free_bytes - missing_bytes)
            if answer.free_bytes >= SPEND_BYTES:
                self.reserve.take()
        if answer.free_bytes >= SPEND_BYTES:
            self.health.lets_delete()

    def in_need(self, work: Callable[[], None]) -> None:
        """
        Do what is needed to empty a full disk; where it has no room, once more with the reserve.

        Raises `OSError`.
        """
        try:
            work()
        except OSError as error:
            if error.errno not in NO_SPACE or not self.reserve.spend():
                raise
            try:
                work()
            except OSError as still:
                if still.errno in NO_SPACE:
                    self.reserve.was_in_vain()
                raise

    def not_let(self, error: OSError, path: Path) -> bool:
        """Say whether the system does not let us read a file; then it is noted and told."""
        if error.errno not in NOT_LET:
            return False
        self.unopened.note(path, error)
        self.unopened.tell(self.health, self.paths.root)
        return True

    def look_at_unopened(self) -> None:
        """Notice that files can be read again which the system had refused."""
        self.unopened.look_again(self.files)
        self.unopened.tell(self.health, self.paths.root)

    def understand(
        self, error: OSError, wanted_bytes: int, *, at_sync: bool = True
    ) -> StorageError:
        """
        Note a failed write and return what the renter is told.

        *at_sync* is False where it is known that the bytes did not even reach the cache.
        """
        if error.errno in NO_SPACE:
            self.health.no_space()
            return NoSpaceError(wanted_bytes, 0)
        if error.errno in NOT_THE_DISK:
            return self._refused(error)
        if error.errno in VANISHED_ERRORS:
            self.health.go(f"its directory is not there any more ({error})")
        elif error.errno == errno.EROFS:
            self.health.read_only(str(error))
        elif at_sync:
            self.health.sync_failed(str(error))
        else:
            self.health.write_failed(str(error))
        return VolumeUnavailableError(f"the disk failed: {error}")

    def index_failed(self, error: sqlite3.Error, wanted_bytes: int) -> StorageError:
        """Note that the index could not be written and return what the renter is told."""
        if is_for_memory(error):
            return self._refused(error)
        if is_for_room(error) or lacks_room(self.reserve):
            self.health.no_space()
            return NoSpaceError(wanted_bytes, 0)
        self.health.count("index")
        self.health.fail(f"the index could not be written ({error})")
        if is_for_rot(error):
            self.index.condemn()
        return VolumeUnavailableError(f"the index could not be written: {error}")

    def index_is_wrong(self, error: sqlite3.DatabaseError) -> None:
        """Have the index made again: the log says something else."""
        self.health.count("index")
        self.health.fail(f"the index cannot be used ({error})")
        self.index.condemn()

    def _refused(self, error: Exception) -> VolumeUnavailableError:
        self.health.count("refused")
        self.health.raise_alert(
            "VolumeRefused",
            f"The system refused a write to {self.paths.root} ({error}); the store in question"
            " was turned away, nothing is lost.",
            "farmer volume list",
        )
        return VolumeUnavailableError(f"the system refused it: {error}")


def lacks_room(reserve: Reserve) -> bool:
    """
    Ask the disk whether it lacks room, after SQLite has failed.

    It knows ENOSPC, but takes the EDQUOT of a spent quota for a broken disk.
    """
    try:
        reserve.ask_for_more()
    except OSError as error:
        return error.errno in NO_SPACE
    return False
