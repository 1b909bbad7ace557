"""
A file port whose Nth call fails, or after whose Nth call the machine stops.

For a stop there are two pictures of what a start finds: everything that was written (the
process was killed) and only what was synced (the power went).  The second one is kept beside
the real files: bytes by the last sync of their file, names by the last sync of their directory.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TypeVar

from farmer.storage.files import Access, Buffer, Filesystem, OsFiles
from farmer.storage.index import INDEX_NAME
from tests.storage.bench import crash_copy

R = TypeVar("R")


class Failure(Enum):
    """How a call fails."""

    EIO = "EIO"
    ENOSPC = "ENOSPC"
    SHORT = "short"
    """Half of the bytes are written, then there is no room."""
    LATE = "late"
    """It is done, and reported as failed."""
    DEAD = "dead"
    """It fails, and every call after it."""


THE_END = "the end"

CHANGING = frozenset(
    {"open", "pwritev", "sync_data", "sync_directory", "preallocate", "punch", "truncate",
     "rename", "unlink", "make_directory"}
)  # fmt: skip
WRITING = frozenset({"pwritev"})
ROOMY = frozenset({"open", "pwritev", "sync_data", "preallocate", "make_directory", "rename"})


@dataclass
class Node:
    """One file: what a power cut would leave of it, and what was done since its last sync."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[str, int, bytes | int]] = field(default_factory=list)

    def sync(self) -> None:
        for what, offset, more in self.pending:
            if isinstance(more, bytes):
                self._reach(offset + len(more))
                self.durable[offset : offset + len(more)] = more
            elif what == "truncate":
                del self.durable[more:]
                self._reach(more)
            elif what == "preallocate":
                self._reach(more)
            else:
                self.durable[offset : offset + more] = bytes(more)
        self.pending.clear()

    def _reach(self, length: int) -> None:
        if len(self.durable) < length:
            self.durable += bytes(length - len(self.durable))


class Platter:
    """What a power cut would leave of some directories."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = list(roots)
        self._now: dict[Path, dict[str, Node]] = {}
        self._durable: dict[Path, dict[str, Node]] = {}
        for root in roots:
            for directory in (root, *(path for path in root.rglob("*") if path.is_dir())):
                names = {
                    path.name: Node(bytearray(path.read_bytes()))
                    for path in directory.iterdir()
                    if path.is_file() and not path.name.startswith(INDEX_NAME)
                }
                self._now[directory], self._durable[directory] = names, dict(names)

    def node(self, path: Path) -> Node:
        return self._now.setdefault(path.parent, {}).setdefault(path.name, Node())

    def make_directory(self, path: Path) -> None:
        self._now.setdefault(path, {})

    def sync_directory(self, path: Path) -> None:
        self._durable[path] = dict(self._now.get(path, {}))
        for directory in self._now:
            if directory.parent == path:
                self._durable.setdefault(directory, {})

    def rename(self, source: Path, target: Path) -> None:
        node = self._now[source.parent].pop(source.name)
        self._now.setdefault(target.parent, {})[target.name] = node

    def unlink(self, path: Path) -> None:
        self._now.get(path.parent, {}).pop(path.name, None)

    def write_to(self, targets: Sequence[Path]) -> None:
        for root, target in zip(self.roots, targets, strict=True):
            for directory, names in self._durable.items():
                if root not in (directory, *directory.parents):
                    continue
                copy = target / directory.relative_to(root)
                copy.mkdir(parents=True, exist_ok=True)
                for name, node in names.items():
                    _sparsely(copy / name, bytes(node.durable))
            if (root / INDEX_NAME).exists():
                # Nothing but a checkpoint syncs it; what is in its log may be lost.
                shutil.copy(root / INDEX_NAME, target / INDEX_NAME)


def _sparsely(path: Path, raw: bytes) -> None:
    """Write a file with holes where there are zeros, as punched records leave them."""
    with path.open("wb") as file:
        file.truncate(len(raw))
        for at in range(0, len(raw), 4096):
            block = raw[at : at + 4096]
            if any(block):
                file.seek(at)
                file.write(block)
    if path.suffix == ".part" and raw:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, len(raw))


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
        self._platter: Platter | None = None
        self._stop: Callable[[str, Platter], None] | None = None

    def arm(self, number: int, failure: Failure) -> None:
        """Let the Nth call that can fail so, from 0, do it."""
        self._number, self._failure, self._calls, self.struck = number, failure, 0, ""

    def disarm(self) -> None:
        self._number, self._stop = -1, None

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
            failure = self._strikes(name)
            if failure is None:
                return work()
            if failure is Failure.SHORT:
                half()
            elif failure is Failure.LATE:
                work()
            self.struck = self.struck or f"{name} {path.name}"
        number = (
            errno.EIO if failure in {Failure.EIO, Failure.LATE, Failure.DEAD} else errno.ENOSPC
        )
        raise OSError(number, os.strerror(number), str(path))

    def _strikes(self, name: str) -> Failure | None:
        if self._number < 0:
            return None
        if self._failure is Failure.DEAD and self.struck:
            return self._failure
        match self._failure:
            case Failure.SHORT:
                counted = name in WRITING
            case Failure.ENOSPC:
                counted = name in ROOMY
            case Failure.LATE:
                counted = name in CHANGING and name != "open"
            case _:
                counted = True
        if not counted:
            return None
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

        return self._plain("open" if access is not Access.READ else "open_read", path, work)

    def close(self, fd: int) -> None:
        self._os.close(fd)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        return self._plain("pread", self._path(fd), lambda: self._os.pread(fd, length, offset))

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
        return self._os.size(fd)

    def allocated(self, path: Path) -> int:
        return self._os.allocated(path)

    def exists(self, path: Path) -> bool:
        return self._plain("exists", path, lambda: self._os.exists(path))

    def inode(self, place: Path | int) -> tuple[int, int]:
        return self._os.inode(place)

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
        return self._os.filesystem(path)

    def lock(self, fd: int) -> bool:
        return self._os.lock(fd)


def killed(roots: Sequence[Path], targets: Sequence[Path]) -> None:
    """Copy what a killed process leaves behind."""
    for root, target in zip(roots, targets, strict=True):
        crash_copy(root, target)
