"""A file port that writes down every call, and can let the n-th one fail."""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from farmer.storage.files import Access, Buffer, Filesystem, OsFiles

R = TypeVar("R")

WRITING = frozenset(
    {"pwritev", "sync_data", "sync_directory", "preallocate", "punch", "truncate", "rename",
     "unlink", "make_directory", "open"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Call:
    """One operation, and the name of the file that it touched."""

    name: str
    path: str
    length: int = 0


@dataclass
class Fault:
    """Which call fails, and how."""

    number: int
    """Counted over the matching calls, from 0."""
    error: int
    matches: Callable[[Call], bool] = lambda call: call.name in WRITING
    after: bool = False
    """The call is done, and fails all the same."""
    seen: int = 0
    struck: bool = False

    def strikes(self, call: Call) -> bool:
        if not self.matches(call):
            return False
        self.seen += 1
        if self.seen - 1 == self.number:
            self.struck = True
            return True
        return False


class Always(Fault):
    """Every such call fails."""

    def __init__(self, error: int, matches: Callable[[Call], bool]) -> None:
        super().__init__(0, error, matches)

    def strikes(self, call: Call) -> bool:
        strikes = self.matches(call)
        self.struck = self.struck or strikes
        return strikes


@dataclass
class RecordingFiles:
    """The operating system's files, watched."""

    calls: list[Call] = field(default_factory=list)
    fault: Fault | None = None
    can_punch: bool = True

    def __post_init__(self) -> None:
        self._os = OsFiles()
        self._names: dict[int, str] = {}
        self.is_open: dict[int, str] = {}
        """The files that are open, by their descriptors."""
        self._lock = threading.Lock()
        self._unread: tuple[int, int, int] | None = None
        """What could not be read last, and cannot be by itself either."""

    def forget(self) -> None:
        self.calls.clear()

    def names(self, *wanted: str) -> list[str]:
        return [call.name for call in self.calls if not wanted or call.name in wanted]

    def bytes_read(self) -> Counter[str]:
        read: Counter[str] = Counter()
        for call in self.calls:
            if call.name == "pread":
                read[call.path] += call.length
        return read

    def _do(self, call: Call, work: Callable[[], R]) -> R:
        with self._lock:
            self.calls.append(call)
            struck = self.fault is not None and self.fault.strikes(call)
        if not struck:
            return work()
        assert self.fault is not None
        if self.fault.after:
            work()
        raise OSError(self.fault.error, os.strerror(self.fault.error), call.path)

    def _named(self, name: str, fd: int, length: int = 0) -> Call:
        return Call(name, self._names.get(fd, "?"), length)

    def open(self, path: Path, access: Access) -> int:
        name = "open" if access is not Access.READ else "open_read"
        fd = self._do(Call(name, path.name), lambda: self._os.open(path, access))
        self._names[fd] = self.is_open[fd] = path.name
        return fd

    def close(self, fd: int) -> None:
        # Before it is closed: then the number may be another file's.
        del self.is_open[fd]
        self._os.close(fd)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        call = self._named("pread", fd, length)
        try:
            return self._do(call, lambda: self._os.pread(fd, length, offset))
        except OSError as error:
            if error.errno == errno.EIO:
                self._unread = fd, length, offset
            raise

    def pread_cached(self, fd: int, length: int, offset: int) -> Buffer | None:
        call = self._named("pread_cached", fd, length)
        return self._do(call, lambda: self._os.pread_cached(fd, length, offset))

    def pread_apart(self, fd: int, length: int, offset: int) -> bytes:
        unread, self._unread = self._unread, None
        if unread == (fd, length, offset):
            raise OSError(errno.EIO, os.strerror(errno.EIO), self._names.get(fd))
        call = self._named("pread", fd, length)
        return self._do(call, lambda: self._os.pread_apart(fd, length, offset))

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        call = self._named("pwritev", fd, sum(map(len, buffers)))
        self._do(call, lambda: self._os.pwritev(fd, buffers, offset))

    def sync_data(self, fd: int) -> None:
        self._do(self._named("sync_data", fd), lambda: self._os.sync_data(fd))

    def begin_write_back(self, fd: int, offset: int, length: int) -> None:
        call = self._named("begin_write_back", fd, length)
        self._do(call, lambda: self._os.begin_write_back(fd, offset, length))

    def uncache(self, fd: int, offset: int, length: int) -> None:
        self._do(self._named("uncache", fd, length), lambda: self._os.uncache(fd, offset, length))

    def sync_directory(self, path: Path) -> None:
        call = Call("sync_directory", path.name)
        self._do(call, lambda: self._os.sync_directory(path))

    def preallocate(self, fd: int, length: int) -> None:
        call = self._named("preallocate", fd, length)
        self._do(call, lambda: self._os.preallocate(fd, length))

    def punch(self, fd: int, offset: int, length: int) -> bool:
        if not self.can_punch:
            return False
        call = self._named("punch", fd, length)
        return self._do(call, lambda: self._os.punch(fd, offset, length))

    def is_hole(self, fd: int, offset: int, length: int) -> bool:
        call = self._named("is_hole", fd, length)
        return self._do(call, lambda: self._os.is_hole(fd, offset, length))

    def truncate(self, fd: int, length: int) -> None:
        call = self._named("truncate", fd, length)
        self._do(call, lambda: self._os.truncate(fd, length))

    def size(self, fd: int) -> int:
        return self._os.size(fd)

    def allocated(self, path: Path) -> int:
        return self._os.allocated(path)

    def exists(self, path: Path) -> bool:
        return self._os.exists(path)

    def inode(self, place: Path | int) -> tuple[int, int]:
        return self._os.inode(place)

    def list(self, path: Path) -> list[str]:
        return self._do(Call("list", path.name), lambda: self._os.list(path))

    def make_directory(self, path: Path) -> None:
        self._do(Call("make_directory", path.name), lambda: self._os.make_directory(path))

    def rename(self, source: Path, target: Path) -> None:
        self._do(Call("rename", source.name), lambda: self._os.rename(source, target))

    def unlink(self, path: Path) -> None:
        self._do(Call("unlink", path.name), lambda: self._os.unlink(path))

    def filesystem(self, path: Path) -> Filesystem:
        return self._os.filesystem(path)

    def lock(self, fd: int) -> bool:
        return self._os.lock(fd)


class ReadOnlyFiles(RecordingFiles):
    """What lies below a directory of some name takes no writes, while that is said."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.read_only = ""
        self._places: dict[int, Path] = {}

    def _check(self, *paths: Path) -> None:
        for path in paths:
            if self.read_only and self.read_only in path.parts:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def open(self, path: Path, access: Access) -> int:
        if access is not Access.READ:
            self._check(path)
        fd = super().open(path, access)
        self._places[fd] = path
        return fd

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        self._check(self._places[fd])
        super().pwritev(fd, buffers, offset)

    def preallocate(self, fd: int, length: int) -> None:
        self._check(self._places[fd])
        super().preallocate(fd, length)

    def punch(self, fd: int, offset: int, length: int) -> bool:
        self._check(self._places[fd])
        return super().punch(fd, offset, length)

    def truncate(self, fd: int, length: int) -> None:
        self._check(self._places[fd])
        super().truncate(fd, length)

    def make_directory(self, path: Path) -> None:
        self._check(path)
        super().make_directory(path)

    def rename(self, source: Path, target: Path) -> None:
        self._check(source, target)
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._check(path)
        super().unlink(path)


class HeldFiles(RecordingFiles):
    """A disk whose sync of the log, or of other files, waits for the test."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.let_go = threading.Event(), threading.Event()
        self._passing = -1
        self._suffix = ".seg"

    def hold(self, passing: int = 0, suffix: str = ".seg") -> None:
        """Hold a sync from now on, after so many others of such files."""
        self._passing, self._suffix = passing, suffix

    def sync_data(self, fd: int) -> None:
        if self._names[fd].endswith(self._suffix):
            if self._passing == 0:
                self.reached.set()
                assert self.let_go.wait(20)
            self._passing -= 1
        super().sync_data(fd)
