"""A power cut tears a batch in its middle: what the real writer wrote, and a start finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import RECORD_HEADER_BYTES, ShardState
from farmer.storage.directory import VolumeSettings
from farmer.storage.files import Access, OsFiles
from farmer.storage.records import decode_segment
from farmer.storage.scan import Found, Source, scan
from tests.storage.bench import ALICE, MIB, Farm, crash_copy, noise, shard_of
from tests.storage.recording import HeldFiles

PAGE = 4096
SIZE = 5000
RECORD = 2 * PAGE
SEGMENT = "log/00000001.seg"


def store_together(farm: Farm, files: HeldFiles, first: int) -> list[ShardId]:
    """Store two shards, and delete a third, while a sync is held: all in the next batch."""
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


def spoil(folder: Path, record: Found) -> None:
    with (folder / SEGMENT).open("r+b") as file:
        file.seek(record.offset + RECORD_HEADER_BYTES + 1000)
        file.write(b"torn")


@pytest.fixture
def files() -> HeldFiles:
    return HeldFiles()


@pytest.fixture
def farm(tmp_path: Path, files: HeldFiles) -> Farm:
    return Farm(tmp_path, files=files)


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


def test_each_record_says_how_far_into_its_batch_it_stands(farm: Farm, files: HeldFiles) -> None:
    store_together(farm, files, 0)
    farm.engine.close()
    before = [one.header.before_bytes for one in records(farm.path)]
    assert before == [0, 0, 0, RECORD, 2 * RECORD]


def test_what_was_torn_is_gone_for_good(farm: Farm, files: HeldFiles) -> None:
    torn, kept = store_together(farm, files, 0)
    copy = crashed(farm)
    spoil(copy, records(copy)[2])
    farm.open()
    held = {row.shard for row in farm.engine.page(ALICE, ShardId(bytes(32)), 10)}
    assert kept in held and torn not in held
    assert torn not in {one.header.shard for one in records(copy)}, "it waits for its marks to go"
    again = farm.store(noise(SIZE, 2)).shard
    assert again == torn
    farm.delete(torn, erase=True)
    farm.sweep()
    farm.engine.close()
    lose_index(copy)
    farm.open()
    held = {row.shard for row in farm.engine.page(ALICE, ShardId(bytes(32)), 10)}
    assert kept in held and torn not in held


def test_what_the_disk_damaged_before_the_last_batch_is_still_its_renters(
    farm: Farm, files: HeldFiles
) -> None:
    damaged, _ = store_together(farm, files, 0)
    store_together(farm, files, 10)
    copy = crashed(farm)
    spoil(copy, records(copy)[2])
    farm.open()
    assert farm.engine.stat(ALICE, damaged).state is ShardState.QUARANTINED
    assert "LogDamaged" not in {alert.name for alert in farm.engine.trouble()}
    farm.store(noise(SIZE, 2))
    assert farm.read(damaged) == noise(SIZE, 2)
