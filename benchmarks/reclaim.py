"""Giving back the space of deleted shards: holes punched, against segments written again."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from benchmarks.harness import report, spread
from benchmarks.rig.entrance import enter, parser_of
from benchmarks.rig.holeless import WithoutHoles
from benchmarks.rig.place import place
from farmer.audit.tree import TreeHasher
from farmer.model.contract import TRASH_MS, Contract
from farmer.model.ids import ContractId, NodeId, ShardId
from farmer.model.shard import StoredShard
from farmer.storage.directory import VolumeSettings, create_volume
from farmer.storage.engine import Engine, EngineLimits
from farmer.storage.files import OsFiles
from tests.e2e.daemon import allocated_bytes

NODE, RENTER = NodeId(b"f" * 32), NodeId(b"r" * 32)
SHARDS, SHARD_BYTES = 3000, 60_000
QUOTA_BYTES = 1024**3
ROUNDS = 3
SHARES = (0.1, 0.5, 0.9)


def main(words: Sequence[str]) -> int:
    """Measure both ways at several shares of deleted shards."""
    parent = parser_of("benchmarks.reclaim").parse_args(words).dir
    figures: dict[str, object] = {"shards": SHARDS, "shard_bytes": SHARD_BYTES}
    for share in SHARES:
        for name, files in (("holes", OsFiles()), ("copies", WithoutHoles())):
            seconds, returned, extents = [], [], []
            for seed in range(ROUNDS):
                with place(parent) as folder:
                    took, back, pieces = _measure(folder / "volume", files, share, seed)
                seconds.append(took)
                returned.append(100 * back)
                extents.append(pieces)
            label = f"{name}, {share:.0%} deleted"
            figures[f"{label}: seconds"] = spread(seconds)
            figures[f"{label}: % of the deleted bytes returned"] = spread(returned)
            figures[f"{label}: extents in the log"] = spread(extents)
    report("reclaim", figures)
    return 0


def _measure(path: Path, files: OsFiles, share: float, seed: int) -> tuple[float, float, int]:
    create_volume(path, NODE, files, 0)
    now_ms = 10 * TRASH_MS
    engine = Engine(
        [VolumeSettings(path, QUOTA_BYTES)],
        NODE,
        files,
        clock_ms=lambda: now_ms,
        observed_ms=lambda: now_ms,
        limits=EngineLimits(uploads_per_renter_max=1000),
    )
    shards = _store(engine, random.Random(seed))
    chosen = random.Random(seed).sample(shards, int(share * len(shards)))
    for future in [engine.delete(RENTER, shard, erase=False) for shard in chosen]:
        future.result()
    before = allocated_bytes(path / "log")
    began = time.perf_counter()
    engine.sweep(now_ms + TRASH_MS, now_ms + TRASH_MS)
    took = time.perf_counter() - began
    back = (before - allocated_bytes(path / "log")) / (len(chosen) * 61_440)
    extents = _extents(path / "log")
    engine.close()
    return took, back, extents


def _store(engine: Engine, rng: random.Random) -> list[ShardId]:
    contract = Contract(
        contract=ContractId(bytes(16)),
        farmer_key=bytes(32),
        renter=RENTER,
        revision=1,
        space_bytes=QUOTA_BYTES,
        from_ms=0,
        until_ms=1 << 50,
        issued_at_ms=0,
    )
    shards, waiting = [], deque[Future[StoredShard]]()
    for _ in range(SHARDS):
        data = rng.randbytes(SHARD_BYTES)
        hasher = TreeHasher()
        hasher.update(data)
        shards.append(hasher.finish().shard_id())
        upload = engine.begin(contract, shards[-1], SHARD_BYTES)
        assert not isinstance(upload, StoredShard)
        upload.write(data)
        waiting.append(upload.commit())
        if len(waiting) > 200:
            waiting.popleft().result()
    for future in waiting:
        future.result()
    return shards


def _extents(directory: Path) -> int:
    """Return how many pieces the files have, or 0 without the program that counts them."""
    filefrag = shutil.which("filefrag")
    if filefrag is None:
        return 0
    answer = subprocess.run(
        [filefrag, *map(str, directory.iterdir())], capture_output=True, text=True, check=True
    )
    return sum(int(line.rsplit(": ", 1)[1].split()[0]) for line in answer.stdout.splitlines())


if __name__ == "__main__":
    enter(main)
