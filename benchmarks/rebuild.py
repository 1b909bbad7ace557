"""
How fast a lost index is made again from the records: many small shards of one renter.

`python -m benchmarks.rebuild --shards 10000000` writes the log of ten million straight, by the
format alone: 41 GB in three minutes, where storing them takes an hour.  The rebuild sees no
difference.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

from benchmarks.harness import report, spread
from benchmarks.rig.accounting import memory_bytes, reset_peak
from benchmarks.rig.entrance import enter, parser_of
from benchmarks.rig.place import place
from benchmarks.rig.population import Population
from benchmarks.rig.storing_many import data_of, endless_contract, open_engine, store_many
from farmer.model.ids import ContractId, NodeId, ShardId
from farmer.model.shard import charge_bytes
from farmer.storage.directory import Paths, VolumeSettings, create_volume, read_marker
from farmer.storage.files import OsFiles
from farmer.storage.opening import rebuild_index
from farmer.storage.quota import SEGMENT_BYTES_MAX
from farmer.storage.records import (
    SEGMENT_HEADER_BYTES,
    Kind,
    RecordHeader,
    SegmentHeader,
    crc_bytes,
    padding,
    segment_uuid,
)

COUNT = 200_000
ROUNDS = 3
SHARD_BYTES = 1024
QUOTA_PER_SHARD_BYTES = 40_000
NODE = NodeId(bytes(32))
RENTER = NodeId(b"r" * 32)
MIB = 1024**2


def fill(volume: Path, count: int) -> float:
    """Store the shards, 512 at once, and return how many a second."""
    create_volume(volume, NODE, OsFiles(), 0)
    engine = open_engine(volume, count * QUOTA_PER_SHARD_BYTES, NODE)
    try:
        shards = data_of(Population(count, size_bytes=SHARD_BYTES), endless_contract(RENTER))
        return count / store_many(engine, shards, 512)
    finally:
        engine.close()


def write_straight(volume: Path, count: int) -> float:
    """Write the log of so many shards as it would be, and return how many a second."""
    create_volume(volume, NODE, OsFiles(), 0)
    paths, marker = Paths(volume), read_marker(volume, NODE, OsFiles())
    began, end = time.monotonic(), 0
    in_segment = (SEGMENT_BYTES_MAX - SEGMENT_HEADER_BYTES) // charge_bytes(SHARD_BYTES)
    for number, written in enumerate(range(0, count, in_segment), 1):
        header = SegmentHeader(
            volume=marker.volume,
            segment=segment_uuid(marker.volume, number),
            number=number,
            first_sequence=written + 1,
            previous_end=end,
            created_at_ms=0,
        )
        end = _write_segment(paths.segment(number), header, min(in_segment, count - written))
    return count / (time.monotonic() - began)


def _write_segment(path: Path, header: SegmentHeader, count: int) -> int:
    block = bytes(32) + crc_bytes(bytes(SHARD_BYTES))
    ids = os.urandom(32 * count)
    with path.open("wb") as file:
        file.write(header.encode().ljust(SEGMENT_HEADER_BYTES, b"\0"))
        for at in range(count):
            record = RecordHeader(
                kind=Kind.SHARD,
                segment=header.segment,
                sequence=header.first_sequence + at,
                payload_bytes=SHARD_BYTES,
                trailer_bytes=len(block),
                trailer_crc=crc32(block),
                renter=RENTER,
                shard=ShardId(ids[32 * at : 32 * (at + 1)]),
                contract=ContractId(bytes(16)),
                stored_at_ms=header.first_sequence + at,
            )
            raw = record.encode() + bytes(SHARD_BYTES) + block
            file.write(raw + padding(len(raw)))
        return file.tell()


def rebuild(volume: Path, count: int) -> tuple[float, float, float]:
    """Return records per second, per second of processor, and the memory it took, in MiB."""
    before = memory_bytes("self", "VmRSS")
    reset_peak("self")
    settings = VolumeSettings(volume, count * QUOTA_PER_SHARD_BYTES)
    began, busy = time.monotonic(), time.process_time()
    recovered = rebuild_index(settings, NODE, OsFiles(), lambda _at, _of: None)
    seconds, busy = time.monotonic() - began, time.process_time() - busy
    assert (recovered.records, recovered.damaged) == (count, []), recovered
    return count / seconds, count / busy, (memory_bytes("self", "VmHWM") - before) / MIB


def main(words: Sequence[str]) -> int:
    parser = parser_of("benchmarks.rebuild")
    parser.add_argument("--shards", type=int, help="their log is written straight")
    asked = parser.parse_args(words)
    straight: int | None = asked.shards
    count = straight or COUNT
    with place(asked.dir) as folder:
        volume = folder / "volume"
        if straight:
            prepared = {"records written straight, a second": write_straight(volume, count)}
        else:
            stored = fill(volume, count)
            prepared = {"shards stored (1 KiB, durable, 512 at once), a second": stored}
        rounds = [rebuild(volume, count) for _ in range(ROUNDS)]
        report(
            "rebuild",
            {
                **{what: round(rate) for what, rate in prepared.items()},
                "records read by a rebuild, a second": spread([one[0] for one in rounds]),
                "the same per second of processor": spread([one[1] for one in rounds]),
                "memory it took above the process before, MiB": spread([one[2] for one in rounds]),
                "index, MiB": round((volume / "index.sqlite").stat().st_size / MIB),
            },
        )
    return 0


if __name__ == "__main__":
    enter(main)
