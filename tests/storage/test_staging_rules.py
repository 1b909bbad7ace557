"""One staging file alone: what is on the disk when, and what is left of it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import pytest

from farmer.audit.tree import TreeHasher
from farmer.model.shard import RECORD_HEADER_BYTES
from farmer.storage import staging as staging_module
from farmer.storage.directory import Paths
from farmer.storage.quota import Ledger, Reservation, VolumeAccount
from farmer.storage.records import (
    BlockChecksums,
    Kind,
    RecordHeader,
    decode_record,
    trailer_length,
)
from farmer.storage.staging import LEASE_MS, Lease, Staged, reopen, stage, staging_header
from tests.storage.bench import ALICE, MIB, contract_of, noise, shard_of
from tests.storage.recording import Fault, RecordingFiles

SIZE = 5 * 65_536 + 100
DATA = noise(SIZE)
STEP = 65_536


class Files(RecordingFiles):
    """Files that know what the disk was told to begin with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.begun: list[tuple[int, int]] = []

    def begin_write_back(self, fd: int, offset: int, length: int) -> None:
        self.begun.append((offset, length))
        super().begin_write_back(fd, offset, length)


@pytest.fixture
def files() -> Iterator[Files]:
    files = Files()
    yield files
    assert not files.is_open


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    paths.staging.mkdir()
    return paths


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging_module, "SYNC_EVERY_BYTES", 4 * STEP)
    monkeypatch.setattr(staging_module, "WRITE_BACK_EVERY_BYTES", STEP)
    monkeypatch.setattr(staging_module, "_READ_BYTES", STEP + 7)


def header_of(data: bytes = DATA) -> RecordHeader:
    return staging_header(contract_of(ALICE), shard_of(data), len(data), 1000, 77)


def path_of(paths: Paths, header: RecordHeader) -> Path:
    return paths.part(header.segment)


def on_disk(paths: Paths, header: RecordHeader) -> RecordHeader:
    raw = path_of(paths, header).read_bytes()
    return decode_record(raw[:RECORD_HEADER_BYTES], header.segment, "it")


def unexpected(path: Path) -> None:
    raise AssertionError(f"{path} stays")


def test_a_first_header_says_what_is_to_come() -> None:
    one, other = header_of(), header_of()
    assert one.segment != other.segment
    assert len(one.segment) == 16
    contract = contract_of(ALICE)
    assert one == RecordHeader(
        kind=Kind.STAGING,
        segment=one.segment,
        sequence=0,
        payload_bytes=SIZE,
        trailer_bytes=trailer_length(SIZE),
        trailer_crc=0,
        renter=ALICE,
        shard=shard_of(DATA),
        contract=contract.contract,
        active_at_ms=1000,
        until_ms=contract.until_ms,
        alone_ms=77,
    )


def test_space_header_and_name_are_durable_before_a_byte_is_asked_for(
    files: Files, paths: Paths
) -> None:
    header = header_of()
    staged = stage(files, paths, header, unexpected)
    names = files.names("open", "preallocate", "pwritev", "sync_data", "sync_directory")
    assert names == ["open", "preallocate", "pwritev", "sync_data", "sync_directory"]
    assert path_of(paths, header).stat().st_size == header.record_bytes
    assert on_disk(paths, header) == header
    assert staged.offset == 0
    staged.close()


@pytest.mark.parametrize("call", ["preallocate", "pwritev", "sync_data", "sync_directory"])
def test_what_cannot_be_made_leaves_nothing(files: Files, paths: Paths, call: str) -> None:
    files.fault = Fault(0, errno.ENOSPC, lambda one: one.name == call)
    with pytest.raises(OSError, match="No space"):
        stage(files, paths, header_of(), unexpected)
    assert list(paths.staging.iterdir()) == []


def test_a_finished_file_is_a_record(files: Files, paths: Paths) -> None:
    header = header_of()
    staged = stage(files, paths, header, unexpected)
    for start in range(0, SIZE, 1000):
        staged.write(DATA[start : start + 1000], 2000)
    assert staged.shard_id() == header.shard
    assert not staged.may_be_stored
    files.forget()
    finished = staged.finish(7, 3000)
    assert files.names() == ["pwritev", "sync_data", "pwritev", "sync_data"]
    assert staged.may_be_stored
    staged.close()

    tree, checksums = TreeHasher(), BlockChecksums()
    tree.update(DATA)
    checksums.update(DATA)
    trailer = tree.finish().block_hashes + checksums.finish()
    raw = path_of(paths, header).read_bytes()
    assert raw[RECORD_HEADER_BYTES : RECORD_HEADER_BYTES + SIZE] == DATA
    assert raw[RECORD_HEADER_BYTES + SIZE :][: len(trailer)] == trailer
    assert finished == on_disk(paths, header)
    assert finished == replace(
        header,
        kind=Kind.SHARD,
        sequence=7,
        trailer_crc=crc32(trailer),
        stored_at_ms=3000,
        synced_bytes=SIZE,
        active_at_ms=3000,
    )


def test_bytes_are_synced_every_so_often_and_only_then_said_to_be_there(
    files: Files, paths: Paths
) -> None:
    header = header_of()
    staged = stage(files, paths, header, unexpected)
    files.forget()
    synced = []
    for step in range(5):
        staged.write(DATA[step * STEP : (step + 1) * STEP], 2000 + step)
        synced.append(on_disk(paths, header).synced_bytes)
    assert synced == [0, 0, 0, 4 * STEP, 4 * STEP]
    assert on_disk(paths, header).active_at_ms == 2003
    calls = files.names("pwritev", "sync_data")
    assert calls == ["pwritev"] * 4 + ["sync_data", "pwritev"] + ["pwritev"]
    staged.close()


def test_the_disk_is_told_to_begin_with_whole_pages_and_never_twice(
    files: Files, paths: Paths
) -> None:
    staged = stage(files, paths, header_of(), unexpected)
    files.begun.clear()
    for start in range(0, SIZE, STEP // 2 + 500):
        staged.write(DATA[start : start + STEP // 2 + 500], 2000)
    staged.close()
    starts = [offset for offset, _ in files.begun]
    ends = [offset + length for offset, length in files.begun]
    assert ends[0] == (RECORD_HEADER_BYTES + STEP + 1000) // 4096 * 4096
    assert all(end % 4096 == 0 for end in ends)
    assert starts == [0, *ends[:-1]]


def test_the_last_bytes_are_left_to_the_sync(files: Files, paths: Paths) -> None:
    data = noise(STEP + 100)
    staged = stage(files, paths, header_of(data), unexpected)
    files.begun.clear()
    staged.write(data[: STEP - RECORD_HEADER_BYTES - 1], 2000)
    assert files.begun == []
    staged.write(data[STEP - RECORD_HEADER_BYTES - 1 :], 2000)
    assert files.begun == []
    staged.close()


def test_a_step_is_begun_when_it_is_whole(files: Files, paths: Paths) -> None:
    staged = stage(files, paths, header_of(), unexpected)
    staged.write(DATA[: STEP - RECORD_HEADER_BYTES], 2000)
    assert files.begun == [(0, STEP)]
    staged.close()


def test_a_few_mib_are_begun_now_and_then_and_wait_for_no_sync(
    files: Files, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the steps that the farmer has."""
    monkeypatch.undo()
    data = noise(4 * MIB)
    staged = stage(files, paths, header_of(data), unexpected)
    files.forget()
    for start in range(0, 3 * MIB, 256 * 1024):
        staged.write(data[start : start + 256 * 1024], 2000)
    assert files.names("sync_data") == []
    assert len(files.begun) == 3
    staged.close()


def test_what_a_sync_covers_is_not_begun_again(files: Files, paths: Paths) -> None:
    staged = stage(files, paths, header_of(), unexpected)
    staged.write(DATA[: STEP // 2], 2000)
    staged.sync(2001)
    staged.write(DATA[STEP // 2 : STEP], 2000)
    assert files.begun == []
    staged.write(DATA[STEP : STEP // 2 * 3], 2000)
    ((start, length),) = files.begun
    assert start == RECORD_HEADER_BYTES + STEP // 2
    assert (start + length) % 4096 == 0
    staged.close()


def test_who_leaves_a_file_alone_has_made_it_durable(files: Files, paths: Paths) -> None:
    header = header_of()
    staged = stage(files, paths, header, unexpected)
    staged.write(DATA[:1000], 2000)
    files.forget()
    staged.lease(3000)
    assert files.names() == ["sync_data", "pwritev", "sync_data"]
    left = on_disk(paths, header)
    assert (left.synced_bytes, left.active_at_ms, left.kind) == (1000, 3000, Kind.STAGING)
    staged.close()


def test_a_lease_lasts_no_longer_for_going_on_without_a_byte(files: Files, paths: Paths) -> None:
    staged = stage(files, paths, header_of(), unexpected)
    files.forget()
    staged.lease(3000)
    assert files.names() == []
    staged.write(DATA[:1000], 2000)
    staged.lease(3000)
    staged.close()
    again = reopen(files, paths, staged.header)
    assert again.offset == 1000
    files.forget()
    again.lease(9000)
    assert files.names() == []
    assert on_disk(paths, staged.header).active_at_ms == 3000
    again.close()


def test_who_goes_on_gets_the_same_shard(files: Files, paths: Paths) -> None:
    staged = stage(files, paths, header_of(), unexpected)
    staged.write(DATA[: 3 * STEP + 5], 2000)
    staged.lease(3000)
    staged.close()
    again = reopen(files, paths, staged.header)
    files.begun.clear()
    again.write(DATA[again.offset :], 4000)
    assert again.shard_id() == shard_of(DATA)
    again.finish(1, 5000)
    again.close()
    raw = path_of(paths, staged.header).read_bytes()
    assert raw[RECORD_HEADER_BYTES:][:SIZE] == DATA


def test_who_goes_on_does_not_begin_what_is_on_the_disk(files: Files, paths: Paths) -> None:
    staged = stage(files, paths, header_of(), unexpected)
    staged.write(DATA[: 2 * STEP], 2000)
    staged.lease(3000)
    staged.close()
    again = reopen(files, paths, staged.header)
    files.begun.clear()
    again.write(DATA[2 * STEP : 2 * STEP + 10], 4000)
    assert files.begun == []
    again.close()


def test_a_file_shorter_than_its_header_says_is_not_gone_on_with(
    files: Files, paths: Paths
) -> None:
    staged = stage(files, paths, header_of(), unexpected)
    staged.write(DATA[: 2 * STEP], 2000)
    staged.lease(3000)
    staged.close()
    with path_of(paths, staged.header).open("r+b") as file:
        file.truncate(RECORD_HEADER_BYTES + 2 * STEP - 1)
    with pytest.raises(OSError, match="shorter than its header says"):
        reopen(files, paths, staged.header)


@pytest.mark.parametrize("stored", [True, False])
def test_a_file_is_removed_durably_if_a_start_might_take_it_for_a_shard(
    files: Files, paths: Paths, stored: bool
) -> None:
    data = DATA[:1000]
    staged = stage(files, paths, header_of(data), unexpected)
    staged.write(data, 2000)
    if stored:
        staged.finish(1, 3000)
    files.forget()
    staged.remove()
    assert files.names() == (["unlink", "sync_directory"] if stored else ["unlink"])
    assert list(paths.staging.iterdir()) == []
    assert not files.is_open


def test_a_close_never_fails_and_is_safe_twice(
    files: Files, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = stage(files, paths, header_of(), unexpected)
    closed = files.close

    def fails(fd: int) -> None:
        closed(fd)
        raise OSError(errno.EIO, "it says so")

    monkeypatch.setattr(files, "close", fails)
    staged.close()
    staged.close()
    assert not files.is_open


def reservation() -> Reservation:
    ledger, account = Ledger(10, 10), VolumeAccount(64 * MIB, 0)
    return ledger.restore(account, ALICE, SIZE)


def test_a_lease_may_be_swept_a_day_after_its_last_activity() -> None:
    header = header_of()
    lease = Lease(header, reservation())
    assert lease.file == header.segment
    assert lease.gone_at_ms == 1000 + LEASE_MS == 1000 + 86_400_000
    lease.not_after(1000)
    assert lease.header is header
    lease.not_after(999)
    assert lease.gone_at_ms == 999 + LEASE_MS
    assert lease.header == replace(header, active_at_ms=999)


def test_a_staging_file_is_open_until_it_is_closed(files: Files, paths: Paths) -> None:
    staged: Staged = stage(files, paths, header_of(), unexpected)
    assert files.is_open
    staged.close()
    assert not files.is_open
