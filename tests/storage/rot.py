"""What time does to disks, done to a volume's real files."""

from __future__ import annotations

from pathlib import Path

from farmer.model.ids import NodeId, ShardId
from farmer.storage.damage import span_of
from farmer.storage.places import Row
from farmer.storage.records import checksums_offset, tree_offset
from farmer.storage.volume import Volume
from tests.storage.bench import ALICE, Farm


def volume_of(farm: Farm) -> Volume:
    (slot,) = farm.engine._slots
    assert slot.volume is not None
    return slot.volume


def row_of(farm: Farm, shard: ShardId, renter: NodeId = ALICE) -> Row:
    row = volume_of(farm).find(renter, shard)
    assert row is not None
    return row


def file_of(farm: Farm, row: Row) -> Path:
    return volume_of(farm).handles.path_of(row.place)


def flip(path: Path, offset: int) -> None:
    """Change one bit of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


PAGE_BYTES = 4096
FOLIO_BYTES = 128 * 1024
"""What the kernel reads at once, of a file that is read on; in it one bad page spoils all."""


def is_spoiled(spot: int, offset: int, length: int, *, apart: bool) -> bool:
    """Say whether a read of a range touches a bad spot, or unless *apart* what it spoils."""
    unit = PAGE_BYTES if apart else FOLIO_BYTES
    return offset // unit <= spot // unit <= (offset + length - 1) // unit


WHERE = ("header", "payload", "tree", "checksums")


def rot(farm: Farm, row: Row, where: str, block: int = 0) -> None:
    """Change one bit of a record: in its header, or of one block, its hash or its checksum."""
    at = {
        "header": 60,
        "payload": 256 + span_of(block, row.size_bytes)[0] + 7,
        "tree": tree_offset(row.size_bytes) + 32 * block + 3,
        "checksums": checksums_offset(row.size_bytes) + 4 * block + 1,
    }[where]
    flip(file_of(farm, row), row.place.offset + at)
