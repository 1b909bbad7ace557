"""Confirmed means durable: the sync came before the answer, the directory's too."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from farmer.model.audit import AuditEntry
from tests.storage.bench import ALICE, MIB, Farm, noise, shard_of
from tests.storage.recording import Call, Fault, RecordingFiles


@pytest.fixture
def files() -> RecordingFiles:
    return RecordingFiles()


@pytest.fixture
def watched(tmp_path: Path, files: RecordingFiles) -> Iterator[Farm]:
    farm = Farm(tmp_path, files=files)
    farm.store(b"the first segment exists")
    files.forget()
    yield farm
    farm.engine.close()


def test_a_small_shard_is_written_then_synced_then_answered(
    watched: Farm, files: RecordingFiles
) -> None:
    watched.store(noise(5000))
    assert files.names("pwritev", "sync_data", "sync_directory") == ["pwritev", "sync_data"]


def test_a_new_segment_and_its_name_are_synced_before_the_first_record(
    tmp_path: Path, files: RecordingFiles
) -> None:
    farm = Farm(tmp_path, files=files)
    files.forget()
    farm.store(noise(10))
    assert files.names("open", "pwritev", "sync_data", "sync_directory") == [
        "open",
        "pwritev",
        "sync_data",
        "sync_directory",
        "pwritev",
        "sync_data",
    ]
    farm.engine.close()


def test_a_large_upload_is_registered_durably_before_it_begins(
    watched: Farm, files: RecordingFiles
) -> None:
    upload = watched.begin(noise(2 * MIB))
    steps = files.names("open", "preallocate", "pwritev", "sync_data", "sync_directory")
    assert steps == ["open", "preallocate", "pwritev", "sync_data", "sync_directory"]
    assert files.calls[-1] == Call("sync_directory", "staging")
    upload.abandon()


def test_a_large_shard_is_synced_before_its_header_and_after_it(
    watched: Farm, files: RecordingFiles
) -> None:
    data = noise(2 * MIB)
    upload = watched.begin(data)
    upload.write(data)
    files.forget()
    upload.commit().result(10)
    steps = [call for call in files.calls if call.name in {"pwritev", "sync_data"}]
    assert [call.name for call in steps] == ["pwritev", "sync_data", "pwritev", "sync_data"]
    assert steps[2].length == 256


def test_large_uploads_are_synced_every_eight_mebibytes(
    watched: Farm, files: RecordingFiles
) -> None:
    data = noise(20 * MIB)
    upload = watched.begin(data)
    files.forget()
    for start in range(0, len(data), MIB):
        upload.write(data[start : start + MIB])
    assert files.names("sync_data") == ["sync_data"] * 2
    upload.abandon()


@pytest.mark.parametrize("size", [5000, 2 * MIB])
def test_deletes_are_synced_and_erased_space_is_returned_before_the_answer(
    watched: Farm, files: RecordingFiles, size: int
) -> None:
    shard = watched.store(noise(size)).shard
    files.forget()
    watched.delete(shard)
    assert files.names("pwritev", "sync_data") == ["pwritev", "sync_data"]
    files.forget()
    watched.delete(shard, erase=True)
    steps = files.names("pwritev", "sync_data", "punch", "unlink", "sync_directory")
    if size > MIB:
        # It has two names while it leaves staging.
        assert steps == ["pwritev", "sync_data", "unlink", "unlink", "sync_directory"]
    else:
        assert steps == ["pwritev", "sync_data", "punch", "sync_data"]


class SlowFiles(RecordingFiles):
    """A disk whose every sync takes eight milliseconds."""

    def sync_data(self, fd: int) -> None:
        super().sync_data(fd)
        threading.Event().wait(0.008)


def test_sixty_four_stores_at_once_share_their_syncs(tmp_path: Path) -> None:
    files = SlowFiles()
    farm = Farm(tmp_path, files=files, quota_bytes=256 * MIB)
    farm.store(b"first")
    shards = [noise(65536, n) for n in range(256)]
    uploads = []
    files.forget()
    with ThreadPoolExecutor(64) as threads:
        for start in range(0, 256, 64):
            some = shards[start : start + 64]
            uploads = [farm.begin(data) for data in some]
            list(threads.map(lambda pair: pair[0].write(pair[1]), zip(uploads, some, strict=True)))
            futures = list(threads.map(lambda upload: upload.commit(), uploads))
            for future in futures:
                future.result(20)
    syncs = files.names("sync_data")
    assert len(syncs) / 256 <= 0.1
    farm.engine.close()


def test_a_sample_audit_reads_its_blocks_and_the_tree_and_no_more(
    watched: Farm, files: RecordingFiles
) -> None:
    data = noise(20 * MIB)
    shard = watched.store(data).shard
    files.forget()
    watched.engine.prove_sample(ALICE, b"n" * 32, AuditEntry(shard, len(data), 20))
    assert sum(files.bytes_read().values()) <= 20 * 65536 + 320 * 36 + 256


def test_a_start_lists_the_staging_directory_and_the_log_alone(
    tmp_path: Path, files: RecordingFiles
) -> None:
    farm = Farm(tmp_path, files=files)
    farm.store(noise(2 * MIB))
    farm.store(noise(10))
    files.forget()
    farm.reopen()
    listed = [call.path for call in files.calls if call.name == "list"]
    assert listed == ["staging", "log"]
    farm.engine.close()


def test_stored_large_shards_leave_staging_after_a_checkpoint(
    watched: Farm, files: RecordingFiles
) -> None:
    shard = watched.store(noise(2 * MIB)).shard
    assert len(list((watched.path / "staging").iterdir())) == 1
    watched.reopen()
    assert not list((watched.path / "staging").iterdir())
    assert len(list((watched.path / "shards").glob("*/*.seg"))) == 1
    assert watched.read(shard) == noise(2 * MIB)
    assert shard == shard_of(noise(2 * MIB))


def test_a_close_moves_a_large_shard_only_when_the_index_that_knows_it_is_durable(
    watched: Farm, files: RecordingFiles
) -> None:
    watched.store(noise(2 * MIB))
    log_of_the_index = watched.path / "index.sqlite-wal"
    assert log_of_the_index.stat().st_size
    not_written_back = []

    def look(call: Call) -> bool:
        if call.name == "rename":
            not_written_back.append(log_of_the_index.stat().st_size)
        return False

    files.fault = Fault(0, 0, look)
    watched.engine.close()
    files.fault = None
    assert not_written_back == [0]
    watched.open()
