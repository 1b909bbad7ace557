"""What the tests of the engine share: a farmer's disk in a directory, renters, shards."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from farmer.audit.tree import TreeHasher
from farmer.model.contract import Contract
from farmer.model.ids import ContractId, NodeId, ShardId
from farmer.model.shard import StoredShard
from farmer.storage.claims import EngineUpload
from farmer.storage.directory import VolumeSettings, create_volume
from farmer.storage.engine import Engine, EngineLimits
from farmer.storage.files import Files, OsFiles
from farmer.storage.moving import Mover
from farmer.storage.places import Place, Row
from farmer.storage.volume import Volume

MIB = 1024 * 1024
NODE = NodeId(b"f" * 32)
ALICE = NodeId(b"a" * 32)
BOB = NodeId(b"b" * 32)
DAY_MS = 86_400_000
LIMITS = EngineLimits(shard_bytes_max=64 * MIB)


class Clocks:
    """Wall time and observed time, moved by hand."""

    def __init__(self) -> None:
        self.now_ms = 1_800_000_000_000
        self.observed_ms = 5_000_000

    def pass_days(self, days: float) -> None:
        self.now_ms += int(days * DAY_MS)
        self.observed_ms += int(days * DAY_MS)


def contract_of(renter: NodeId, space_bytes: int = 1 << 40) -> Contract:
    return Contract(
        contract=ContractId(renter.raw[:16]),
        farmer_key=bytes(32),
        renter=renter,
        revision=1,
        space_bytes=space_bytes,
        from_ms=0,
        until_ms=1 << 50,
        issued_at_ms=0,
    )


def shard_of(data: bytes) -> ShardId:
    hasher = TreeHasher()
    hasher.update(data)
    return hasher.finish().shard_id()


def noise(size_bytes: int, seed: object = 0) -> bytes:
    return random.Random(str((size_bytes, seed))).randbytes(size_bytes)


def row(number: int = 1, **fields: object) -> Row:
    """Return what an index may know of a small shard; *fields* say what else than usual."""
    usual = Row(
        renter=ALICE,
        shard=ShardId(bytes([number]) * 32),
        place=Place(1, 4096 * number),
        size_bytes=100,
        contract=ContractId(bytes(16)),
        stored_at_ms=number,
        sequence=number,
    )
    return replace(usual, **fields)  # type: ignore[arg-type]  # a test's shorthand


def open_files(below: Path) -> list[Path]:
    """Return the files in a directory that this process has open, one for each descriptor."""
    opened = []
    for fd in Path("/proc/self/fd").iterdir():
        # Among them is the one by which this directory is listed.
        with suppress(FileNotFoundError):
            opened.append(fd.readlink())
    return [path for path in opened if path.is_relative_to(below)]


class Farm:
    """One engine over fresh volumes, which can be closed, dropped and opened again."""

    def __init__(
        self,
        root: Path,
        *,
        quota_bytes: int = 64 * MIB,
        volumes: int = 1,
        files: Files | None = None,
        limits: EngineLimits = LIMITS,
        annexes: Path | None = None,
    ) -> None:
        self.files = files or OsFiles()
        self.annexes = annexes
        self.clocks = Clocks()
        self.limits = limits
        self.settings = [
            VolumeSettings(root / f"volume{number}", quota_bytes) for number in range(volumes)
        ]
        for settings in self.settings:
            if not settings.path.exists():
                create_volume(settings.path, NODE, OsFiles(), self.clocks.now_ms)
        self.engine = self.open()

    def open(self) -> Engine:
        self.engine = Engine(
            self.settings,
            NODE,
            self.files,
            clock_ms=lambda: self.clocks.now_ms,
            observed_ms=lambda: self.clocks.observed_ms,
            limits=self.limits,
            annexes=self.annexes,
        )
        return self.engine

    def reopen(self) -> Engine:
        self.engine.close()
        return self.open()

    @property
    def path(self) -> Path:
        return self.settings[0].path

    def begin(self, data: bytes, renter: NodeId = ALICE) -> EngineUpload:
        upload = self.engine.begin(contract_of(renter), shard_of(data), len(data))
        assert isinstance(upload, EngineUpload)
        return upload

    def store(self, data: bytes, renter: NodeId = ALICE) -> StoredShard:
        begun = self.engine.begin(contract_of(renter), shard_of(data), len(data))
        if isinstance(begun, StoredShard):
            return begun
        try:
            for start in range(begun.offset, len(data), 256 * 1024):
                begun.write(data[start : start + 256 * 1024])
            return begun.commit().result(20)
        except BaseException:
            # As whoever serves does it.
            begun.abandon()
            raise

    def read(self, shard: ShardId, renter: NodeId = ALICE) -> bytes:
        reader = self.engine.open(renter, shard)
        try:
            return reader.read(0, reader.stored.size_bytes)
        finally:
            reader.close()

    def delete(self, shard: ShardId, renter: NodeId = ALICE, *, erase: bool = False):  # type: ignore[no-untyped-def]  # a test's shorthand
        return self.engine.delete(renter, shard, erase=erase).result(20)

    def sweep(self) -> int:
        return self.engine.sweep(self.clocks.now_ms, self.clocks.observed_ms)


def finished(mover: Mover) -> list[Volume]:
    """Return the volumes that were to be emptied and are; what cannot go is given up if wanted."""
    return [volume for volume in mover.leaving.values() if mover.finish(volume)]


def crash_copy(source: Path, target: Path) -> None:
    """Copy a volume while it is used: what a kill leaves behind, holes included."""
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir(parents=True)
        else:
            copy.parent.mkdir(parents=True, exist_ok=True)
            _sparse_copy(path, copy)


def _sparse_copy(source: Path, target: Path) -> None:
    with source.open("rb") as old, target.open("wb") as new:
        size = os.fstat(old.fileno()).st_size
        new.truncate(size)
        at = 0
        while at < size:
            try:
                start = os.lseek(old.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(old.fileno(), start, os.SEEK_HOLE)
            os.pwrite(new.fileno(), os.pread(old.fileno(), at - start, start), start)
        if source.suffix == ".part" and size:
            os.posix_fallocate(new.fileno(), 0, size)


def are_closed(connections: Iterable[sqlite3.Connection]) -> bool:
    """Say whether no database is open any more."""
    for one in connections:
        try:
            one.execute("SELECT 1")
        except sqlite3.ProgrammingError:
            continue
        return False
    return True
