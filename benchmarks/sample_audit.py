"""A sample audit of a 64 MiB shard, k = 20: bytes read at the file port, milliseconds warm."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import report, spread
from benchmarks.rig.entrance import enter, parser_of
from benchmarks.rig.place import place
from benchmarks.rig.population import shard_id
from benchmarks.rig.storing_many import endless_contract, open_engine
from farmer.audit.proof import verify_sample
from farmer.model.audit import AuditEntry
from farmer.model.ids import NodeId
from farmer.model.shard import BLOCK_BYTES
from farmer.storage.claims import EngineUpload
from farmer.storage.directory import create_volume
from farmer.storage.files import OsFiles

SIZE = 64 * 1024**2
SAMPLES = 20
ROUNDS = 50
NODE, RENTER = NodeId(bytes(32)), NodeId(b"r" * 32)


def read_bytes() -> int:
    """Return what this process has asked to read so far (rchar: cached or not)."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("rchar:"):
            return int(line.split()[1])
    raise LookupError


def main(words: Sequence[str]) -> int:
    with place(parser_of("benchmarks.sample_audit").parse_args(words).dir) as folder:
        volume = folder / "volume"
        create_volume(volume, NODE, OsFiles(), 0)
        engine = open_engine(volume, 4 * 1024**3, NODE)
        data = os.urandom(SIZE)
        shard = shard_id(data)
        upload = engine.begin(endless_contract(RENTER), shard, SIZE)
        assert isinstance(upload, EngineUpload)
        for at in range(0, SIZE, 1024**2):
            upload.write(data[at : at + 1024**2])
        upload.commit().result()
        entry = AuditEntry(shard, SIZE, SAMPLES)
        times, reads = [], []
        own = -read_bytes() + read_bytes()
        for _ in range(ROUNDS):
            nonce = os.urandom(32)
            before = read_bytes()
            began = time.perf_counter()
            proof = engine.prove_sample(RENTER, nonce, entry)
            times.append((time.perf_counter() - began) * 1000)
            reads.append(read_bytes() - before - own)
            verify_sample(shard, SIZE, nonce, SAMPLES, proof)
        engine.close()
        tree = SIZE // BLOCK_BYTES * 36
        report(
            "sample_audit",
            {
                "prove, warm, ms": spread(times),
                "bytes read by the process, the look-up in the index included": spread(reads),
                "bytes of 20 blocks, tree and checksums": SAMPLES * BLOCK_BYTES + tree,
                "aim, ms": 10,
            },
        )
    return 0


if __name__ == "__main__":
    enter(main)
