"""
The disk under SQLite, in this process: its Nth call fails, and what was synced is known.

SQLite reaches files through a table of functions, its VFS.  The `xOpen` of the one in use is
replaced by ours, which gives each opened file a copy of its own table of functions with ours
in some places; everything else is SQLite as it is.  A sync that fails forgets what was
waiting for it: the page cache has those bytes, and the disk never gets them.
"""

from __future__ import annotations

import ctypes
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

from tests.nthcall.sqlite_calls import RULES, SqlCalls
from tests.nthcall.sqlite_memory import SqlMemory, scarce

LIBRARY = "libsqlite3.so.0"
VFS = b"unix-excl"
"""The one that `farmer.storage.alone` names."""

OK, FULL, CANTOPEN = 0, 13, 14
IOERR_READ, IOERR_WRITE, IOERR_FSYNC = 266, 778, 1034
IOERR_TRUNCATE, IOERR_DELETE, IOERR_SHMMAP = 1546, 2570, 5386

# Names as bare pointers: SQLite keeps the one that it opened a file by.
_Open = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_Delete = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)
_Transfer = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_Truncate = CFUNCTYPE(c_int, c_void_p, c_int64)
_Sync = CFUNCTYPE(c_int, c_void_p, c_int)
_ShmMap = CFUNCTYPE(c_int, c_void_p, c_int, c_int, c_int, c_void_p)


_OTHERS = (
    *("access", "full_path", "dl_open", "dl_error", "dl_sym", "dl_close"),
    *("randomness", "sleep", "now", "last_error", "now_64"),
)


class _Vfs(Structure):
    _fields_: ClassVar[Any] = [
        ("version", c_int),
        ("file_bytes", c_int),
        ("path_max", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("data", c_void_p),
        ("open", c_void_p),
        ("delete", c_void_p),
        *((name, c_void_p) for name in _OTHERS),
        ("set_call", c_void_p),
        ("get_call", c_void_p),
    ]


_METHODS = (
    *("close", "read", "write", "truncate", "sync", "size", "lock", "unlock", "reserved"),
    *("control", "sector", "device", "shm_map", "shm_lock", "shm_barrier", "shm_unmap"),
    *("fetch", "unfetch"),
)


class _Methods(Structure):
    _fields_: ClassVar[Any] = [("version", c_int), *((name, c_void_p) for name in _METHODS)]


class _File(Structure):
    _fields_: ClassVar[Any] = [("methods", POINTER(_Methods))]


class SqlFailure(Enum):
    """How a call fails."""

    EIO = "SQLite EIO"
    FULL = "SQLite full"
    SHORT = "SQLite short"
    DEAD = "SQLite dead"
    # What the kernel says to SQLite, and SQLite makes of it what it does.
    EDQUOT = "SQLite EDQUOT"
    EROFS = "SQLite EROFS"
    ESTALE = "SQLite ESTALE"
    EMFILE = "SQLite EMFILE"
    MEMORY = "SQLite memory"
    """No memory for a piece that SQLite asks for."""

    @property
    def is_of_kernel(self) -> bool:
        """Whether it strikes a system call, and not one of SQLite's own functions."""
        return self.name in RULES


SQL_PASSING = frozenset(
    {SqlFailure.FULL, SqlFailure.SHORT, SqlFailure.EDQUOT, SqlFailure.EMFILE, SqlFailure.MEMORY}
)
"""No fault of the disk's, as in `tests.nthcall.failures`."""

_CODES = {
    "read": IOERR_READ,
    "write": IOERR_WRITE,
    "sync": IOERR_FSYNC,
    "truncate": IOERR_TRUNCATE,
    "delete": IOERR_DELETE,
    "open": CANTOPEN,
    "shm_map": IOERR_SHMMAP,
}


@dataclass
class SqlDisk:
    """Watches SQLite's files below one directory."""

    root: Path
    calls: SqlCalls
    memory: SqlMemory
    _struck: str = ""
    _number: int = -1
    _failure: SqlFailure = SqlFailure.EIO
    _calls: int = 0
    _durable: dict[str, bytearray] = field(default_factory=dict)
    _pending: dict[str, list[tuple[int, bytes | None]]] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.RLock)

    @property
    def struck(self) -> str:
        """The call that failed."""
        return self._struck or self.calls.struck or self.memory.struck

    def arm(self, number: int, failure: SqlFailure) -> None:
        self._failure, self._calls, self._struck = failure, 0, ""
        if failure.is_of_kernel:
            self.calls.arm(number, failure.name)
        elif failure is SqlFailure.MEMORY:
            self.memory.arm(number)
        else:
            self._number = number

    def disarm(self) -> None:
        self._number = -1
        self.calls.disarm()
        self.memory.disarm()

    def fails(self, what: str, name: str) -> bool:
        """Say whether this call is the one."""
        with self._lock:
            if self._number < 0:
                return False
            if self._failure is SqlFailure.DEAD and self._struck:
                return True
            if self._failure is not SqlFailure.EIO and what == "read":
                return False
            if self._failure is SqlFailure.SHORT and what != "write":
                return False
            if self._failure is SqlFailure.FULL and what not in {"write", "shm_map", "sync"}:
                return False
            self._calls += 1
            if self._calls - 1 != self._number:
                return False
            self._struck = f"{what} {Path(name).name}"
            return True

    def code(self, what: str) -> int:
        if self._failure in {SqlFailure.FULL, SqlFailure.SHORT} and what != "sync":
            return FULL
        return _CODES[what]

    @property
    def is_short(self) -> bool:
        return self._failure is SqlFailure.SHORT

    # What a power cut would leave.

    def begin(self) -> None:
        """What is there now is durable."""
        for path in self.root.rglob("*"):
            if path.is_file():
                self._durable[str(path)] = bytearray(path.read_bytes())
        self._pending.clear()

    def note(self, name: str, offset: int, raw: bytes | None) -> None:
        """Remember a write, or (None) a truncation to *offset*."""
        self._pending.setdefault(name, []).append((offset, raw))

    def synced(self, name: str, *, well: bool) -> None:
        pending = self._pending.pop(name, [])
        if not well:
            return
        kept = self._durable.setdefault(name, bytearray())
        for offset, raw in pending:
            end = offset + len(raw or b"")
            if len(kept) < end:
                kept += bytes(end - len(kept))
            if raw is None:
                del kept[offset:]
            else:
                kept[offset:end] = raw

    def deleted(self, name: str) -> None:
        self._durable.pop(name, None)
        self._pending.pop(name, None)

    def after_a_power_cut(self, target: Path) -> None:
        """Write what a start would find; nothing that was not synced."""
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for name, raw in self._durable.items():
            if not name.endswith("-shm"):
                (target / Path(name).name).write_bytes(raw)


@contextmanager
def memory_for(failure: SqlFailure) -> Iterator[SqlMemory]:
    """Let SQLite's memory run out, if that is the failure; no database may be open then."""
    if failure is not SqlFailure.MEMORY:
        yield SqlMemory()
        return
    with scarce(ctypes.CDLL(LIBRARY)) as memory:
        yield memory


@contextmanager
def watched(root: Path, memory: SqlMemory) -> Iterator[SqlDisk]:
    """Stand between SQLite and the files below *root*."""
    calls = SqlCalls(root)
    disk = SqlDisk(root, calls, memory)
    library = ctypes.CDLL(LIBRARY)
    library.sqlite3_vfs_find.restype = POINTER(_Vfs)
    vfs = library.sqlite3_vfs_find(VFS).contents
    real_open, real_delete = _Open(vfs.open), _Delete(vfs.delete)
    before = (vfs.open, vfs.delete)
    tables = _Tables(disk)

    def opening(this: int, name: int | None, file: int, flags: int, out: int) -> int:
        path = ctypes.string_at(name).decode() if name else ""
        if not path.startswith(f"{root}/"):
            return int(real_open(this, name, file, flags, out))
        if disk.fails("open", path):
            # SQLite closes a file that failed to open only if it has methods.
            _File.from_address(file).methods = POINTER(_Methods)()
            return disk.code("open")
        code = int(real_open(this, name, file, flags, out))
        if code == OK:
            tables.give(file, path)
        return code

    def deleting(this: int, name: bytes, sync: int) -> int:
        path = name.decode()
        if path.startswith(f"{root}/"):
            if disk.fails("delete", path):
                return disk.code("delete")
            disk.deleted(path)
        return int(real_delete(this, name, sync))

    hooks = (_Open(opening), _Delete(deleting))
    vfs.open, vfs.delete = (ctypes.cast(hook, c_void_p).value for hook in hooks)
    calls.install(vfs, ctypes.addressof(vfs))
    try:
        yield disk
    finally:
        calls.remove(vfs, ctypes.addressof(vfs))
        vfs.open, vfs.delete = before
        # Files that are still open go on using our functions: they must outlive them.
        _KEPT.append((tables, hooks, calls))


_KEPT: list[object] = []


class _Tables:
    """Our copies of SQLite's tables of functions, one for each kind of file."""

    def __init__(self, disk: SqlDisk) -> None:
        self._disk = disk
        self._names: dict[int, str] = {}
        self._ours: dict[int, _Methods] = {}
        self._hooks: list[object] = []

    def give(self, file: int, name: str) -> None:
        """Give an opened file our functions."""
        self._names[file] = name
        opened = _File.from_address(file)
        theirs = ctypes.addressof(opened.methods.contents)
        if theirs not in self._ours:
            self._ours[theirs] = self._table(opened.methods.contents)
        opened.methods = ctypes.pointer(self._ours[theirs])

    def _table(self, real: _Methods) -> _Methods:
        ours = _Methods.from_buffer_copy(real)
        makers: dict[str, Callable[[_Methods], object]] = {
            "read": self._read,
            "write": self._write,
            "truncate": self._truncate,
            "sync": self._sync,
            "shm_map": self._shm_map,
        }
        for name, make in makers.items():
            if not getattr(real, name):
                continue
            hook = make(real)
            self._hooks.append(hook)
            setattr(ours, name, ctypes.cast(hook, c_void_p).value)  # type: ignore[arg-type]
        return ours

    def _read(self, real: _Methods) -> object:
        function, disk, names = _Transfer(real.read), self._disk, self._names

        def read(file: int, into: int, length: int, offset: int) -> int:
            if disk.fails("read", names[file]):
                return disk.code("read")
            return int(function(file, into, length, offset))

        return _Transfer(read)

    def _write(self, real: _Methods) -> object:
        function, disk, names = _Transfer(real.write), self._disk, self._names

        def write(file: int, source: int, length: int, offset: int) -> int:
            if disk.fails("write", names[file]):
                if disk.is_short:
                    function(file, source, length // 2, offset)
                    disk.note(names[file], offset, ctypes.string_at(source, length // 2))
                return disk.code("write")
            code = int(function(file, source, length, offset))
            if code == OK:
                disk.note(names[file], offset, ctypes.string_at(source, length))
            return code

        return _Transfer(write)

    def _truncate(self, real: _Methods) -> object:
        function, disk, names = _Truncate(real.truncate), self._disk, self._names

        def truncate(file: int, length: int) -> int:
            if disk.fails("truncate", names[file]):
                return disk.code("truncate")
            code = int(function(file, length))
            if code == OK:
                disk.note(names[file], length, None)
            return code

        return _Truncate(truncate)

    def _sync(self, real: _Methods) -> object:
        function, disk, names = _Sync(real.sync), self._disk, self._names

        def sync(file: int, flags: int) -> int:
            if disk.fails("sync", names[file]):
                disk.synced(names[file], well=False)
                return disk.code("sync")
            code = int(function(file, flags))
            disk.synced(names[file], well=code == OK)
            return code

        return _Sync(sync)

    def _shm_map(self, real: _Methods) -> object:
        function, disk, names = _ShmMap(real.shm_map), self._disk, self._names

        def shm_map(file: int, region: int, size: int, extend: int, out: int) -> int:
            if disk.fails("shm_map", names[file]):
                return disk.code("shm_map")
            return int(function(file, region, size, extend, out))

        return _ShmMap(shm_map)
