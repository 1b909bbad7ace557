"""On real filesystems: what is said to be given back really is, whatever `st_blocks` says."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farmer.model.shard import RECORD_ALIGNMENT_BYTES
from farmer.storage.files import Access, OsFiles
from farmer.storage.syscalls import gives_holes_back
from tests.crash.disks import make_image, mounted, need, unmount
from tests.needs import lack

MIB = 1024 * 1024
WRITTEN_BYTES = 32 * MIB
KEPT_EVERY = 16
"""Of so many records in a row one stays."""


@pytest.mark.parametrize("system", ["ext4", "xfs", "btrfs"])
def test_a_hole_between_records_is_space_for_others_or_not_made(
    tmp_path: Path, system: str
) -> None:
    """Btrfs keeps what was written before one sync as long as any of it is used."""
    need(system)
    image, disk = tmp_path / "image", tmp_path / "disk"
    make_image(image, system)
    disk.mkdir()
    with mounted(image, disk, system):
        files = OsFiles()
        fd = files.open(disk / "segment", Access.CREATE)
        try:
            written = os.urandom(WRITTEN_BYTES)
            files.pwritev(fd, [written], 0)
            files.sync_data(fd)
            before = taken_bytes(disk)
            given_back = punched_bytes(files, fd)
            files.sync_data(fd)
            files.sync_directory(disk)
            os.sync()
            freed = before - taken_bytes(disk)
            assert given_back in {0, WRITTEN_BYTES // KEPT_EVERY * (KEPT_EVERY - 1)}
            assert freed >= given_back - MIB
            if not given_back:
                assert files.pread(fd, WRITTEN_BYTES, 0) == written
        finally:
            files.close(fd)


def test_blocks_larger_than_a_record_give_nothing_back(tmp_path: Path) -> None:
    need("ext4")
    image, disk = tmp_path / "image", tmp_path / "disk"
    make_image(image, "ext4")
    disk.mkdir()
    with mounted(image, disk, "ext4"):
        fd = os.open(disk / "file", os.O_RDWR | os.O_CREAT)
        try:
            block_bytes = os.fstatvfs(fd).f_bsize
            assert gives_holes_back(fd, block_bytes)
            assert not gives_holes_back(fd, block_bytes // 2)
        finally:
            os.close(fd)


def test_what_lies_before_another_filesystem_gives_nothing_back(tmp_path: Path) -> None:
    """Its holes are those of the one below, which may be btrfs and cannot be asked."""
    need("btrfs")
    image, disk = tmp_path / "image", tmp_path / "disk"
    make_image(image, "btrfs")
    disk.mkdir()
    with mounted(image, disk, "btrfs"), overlaid(disk) as merged:
        files = OsFiles()
        fd = files.open(merged / "segment", Access.CREATE)
        try:
            files.pwritev(fd, [bytes(MIB)], 0)
            assert not files.punch(fd, 0, RECORD_ALIGNMENT_BYTES)
        finally:
            files.close(fd)


@contextmanager
def overlaid(disk: Path) -> Iterator[Path]:
    """Mount an overlay that writes to *disk*, as a container's own files are."""
    lower, upper, work, merged = (disk / name for name in ("lower", "upper", "work", "merged"))
    for directory in (lower, upper, work, merged):
        directory.mkdir()
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    asked = ["mount", "-t", "overlay", "-o", options, "overlay", str(merged)]
    if subprocess.run(asked, check=False, capture_output=True).returncode:
        lack("to mount an overlay")
    try:
        yield merged
    finally:
        unmount(merged)


def punched_bytes(files: OsFiles, fd: int) -> int:
    """Give back all records but some; return how much the farmer takes for given back."""
    hole_bytes = RECORD_ALIGNMENT_BYTES * (KEPT_EVERY - 1)
    step_bytes = RECORD_ALIGNMENT_BYTES * KEPT_EVERY
    starts = range(0, WRITTEN_BYTES, step_bytes)
    return sum(hole_bytes for start in starts if files.punch(fd, start, hole_bytes))


def taken_bytes(disk: Path) -> int:
    """Return what a whole filesystem has given away."""
    asked = os.statvfs(disk)
    return (asked.f_blocks - asked.f_bfree) * asked.f_frsize
