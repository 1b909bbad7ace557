"""
Rot planted on a volume's real files, and a scrub under load: `python -m tests.scrubbing`.

    --rounds N    volumes of 100 shards, one bit changed in each; default 3
    --seconds S   stores, deletes and compactions while scrubs run; default 25, twice

A byte served wrong, or a sound shard blamed, ends the run at once.  The last line has the counts;
the exit code is 1 if anything was missed.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from farmer.model.ids import ShardId
from farmer.model.shard import BLOCK_BYTES
from tests.storage.bench import MIB, Farm, noise
from tests.storage.rot import WHERE, rot, row_of
from tests.storage.test_damage import served
from tests.storage.test_scrub import churned, scrub

SHARDS = 100
SIZES = (3804, 5000, BLOCK_BYTES, 300_000, MIB + 1)


def planted(root: Path, seed: int) -> tuple[int, int, int]:
    """Return how many of the damaged shards one pass found, blocks served right, and missing."""
    farm, chance = Farm(root, quota_bytes=512 * MIB), random.Random(seed)
    shards: dict[ShardId, tuple[bytes, str, int]] = {}
    for number in range(SHARDS):
        data = noise(chance.choice(SIZES), (seed, number))
        block = chance.randrange(-(-len(data) // BLOCK_BYTES))
        shards[farm.store(data).shard] = (data, chance.choice(WHERE), block)
    for shard, (_data, where, block) in shards.items():
        rot(farm, row_of(farm, shard), where, block)
    status = scrub(farm)
    right = missing = 0
    for shard, (data, where, block) in shards.items():
        blocks = set(range(-(-len(data) // BLOCK_BYTES)))
        found = served(farm, shard, data)
        right += len(found)
        missing += len(blocks - found - ({block} if where == "payload" else set()))
    farm.engine.close()
    return status.damaged + status.mended, right, missing


def main() -> int:
    """Run all of it."""
    words = argparse.ArgumentParser("python -m tests.scrubbing")
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--seconds", type=float, default=25.0)
    words.add_argument("--seed", type=int, default=1)
    asked = words.parse_args()
    found = right = missing = passes = 0
    with tempfile.TemporaryDirectory() as directory:
        for number in range(asked.rounds):
            some = planted(Path(directory) / f"rot{number}", asked.seed + number)
            found, right, missing = found + some[0], right + some[1], missing + some[2]
        for can_punch in (True, False):
            root = Path(directory) / f"stress{can_punch}"
            passes += churned(root, can_punch=can_punch, seconds=asked.seconds)
    planted_shards = asked.rounds * SHARDS
    print(
        f"planted {planted_shards} found {found} blocks_served {right} missing {missing}"
        f" passes_under_load {passes}"
    )
    return 0 if found == planted_shards and not missing and passes > 1 else 1


if __name__ == "__main__":
    sys.exit(main())
