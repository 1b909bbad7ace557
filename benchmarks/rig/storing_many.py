"""Storing many small shards through the engine's real write path, in a process of its own."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import deque
from concurrent.futures import Future
from pathlib import Path

from farmer.audit.tree import TreeHasher
from farmer.identity.keys import Identity
from farmer.model.contract import Contract
from farmer.model.ids import ContractId, NodeId, ShardId
from farmer.model.shard import StoredShard
from farmer.storage.claims import EngineUpload
from farmer.storage.directory import VolumeSettings
from farmer.storage.engine import Engine, EngineLimits
from farmer.storage.errors import StorageError
from farmer.storage.files import OsFiles


def open_engine(volume: Path, quota_bytes: int, node: NodeId) -> Engine:
    """Open a volume as the daemon does."""
    return Engine(
        [VolumeSettings(volume, quota_bytes)],
        node,
        OsFiles(),
        clock_ms=lambda: time.time_ns() // 1_000_000,
        observed_ms=lambda: 0,
        limits=EngineLimits(uploads_per_renter_max=1024),
    )


def endless_contract(renter: NodeId) -> Contract:
    """Return a contract that never is the limit."""
    return Contract(
        contract=ContractId(renter.raw[:16]),
        farmer_key=bytes(32),
        renter=renter,
        revision=1,
        space_bytes=1 << 50,
        from_ms=0,
        until_ms=1 << 50,
        issued_at_ms=0,
    )


def shard_of(data: bytes) -> ShardId:
    """Return the id of some bytes."""
    hasher = TreeHasher()
    hasher.update(data)
    return hasher.finish().shard_id()


def store_many(
    engine: Engine, contract: Contract, count: int, size_bytes: int, outstanding: int
) -> float:
    """Store shards, so many at once, each acknowledged after its sync; return the seconds."""
    noise = os.urandom(size_bytes - 16)
    waiting: deque[Future[StoredShard]] = deque()
    began = time.monotonic()
    for number in range(count):
        data = number.to_bytes(8, "big") + os.urandom(8) + noise
        upload = engine.begin(contract, shard_of(data), size_bytes)
        assert isinstance(upload, EngineUpload)
        upload.write(data)
        waiting.append(upload.commit())
        if len(waiting) >= outstanding:
            waiting.popleft().result()
    for future in waiting:
        future.result()
    return time.monotonic() - began


def main() -> None:
    """Arguments: home volume quota count renter; stores, then ends as by kill -9: no closing."""
    home, volume, quota, count, renter = sys.argv[1:6]
    node = Identity.load(Path(home) / "identity").node_id
    engine = open_engine(Path(volume), int(quota), node)
    try:
        contract = endless_contract(NodeId(bytes.fromhex(renter)))
        seconds = store_many(engine, contract, int(count), 1024, 512)
    except StorageError:
        sys.stderr.write(f"{engine.volumes()}\n")
        raise
    sys.stdout.write(f"{seconds:.1f}\n")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
