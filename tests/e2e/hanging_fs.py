"""
A real filesystem that can stop answering, or be slow: a plain directory, served again by FUSE.

Run by the system's Python, which has python3-fuse: `hanging_fs.py MOUNTPOINT DIRECTORY`.
Stopped by SIGSTOP it is a network share whose server has gone: every call hangs, and goes on
with SIGCONT.  While there is a file DIRECTORY.delay, reads and syncs take the seconds that it
says: a disk that tries again and again.  While there is a file DIRECTORY.dead, every call that
has come here waits: unlike one that nobody has read yet, the kernel cannot take it back.
A directory DIRECTORY.bad has a file for each block of 4096 bytes that cannot be read until it is
written, `NAME@OFFSET`: so a drive puts another sector in the place of a bad one.
"""

# mypy: ignore-errors
# The system's Python runs it: python3-fuse has no types, and speaks in plain paths.
# ruff: noqa: PTH100, PTH101, PTH102, PTH104, PTH106, PTH108, PTH110, PTH123, PTH208
from __future__ import annotations

import errno
import os
import sys
import time

import fuse

fuse.fuse_python_api = (0, 2)
ROOT = os.path.abspath(sys.argv[2])
BLOCK = 4096


def await_life():
    while os.path.exists(ROOT + ".dead"):
        time.sleep(0.1)


def tire():
    await_life()
    try:
        with open(ROOT + ".delay") as delay:
            seconds = float(delay.read())
    except (OSError, ValueError):
        return
    time.sleep(seconds)


def bad_blocks(name, length, offset):
    """Return the marks of the bad blocks that a stretch of a file of this name touches."""
    marks = []
    for block in range(offset // BLOCK * BLOCK, offset + length, BLOCK):
        mark = f"{ROOT}.bad/{name}@{block}"
        if os.path.exists(mark):
            marks.append((block, mark))
    return marks


class Handle:
    """An open file; a bare number would be taken for an error."""

    def __init__(self, path, flags, mode=0):
        self.fd = os.open(ROOT + path, flags, mode)
        self.name = path.rpartition("/")[2]


class Mirror(fuse.Fuse):
    """Passes every call on to the directory."""

    def getattr(self, path):
        await_life()
        return os.lstat(ROOT + path)

    def readdir(self, path, _offset):
        return [fuse.Direntry(name) for name in (".", "..", *os.listdir(ROOT + path))]

    def unlink(self, path):
        os.unlink(ROOT + path)

    def mkdir(self, path, mode):
        os.mkdir(ROOT + path, mode)

    def rmdir(self, path):
        os.rmdir(ROOT + path)

    def rename(self, old, new):
        os.rename(ROOT + old, ROOT + new)

    def link(self, old, new):
        os.link(ROOT + old, ROOT + new)

    def truncate(self, path, size):
        os.truncate(ROOT + path, size)

    def utime(self, path, times):
        os.utime(ROOT + path, times)

    def chmod(self, path, mode):
        os.chmod(ROOT + path, mode)

    def chown(self, path, user, group):
        os.chown(ROOT + path, user, group)

    def statfs(self):
        await_life()
        return os.statvfs(ROOT)

    def open(self, path, flags):
        return Handle(path, flags & ~os.O_NOFOLLOW)

    def create(self, path, flags, mode):
        return Handle(path, flags | os.O_CREAT, mode)

    def read(self, _path, length, offset, handle):
        tire()
        if bad_blocks(handle.name, length, offset):
            return -errno.EIO
        return os.pread(handle.fd, length, offset)

    def write(self, _path, data, offset, handle):
        await_life()
        for block, mark in bad_blocks(handle.name, len(data), offset):
            if offset > block or offset + len(data) < block + BLOCK:
                return -errno.EIO
            os.unlink(mark)
        return os.pwrite(handle.fd, data, offset)

    def fsync(self, _path, _data_only, handle):
        tire()
        os.fsync(handle.fd)

    def ftruncate(self, _path, size, handle):
        os.ftruncate(handle.fd, size)

    def release(self, _path, _flags, handle):
        os.close(handle.fd)


if __name__ == "__main__":
    server = Mirror()
    server.parse([sys.argv[1], "-f"])
    server.main()
