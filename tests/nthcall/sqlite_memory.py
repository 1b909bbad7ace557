"""
SQLite's memory, in this process: the Nth piece that it asks for is not there.

Python makes a `MemoryError` of that, not a `sqlite3.Error`.  The allocator can be exchanged only
while SQLite is shut down, so nothing may have a database open at the beginning or the end.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, Structure, c_int, c_void_p
from typing import Any, ClassVar

CONFIG_MALLOC, CONFIG_GETMALLOC, CONFIG_MEMSTATUS = 4, 5, 9

_Allocate = CFUNCTYPE(c_void_p, c_int)
_Resize = CFUNCTYPE(c_void_p, c_void_p, c_int)


class _Methods(Structure):
    _fields_: ClassVar[Any] = [
        *((name, c_void_p) for name in ("allocate", "free", "resize", "size", "round_up")),
        *((name, c_void_p) for name in ("start", "stop", "data")),
    ]


class SqlMemory:
    """Counts what SQLite asks for while it is armed, and refuses one piece."""

    def __init__(self) -> None:
        self.struck = ""
        self._number = -1
        self._asked = 0
        self._lock = threading.Lock()

    def arm(self, number: int) -> None:
        self._number, self._asked, self.struck = number, 0, ""

    def disarm(self) -> None:
        self._number = -1

    def fails(self) -> bool:
        if self._number < 0:
            return False
        with self._lock:
            self._asked += 1
            if self._asked - 1 != self._number:
                return False
            self.struck = "memory"
            return True


@contextmanager
def scarce(library: Any) -> Iterator[SqlMemory]:
    """Let SQLite ask us for memory."""
    memory, real = SqlMemory(), _Methods()
    _restart(library, (CONFIG_GETMALLOC, ctypes.byref(real)))
    allocate, resize = _Allocate(real.allocate), _Resize(real.resize)
    hooks = (
        _Allocate(lambda size: None if memory.fails() else allocate(size)),
        _Resize(lambda at, size: None if memory.fails() else resize(at, size)),
    )
    ours = _Methods.from_buffer_copy(real)
    ours.allocate, ours.resize = (ctypes.cast(hook, c_void_p).value for hook in hooks)
    # While it counts, it asks with a lock held, and Python may wait for that with its own.
    _restart(library, (CONFIG_MEMSTATUS, 0), (CONFIG_MALLOC, ctypes.byref(ours)))
    try:
        yield memory
    finally:
        _restart(library, (CONFIG_MEMSTATUS, 1), (CONFIG_MALLOC, ctypes.byref(real)))


def _restart(library: Any, *options: tuple[int, Any]) -> None:
    """Shut SQLite down, say what it is to do otherwise, and begin again."""
    codes = [library.sqlite3_shutdown()]
    codes += [library.sqlite3_config(option, value) for option, value in options]
    codes.append(library.sqlite3_initialize())
    if any(codes):
        raise RuntimeError(f"SQLite cannot be shut down: {codes}")
