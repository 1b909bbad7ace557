"""What a disk can do by itself, asked as a farmer would ask it."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from farmer.model.shard import BLOCK_BYTES

PIECE_BYTES: Final = 4 * 1024 * 1024
FLUSHED_BYTES: Final = 4096
_MB: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class DiskFigures:
    """Rates of one directory's disk; each over a second or more."""

    write_mb_per_s: float
    """One large file, written and synced."""
    read_mb_per_s: float
    """The same file, past the page cache as far as the kernel lets us."""
    flushes_per_s: float
    """4 KiB appended and synced, one after the other."""
    durable_per_s: float
    """64 KiB appended and synced, one after the other."""
    flush_ms: float
    """Median of one flush."""
    random_reads_per_s: float
    """64 KiB from anywhere in the file, one after the other."""


def measure_disk(folder: Path, file_bytes: int, seconds: float) -> DiskFigures:
    """
    Measure with a file of so many bytes; each figure takes about *seconds*, or one pass.

    Raises:
        OSError: the disk failed, or is full.  The file is removed in any case.

    """
    path = folder / "disk"
    try:
        write_s = _timed(lambda: _write(path, file_bytes))
        read_s = _timed(lambda: _read(path, file_bytes))
        reads = _random_reads(path, file_bytes, seconds)
        path.unlink()
        flushes = _flushes(path, FLUSHED_BYTES, file_bytes, seconds)
        path.unlink()
        durable = _flushes(path, BLOCK_BYTES, file_bytes, seconds)
    finally:
        path.unlink(missing_ok=True)
    return DiskFigures(
        write_mb_per_s=file_bytes / write_s / _MB,
        read_mb_per_s=file_bytes / read_s / _MB,
        flushes_per_s=len(flushes) / sum(flushes),
        durable_per_s=len(durable) / sum(durable),
        flush_ms=statistics.median(flushes) * 1000,
        random_reads_per_s=reads,
    )


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return max(1e-6, time.perf_counter() - began)


def _write(path: Path, file_bytes: int) -> None:
    # Random, for some disks compress; the same piece again and again, for making it takes time.
    piece = os.urandom(PIECE_BYTES)
    with path.open("wb", buffering=0) as file:
        for _ in range(file_bytes // PIECE_BYTES):
            file.write(piece)
        os.fdatasync(file.fileno())


def _read(path: Path, file_bytes: int) -> None:
    with path.open("rb", buffering=0) as file:
        _forget(file.fileno(), file_bytes)
        while file.read(PIECE_BYTES):
            pass


def _random_reads(path: Path, file_bytes: int, seconds: float) -> float:
    blocks = list(range(file_bytes // BLOCK_BYTES))
    random.shuffle(blocks)
    count, began = 0, time.perf_counter()
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        _forget(file.fileno(), file_bytes)
        for block in blocks:
            os.pread(file.fileno(), BLOCK_BYTES, block * BLOCK_BYTES)
            count += 1
            if time.perf_counter() - began > seconds:
                break
    return count / (time.perf_counter() - began)


def _flushes(path: Path, size_bytes: int, file_bytes: int, seconds: float) -> list[float]:
    """Return how long each took; the file begins anew before it is larger than *file_bytes*."""
    piece, took = os.urandom(size_bytes), []
    until = time.perf_counter() + seconds
    with path.open("wb", buffering=0) as file:
        while time.perf_counter() < until:
            if file.tell() + size_bytes > file_bytes:
                # Not only written over: to append takes the disk longer.
                file.seek(0)
                file.truncate()
            began = time.perf_counter()
            file.write(piece)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return took


def _forget(fd: int, file_bytes: int) -> None:
    os.posix_fadvise(fd, 0, file_bytes, os.POSIX_FADV_DONTNEED)
