"""How fast a lost index is made again from the records: many small shards of one renter."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.harness import memory_bytes, report, reset_peak, spread
from benchmarks.loading import endless_contract, open_engine, store_many
from farmer.model.ids import NodeId
from farmer.storage.directory import VolumeSettings, create_volume
from farmer.storage.files import OsFiles
from farmer.storage.opening import rebuild_index

COUNT = 200_000
ROUNDS = 3
QUOTA = 8_000_000_000
NODE = NodeId(bytes(32))
MIB = 1024**2


def fill(volume: Path) -> float:
    """Store the shards, 512 at once, and return how many a second."""
    create_volume(volume, NODE, OsFiles(), 0)
    engine = open_engine(volume, QUOTA, NODE)
    try:
        return COUNT / store_many(engine, endless_contract(NodeId(b"r" * 32)), COUNT, 1024, 512)
    finally:
        engine.close()


def rebuild(volume: Path) -> tuple[float, float, float]:
    """Return records per second, per second of processor, and the memory it took, in MiB."""
    before = memory_bytes("self", "VmRSS")
    reset_peak("self")
    began, busy = time.monotonic(), time.process_time()
    recovered = rebuild_index(
        VolumeSettings(volume, QUOTA), NODE, OsFiles(), lambda _at, _of: None
    )
    seconds, busy = time.monotonic() - began, time.process_time() - busy
    assert recovered.records == COUNT, recovered
    return COUNT / seconds, COUNT / busy, (memory_bytes("self", "VmHWM") - before) / MIB


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        volume = Path(folder) / "volume"
        stored = fill(volume)
        rounds = [rebuild(volume) for _ in range(ROUNDS)]
        report(
            "rebuild",
            {
                "shards stored (1 KiB, durable, 512 at once), a second": round(stored),
                "records read by a rebuild, a second": spread([one[0] for one in rounds]),
                "the same per second of processor": spread([one[1] for one in rounds]),
                "memory it took above the process before, MiB": spread([one[2] for one in rounds]),
            },
        )


if __name__ == "__main__":
    main()
