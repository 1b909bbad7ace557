"""
The system calls under SQLite, in this process: the Nth of them fails with an error of the kernel.

SQLite makes its own sense of these numbers: it knows ENOSPC, and takes EDQUOT for a broken
disk; where it may not write, it opens for reading.  So they are not translated here, but put
where the kernel would put them: its VFS lends its table of system calls to whoever tests.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from ctypes import CFUNCTYPE, c_char_p, c_int, c_int64, c_size_t, c_ssize_t, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_GIVEN = {"use_errno": True}
_Open = CFUNCTYPE(c_int, c_char_p, c_int, c_int, **_GIVEN)
_Close = CFUNCTYPE(c_int, c_int, **_GIVEN)
_Transfer = CFUNCTYPE(c_ssize_t, c_int, c_void_p, c_size_t, c_int64, **_GIVEN)
_Truncate = CFUNCTYPE(c_int, c_int, c_int64, **_GIVEN)
_Unlink = CFUNCTYPE(c_int, c_char_p, **_GIVEN)

_GetCall = CFUNCTYPE(c_void_p, c_void_p, c_char_p)
_SetCall = CFUNCTYPE(c_int, c_void_p, c_char_p, c_void_p)

EVERY = frozenset({"create", "open", "open_read", "read", "write", "truncate", "unlink"})
"""Not the locks: of any error there SQLite thinks that somebody else holds the lock, and waits as
long as it may; that is a disk which does not answer, and told as one."""

OPENING = frozenset({"create", "open", "open_read"})


@dataclass(frozen=True)
class Rule:
    """Which calls an error strikes, and whether all after the first."""

    number: int
    calls: frozenset[str]
    lasts: bool = False


RULES = {
    "EDQUOT": Rule(errno.EDQUOT, frozenset({"create", "write", "truncate"})),
    "EROFS": Rule(errno.EROFS, EVERY - {"open_read", "read"}, lasts=True),
    "ESTALE": Rule(errno.ESTALE, EVERY, lasts=True),
    "EMFILE": Rule(errno.EMFILE, OPENING, lasts=True),
}


class SqlCalls:
    """Stands between SQLite and the kernel for the files below one directory."""

    def __init__(self, root: Path) -> None:
        self.struck = ""
        self._root = f"{root}/"
        self._paths: dict[int, str] = {}
        self._rule: Rule | None = None
        self._number = 0
        self._calls = 0
        self._lock = threading.RLock()
        self._real: dict[bytes, int] = {}
        self._hooks: list[object] = []

    def arm(self, number: int, error: str) -> None:
        """Let the Nth call that can fail so, from 0, do it."""
        self._rule, self._number, self._calls, self.struck = RULES[error], number, 0, ""

    def disarm(self) -> None:
        self._rule = None

    def install(self, vfs: Any, address: int) -> None:
        """Take the place of the calls in a VFS, which is at this address."""
        get, put = _GetCall(vfs.get_call), _SetCall(vfs.set_call)
        for name, kind, make in (
            (b"open", _Open, self._open),
            (b"close", _Close, self._close),
            (b"pread64", _Transfer, self._on_file("read")),
            (b"pwrite64", _Transfer, self._on_file("write")),
            (b"ftruncate", _Truncate, self._on_file("truncate")),
            (b"unlink", _Unlink, self._unlink),
        ):
            self._real[name] = get(address, name)
            hook = kind(make(kind(self._real[name])))
            self._hooks.append(hook)
            put(address, name, ctypes.cast(hook, c_void_p).value)

    def remove(self, vfs: Any, address: int) -> None:
        """Put the kernel's own calls back."""
        put = _SetCall(vfs.set_call)
        for name, real in self._real.items():
            put(address, name, real)

    def _fails(self, what: str, path: str | None) -> bool:
        with self._lock:
            rule = self._rule
            if rule is None or path is None or what not in rule.calls:
                return False
            self._calls += 1
            if self._calls - 1 != self._number and not (rule.lasts and self.struck):
                return False
            self.struck = self.struck or f"{what} {Path(path).name}"
            ctypes.set_errno(rule.number)
            return True

    def _ours(self, name: bytes) -> str | None:
        path = name.decode()
        return path if path.startswith(self._root) else None

    def _open(self, real: Callable[..., int]) -> Callable[..., int]:
        def opened(name: bytes, flags: int, mode: int) -> int:
            path = self._ours(name)
            if self._fails(_opening(name, flags), path):
                return -1
            fd = real(name, flags, mode)
            if fd >= 0 and path is not None:
                self._paths[fd] = path
            return fd

        return opened

    def _close(self, real: Callable[..., int]) -> Callable[..., int]:
        def closed(fd: int) -> int:
            self._paths.pop(fd, None)
            return real(fd)

        return closed

    def _on_file(self, what: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
        def of(real: Callable[..., int]) -> Callable[..., int]:
            def called(fd: int, *rest: object) -> int:
                return -1 if self._fails(what, self._paths.get(fd)) else real(fd, *rest)

            return called

        return of

    def _unlink(self, real: Callable[..., int]) -> Callable[..., int]:
        def unlinked(name: bytes) -> int:
            return -1 if self._fails("unlink", self._ours(name)) else real(name)

        return unlinked


def _opening(name: bytes, flags: int) -> str:
    if flags & os.O_CREAT and not Path(os.fsdecode(name)).exists():
        return "create"
    return "open" if flags & (os.O_RDWR | os.O_WRONLY) else "open_read"
