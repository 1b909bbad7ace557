"""The scrub finds what rots, blames nothing else, and goes on where it was."""

from __future__ import annotations

import errno
import json
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import BLOCK_BYTES, ShardState
from farmer.model.status import ScrubStatus
from farmer.storage import scrubs
from farmer.storage.directory import MARKER_NAME, Paths
from farmer.storage.errors import CorruptShardError, ShardNotFoundError, StorageError
from farmer.storage.marks import MARK_BYTES
from farmer.storage.scrub import Scrub
from farmer.storage.volume import Volume
from tests.storage.bench import ALICE, BOB, DAY_MS, MIB, Farm, noise
from tests.storage.recording import RecordingFiles
from tests.storage.rot import WHERE, file_of, flip, overwrite, rot, row_of, volume_of
from tests.storage.test_damage import served

SMALL, LARGE = 9000, 2 * MIB + 5


def scrub(farm: Farm, work_s: float = 60.0) -> ScrubStatus:
    """Do one whole pass, and return what it found."""
    farm.engine.scrubs.begin_now()
    name = farm.settings[0].label
    for _ in range(100_000):
        if farm.engine.scrubs.turn(name, work_s, farm.clocks.now_ms, 30).is_idle:
            break
        if farm.engine.volumes()[0].scrub.state == "idle":
            break
    return farm.engine.volumes()[0].scrub


def alerts(farm: Farm) -> set[str]:
    return {alert.name for alert in farm.engine.trouble()}


def found(status: ScrubStatus) -> tuple[int, int, int]:
    return status.damaged, status.mended, status.disagreements


def test_a_sound_volume_is_found_sound(farm: Farm) -> None:
    for number in range(20):
        farm.store(noise(SMALL, number))
    farm.store(noise(LARGE))
    farm.store(b"")
    farm.delete(farm.store(noise(SMALL, "trash")).shard)
    farm.delete(farm.store(noise(SMALL, "gone")).shard, erase=True)
    status = scrub(farm)
    assert status.checked == 23
    assert found(status) == (0, 0, 0)
    assert status.ended_at_ms == farm.clocks.now_ms
    assert alerts(farm) == set()
    assert dict(farm.engine.volumes()[0].errors) == {}


@pytest.mark.parametrize("reopened", [False, True])
def test_rot_is_found_wherever_it_sits_and_served_nowhere(farm: Farm, reopened: bool) -> None:
    chance = random.Random(7)
    shards: dict[ShardId, tuple[bytes, str, int]] = {}
    for number in range(100):
        size = chance.choice([1, 3804, 5000, BLOCK_BYTES, 300_000, MIB + 1])
        if size == MIB + 1 and number % 5:
            size = 100_000
        data = noise(size, number)
        shards[farm.store(data).shard] = (data, WHERE[number % 4], number)
    if reopened:
        farm.reopen()
    for shard, (data, where, number) in shards.items():
        blocks = max(1, -(-len(data) // BLOCK_BYTES))
        block = number % blocks
        if where == "payload" and len(data) < 8:
            overwrite(
                file_of(farm, row_of(farm, shard)),
                row_of(farm, shard).place.offset + 256,
                b"\x00\xff",
            )
        else:
            rot(farm, row_of(farm, shard), where, block)
    status = scrub(farm)
    assert status.damaged + status.mended == 100, "found in one pass"
    assert status.damaged == 25, "only what lost bytes of its own"
    assert alerts(farm) == {"ScrubFoundDamage"}
    for shard, (data, where, number) in shards.items():
        blocks = max(1, -(-len(data) // BLOCK_BYTES))
        expected = set(range(blocks)) - ({number % blocks} if where == "payload" else set())
        state = ShardState.QUARANTINED if where == "payload" else ShardState.LIVE
        assert farm.engine.stat(ALICE, shard).state is state
        assert served(farm, shard, data) == expected
    status = scrub(farm)
    assert (status.damaged, status.mended) == (25, 0)
    farm.engine.close()
    for path in farm.path.glob("index.sqlite*"):
        path.unlink()
    farm.open()
    for shard, (_data, where, _number) in shards.items():
        state = ShardState.QUARANTINED if where == "payload" else ShardState.LIVE
        assert farm.engine.stat(ALICE, shard).state is state, "also in a rebuilt index"


def zero(farm: Farm, shard: ShardId) -> None:
    """Lose a write: the record was never there."""
    row = row_of(farm, shard)
    overwrite(file_of(farm, row), row.place.offset, bytes(row.charge_bytes))


def misdirect(farm: Farm, shard: ShardId) -> None:
    """Put another shard's sound record where this one's is."""
    row, other = row_of(farm, shard), row_of(farm, farm.store(noise(SMALL, "other")).shard)
    raw = file_of(farm, other).read_bytes()[other.place.offset :][: other.charge_bytes]
    overwrite(file_of(farm, row), row.place.offset, raw)


def cut_off(farm: Farm, shard: ShardId) -> None:
    row = row_of(farm, shard)
    with file_of(farm, row).open("r+b") as file:
        file.truncate(row.place.offset + row.charge_bytes // 2)


def lose_file(farm: Farm, shard: ShardId) -> None:
    file_of(farm, row_of(farm, shard)).unlink()


@pytest.mark.parametrize(
    ("fault", "size"),
    [
        *((fault, size) for fault in (zero, cut_off, lose_file) for size in (SMALL, LARGE)),
        # A record of the log does not come to lie in another file.
        (misdirect, SMALL),
    ],
)
def test_a_record_that_is_not_there_is_found(
    farm: Farm, size: int, fault: Callable[[Farm, ShardId], None]
) -> None:
    data = noise(size)
    shard = farm.store(data).shard
    fault(farm, shard)
    status = scrub(farm)
    assert status.damaged >= 1
    assert farm.engine.stat(ALICE, shard).state is ShardState.QUARANTINED
    assert served(farm, shard, data) == set()


def sql(farm: Farm, statement: str) -> None:
    """Change the index behind the engine's back."""
    with sqlite3.connect(farm.path / "index.sqlite", timeout=20) as connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("state", ["live", "trash", "undeleted"])
def test_a_row_that_went_missing_is_entered_again_as_it_was(
    farm: Farm, size: int, state: str
) -> None:
    data = noise(size)
    shard = farm.store(data).shard
    farm.store(noise(SMALL, "other"))
    if state != "live":
        farm.delete(shard)
    if state == "undeleted":
        farm.engine.undelete(ALICE, shard).result(20)
    farm.reopen()  # a large one is out of staging now
    before = farm.engine.stat(ALICE, shard)
    sql(farm, f"DELETE FROM shards WHERE size = {size} AND shard = x'{shard.raw.hex()}'")
    with pytest.raises(ShardNotFoundError):
        farm.engine.stat(ALICE, shard)
    assert found(scrub(farm)) == (0, 0, 1)
    assert alerts(farm) == {"IndexDisagrees"}
    assert farm.engine.stat(ALICE, shard) == before
    assert found(scrub(farm)) == (0, 0, 0)
    assert alerts(farm) == set()
    if state != "trash":
        assert farm.read(shard) == data


def test_a_row_without_a_record_is_found(farm: Farm) -> None:
    shard = farm.store(noise(SMALL)).shard
    sql(
        farm,
        "INSERT INTO shards SELECT renter, x'" + "ab" * 32 + "', segment, offset + 4096, file,"
        " size, contract, stored, sequence + 1000, state, gone, observed, damaged, 0 FROM shards",
    )
    assert found(scrub(farm)) == (1, 0, 0)
    assert farm.engine.stat(ALICE, ShardId(b"\xab" * 32)).state is ShardState.QUARANTINED
    assert farm.engine.stat(ALICE, shard).state is ShardState.LIVE


def test_a_row_that_points_elsewhere_is_put_right(farm: Farm) -> None:
    one, other = noise(SMALL, 1), noise(SMALL, 2)
    shard, there = farm.store(one).shard, farm.store(other).shard
    sql(
        farm,
        f"UPDATE shards SET offset = {row_of(farm, there).place.offset}"
        f" WHERE shard = x'{shard.raw.hex()}'",
    )
    assert found(scrub(farm)) == (0, 0, 1)
    assert farm.read(shard) == one
    assert farm.read(there) == other
    assert volume_of(farm).ground.index.doomed() == [], "nothing was given up by that"
    farm.sweep()
    assert farm.read(there) == other


def test_damaged_marks_are_told(farm: Farm) -> None:
    shard = farm.store(noise(SMALL)).shard
    farm.delete(shard)
    (marks,) = volume_of(farm).ground.index.marks()
    flip(farm.path / "log/00000001.seg", marks.place.offset + 256 + MARK_BYTES // 2)
    assert found(scrub(farm)) == (0, 0, 1)
    assert alerts(farm) == {"LogDamaged"}


def test_a_damaged_segment_header_is_told_and_its_records_are_written_again(farm: Farm) -> None:
    shards = {farm.store(noise(900_000, number)).shard: number for number in range(8)}
    flip(farm.path / "log/00000001.seg", 20)
    assert found(scrub(farm)) == (0, 0, 1)
    assert alerts(farm) == {"LogDamaged"}
    farm.sweep()
    assert not (farm.path / "log/00000001.seg").exists()
    assert found(scrub(farm)) == (0, 0, 0)
    for shard, number in shards.items():
        assert farm.read(shard) == noise(900_000, number)


def test_a_damaged_index_is_told_and_made_again_at_the_next_start(farm: Farm) -> None:
    shards = [farm.store(noise(100, number)).shard for number in range(300)]
    farm.reopen()
    sql(farm, "PRAGMA wal_checkpoint(TRUNCATE)")
    connection = sqlite3.connect(farm.path / "index.sqlite")
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute(
        "UPDATE sqlite_schema SET sql = replace(sql, 'state = 1', 'state = 0')"
        " WHERE name = 'trash'"
    )
    connection.commit()
    connection.close()
    farm.reopen()
    assert found(scrub(farm)) == (0, 0, 1)
    assert alerts(farm) == {"IndexDamaged"}
    farm.reopen()
    assert found(scrub(farm)) == (0, 0, 0)
    assert all(farm.engine.stat(ALICE, shard).size_bytes == 100 for shard in shards)


def test_a_pass_goes_on_where_a_restart_broke_it_off(tmp_path: Path) -> None:
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    for number in range(12):
        farm.store(noise(700_000, number))
    assert farm.engine.volumes()[0].scrub.done_bytes == 0, "it was not begun"
    farm.engine.scrubs.begin_now()
    name = farm.settings[0].label
    for _ in range(14):
        farm.engine.scrubs.turn(name, 0.0, farm.clocks.now_ms, 30)
    before = farm.engine.volumes()[0].scrub
    assert 0 < before.done_bytes < before.total_bytes
    farm.reopen()
    after = farm.engine.scrubs.turn(name, 0.0, farm.clocks.now_ms, 30)
    assert not after.is_idle, "it goes on by itself"
    assert farm.engine.volumes()[0].scrub.done_bytes >= before.done_bytes
    while farm.engine.volumes()[0].scrub.state == "running":
        farm.engine.scrubs.turn(name, 1.0, farm.clocks.now_ms, 30)
    status = farm.engine.volumes()[0].scrub
    assert 12 <= status.checked <= 13, "nothing was passed over, one record at most read twice"
    assert (status.done_bytes, status.bytes_per_s) == (0, 0.0), "nothing is under way"
    farm.engine.close()


def test_two_who_see_a_volume_first_get_one_scrub_and_the_pause_of_it_is_kept(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, engine, others = farm.settings[0].label, farm.engine, list[object]()

    class Overtaken(Scrub):
        """While it is made, somebody else asks for it."""

        def __init__(self, volume: Volume, monotonic_s: Callable[[], float]) -> None:
            monkeypatch.setattr(scrubs, "Scrub", Scrub)
            others.append(engine.scrubs._find(name))
            super().__init__(volume, monotonic_s)

    monkeypatch.setattr(scrubs, "Scrub", Overtaken)
    assert [engine.scrubs._find(name)] == others
    engine.scrubs.pause(paused=True)
    assert engine.volumes()[0].scrub.state == "paused"
    farm.reopen()
    farm.engine.scrubs.open_hours(are_open=True)
    assert farm.engine.volumes()[0].scrub.state == "paused"


def test_when_the_last_pass_ended_is_known_from_the_opening_on(farm: Farm) -> None:
    farm.store(noise(SMALL))
    assert scrub(farm).ended_at_ms == farm.clocks.now_ms
    farm.reopen()
    known = farm.engine.volumes()[0].scrub
    assert (known.ended_at_ms, known.checked) == (farm.clocks.now_ms, 1), "before the first turn"


def test_of_a_volume_that_is_not_open_it_is_not_known(farm: Farm) -> None:
    farm.store(noise(SMALL))
    scrub(farm)
    farm.engine.close()
    (farm.path / MARKER_NAME).rename(farm.path / "aside")
    farm.open()
    assert [volume.scrub for volume in farm.engine.volumes()] == [None]


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b'{"format": 1}', b'{"format": 2}'])
def test_notes_that_cannot_be_read_mean_a_new_pass(farm: Farm, garbage: bytes) -> None:
    farm.store(noise(SMALL))
    Paths(farm.path).scrub_notes.write_bytes(garbage)
    farm.reopen()
    assert not farm.engine.scrubs.turn(farm.settings[0].label, 60, 1, 30).is_idle
    assert farm.engine.volumes()[0].scrub.checked == 1
    notes = json.loads(Paths(farm.path).scrub_notes.read_bytes())
    assert (notes["phase"], notes["checked"]) == ("", 1)


def test_passes_begin_so_that_no_byte_waits_longer_than_the_days(farm: Farm) -> None:
    farm.store(noise(SMALL))
    name, scrubs = farm.settings[0].label, farm.engine.scrubs
    start_ms = farm.clocks.now_ms
    assert not scrubs.turn(name, 60, start_ms, 30).is_idle
    assert scrubs.turn(name, 60, start_ms + 19 * DAY_MS, 30).is_idle
    assert not scrubs.turn(name, 60, start_ms + 20 * DAY_MS, 30).is_idle
    assert not scrubs.turn(name, 60, start_ms - DAY_MS, 30).is_idle, "the clock was ahead"
    assert scrubs.turn("another", 60, start_ms, 30).is_idle


def test_hours_and_the_owners_pause_are_kept(farm: Farm) -> None:
    farm.store(noise(SMALL))
    name, now_ms = farm.settings[0].label, farm.clocks.now_ms
    farm.engine.scrubs.pause(paused=True)
    assert farm.engine.scrubs.turn(name, 60, now_ms, 30).is_idle
    farm.reopen()
    assert farm.engine.scrubs.turn(name, 60, now_ms, 30).is_idle
    assert farm.engine.volumes()[0].scrub.state == "paused"
    farm.engine.scrubs.pause([name], paused=False)
    farm.engine.scrubs.open_hours(are_open=False)
    assert farm.engine.scrubs.turn(name, 60, now_ms, 30).is_idle
    farm.engine.scrubs.begin_now()
    assert not farm.engine.scrubs.turn(name, 0, now_ms, 30).is_idle, "now means now"
    farm.engine.scrubs.open_hours(are_open=True)
    with pytest.raises(StorageError, match="no open volume attic"):
        farm.engine.scrubs.begin_now(["attic"])


def test_nothing_stays_pinned_outside_the_hours(farm: Farm) -> None:
    for number in range(8):
        farm.store(noise(700_000, number))
    name, scrubs = farm.settings[0].label, farm.engine.scrubs
    for _ in range(5):
        scrubs.turn(name, 0, farm.clocks.now_ms, 30)
    assert volume_of(farm).handles.is_segment_pinned(1)
    scrubs.open_hours(are_open=False)
    assert scrubs.turn(name, 0, farm.clocks.now_ms, 30).is_idle
    assert not volume_of(farm).handles.is_segment_pinned(1)
    assert farm.engine.volumes()[0].scrub.state == "waiting"


def churned(root: Path, *, can_punch: bool, seconds: float) -> int:
    """Store, delete and compact while passes run; return how many passes blamed nothing."""
    farm = Farm(root, files=RecordingFiles(can_punch=can_punch), quota_bytes=256 * MIB)
    end_s = time.monotonic() + seconds
    failures: list[Exception] = []

    def churn(seed: int) -> None:
        chance, held = random.Random(seed), []
        renter = (ALICE, BOB)[seed % 2]
        try:
            while time.monotonic() < end_s:
                size = chance.choice([100, 5000, 70_000, 300_000, MIB + 9])
                held.append(farm.store(noise(size, (seed, chance.random())), renter).shard)
                if len(held) > 12:
                    gone = held.pop(chance.randrange(len(held)))
                    farm.delete(gone, renter, erase=chance.random() < 0.8)
                if chance.random() < 0.1:
                    # So that the trash empties: a fast disk would fill the quota with it.
                    farm.clocks.pass_days(8)
                    farm.sweep()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    passes = 0
    while any(thread.is_alive() for thread in threads):
        status = scrub(farm, work_s=0.01)
        assert found(status) == (0, 0, 0), farm.engine.trouble()
        passes += 1
    assert not failures, failures
    assert alerts(farm) == set()
    assert farm.engine.volumes()[0].quarantined == 0
    farm.engine.close()
    return passes


@pytest.mark.parametrize("can_punch", [True, False])
def test_stores_deletes_and_compactions_meanwhile_are_never_taken_for_damage(
    tmp_path: Path, can_punch: bool
) -> None:
    assert churned(tmp_path, can_punch=can_punch, seconds=4.0) > 1


def test_a_read_that_was_wrong_once_is_not_believed(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm.store(noise(SMALL))
    pread, wrong = farm.files.pread, [True]

    def once(fd: int, length: int, offset: int) -> bytes:
        data = pread(fd, length, offset)
        if length == SMALL and wrong:
            wrong.clear()
            return data[:-1] + bytes([data[-1] ^ 1])
        return data

    monkeypatch.setattr(farm.files, "pread", once)
    assert found(scrub(farm)) == (0, 0, 0)
    assert not wrong


def test_a_disk_that_is_gone_ends_a_turn_and_blames_nothing(farm: Farm) -> None:
    shard = farm.store(noise(SMALL)).shard
    for path in (farm.path / "log/00000001.seg", farm.path / "farmer-volume.json"):
        path.rename(path.with_suffix(".away"))
    farm.engine.scrubs.begin_now()
    with pytest.raises(StorageError, match="could not be read"):
        farm.engine.scrubs.turn(farm.settings[0].label, 60, 1, 30)
    for path in (farm.path / "log/00000001.seg", farm.path / "farmer-volume.json"):
        path.with_suffix(".away").rename(path)
    assert farm.engine.stat(ALICE, shard).state is ShardState.LIVE
    assert found(scrub(farm)) == (0, 0, 0)


def test_a_full_disk_keeps_a_record_that_could_be_mended_in_quarantine(farm: Farm) -> None:
    shard = farm.store(noise(LARGE)).shard
    rot(farm, row_of(farm, shard), "tree")
    farm.engine.change_quota(farm.settings[0].path, 64 * MIB, 1 << 60)
    status = scrub(farm)
    assert (status.damaged, status.mended) == (1, 0)
    assert farm.engine.stat(ALICE, shard).state is ShardState.QUARANTINED
    assert farm.read(shard) == noise(LARGE), "all of its bytes are right"
    farm.engine.change_quota(farm.settings[0].path, 64 * MIB, 0)
    status = scrub(farm)
    assert (status.damaged, status.mended) == (0, 1)
    assert farm.engine.stat(ALICE, shard).state is ShardState.LIVE


@pytest.mark.parametrize("in_header", [False, True])
@pytest.mark.parametrize("size", [SMALL, 400_000, LARGE])
def test_a_bad_spot_of_the_disk_is_found_and_served_around(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, size: int, in_header: bool
) -> None:
    data = noise(size)
    shard = farm.store(data).shard
    other = farm.store(noise(SMALL, "behind")).shard
    rot(farm, row_of(farm, other), "payload")
    row, last = row_of(farm, shard), -(-size // BLOCK_BYTES) - 1
    spot = row.place.offset + (9 if in_header else 256 + last * BLOCK_BYTES + 2)
    pread, own = farm.files.pread, file_of(farm, row).stat().st_ino

    def bad(fd: int, length: int, offset: int) -> bytes:
        if offset <= spot < offset + length and os.fstat(fd).st_ino == own:
            raise OSError(errno.EIO, "a bad spot")
        return pread(fd, length, offset)

    monkeypatch.setattr(farm.files, "pread", bad)
    assert scrub(farm).damaged >= 2 - in_header
    assert farm.engine.stat(ALICE, other).state is ShardState.QUARANTINED
    if in_header:
        assert farm.read(shard) == data, "its own bytes are all there"
        scrub(farm)
        assert farm.engine.stat(ALICE, shard).state is ShardState.LIVE, "and written elsewhere"
        return
    assert served(farm, shard, data) == set(range(last))
    reader = farm.engine.open(ALICE, shard)
    with pytest.raises(CorruptShardError) as error:
        reader.read(0, size)
    assert error.value.offset == last * BLOCK_BYTES
    reader.close()


def test_a_turn_that_hangs_holds_up_no_other_thread(farm: Farm) -> None:
    farm.store(noise(SMALL))
    name, pread = farm.settings[0].label, farm.files.pread
    hangs, go_on = threading.Event(), threading.Event()

    def hang(fd: int, length: int, offset: int) -> bytes:
        hangs.set()
        go_on.wait(20)
        return pread(fd, length, offset)

    farm.engine.scrubs.turn(name, 0, farm.clocks.now_ms, 30)
    farm.files.pread = hang  # type: ignore[method-assign]  # a disk that does not answer
    thread = threading.Thread(
        target=farm.engine.scrubs.turn, args=(name, 60.0, farm.clocks.now_ms, 30)
    )
    thread.start()
    assert hangs.wait(20)
    assert farm.engine.scrubs.turn(name, 60.0, farm.clocks.now_ms, 30).is_idle
    assert farm.engine.volumes()[0].scrub.state == "running"
    go_on.set()
    thread.join(20)
    farm.files.pread = pread  # type: ignore[method-assign]
    assert farm.engine.volumes()[0].scrub.checked == 1


@pytest.mark.parametrize("where", ["header", "tree", "checksums", "payload"])
@pytest.mark.parametrize("size", [9000, 300_000, MIB + 5])
def test_one_damaged_record_counts_as_one_error(farm: Farm, where: str, size: int) -> None:
    """It was three: the scrub's, that of who examined it to mend it, and that of the copy."""
    shard = farm.store(noise(size)).shard
    rot(farm, row_of(farm, shard), where)
    scrub(farm)
    assert dict(farm.engine.volumes()[0].errors) == {"corrupt": 1}


def test_one_that_is_read_first_counts_once_as_well(farm: Farm) -> None:
    """By who wanted its tree, by who made it again, and by the scrub."""
    data = noise(300_000)
    shard = farm.store(data).shard
    rot(farm, row_of(farm, shard), "tree")
    assert farm.read(shard) == data
    scrub(farm)
    assert dict(farm.engine.volumes()[0].errors) == {"corrupt": 1}
