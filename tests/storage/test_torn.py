"""A power cut tears a batch in its middle: what the real writer wrote, and a start finds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import RECORD_HEADER_BYTES, ShardState
from farmer.storage.directory import VolumeSettings
from farmer.storage.errors import CorruptShardError
from farmer.storage.files import Access, OsFiles
from farmer.storage.records import decode_segment
from farmer.storage.scan import Found, Source, scan
from tests.storage.bench import ALICE, MIB, Farm, crash_copy, noise, shard_of
from tests.storage.recording import HeldFiles

PAGE = 4096
SIZE = 5000
SEGMENT = "log/00000001.seg"


def store_together(farm: Farm, files: HeldFiles, first: int) -> list[ShardId]:
    """Hold one store's sync; two more, which are returned, and a deletion wait for the next."""
    gone = farm.store(noise(SIZE, first)).shard
    files.hold()
    files.reached.clear()
    files.let_go.clear()
    uploads = [farm.begin(noise(SIZE, first + number)) for number in (1, 2, 3)]
    for number, upload in enumerate(uploads, first + 1):
        upload.write(noise(SIZE, number))
    waiting = [uploads[0].commit()]
    assert files.reached.wait(5)
    waiting += [upload.commit() for upload in uploads[1:]]
    deleting = farm.engine.delete(ALICE, gone, erase=False)
    files.let_go.set()
    for future in waiting:
        future.result(5)
    deleting.result(5)
    return [shard_of(noise(SIZE, first + number)) for number in (2, 3)]


def records(folder: Path) -> list[Found]:
    files, path = OsFiles(), folder / SEGMENT
    fd = files.open(path, Access.READ)
    try:
        uuid = decode_segment(files.pread(fd, PAGE, 0), "").segment
        found = scan(Source(files, fd, uuid, ""), PAGE, files.size(fd), verify=False)
        return [one for one in found if isinstance(one, Found)]
    finally:
        files.close(fd)


def spoil(folder: Path, record: Found, behind_bytes: int = 1000) -> None:
    with (folder / SEGMENT).open("r+b") as file:
        file.seek(record.offset + RECORD_HEADER_BYTES + behind_bytes)
        file.write(b"torn")


@pytest.fixture
def files() -> HeldFiles:
    return HeldFiles()


@pytest.fixture
def farm(tmp_path: Path, files: HeldFiles) -> Iterator[Farm]:
    farm = Farm(tmp_path, files=files)
    yield farm
    farm.engine.close()


def crashed(farm: Farm) -> Path:
    """Have the farm go on with what a crash leaves right now, of the log alone."""
    copy = farm.path.with_name("copy")
    crash_copy(farm.path, copy)
    farm.engine.close()
    farm.settings = [VolumeSettings(copy, 64 * MIB)]
    lose_index(copy)
    return copy


def lose_index(folder: Path) -> None:
    for path in folder.glob("index.sqlite*"):
        path.unlink()


def held(farm: Farm) -> dict[ShardId, ShardState]:
    return {row.shard: row.state for row in farm.engine.page(ALICE, ShardId(bytes(32)), 99)}


@pytest.mark.parametrize("is_followed", [False, True])
def test_what_was_torn_or_damaged_is_damaged_until_it_is_stored_again_or_erased(
    farm: Farm, files: HeldFiles, is_followed: bool
) -> None:
    """Torn, it was promised to nobody; but that cannot be told from what a disk does later."""
    torn, kept = store_together(farm, files, 0)
    if is_followed:
        store_together(farm, files, 10)
    copy = crashed(farm)
    spoil(copy, records(copy)[2])
    farm.open()
    assert held(farm)[torn] is ShardState.QUARANTINED
    assert held(farm)[kept] is ShardState.LIVE
    assert {alert.name for alert in farm.engine.trouble()} == {"IndexRebuilt"}
    farm.store(noise(SIZE, 2))
    assert farm.read(torn) == noise(SIZE, 2)
    farm.delete(torn, erase=True)
    farm.sweep()
    farm.engine.close()
    lose_index(copy)
    farm.open()
    assert kept in held(farm) and torn not in held(farm)


def test_a_torn_second_record_takes_nothing_from_the_first(farm: Farm) -> None:
    """A damaged shard is stored again: as long as that may be untold, what was there counts."""
    data = noise(3 * 65_536)
    shard = farm.store(data).shard
    (first,) = records(farm.path)
    spoil(farm.path, first)
    with pytest.raises(CorruptShardError):
        farm.read(shard)
    farm.store(data)
    farm.store(noise(SIZE))
    copy = crashed(farm)
    (second,) = (one for one in records(copy)[1:] if one.header.shard == shard)
    for block in (1, 2):
        spoil(copy, second, behind_bytes=block * 65_536)
    farm.open()
    assert held(farm)[shard] is ShardState.QUARANTINED
    reader = farm.engine.open(ALICE, shard)
    try:
        assert reader.read(65_536, 2 * 65_536) == data[65_536:]
    finally:
        reader.close()
    assert [one.header.shard for one in records(copy)].count(shard) == 1
