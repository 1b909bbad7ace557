"""Damage and loss: what a start, a rebuild and a read make of a disk that is not as it was."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import ShardState, charge_bytes
from farmer.model.status import VolumeState
from farmer.storage.directory import (
    VolumeSettings,
    VolumeSetupError,
    create_volume,
    lock_volume,
    read_marker,
)
from farmer.storage.errors import (
    CorruptShardError,
    FormatTooNewError,
    ShardNotFoundError,
    VolumeUnavailableError,
)
from farmer.storage.files import Access, OsFiles
from farmer.storage.opening import rebuild_index
from farmer.storage.records import RECORD_VERSION, RecordHeader, decode_record
from farmer.storage.syscalls import punch_hole
from tests.storage.bench import ALICE, BOB, MIB, NODE, Farm, crash_copy, noise, shard_of
from tests.storage.recording import RecordingFiles
from tests.storage.rot import row_of, volume_of

SEGMENT = "log/00000001.seg"


def change(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def lose_index(farm: Farm) -> None:
    for path in farm.path.glob("index.sqlite*"):
        path.unlink()


def own_file(farm: Farm) -> Path:
    return next(iter([*farm.path.glob("staging/*.part"), *farm.path.glob("shards/*/*.seg")]))


PAYLOAD = 4096 + 256 + 70_000


@pytest.mark.parametrize(
    "offset",
    [
        pytest.param(4096 + 60, id="header"),
        pytest.param(PAYLOAD, id="payload"),
        pytest.param(4096 + 256 + 100_000 + 3, id="tree"),
        pytest.param(4096 + 256 + 100_000 + 65, id="checksums"),
    ],
)
def test_a_flipped_bit_is_never_served_and_puts_the_shard_into_quarantine(
    farm: Farm, offset: int
) -> None:
    data = noise(100_000)
    shard = farm.store(data).shard
    flip(farm.path / SEGMENT, offset)
    for _ in range(2):
        with suppress(CorruptShardError):
            assert farm.read(shard) == data, "the tree still proves it"
            assert offset != PAYLOAD
        assert farm.engine.stat(ALICE, shard).state is ShardState.QUARANTINED
        assert farm.engine.volumes()[0].quarantined == 1
        farm.reopen()
    farm.store(data)
    assert farm.read(shard) == data
    assert farm.engine.volumes()[0].quarantined == 0
    farm.engine.close()
    lose_index(farm)
    farm.open()
    assert farm.read(shard) == data


def test_a_quarantine_outlives_the_index_and_can_be_deleted(farm: Farm) -> None:
    shard = farm.store(noise(2 * MIB)).shard
    flip(own_file(farm), 256 + 70_000)
    with pytest.raises(CorruptShardError) as damage:
        farm.read(shard)
    assert (damage.value.offset, damage.value.length) == (65536, 65536)
    farm.engine.close()
    lose_index(farm)
    farm.open()
    assert farm.engine.stat(ALICE, shard).state is ShardState.QUARANTINED
    farm.delete(shard)
    assert farm.engine.stat(ALICE, shard).state is ShardState.TRASH
    farm.delete(shard, erase=True)
    with pytest.raises(ShardNotFoundError):
        farm.engine.stat(ALICE, shard)


def test_a_misdirected_record_is_noticed(farm: Farm) -> None:
    first, second = farm.store(noise(3000)).shard, farm.store(noise(3000, 1)).shard
    raw = (farm.path / SEGMENT).read_bytes()
    change(farm.path / SEGMENT, 4096, raw[8192 : 8192 + 4096])
    with pytest.raises(CorruptShardError):
        farm.read(first)
    assert farm.read(second) == noise(3000, 1)


def test_a_missing_file_is_a_damaged_shard_not_a_missing_volume(farm: Farm) -> None:
    shard = farm.store(noise(2 * MIB)).shard
    own_file(farm).unlink()
    with pytest.raises(CorruptShardError):
        farm.read(shard)
    assert farm.engine.volumes()[0].state is VolumeState.HEALTHY


def test_a_rebuild_resurrects_nothing(farm: Farm) -> None:
    kept = [farm.store(noise(5000, n)).shard for n in range(4)]
    kept.append(farm.store(noise(2 * MIB)).shard)
    for n in range(4):
        farm.delete(farm.store(noise(6000, n)).shard, erase=True)
    farm.delete(farm.store(noise(3 * MIB)).shard, erase=True)
    farm.delete(kept[0])
    farm.delete(kept[1])
    farm.engine.undelete(ALICE, kept[1]).result(5)
    before = farm.engine.page(ALICE, ShardId(bytes(32)), 100)
    usage = farm.engine.usage(ALICE)
    farm.engine.close()
    rebuild_index(farm.settings[0], NODE, OsFiles(), lambda _number, _last: None)
    farm.open()
    assert farm.engine.page(ALICE, ShardId(bytes(32)), 100) == before
    assert farm.engine.usage(ALICE) == usage


def test_a_rebuild_that_finds_unreturned_records_gives_them_back(farm: Farm) -> None:
    shard = farm.store(noise(5000)).shard
    big = farm.store(noise(2 * MIB)).shard
    handles = volume_of(farm).handles
    pins = [handles.pin(row_of(farm, one).place) for one in (shard, big)]
    farm.delete(shard, erase=True)
    farm.delete(big, erase=True)
    copy = farm.path.with_name("copy")
    crash_copy(farm.path, copy)
    for pin in pins:
        handles.unpin(pin)
    farm.engine.close()
    farm.settings = [VolumeSettings(copy, 64 * MIB)]
    lose_index(farm)
    farm.open()
    assert not farm.engine.page(ALICE, ShardId(bytes(32)), 100)
    farm.sweep()
    farm.engine.compare_with_disk()
    assert not list(copy.glob("staging/*")) + list(copy.glob("shards/*/*"))
    assert farm.engine.volumes()[0].drift_bytes == 0
    farm.engine.close()
    lose_index(farm)
    farm.open()
    assert not farm.engine.page(ALICE, ShardId(bytes(32)), 100)


@pytest.mark.parametrize("garbage", [b"", b"not a database at all" * 400])
def test_a_damaged_index_is_made_again(farm: Farm, garbage: bytes) -> None:
    shard = farm.store(noise(5000)).shard
    farm.engine.close()
    lose_index(farm)
    (farm.path / "index.sqlite").write_bytes(garbage)
    farm.open()
    assert farm.read(shard) == noise(5000)
    (alert,) = farm.engine.trouble()
    assert alert.name == "IndexRebuilt"
    why = "there was none" if not garbage else "file is not a database"
    assert why in alert.message


def test_an_index_that_fails_while_running_is_made_again_at_the_next_start(farm: Farm) -> None:
    shards = [farm.store(noise(10, n)).shard for n in range(300)]
    farm.engine.close()
    path = farm.path / "index.sqlite"
    with sqlite3.connect(path) as rows:
        page = rows.execute("SELECT rootpage FROM sqlite_master WHERE name = 'shards'").fetchone()
    rows.close()
    change(path, (page[0] - 1) * 4096, b"\xff" * 4096)
    farm.open()
    with pytest.raises(VolumeUnavailableError):
        farm.engine.stat(ALICE, shards[0])
    assert farm.engine.volumes()[0].state is VolumeState.FAILING
    farm.reopen()
    assert len(farm.engine.page(ALICE, ShardId(bytes(32)), 1000)) == 300


@pytest.mark.parametrize("below", ["", ".@__thumb", "{shelf}"])
def test_files_of_others_among_large_shards_are_no_damage(farm: Farm, below: str) -> None:
    """As file managers and network drives leave them wherever they look."""
    data = noise(2 * MIB)
    shard = farm.store(data).shard
    farm.engine.close()
    shards = farm.path / "shards"
    folder = shards / below.format(shelf=next(shards.iterdir()).name)
    folder.mkdir(exist_ok=True)
    (folder / ".DS_Store").write_bytes(b"x")
    lose_index(farm)
    engine = farm.open()
    assert engine.trouble() == ()
    assert farm.read(shard) == data


def test_a_torn_tail_is_cut_off_and_the_log_goes_on(farm: Farm) -> None:
    shard = farm.store(noise(5000)).shard
    copy = farm.path.with_name("copy")
    crash_copy(farm.path, copy)
    whole = (copy / SEGMENT).read_bytes()
    header = decode_record(whole[4096 : 4096 + 256], whole[4096 + 16 : 4096 + 32], "")
    torn = RecordHeader(
        kind=header.kind,
        segment=header.segment,
        sequence=header.sequence + 9,
        payload_bytes=5000,
        trailer_bytes=36,
        trailer_crc=0,
        renter=BOB,
    )
    change(copy / SEGMENT, len(whole), torn.encode() + bytes(3000))
    farm.engine.close()
    farm.settings = [VolumeSettings(copy, 64 * MIB)]
    farm.open()
    assert (copy / SEGMENT).stat().st_size == len(whole)
    assert not farm.engine.trouble()
    assert farm.read(shard) == noise(5000)
    farm.store(noise(5001))
    lose_index_while_closed(farm)
    assert farm.read(shard_of(noise(5001))) == noise(5001)


def lose_index_while_closed(farm: Farm) -> None:
    farm.engine.close()
    lose_index(farm)
    farm.open()


def test_records_behind_a_damaged_one_are_found(farm: Farm) -> None:
    shards = [farm.store(noise(9000, n)).shard for n in range(3)]
    farm.engine.close()
    lose_index(farm)
    flip(farm.path / SEGMENT, 4096 + 12288 + 100)
    farm.open()
    assert {alert.name for alert in farm.engine.trouble()} == {"IndexRebuilt", "LogDamaged"}
    held = {row.shard for row in farm.engine.page(ALICE, ShardId(bytes(32)), 10)}
    assert held == {shards[0], shards[2]}


def test_a_segment_without_its_header_is_still_read(farm: Farm) -> None:
    shard = farm.store(noise(9000)).shard
    farm.engine.close()
    lose_index(farm)
    flip(farm.path / SEGMENT, 20)
    farm.open()
    assert farm.read(shard) == noise(9000)
    farm.store(noise(9001))


@pytest.mark.parametrize("at", [0, 20])
def test_a_lost_header_costs_no_record_but_a_lost_one(farm: Farm, at: int) -> None:
    """Neither with the first record lost as well, nor with the index, nor before a new record."""
    lost, *kept = [farm.store(noise(5000, number)).shard for number in range(4)]
    farm.engine.close()
    segment = farm.path / SEGMENT
    change(segment, at, bytes(4200))
    change(segment, 2 * 4096, b"x" * 100)
    lose_index(farm)
    farm.open()
    last = farm.store(noise(5000, 9)).shard
    lose_index(farm)
    farm.reopen()
    with pytest.raises(ShardNotFoundError):
        farm.read(lost)
    assert [farm.read(shard) for shard in (*kept, last)] == [
        noise(5000, number) for number in (1, 2, 3, 9)
    ]
    assert "LogDamaged" in {alert.name for alert in farm.engine.trouble()}


def test_a_header_of_another_segment_is_a_lost_one(farm: Farm) -> None:
    """It may be a write that the disk put in the wrong place."""
    shards = [farm.store(noise(700_000, number)).shard for number in range(10)]
    farm.engine.close()
    second = (farm.path / "log/00000002.seg").read_bytes()[:4096]
    change(farm.path / SEGMENT, 0, second)
    lose_index(farm)
    farm.open()
    assert [farm.read(shard) for shard in shards] == [
        noise(700_000, number) for number in range(10)
    ]


def test_a_segment_of_nothing_but_garbage_is_passed_over_and_kept(farm: Farm) -> None:
    farm.store(noise(9000))
    farm.engine.close()
    lose_index(farm)
    (farm.path / SEGMENT).write_bytes(noise(20_000))
    farm.open()
    farm.store(noise(9001))
    assert (farm.path / SEGMENT).read_bytes() == noise(20_000)
    assert (farm.path / "log/00000002.seg").exists()


def test_a_half_made_segment_is_made_again(farm: Farm) -> None:
    shard = farm.store(noise(9000)).shard
    farm.engine.close()
    (farm.path / "log/00000002.seg").write_bytes(b"\0" * 100)
    farm.open()
    assert not (farm.path / "log/00000002.seg").exists()
    assert farm.read(shard) == noise(9000)


def test_a_log_shorter_than_the_index_says_leads_to_a_rebuild(farm: Farm) -> None:
    first = farm.store(noise(9000)).shard
    second = farm.store(noise(9001)).shard
    farm.engine.close()
    with (farm.path / SEGMENT).open("r+b") as file:
        file.truncate(4096 + 12288)
    farm.open()
    assert farm.read(first) == noise(9000)
    with pytest.raises(ShardNotFoundError):
        farm.engine.stat(ALICE, second)


def test_garbage_in_staging_is_removed(farm: Farm) -> None:
    farm.engine.close()
    (farm.path / "staging" / "nonsense").write_bytes(b"x")
    (farm.path / "staging" / "abcd.part").write_bytes(b"x")
    (farm.path / "staging" / f"{'ab' * 16}.part").write_bytes(b"x" * 300)
    farm.open()
    assert not list((farm.path / "staging").iterdir())


def test_an_unfinished_large_store_goes_on_after_a_kill(farm: Farm) -> None:
    data = noise(20 * MIB)
    upload = farm.begin(data)
    for start in range(0, 18 * MIB, MIB):
        upload.write(data[start : start + MIB])
    copy = farm.path.with_name("copy")
    crash_copy(farm.path, copy)
    upload.abandon()
    farm.engine.close()
    farm.settings = [VolumeSettings(copy, 64 * MIB)]
    farm.open()
    reserved = farm.engine.volumes()[0].reserved_bytes
    assert reserved > 20 * MIB
    assert farm.engine.usage(ALICE).reserved_bytes == reserved
    again = farm.begin(data)
    assert again.offset == 16 * MIB
    again.write(data[16 * MIB :])
    again.commit().result(20)
    assert farm.read(shard_of(data)) == data
    assert farm.engine.volumes()[0].reserved_bytes == 0


def test_a_lease_ends_after_a_day_without_activity(farm: Farm) -> None:
    data = noise(3 * MIB)
    upload = farm.begin(data)
    upload.write(data[:MIB])
    upload.abandon()
    farm.clocks.pass_days(0.9)
    farm.sweep()
    again = farm.begin(data)
    assert again.offset == MIB
    again.write(data[MIB : MIB + 1])
    again.abandon()
    farm.clocks.pass_days(0.9)
    farm.sweep()
    assert farm.engine.usage(ALICE).reserved_bytes > 0
    farm.clocks.pass_days(0.2)
    farm.sweep()
    assert farm.engine.usage(ALICE).reserved_bytes == 0
    assert not list((farm.path / "staging").iterdir())


def test_a_newer_format_is_refused_and_nothing_is_touched(farm: Farm) -> None:
    farm.store(noise(100))
    farm.engine.close()
    marker = farm.path / "farmer-volume.json"
    old = marker.read_text()
    marker.write_text(old.replace('"format": 1', '"format": 2'))
    with pytest.raises(FormatTooNewError, match=r"farmer-volume\.json has format 2.*up to 1"):
        farm.open()
    marker.write_text(old)
    with sqlite3.connect(farm.path / "index.sqlite") as rows:
        rows.execute("UPDATE state SET version = 3")
    rows.close()
    with pytest.raises(FormatTooNewError, match=r"index\.sqlite has format 3"):
        farm.open()
    lose_index(farm)
    newer_record(farm.path / SEGMENT)
    before = (farm.path / SEGMENT).read_bytes()
    with pytest.raises(FormatTooNewError, match=r"00000001\.seg has format 2"):
        farm.open()
    assert (farm.path / SEGMENT).read_bytes() == before
    farm.settings = []
    farm.open()


def newer_record(path: Path) -> None:
    from zlib import crc32

    raw = bytearray(path.read_bytes()[4096 : 4096 + 256])
    raw[8:10] = (RECORD_VERSION + 1).to_bytes(2, "big")
    raw[252:] = crc32(raw[:252]).to_bytes(4, "big")
    change(path, 4096, bytes(raw))


@pytest.mark.parametrize("how", ["cut", "missing"])
def test_a_log_that_is_shorter_than_it_was_is_no_loss_of_an_index(farm: Farm, how: str) -> None:
    farm.store(noise(9000))
    farm.store(noise(9001))
    farm.engine.close()
    log = farm.path / "log" / "00000001.seg"
    if how == "cut":
        os.truncate(log, 4096 + 12288)
    else:
        log.unlink()
    farm.open()
    [alert] = farm.engine.trouble()
    assert alert.name == "LogDamaged"
    assert "lost" in alert.message


def test_a_directory_without_marker_is_never_written(tmp_path: Path) -> None:
    farm = Farm(tmp_path, volumes=2)
    shard = farm.store(noise(100)).shard
    farm.engine.close()
    (farm.settings[1].path / "farmer-volume.json").unlink()
    before = sorted(farm.settings[1].path.rglob("*"))
    engine = farm.open()
    assert [status.state for status in engine.volumes()].count(VolumeState.GONE) == 1
    assert "not be mounted" in engine.volumes()[1].reason
    farm.store(noise(200))
    assert farm.read(shard_of(noise(200))) == noise(200)
    with pytest.raises(VolumeUnavailableError):
        engine.stat(ALICE, ShardId(bytes(32)))
    with pytest.raises(VolumeUnavailableError):
        engine.purge(BOB)
    assert sorted(farm.settings[1].path.rglob("*")) == before
    assert shard
    engine.close()


def test_a_volume_that_appears_later_is_opened_by_a_sweep(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    shard = farm.store(noise(100)).shard
    farm.engine.close()
    hidden = farm.path.with_name("hidden")
    farm.path.rename(hidden)
    farm.open()
    with pytest.raises(VolumeUnavailableError):
        farm.begin(noise(10))
    hidden.rename(farm.path)
    farm.sweep()
    assert farm.read(shard) == noise(100)
    assert not farm.engine.trouble()
    farm.engine.close()


def test_markers_locks_and_directories_are_checked(tmp_path: Path) -> None:
    files = OsFiles()
    root = tmp_path / "volume"
    create_volume(root, NODE, files, 0)
    with pytest.raises(VolumeSetupError, match="already"):
        create_volume(root, NODE, files, 0)
    with pytest.raises(VolumeSetupError, match="belongs to the farmer"):
        read_marker(root, ALICE, files)
    lock = lock_volume(root, files)
    with pytest.raises(VolumeSetupError, match="in use"):
        lock_volume(root, files)
    files.close(lock)
    (root / "farmer-volume.json").write_text("{}")
    with pytest.raises(VolumeSetupError, match="damaged"):
        read_marker(root, NODE, files)
    other = tmp_path / "other"
    other.mkdir()
    (other / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(VolumeSetupError, match="not empty"):
        create_volume(other, NODE, files, 0)
    with pytest.raises(VolumeSetupError, match="64 MiB"):
        VolumeSettings(root, 1000)


def test_a_volume_in_use_is_reported_and_not_touched(farm: Farm) -> None:
    engine = farm.engine
    second = farm.open()
    assert second.volumes()[0].state is VolumeState.GONE
    assert "in use" in second.volumes()[0].reason
    second.close()
    farm.engine = engine
    farm.store(noise(10))


def test_a_mark_stays_while_the_record_that_it_speaks_of_is_on_the_disk(farm: Farm) -> None:
    shard = farm.store(noise(5000)).shard
    other = farm.store(noise(10)).shard
    handles = volume_of(farm).handles
    pin = handles.pin(row_of(farm, shard).place)
    farm.delete(shard, erase=True)
    for _ in range(150):
        farm.delete(other)
        farm.engine.undelete(ALICE, other).result(5)
    assert noise(5000)[100:200] in (farm.path / SEGMENT).read_bytes()
    copy = farm.path.with_name("copy")
    crash_copy(farm.path, copy)
    handles.unpin(pin)
    farm.engine.close()
    farm.settings = [VolumeSettings(copy, 64 * MIB)]
    lose_index(farm)
    farm.open()
    held = farm.engine.page(ALICE, ShardId(bytes(32)), 10)
    assert [(row.shard, row.state) for row in held] == [(other, ShardState.LIVE)]


def test_a_rebuild_counts_holes_as_given_back(farm: Farm) -> None:
    for number in range(5):
        farm.delete(farm.store(noise(5000, number)).shard, erase=True)
    allowance = farm.engine.volumes()[0].allowance_bytes
    lose_index_while_closed(farm)
    farm.engine.compare_with_disk()
    assert farm.engine.volumes()[0].drift_bytes in {0, 4096}
    assert farm.engine.volumes()[0].allowance_bytes == allowance


@pytest.mark.parametrize("can_punch", [True, False])
def test_what_a_crash_tore_is_given_back_or_counted(tmp_path: Path, can_punch: bool) -> None:
    """Its first block was never written, the others were: never less than the disk takes."""
    farm = Farm(tmp_path, files=RecordingFiles(can_punch=can_punch))
    shards = [farm.store(noise(300_000, number)).shard for number in range(3)]
    farm.engine.close()
    fd = os.open(farm.path / SEGMENT, os.O_RDWR)
    punch_hole(fd, 4096 + charge_bytes(300_000), 4096)
    os.close(fd)
    lose_index(farm)
    farm.open()
    held = [row.shard for row in farm.engine.page(ALICE, ShardId(bytes(32)), 10)]
    assert set(held) == {shards[0], shards[2]}
    farm.engine.compare_with_disk()
    drift_bytes = farm.engine.volumes()[0].drift_bytes
    # The filesystem may take a block for the list of what the file's pieces are.
    assert drift_bytes - (0 if can_punch else -4096) in {0, 4096}
    farm.engine.close()


def test_what_a_crash_left_of_a_punching_is_reckoned_and_given_back_after_a_rebuild(
    farm: Farm, tmp_path: Path
) -> None:
    rows = [row_of(farm, farm.store(noise(60_000, name)).shard) for name in "abc"]
    handles = volume_of(farm).handles
    # As by the scrub, so that nothing is punched yet.
    pins = [handles.pin(row.place) for row in rows]
    for row in rows:
        farm.delete(row.shard, erase=True)
    kept = farm.store(noise(9000)).shard
    copy = tmp_path / "copy"
    crash_copy(farm.path, copy)
    for pin in pins:
        handles.unpin(pin)
    farm.engine.close()
    fd = farm.files.open(copy / "log" / "00000001.seg", Access.WRITE)
    first, *others = rows
    farm.files.punch(fd, first.place.offset + 4096, first.charge_bytes - 4096)
    second, third = others
    farm.files.punch(fd, second.place.offset, 4096)
    farm.files.punch(fd, third.place.offset, third.charge_bytes)
    farm.files.close(fd)
    for path in copy.glob("index.sqlite*"):
        path.unlink()
    farm.settings = [VolumeSettings(copy, 64 * MIB)]
    farm.open()
    assert farm.read(kept) == noise(9000)
    volume_of(farm).reclaim()
    farm.engine.compare_with_disk()
    assert farm.engine.volumes()[0].drift_bytes in {0, 4096}
    with (copy / "log" / "00000001.seg").open("rb") as log:
        log.seek(first.place.offset)
        assert log.read(first.charge_bytes) == bytes(first.charge_bytes)


def test_a_sealed_record_whose_first_block_is_lost_is_told_and_not_given_back(farm: Farm) -> None:
    """All of it was synced before the next segment was begun: no crash tore it."""
    shards = [farm.store(noise(900_000, number)).shard for number in range(6)]
    farm.delete(shards[3], erase=True)
    place = row_of(farm, shards[1]).place
    assert (place.segment, row_of(farm, shards[5]).place.segment) == (1, 2)
    farm.engine.close()
    log = farm.path / SEGMENT
    change(log, place.offset, bytes(4096))
    allocated = log.stat().st_blocks
    recovered = rebuild_index(farm.settings[0], NODE, farm.files, lambda *_: None)
    assert recovered.damaged == [f"{log.name} at {place.offset}"]
    assert log.stat().st_blocks == allocated
    lose_index(farm)
    farm.open()
    told = {alert.name: alert.message for alert in farm.engine.trouble()}
    assert "no shard was lost" not in told["IndexRebuilt"]
    assert f"{log.name} at {place.offset}" in told["LogDamaged"]
    farm.engine.compare_with_disk()
    assert farm.engine.volumes()[0].drift_bytes in {0, 4096}


def test_a_misdirected_header_of_an_erased_shard_destroys_nothing(farm: Farm) -> None:
    """By its length it reaches over sound records; what stands there is not given back."""
    small = [farm.store(noise(3000, name)).shard for name in "abcdef"]
    erased = farm.store(noise(20_000, "erased")).shard
    farm.store(noise(20_000, "kept"))
    there, first = row_of(farm, erased).place, row_of(farm, small[0]).place
    log = farm.path / "log" / "00000001.seg"
    header = log.read_bytes()[there.offset : there.offset + 4096]
    farm.delete(erased, erase=True)
    farm.engine.close()
    lose_index(farm)
    with log.open("r+b") as file:
        file.seek(first.offset)
        file.write(header)
    farm.open()
    volume_of(farm).reclaim()
    for shard, name in list(zip(small, "abcdef", strict=True))[1:]:
        assert farm.read(shard) == noise(3000, name)
