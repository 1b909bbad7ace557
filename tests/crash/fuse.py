"""
A block device that remembers: two files served over /dev/fuse, in the kernel's own protocol.

`disk` is a file for a loop device; every write to it and every flush is written to a log.
What is written to `mark` goes into the same log, so that a program's acknowledgements stand
in order between the writes of its filesystem.  One thread, so the order is the true one.

The messages are those of linux/include/uapi/linux/fuse.h, protocol 7.31; only what a loop
device and a program that appends lines need is answered, all else is ENOSYS.  Native byte
order; a request begins with 40 bytes (length, operation, unique, node, ...), an answer
with 16 (length, -errno, unique).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO

_ROOT, _DISK, _MARK = 1, 2, 3
_NAMES = {b"disk": _DISK, b"mark": _MARK}

_LOOKUP, _FORGET, _GETATTR, _SETATTR, _OPEN, _READ, _WRITE = 1, 2, 3, 4, 14, 15, 16
_STATFS, _RELEASE, _FSYNC, _FLUSH, _INIT, _OPENDIR, _READDIR = 17, 18, 20, 25, 26, 27, 28
_RELEASEDIR, _ACCESS, _INTERRUPT, _DESTROY, _BATCH_FORGET = 29, 34, 36, 38, 42
_SILENT = {_FORGET, _BATCH_FORGET, _INTERRUPT}

_WRITE_BYTES_MAX = 1 << 20
_INIT_FLAGS = 1 << 5 | 1 << 22  # big writes; as many pages as we say
_DIRECT_IO = 1

_REQUEST = struct.Struct("=IIQQIIIHH")
_ANSWER = struct.Struct("=IiQ")
_ATTRIBUTES = struct.Struct("=6Q3I7I")
_ENTRY = struct.Struct("=4Q2I")

ENTRY = struct.Struct("=BQI")
"""One entry of the log: what, where on the disk, how many bytes follow."""


class Kind(IntEnum):
    """What an entry of the log is."""

    WRITE = 1
    FLUSH = 2
    MARK = 3


class BlockLog:
    """Serve an image until it is unmounted; used in a process of its own."""

    def __init__(self, image: Path, log: Path) -> None:
        self._image = os.open(image, os.O_RDWR)
        self._size = os.fstat(self._image).st_size
        self._log: BinaryIO = log.open("wb", buffering=1 << 20)
        self._fuse = -1

    def mount(self, folder: Path) -> None:
        """Attach to a directory; needs to be root.  Raises `OSError`."""
        self._fuse = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self._fuse},rootmode=40000,user_id=0,group_id=0"
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"blocklog", os.fsencode(folder), b"fuse", 0, options.encode()):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))

    def serve(self) -> None:
        """Answer until the directory is unmounted."""
        while True:
            try:
                request = os.read(self._fuse, _WRITE_BYTES_MAX + 4096)
            except OSError as error:
                if error.errno in {errno.EINTR, errno.ENOENT}:
                    continue
                if error.errno != errno.ENODEV:
                    raise
                break
            self._answer(request)
        self._log.close()
        os.close(self._image)
        os.close(self._fuse)

    def let_go(self) -> None:
        """Close it here: another process, forked before, serves it."""
        os.close(self._fuse)
        os.close(self._image)
        self._log.close()

    def _answer(self, request: bytes) -> None:
        _length, operation, unique, node, *_ = _REQUEST.unpack_from(request)
        if operation in _SILENT:
            return
        handle = _HANDLERS.get(operation)
        try:
            body = handle(self, node, request[40:]) if handle else None
            code = 0 if body is not None else -errno.ENOSYS
        except OSError as error:
            body, code = None, -(error.errno or errno.EIO)
        body = body or b""
        # Whoever asked may have been interrupted: then the kernel knows of no such request.
        with suppress(FileNotFoundError):
            os.write(self._fuse, _ANSWER.pack(16 + len(body), code, unique) + body)

    def _attributes(self, node: int) -> bytes:
        size = self._size if node == _DISK else 0
        mode = stat.S_IFDIR | 0o700 if node == _ROOT else stat.S_IFREG | 0o600
        return _ATTRIBUTES.pack(
            *(node, size, size // 512, 0, 0, 0), *(0, 0, 0), *(mode, 1, 0, 0, 0, 4096, 0)
        )

    def init(self, _node: int, body: bytes) -> bytes:
        major, _minor, ahead, _flags = struct.unpack_from("=4I", body)
        assert major == 7
        pages = _WRITE_BYTES_MAX // 4096
        return struct.pack(
            "=4I2H2I2H8I",
            *(7, 31, ahead, _INIT_FLAGS, 16, 12, _WRITE_BYTES_MAX, 1, pages, 0),
            *([0] * 8),
        )

    def lookup(self, _node: int, body: bytes) -> bytes:
        node = _NAMES.get(body.rstrip(b"\0"))
        if node is None:
            raise OSError(errno.ENOENT, "")
        return _ENTRY.pack(node, 0, 3600, 3600, 0, 0) + self._attributes(node)

    def attributes(self, node: int, _body: bytes) -> bytes:
        return struct.pack("=QII", 3600, 0, 0) + self._attributes(node)

    def open(self, node: int, _body: bytes) -> bytes:
        return struct.pack("=QII", node, _DIRECT_IO if node == _MARK else 0, 0)

    def read(self, node: int, body: bytes) -> bytes:
        _handle, offset, size = struct.unpack_from("=QQI", body)
        return os.pread(self._image, size, offset) if node == _DISK else b""

    def write(self, node: int, body: bytes) -> bytes:
        _handle, offset, size = struct.unpack_from("=QQI", body)
        data = body[40 : 40 + size]
        if node == _DISK:
            os.pwrite(self._image, data, offset)
        self._log.write(ENTRY.pack(Kind.WRITE if node == _DISK else Kind.MARK, offset, size))
        self._log.write(data)
        return struct.pack("=II", size, 0)

    def sync(self, node: int, _body: bytes) -> bytes:
        if node == _DISK:
            self._log.write(ENTRY.pack(Kind.FLUSH, 0, 0))
        return b""

    def nothing(self, _node: int, _body: bytes) -> bytes:
        return b""

    def filesystem(self, _node: int, _body: bytes) -> bytes:
        return bytes(80)


_HANDLERS: dict[int, Callable[[BlockLog, int, bytes], bytes]] = {
    _INIT: BlockLog.init,
    _LOOKUP: BlockLog.lookup,
    _GETATTR: BlockLog.attributes,
    _SETATTR: BlockLog.attributes,
    _OPEN: BlockLog.open,
    _OPENDIR: BlockLog.open,
    _READ: BlockLog.read,
    _WRITE: BlockLog.write,
    _FSYNC: BlockLog.sync,
    _STATFS: BlockLog.filesystem,
    _READDIR: BlockLog.nothing,
    _RELEASE: BlockLog.nothing,
    _RELEASEDIR: BlockLog.nothing,
    _FLUSH: BlockLog.nothing,
    _ACCESS: BlockLog.nothing,
    _DESTROY: BlockLog.nothing,
}


def read_log(path: Path) -> list[tuple[Kind, int, bytes]]:
    """Return all entries of a log, in their order."""
    raw = path.read_bytes()
    entries, at = [], 0
    while at < len(raw):
        kind, offset, size = ENTRY.unpack_from(raw, at)
        at += ENTRY.size
        entries.append((Kind(kind), offset, raw[at : at + size]))
        at += size
    return entries
