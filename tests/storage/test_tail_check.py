"""After a failed sync the disk itself is asked what it has of the segment."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import integers

from farmer.model.ids import ShardId
from farmer.model.shard import ShardState
from farmer.model.status import VolumeState
from farmer.storage import tailcheck
from farmer.storage.condition import PROBE_DISTRUSTED_EVERY_S, PROOFS_WANTED, Seen
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.files import FOLIO_BYTES_MAX, Access, OsFiles, whole_folios
from farmer.storage.places import Row
from farmer.storage.syscalls import is_cached
from farmer.storage.transaction import Transaction
from tests.crash.disks import make_image, mounted, need
from tests.storage.bench import ALICE, Farm, noise
from tests.storage.recording import Call, Fault, RecordingFiles
from tests.waiting import wait_until

SEGMENT = "00000001.seg"


def sync_of_log(call: Call) -> bool:
    return call.name == "sync_data" and call.path == SEGMENT


def states(farm: Farm) -> dict[ShardId, ShardState]:
    return {row.shard: row.state for row in farm.engine.page(ALICE, ShardId(bytes(32)), 1000)}


def harm(path: Path, data: bytes) -> None:
    """Flip a byte in the middle of where these bytes stand in a file."""
    raw = bytearray(path.read_bytes())
    at = raw.index(data[:512]) + len(data) // 2
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([raw[at] ^ 1]))


def fail_a_sync(farm: Farm, files: RecordingFiles) -> None:
    files.fault = Fault(0, errno.EIO, sync_of_log)
    with pytest.raises(VolumeUnavailableError):
        farm.store(noise(200, "refused"))
    files.fault = None


def checked(files: RecordingFiles) -> bool:
    """Whether some step has asked the disk."""
    return any(call == Call("uncache", SEGMENT, call.length) for call in files.calls)


class LooseCable(Fault):
    """One sync fails, and from then on every read of that segment."""

    def strikes(self, call: Call) -> bool:
        if self.struck:
            return (call.name, call.path) == ("pread", SEGMENT)
        return super().strikes(call)


@pytest.mark.parametrize("step_bytes", [4096, 20_000, tailcheck.STEP_BYTES])
def test_what_the_disk_does_not_give_back_is_quarantined_before_anybody_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_bytes: int
) -> None:
    monkeypatch.setattr(tailcheck, "STEP_BYTES", step_bytes)
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    shards = [farm.store(noise(9000, number)).shard for number in range(30)]
    bad = {3, 4, 29}
    for number in bad:
        harm(farm.path / "log" / SEGMENT, noise(9000, number))
    fail_a_sync(farm, files)
    quarantined = {shards[number]: ShardState.QUARANTINED for number in bad}
    expected = dict.fromkeys(shards, ShardState.LIVE) | quarantined
    wait_until(lambda: states(farm) == expected)
    for number in {*range(30)} - bad:
        assert farm.read(shards[number]) == noise(9000, number)
    farm.reopen()
    assert states(farm) == expected
    farm.engine.close()


def test_the_index_is_read_once_for_many_damaged_stretches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reading of it goes over every row, and all stores wait meanwhile."""
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    shards = [farm.store(noise(9000, number)).shard for number in range(30)]
    for number in range(0, 30, 2):
        harm(farm.path / "log" / SEGMENT, noise(9000, number))
    asked, rows_between = [], Transaction.rows_between

    def counted(self: Transaction, *where: int) -> list[Row]:
        asked.append(where)
        return rows_between(self, *where)

    monkeypatch.setattr(Transaction, "rows_between", counted)
    fail_a_sync(farm, files)
    wait_until(lambda: list(states(farm).values()).count(ShardState.QUARANTINED) == 15)
    assert {states(farm)[shard] for shard in shards[1::2]} == {ShardState.LIVE}
    assert len(asked) == 1
    farm.engine.close()


def test_a_damaged_header_is_found_by_where_the_index_says_that_a_record_is(
    tmp_path: Path,
) -> None:
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    shards = [farm.store(noise(5000, number)).shard for number in range(3)]
    with (farm.path / "log" / SEGMENT).open("r+b") as file:
        file.seek(4096 + 8192 + 40)
        file.write(b"damage")
    fail_a_sync(farm, files)
    wait_until(lambda: states(farm)[shards[1]] is ShardState.QUARANTINED)
    assert [states(farm)[shards[number]] for number in (0, 2)] == [ShardState.LIVE] * 2
    farm.engine.close()


def test_what_is_sound_stays_and_stores_go_on_in_a_new_segment(tmp_path: Path) -> None:
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    shards = [farm.store(noise(9000, number)).shard for number in range(5)]
    farm.delete(shards[0], erase=True)
    fail_a_sync(farm, files)
    after = farm.store(noise(300)).shard
    wait_until(lambda: checked(files))
    farm.store(noise(301))
    assert states(farm)[after] is ShardState.LIVE
    assert ShardState.QUARANTINED not in states(farm).values()
    assert not dict(farm.engine.volumes()[0].errors).get("corrupt")
    farm.engine.close()


def test_what_cannot_be_read_is_counted_and_not_condemned(tmp_path: Path) -> None:
    """The cable that lost a sync may lose a read as well; whoever reads it is refused anyway."""
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    shard = farm.store(noise(9000)).shard
    files.fault = LooseCable(0, errno.EIO, sync_of_log)
    with pytest.raises(VolumeUnavailableError):
        farm.store(noise(200, "refused"))
    wait_until(lambda: dict(farm.engine.volumes()[0].errors).get("read"))
    files.fault = None
    assert farm.read(shard) == noise(9000)
    farm.engine.close()


def in_the_second_segment(farm: Farm, files: RecordingFiles) -> list[ShardId]:
    """Store some shards there."""
    farm.store(noise(100))
    fail_a_sync(farm, files)
    wait_until(lambda: not farm.engine.opened()[0].writer.doubtful)
    return [farm.store(noise(9000, number)).shard for number in range(3)]


def fail_twice(farm: Farm, files: RecordingFiles) -> list[ShardId]:
    """Let the second sync within a day fail, of a segment whose second shard is damaged then."""
    shards = in_the_second_segment(farm, files)
    harm(farm.path / "log" / "00000002.seg", noise(9000, 1))
    files.fault = Fault(
        0, errno.EIO, lambda call: call.name == "sync_data" and "2.seg" in call.path
    )
    with pytest.raises(VolumeUnavailableError):
        farm.store(noise(200, "refused"))
    files.fault = None
    assert farm.engine.volumes()[0].state is VolumeState.FAILING
    return shards


def test_what_a_failing_volume_cannot_note_is_read_back_when_it_is_opened_anew(
    tmp_path: Path,
) -> None:
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    shards = fail_twice(farm, files)
    assert set(states(farm).values()) == {ShardState.LIVE}
    (slot,), now = farm.engine._slots, [0.0]
    slot._around = replace(slot._around, monotonic_s=lambda: now[0])
    for _ in range(PROOFS_WANTED[Seen.SYNC_FAILED] + 2):
        now[0] += PROBE_DISTRUSTED_EVERY_S + 1
        farm.engine.look_after_disks()
    assert farm.engine.volumes()[0].state is VolumeState.HEALTHY
    wait_until(lambda: states(farm)[shards[1]] is ShardState.QUARANTINED)
    assert [states(farm)[shards[number]] for number in (0, 2)] == [ShardState.LIVE] * 2
    wait_until(lambda: not farm.engine.opened()[0].writer.doubtful)
    farm.engine.close()


def test_what_was_doubtful_of_one_disk_is_not_of_another_in_its_place(tmp_path: Path) -> None:
    """None of the records there would be of the segment that was meant."""
    files = RecordingFiles()
    farm, other = (Farm(tmp_path / name, files=files) for name in ("one", "other"))
    in_the_second_segment(other, files)
    other.engine.close()
    fail_twice(farm, files)
    (slot,) = farm.engine._slots
    assert slot.volume is not None
    farm.path.rename(farm.path.with_name("aside"))
    other.path.rename(farm.path)
    slot._open_anew(slot.volume)
    assert slot.volume is not None and len(states(farm)) == 4
    wait_until(lambda: slot.volume is not None and not slot.volume.writer.doubtful)
    assert set(states(farm).values()) == {ShardState.LIVE}
    farm.engine.close()


@pytest.mark.parametrize("system", ["ext4", "xfs", "btrfs"])
def test_an_uncached_read_asks_the_disk(tmp_path: Path, system: str) -> None:
    """What changed below a mounted filesystem is seen, which the cache would have hidden."""
    need(system)
    image, folder = tmp_path / "image", tmp_path / "mounted"
    folder.mkdir()
    make_image(image, system)
    data = noise(65_536, system)
    files = OsFiles()
    with mounted(image, folder, system):
        path = folder / "segment"
        path.write_bytes(data)
        with path.open("rb") as file:
            files.sync_data(file.fileno())
            harm(image, data)
            assert files.pread(file.fileno(), len(data), 0) == data, "the cache still has it"
            files.uncache(file.fileno(), 0, len(data))
            try:
                found = files.pread(file.fileno(), len(data), 0)
            except OSError as error:
                assert (system, error.errno) == ("btrfs", errno.EIO)  # its own checksum
            else:
                assert found != data


@pytest.mark.parametrize("system", ["ext4", "xfs", "btrfs"])
def test_what_was_written_together_can_be_forgotten_apart(tmp_path: Path, system: str) -> None:
    """The kernel forgets whole folios only, and one write makes one of up to 2 MiB."""
    need(system)
    image, folder = tmp_path / "image", tmp_path / "mounted"
    folder.mkdir()
    make_image(image, system)
    parts = [noise(8192, number) for number in range(256)]
    files = OsFiles()
    with mounted(image, folder, system):
        path = folder / "segment"
        fd = files.open(path, Access.CREATE)
        files.pwritev(fd, [bytes(4096)], 0)
        files.pwritev(fd, parts, 4096)
        files.sync_data(fd)
        for number in (0, 100, 255):
            offset = 4096 + number * 8192
            harm(image, parts[number])
            files.uncache(fd, offset, 8192)
            assert not is_cached(fd, offset, 8192)
            try:
                found = files.pread(fd, 8192, offset)
            except OSError as error:
                assert (system, error.errno) == ("btrfs", errno.EIO)  # its own checksum
            else:
                assert found != parts[number]
        files.close(fd)


@given(offset=integers(0, 1 << 40), length=integers(0, 1 << 40))
def test_no_folio_reaches_beyond_what_is_forgotten(offset: int, length: int) -> None:
    """Wherever a folio lies of which any byte shall go; and nothing far away goes with it."""
    start, wide = whole_folios(offset, length)
    assert 0 <= start <= offset < start + FOLIO_BYTES_MAX
    assert start % FOLIO_BYTES_MAX == wide % FOLIO_BYTES_MAX == 0
    if length:
        assert offset + length <= start + wide < offset + length + FOLIO_BYTES_MAX
    else:
        assert not wide, "to the end"
