"""Storing many small shards through the engine's real write path, in a process of its own."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Final

from benchmarks.rig.population import Population, shard_id
from farmer.identity.keys import Identity
from farmer.model.contract import Contract
from farmer.model.ids import ContractId, NodeId
from farmer.model.shard import StoredShard
from farmer.storage.claims import EngineUpload
from farmer.storage.directory import VolumeSettings
from farmer.storage.engine import Engine, EngineLimits
from farmer.storage.errors import StorageError
from farmer.storage.files import OsFiles

Upload = tuple[Contract, bytes]

_REAL: Final = OsFiles()


def open_engine(volume: Path, quota_bytes: int, node: NodeId, files: OsFiles = _REAL) -> Engine:
    """Open a volume as the daemon does."""
    return Engine(
        [VolumeSettings(volume, quota_bytes)],
        node,
        files,
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


def data_of(shards: Population, contract: Contract) -> Iterator[Upload]:
    """Make all shards of a population, for one renter, as they are taken."""
    return ((contract, shards.data(number)) for number in shards.numbers)


def store_many(engine: Engine, uploads: Iterable[Upload], outstanding: int) -> float:
    """Store shards, so many at once, each acknowledged after its sync; return the seconds."""
    waiting: deque[Future[StoredShard]] = deque()
    began = time.monotonic()
    for contract, data in uploads:
        upload = engine.begin(contract, shard_id(data), len(data))
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
        seconds = store_many(engine, data_of(Population(int(count)), contract), 512)
    except StorageError:
        sys.stderr.write(f"{engine.volumes()}\n")
        raise
    sys.stdout.write(f"{seconds:.1f}\n")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
