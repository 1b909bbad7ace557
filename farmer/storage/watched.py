"""A volume's files and its index's database, with every call noted in its watch."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from farmer.storage.files import Access, Buffer, Files, Filesystem
from farmer.storage.watch import Watch


class WatchedFiles:
    """See `farmer.storage.files.Files`; what it does is done by *files*."""

    def __init__(self, files: Files, watch: Watch) -> None:
        self._files = files
        self._watch = watch
        self._meters = watch.meters

    def open(self, path: Path, access: Access) -> int:
        """See `Files.open`."""
        with self._watch.call("open", holds_up=True):
            return self._files.open(path, access)

    def close(self, fd: int) -> None:
        """See `Files.close`."""
        with self._watch.call("close"):
            self._files.close(fd)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """See `Files.pread`."""
        with self._watch.call("read", holds_up=True, meter=self._meters.reads):
            return self._files.pread(fd, length, offset)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        """See `Files.pwritev`."""
        with self._watch.call("write", meter=self._meters.writes):
            self._files.pwritev(fd, buffers, offset)

    def sync_data(self, fd: int) -> None:
        """See `Files.sync_data`."""
        with self._watch.call("sync", meter=self._meters.syncs):
            self._files.sync_data(fd)

    def sync_directory(self, path: Path) -> None:
        """See `Files.sync_directory`."""
        with self._watch.call("sync of a directory", meter=self._meters.syncs):
            self._files.sync_directory(path)

    def uncache(self, fd: int, offset: int, length: int) -> None:
        """See `Files.uncache`."""
        with self._watch.call("uncache"):
            self._files.uncache(fd, offset, length)

    def preallocate(self, fd: int, length: int) -> None:
        """See `Files.preallocate`."""
        with self._watch.call("allocation"):
            self._files.preallocate(fd, length)

    def punch(self, fd: int, offset: int, length: int) -> bool:
        """See `Files.punch`."""
        with self._watch.call("punch"):
            return self._files.punch(fd, offset, length)

    def truncate(self, fd: int, length: int) -> None:
        """See `Files.truncate`."""
        with self._watch.call("truncate"):
            self._files.truncate(fd, length)

    def size(self, fd: int) -> int:
        """See `Files.size`."""
        with self._watch.call("stat"):
            return self._files.size(fd)

    def allocated(self, path: Path) -> int:
        """See `Files.allocated`."""
        with self._watch.call("stat"):
            return self._files.allocated(path)

    def exists(self, path: Path) -> bool:
        """See `Files.exists`."""
        with self._watch.call("stat", holds_up=True):
            return self._files.exists(path)

    def inode(self, place: Path | int) -> tuple[int, int]:
        """See `Files.inode`."""
        with self._watch.call("stat"):
            return self._files.inode(place)

    def list(self, path: Path) -> list[str]:
        """See `Files.list`."""
        with self._watch.call("list"):
            return self._files.list(path)

    def make_directory(self, path: Path) -> None:
        """See `Files.make_directory`."""
        with self._watch.call("mkdir"):
            self._files.make_directory(path)

    def rename(self, source: Path, target: Path) -> None:
        """See `Files.rename`."""
        with self._watch.call("rename"):
            self._files.rename(source, target)

    def unlink(self, path: Path) -> None:
        """See `Files.unlink`."""
        with self._watch.call("unlink"):
            self._files.unlink(path)

    def filesystem(self, path: Path) -> Filesystem:
        """See `Files.filesystem`."""
        with self._watch.call("statvfs", holds_up=True):
            return self._files.filesystem(path)

    def lock(self, fd: int) -> bool:
        """See `Files.lock`."""
        with self._watch.call("lock"):
            return self._files.lock(fd)


def watched_connect(watch: Watch) -> Callable[[Path], sqlite3.Connection]:
    """Return what opens a database (see `farmer.storage.index.Connect`) and notes its calls."""

    class Cursor(sqlite3.Cursor):
        def execute(self, sql: str, parameters: Any = (), /) -> Cursor:  # noqa: ANN401
            with watch.call("index"):
                return super().execute(sql, parameters)

        def executemany(self, sql: str, parameters: Iterable[Any], /) -> Cursor:
            with watch.call("index"):
                return super().executemany(sql, parameters)

        def fetchone(self) -> Any:  # noqa: ANN401  # as sqlite3 has it
            with watch.call("index"):
                return super().fetchone()

        def fetchall(self) -> list[Any]:
            with watch.call("index"):
                return super().fetchall()

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, parameters: Any = (), /) -> Cursor:  # noqa: ANN401
            # The base class's own would not come by our cursor.
            return Cursor(self).execute(sql, parameters)

        def executemany(self, sql: str, parameters: Iterable[Any], /) -> Cursor:
            return Cursor(self).executemany(sql, parameters)

        def executescript(self, sql_script: str, /) -> sqlite3.Cursor:
            with watch.call("index"):
                return Cursor(self).executescript(sql_script)

        def close(self) -> None:
            with watch.call("index"):
                super().close()

    def connect(path: Path) -> sqlite3.Connection:
        with watch.call("index"):
            return sqlite3.connect(
                path,
                isolation_level=None,
                check_same_thread=False,
                timeout=30,
                factory=Connection,
            )

    return connect
