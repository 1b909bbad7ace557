"""
A volume's files and its index's database, with every call noted in its watch.

All that a volume reads of its files is read here.  So here a bad spot is kept from costing what
lies around it.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from farmer.storage.alone import open_alone
from farmer.storage.files import Access, Buffer, Files, Filesystem
from farmer.storage.index_file import LOCK_TIMEOUT_S
from farmer.storage.pace import Meter
from farmer.storage.watch import Noted, Watch


class _Asked(Noted):
    """One call of the port; where Python has no memory for its answer, that is an ENOMEM too."""

    __slots__ = ()

    def without_memory(self) -> Exception:
        """Return what is raised then."""
        return OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    def failed(self, error: BaseException) -> None:
        """See `Noted.failed`."""
        if isinstance(error, MemoryError):
            raise self.without_memory() from error


class _Queried(_Asked):
    """One call of the database; Python makes no `sqlite3.Error` of SQLite's want of memory."""

    __slots__ = ()

    def without_memory(self) -> Exception:
        """Return what is raised then, as SQLite would say it."""
        error = sqlite3.OperationalError("out of memory")
        error.sqlite_errorcode = sqlite3.SQLITE_NOMEM
        error.sqlite_errorname = "SQLITE_NOMEM"
        return error


class WatchedFiles:
    """See `farmer.storage.files.Files`; what it does is done by *files*."""

    def __init__(self, files: Files, watch: Watch) -> None:
        self._files = files
        self._watch = watch
        self._meters = watch.meters

    def _asked(self, what: str, *, holds_up: bool = False, meter: Meter | None = None) -> _Asked:
        return _Asked(self._watch, what, holds_up, meter)

    def open(self, path: Path, access: Access) -> int:
        """See `Files.open`."""
        with self._asked("open", holds_up=True):
            return self._files.open(path, access)

    def close(self, fd: int) -> None:
        """See `Files.close`."""
        with self._asked("close"):
            self._files.close(fd)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """See `Files.pread`; what fails for a bad spot beside it is read again, and apart."""
        try:
            with _Asked(self._watch, "read", True, self._meters.reads):
                return self._files.pread(fd, length, offset)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
        return self.pread_apart(fd, length, offset)

    def pread_cached(self, fd: int, length: int, offset: int) -> Buffer | None:
        """See `Files.pread_cached`; it waits for nothing, so there is nothing to watch."""
        return self._files.pread_cached(fd, length, offset)

    def pread_apart(self, fd: int, length: int, offset: int) -> bytes:
        """See `Files.pread_apart`."""
        with self._asked("read"):
            return self._files.pread_apart(fd, length, offset)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        """See `Files.pwritev`."""
        with self._asked("write", meter=self._meters.writes):
            self._files.pwritev(fd, buffers, offset)

    def sync_data(self, fd: int) -> None:
        """See `Files.sync_data`."""
        with self._asked("sync", meter=self._meters.syncs):
            self._files.sync_data(fd)

    def sync_directory(self, path: Path) -> None:
        """See `Files.sync_directory`."""
        with self._asked("sync of a directory", meter=self._meters.syncs):
            self._files.sync_directory(path)

    def begin_write_back(self, fd: int, offset: int, length: int) -> None:
        """See `Files.begin_write_back`."""
        with self._asked("write-back", meter=self._meters.writes):
            self._files.begin_write_back(fd, offset, length)

    def uncache(self, fd: int, offset: int, length: int) -> None:
        """See `Files.uncache`."""
        with self._asked("uncache"):
            self._files.uncache(fd, offset, length)

    def preallocate(self, fd: int, length: int) -> None:
        """See `Files.preallocate`."""
        with self._asked("allocation"):
            self._files.preallocate(fd, length)

    def punch(self, fd: int, offset: int, length: int) -> bool:
        """See `Files.punch`."""
        with self._asked("punch"):
            return self._files.punch(fd, offset, length)

    def is_hole(self, fd: int, offset: int, length: int) -> bool:
        """See `Files.is_hole`."""
        with self._asked("seek"):
            return self._files.is_hole(fd, offset, length)

    def truncate(self, fd: int, length: int) -> None:
        """See `Files.truncate`."""
        with self._asked("truncate"):
            self._files.truncate(fd, length)

    def size(self, fd: int) -> int:
        """See `Files.size`."""
        with self._asked("stat"):
            return self._files.size(fd)

    def allocated(self, path: Path) -> int:
        """See `Files.allocated`."""
        with self._asked("stat"):
            return self._files.allocated(path)

    def exists(self, path: Path) -> bool:
        """See `Files.exists`."""
        with self._asked("stat", holds_up=True):
            return self._files.exists(path)

    def inode(self, place: Path | int) -> tuple[int, int]:
        """See `Files.inode`."""
        with self._asked("stat"):
            return self._files.inode(place)

    def list(self, path: Path) -> list[str]:
        """See `Files.list`."""
        with self._asked("list"):
            return self._files.list(path)

    def make_directory(self, path: Path) -> None:
        """See `Files.make_directory`."""
        with self._asked("mkdir"):
            self._files.make_directory(path)

    def rename(self, source: Path, target: Path) -> None:
        """See `Files.rename`."""
        with self._asked("rename"):
            self._files.rename(source, target)

    def unlink(self, path: Path) -> None:
        """See `Files.unlink`."""
        with self._asked("unlink"):
            self._files.unlink(path)

    def filesystem(self, path: Path) -> Filesystem:
        """See `Files.filesystem`."""
        with self._asked("statvfs", holds_up=True):
            return self._files.filesystem(path)

    def lock(self, fd: int) -> bool:
        """See `Files.lock`."""
        with self._asked("lock"):
            return self._files.lock(fd)


class _Cursor(sqlite3.Cursor):
    """Notes what is asked of the database, for its connection."""

    connection: _Connection

    def execute(self, sql: str, parameters: Any = (), /) -> _Cursor:  # noqa: ANN401
        with self.connection.asked():
            return super().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> _Cursor:
        with self.connection.asked():
            return super().executemany(sql, parameters)

    def fetchone(self) -> Any:  # noqa: ANN401  # as sqlite3 has it
        with self.connection.asked():
            return super().fetchone()

    def fetchall(self) -> list[Any]:
        with self.connection.asked():
            return super().fetchall()


class _Connection(sqlite3.Connection):
    """Made once, not for each database: a class is dear to make, and a volume opens five."""

    asked: Callable[[], _Queried]

    def execute(self, sql: str, parameters: Any = (), /) -> _Cursor:  # noqa: ANN401
        # Not `_Cursor(self)`: only here the module gives up its weak references to old ones.
        return self.cursor(_Cursor).execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> _Cursor:
        return self.cursor(_Cursor).executemany(sql, parameters)

    def executescript(self, sql: str, /) -> sqlite3.Cursor:
        with self.asked():
            return super().executescript(sql)

    def close(self) -> None:
        with self.asked():
            super().close()


def watched_connect(watch: Watch) -> Callable[[Path], sqlite3.Connection]:
    """Return what opens a database (see `farmer.storage.index.Connect`) and notes its calls."""
    asked = partial(_Queried, watch, "index", False, None)

    def connect(path: Path) -> sqlite3.Connection:
        with asked():
            connection = open_alone(path, LOCK_TIMEOUT_S, _Connection)
        assert isinstance(connection, _Connection)
        connection.asked = asked
        return connection

    return connect
