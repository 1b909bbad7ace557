"""fdatasyncs per durable 64 KiB store, 64 at once: bare, and with each sync made to take 8 ms."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import report, spread
from benchmarks.rig import programs
from benchmarks.rig.entrance import enter, parser_of
from benchmarks.rig.errors import MeasuringError
from benchmarks.rig.place import place
from farmer.model.ids import NodeId
from farmer.storage.directory import create_volume
from farmer.storage.files import OsFiles

COUNT = 2000
ROUNDS = 3
STORER_S = 600.0
"""For one run; one that takes longer hangs."""
QUOTA = 4 * 1024**3
NODE = NodeId(bytes(32))

STORER = """
import sys
from pathlib import Path
from benchmarks.rig.population import Population
from benchmarks.rig.storing_many import data_of, endless_contract, open_engine, store_many
from farmer.model.ids import NodeId
engine = open_engine(Path(sys.argv[1]), int(sys.argv[2]), NodeId(bytes(32)))
shards = Population(int(sys.argv[3]), size_bytes=65536)
sys.stderr.write("BEGIN\\n")
seconds = store_many(engine, data_of(shards, endless_contract(NodeId(b"r" * 32))), 64)
sys.stderr.write("END\\n")
sys.stdout.write(str(seconds))
engine.close()
"""


def run(parent: Path, delay_us: int) -> tuple[float, float]:
    """Return fdatasyncs per shard and shards per second; raises `MeasuringError`."""
    with place(parent) as folder:
        volume, trace = folder / "volume", folder / "trace"
        create_volume(volume, NODE, OsFiles(), 0)
        slow = ("-e", f"inject=fdatasync:delay_exit={delay_us}") if delay_us else ()
        done = programs.run(
            [
                *("strace", "-f", "-o", str(trace), "-e", "trace=fdatasync,fsync,write"),
                *slow,
                *(sys.executable, "-c", STORER, str(volume), str(QUOTA), str(COUNT)),
            ],
            STORER_S,
        )
        if done.returncode:
            raise MeasuringError(f"the storing failed: {done.stderr[-1000:].strip()}")
        text = trace.read_text()
        stores = text[text.index("BEGIN") : text.index("END")]
        syncs = len(re.findall(r" (?:fdatasync|fsync)\(", stores))
        return syncs / COUNT, COUNT / float(done.stdout)


def main(words: Sequence[str]) -> int:
    parent = parser_of("benchmarks.group_commit").parse_args(words).dir
    bare = [run(parent, 0) for _ in range(ROUNDS)]
    disk = [run(parent, 8000) for _ in range(ROUNDS)]
    report(
        "group_commit",
        {
            "syncs per shard, each sync 8 ms longer (a disk)": spread([a for a, _ in disk]),
            "syncs per shard, bare": spread([a for a, _ in bare]),
            "shards/s, each sync 8 ms longer, under strace": spread([b for _, b in disk]),
            "shards/s, bare, under strace": spread([b for _, b in bare]),
            "aim, syncs per shard on a disk": 0.1,
        },
    )
    return 0


if __name__ == "__main__":
    enter(main)
