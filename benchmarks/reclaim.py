"""Giving back the space of deleted shards: holes punched, against segments written again."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import report, spread
from benchmarks.rig.entrance import enter, parser_of
from benchmarks.rig.holeless import WithoutHoles
from benchmarks.rig.place import place
from benchmarks.rig.population import Population, shard_id
from benchmarks.rig.storing_many import data_of, endless_contract, open_engine, store_many
from farmer.model.contract import TRASH_MS
from farmer.model.ids import NodeId
from farmer.storage.directory import create_volume
from farmer.storage.files import OsFiles
from tests.e2e.daemon import allocated_bytes

NODE, RENTER = NodeId(b"f" * 32), NodeId(b"r" * 32)
SHARDS, SHARD_BYTES = 3000, 60_000
QUOTA_BYTES = 1024**3
AT_ONCE = 200
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
    engine = open_engine(path, QUOTA_BYTES, NODE, files)
    shards = Population(SHARDS, size_bytes=SHARD_BYTES)
    store_many(engine, data_of(shards, endless_contract(RENTER)), AT_ONCE)
    chosen = random.Random(seed).sample(shards.numbers, int(share * SHARDS))
    given_up = [shard_id(shards.data(number)) for number in chosen]
    for future in [engine.delete(RENTER, shard, erase=False) for shard in given_up]:
        future.result()
    before = allocated_bytes(path / "log")
    began = time.perf_counter()
    engine.sweep(time.time_ns() // 1_000_000 + 2 * TRASH_MS, 2 * TRASH_MS)
    took = time.perf_counter() - began
    back = (before - allocated_bytes(path / "log")) / (len(chosen) * 61_440)
    extents = _extents(path / "log")
    engine.close()
    return took, back, extents


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
