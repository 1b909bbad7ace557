"""
A file port whose Nth call fails, or after whose Nth call the machine stops.

For a stop there are two pictures of what a start finds: everything that was written (the
process was killed) and only what was synced (the power went).  The second one is kept beside
the real files: bytes by the last sync of their file, names by the last sync of their directory.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from farmer.storage.files import Access, Buffer, Filesystem, OsFiles
from tests.nthcall.failures import CHANGING, RULES, Failure
from tests.nthcall.platter import Platter
from tests.storage.bench import crash_copy

R = TypeVar("R")

THE_END = "the end"


class NthFiles:
    """The operating system's files; `arm` says what is to happen."""

    def __init__(self, *, can_punch: bool = True) -> None:
        self._os = OsFiles()
        self._paths: dict[int, Path] = {}
        self._lock = threading.RLock()
        self._can_punch = can_punch
        self._number = -1
        self._failure = Failure.EIO
        self._calls = 0
        self.struck = ""
        """The call that failed."""
        self._unread: tuple[int, int, int] | None = None
        """What could not be read last, and cannot be by itself either."""
        self.besides: Callable[[str], Failure | None] = lambda _name: None
        """Says how a call fails because something else did."""
        self._platter: Platter | None = None
        self._stop: Callable[[str, Platter], None] | None = None

    def arm(self, number: int, failure: Failure) -> None:
        """Let the Nth call that can fail so, from 0, do it."""
        self._number, self._failure, self._calls, self.struck = number, failure, 0, ""

    def disarm(self) -> None:
        self._number, self._stop = -1, None

    @property
    def left_open(self) -> list[str]:
        """The names of the files that nobody has closed."""
        return sorted(path.name for path in self._paths.values())

    def watch(self, roots: Sequence[Path], stop: Callable[[str, Platter], None]) -> None:
        """Call *stop* before each call that changes something, and at `stop_now`."""
        self._platter, self._stop = Platter(roots), stop

    def stop_now(self) -> None:
        """Let the machine stop behind the last call as well."""
        with self._lock:
            assert self._stop is not None
            assert self._platter is not None
            self._stop(THE_END, self._platter)

    def _do(self, name: str, path: Path, work: Callable[[], R], half: Callable[[], object]) -> R:
        with self._lock:
            if self._stop is not None and name in CHANGING:
                assert self._platter is not None
                self._stop(f"{name} {path.name}", self._platter)
            if (besides := self.besides(name)) is not None:
                raise besides.error(path)
            failure = self._strikes(name)
            if failure is None:
                return work()
            if failure is Failure.SHORT:
                half()
            elif failure is Failure.LATE:
                work()
            self.struck = self.struck or f"{name} {path.name}"
        raise failure.error(path)

    def _strikes(self, name: str) -> Failure | None:
        rule = RULES[self._failure]
        if self._number < 0 or name not in rule.calls:
            return None
        if rule.lasts and self.struck:
            return self._failure
        self._calls += 1
        return self._failure if self._calls - 1 == self._number else None

    def _plain(self, name: str, path: Path, work: Callable[[], R]) -> R:
        return self._do(name, path, work, lambda: None)

    def _path(self, fd: int) -> Path:
        return self._paths.get(fd, Path("?"))

    def _note(self, fd: int, *change: object) -> None:
        if self._platter is not None:
            self._platter.node(self._path(fd)).pending.append(change)  # type: ignore[arg-type]

    def open(self, path: Path, access: Access) -> int:
        def work() -> int:
            fd = self._os.open(path, access)
            self._paths[fd] = path
            if self._platter is not None and access in {Access.CREATE, Access.ENSURE}:
                self._platter.node(path)
            return fd

        return self._plain(_opening(path, access), path, work)

    def close(self, fd: int) -> None:
        self._os.close(fd)
        self._paths.pop(fd, None)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        try:
            return self._plain("pread", self._path(fd), lambda: self._os.pread(fd, length, offset))
        except OSError as error:
            if error.errno == errno.EIO:
                self._unread = fd, length, offset
            raise

    def pread_cached(self, fd: int, length: int, offset: int) -> Buffer | None:
        return self._os.pread_cached(fd, length, offset)

    def pread_apart(self, fd: int, length: int, offset: int) -> bytes:
        unread, self._unread = self._unread, None
        if unread == (fd, length, offset):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self.pread(fd, length, offset)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        raw = b"".join(bytes(buffer) for buffer in buffers)

        def write(part: bytes) -> None:
            self._os.pwritev(fd, [part], offset)
            self._note(fd, "write", offset, part)

        self._do(
            *("pwritev", self._path(fd)), lambda: write(raw), lambda: write(raw[: len(raw) // 2])
        )

    def sync_data(self, fd: int) -> None:
        def work() -> None:
            self._os.sync_data(fd)
            if self._platter is not None:
                self._platter.node(self._path(fd)).sync()

        self._plain("sync_data", self._path(fd), work)

    def sync_directory(self, path: Path) -> None:
        def work() -> None:
            self._os.sync_directory(path)
            if self._platter is not None:
                self._platter.sync_directory(path)

        self._plain("sync_directory", path, work)

    def begin_write_back(self, fd: int, offset: int, length: int) -> None:
        self._plain(
            *("begin_write_back", self._path(fd)),
            lambda: self._os.begin_write_back(fd, offset, length),
        )

    def uncache(self, fd: int, offset: int, length: int) -> None:
        self._os.uncache(fd, offset, length)

    def preallocate(self, fd: int, length: int) -> None:
        def work() -> None:
            self._os.preallocate(fd, length)
            self._note(fd, "preallocate", 0, length)

        self._plain("preallocate", self._path(fd), work)

    def punch(self, fd: int, offset: int, length: int) -> bool:
        def work() -> bool:
            done = self._can_punch and self._os.punch(fd, offset, length)
            if done:
                self._note(fd, "punch", offset, length)
            return done

        return self._plain("punch", self._path(fd), work)

    def is_hole(self, fd: int, offset: int, length: int) -> bool:
        return self._os.is_hole(fd, offset, length)

    def truncate(self, fd: int, length: int) -> None:
        def work() -> None:
            self._os.truncate(fd, length)
            self._note(fd, "truncate", 0, length)

        self._plain("truncate", self._path(fd), work)

    def size(self, fd: int) -> int:
        return self._plain("stat", self._path(fd), lambda: self._os.size(fd))

    def allocated(self, path: Path) -> int:
        return self._plain("stat", path, lambda: self._os.allocated(path))

    def exists(self, path: Path) -> bool:
        return self._plain("exists", path, lambda: self._os.exists(path))

    def inode(self, place: Path | int) -> tuple[int, int]:
        path = place if isinstance(place, Path) else self._path(place)
        return self._plain("stat", path, lambda: self._os.inode(place))

    def list(self, path: Path) -> list[str]:
        return self._plain("list", path, lambda: self._os.list(path))

    def make_directory(self, path: Path) -> None:
        def work() -> None:
            self._os.make_directory(path)
            if self._platter is not None:
                self._platter.make_directory(path)

        self._plain("make_directory", path, work)

    def rename(self, source: Path, target: Path) -> None:
        def work() -> None:
            self._os.rename(source, target)
            if self._platter is not None:
                self._platter.rename(source, target)

        self._plain("rename", source, work)

    def unlink(self, path: Path) -> None:
        def work() -> None:
            self._os.unlink(path)
            if self._platter is not None:
                self._platter.unlink(path)

        self._plain("unlink", path, work)

    def filesystem(self, path: Path) -> Filesystem:
        return self._plain("statvfs", path, lambda: self._os.filesystem(path))

    def lock(self, fd: int) -> bool:
        return self._os.lock(fd)


def _opening(path: Path, access: Access) -> str:
    if access is Access.READ:
        return "open_read"
    is_made = access is Access.CREATE or (access is Access.ENSURE and not path.exists())
    return "create" if is_made else "open"


def killed(roots: Sequence[Path], targets: Sequence[Path]) -> None:
    """Copy what a killed process leaves behind."""
    for root, target in zip(roots, targets, strict=True):
        crash_copy(root, target)
