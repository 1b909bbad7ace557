"""Loop devices and mounts of our own, by the system's own calls: no subprocess for each."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.needs import lack

MIB = 1024 * 1024
SIZES = {"ext4": 64 * MIB, "xfs": 320 * MIB, "btrfs": 160 * MIB}
MAKERS = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-b", "4096"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}

_LOOP_SET_FD, _LOOP_CLR_FD, _LOOP_CTL_GET_FREE = 0x4C00, 0x4C01, 0x4C82
_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, 2
_MNT_DETACH = 2


def missing(*systems: str) -> str:
    """Return what is missing for filesystems to be made and mounted here, or nothing."""
    if os.geteuid() != 0:
        return "to be root"
    for device in ("/dev/loop-control", "/dev/fuse"):
        if not Path(device).exists():
            return device
    for system in systems:
        if not shutil.which(MAKERS[system][0]):
            return f"the program {MAKERS[system][0]!r}"
    return ""


def need(*systems: str) -> None:
    """Skip a test where filesystems cannot be made, but never in CI."""
    if what := missing(*systems):
        lack(what)


def make_image(path: Path, system: str, size_bytes: int = 0) -> None:
    """Make a file with an empty filesystem in it, sparse."""
    with path.open("wb") as file:
        file.truncate(size_bytes or SIZES[system])
    subprocess.run([*MAKERS[system], str(path)], check=True, capture_output=True)
    subprocess.run(["fallocate", "--dig-holes", str(path)], check=False)


@contextmanager
def mounted(image: Path, folder: Path, system: str) -> Iterator[Path]:
    """Mount an image on a directory; raises `OSError` if it cannot be."""
    with looped(image) as device:
        mount(device, folder, system)
        try:
            yield folder
        finally:
            unmount(folder)


@contextmanager
def looped(image: Path) -> Iterator[str]:
    """Lend a loop device over a file; buffered, so that the filesystem has a cache to flush."""
    device, loop = _attach(image)
    try:
        yield device
    finally:
        fcntl.ioctl(loop, _LOOP_CLR_FD)
        os.close(loop)


def _attach(image: Path) -> tuple[str, int]:
    control = os.open("/dev/loop-control", os.O_RDWR)
    backing = os.open(image, os.O_RDWR)
    try:
        for _ in range(100):
            device = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            try:
                loop = os.open(device, os.O_RDWR)
            except FileNotFoundError:
                time.sleep(0.01)
                continue
            try:
                fcntl.ioctl(loop, _LOOP_SET_FD, backing)
            except OSError:
                # Somebody else took it meanwhile.
                os.close(loop)
                time.sleep(0.002)
                continue
            return device, loop
    finally:
        os.close(control)
        os.close(backing)
    raise OSError("no free loop device")


def mount(device: str, folder: Path, system: str) -> None:
    """Mount a device; raises `OSError`."""
    options = b"nouuid" if system == "xfs" else b""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(device.encode(), os.fsencode(folder), system.encode(), 0, options):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(folder))


def unmount(folder: Path) -> None:
    """Unmount, waiting a little for who still has it open; then by force."""
    libc = ctypes.CDLL(None, use_errno=True)
    for _ in range(200):
        if not libc.umount2(os.fsencode(folder), 0):
            return
        time.sleep(0.01)
    if libc.umount2(os.fsencode(folder), _MNT_DETACH):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(folder))


def cut_the_power(folder: Path) -> None:
    """
    Stop a mounted ext4 or xfs as a power cut does: nothing that is not on the disk gets there.

    XFS_IOC_GOINGDOWN with NOLOGFLUSH, which ext4 has as well; every call fails afterwards.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
    finally:
        os.close(fd)
