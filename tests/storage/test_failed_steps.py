"""What reaches the disk before a store is complete, and how that may fail."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from farmer.storage import syscalls
from farmer.storage.errors import NoSpaceError, VolumeUnavailableError
from farmer.storage.staging import SYNC_EVERY_BYTES, WRITE_BACK_EVERY_BYTES
from tests.storage.bench import ALICE, MIB, Farm, noise
from tests.storage.recording import Call, Fault, RecordingFiles

SIZE = 2 * SYNC_EVERY_BYTES + MIB


def sync_in_mid_store(call: Call) -> bool:
    return call.name == "sync_data" and call.path.endswith(".part")


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    ("number", "refusal"), [(errno.EIO, VolumeUnavailableError), (errno.EDQUOT, NoSpaceError)]
)
def test_a_failed_sync_in_mid_store_ends_the_store_and_is_never_repeated(
    tmp_path: Path, number: int, refusal: type[Exception], which: int
) -> None:
    """Of what was written back early nobody knows what the disk has: nothing goes on from it."""
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files, quota_bytes=256 * MIB)
    kept, data = farm.store(noise(5000)).shard, noise(SIZE)
    upload = farm.begin(data)
    files.forget()
    files.fault = fault = Fault(which, number, sync_in_mid_store)
    with pytest.raises(refusal):
        for start in range(0, SIZE, MIB):
            upload.write(data[start : start + MIB])
    upload.abandon()
    assert fault.struck
    [part] = {call.path for call in files.calls if call.path.endswith(".part")}
    after = [call.name for call in files.calls if call.path == part]
    assert after.count("sync_data") == which + 1
    assert after[-1] == "unlink"
    assert farm.engine.volumes()[0].reserved_bytes == farm.engine.usage(ALICE).reserved_bytes == 0
    alerts = [alert.name for alert in farm.engine.trouble()]
    assert alerts == (["VolumeSyncFailed"] if number == errno.EIO else [])
    files.fault = None
    assert farm.begin(data).offset == 0, "it begins anew"
    farm.reopen()
    assert farm.read(farm.store(data).shard) == data
    assert farm.read(kept) == noise(5000)
    farm.engine.close()


def parts(files: RecordingFiles) -> list[Call]:
    return [call for call in files.calls if call.path.endswith(".part")]


def test_the_disk_is_told_to_begin_before_each_sync_and_never_instead(tmp_path: Path) -> None:
    files = RecordingFiles()
    farm, data = Farm(tmp_path, files=files, quota_bytes=256 * MIB), noise(SIZE)
    upload = farm.begin(data)
    files.forget()
    for start in range(0, SIZE, 100_000):
        upload.write(data[start : start + 100_000])
    begun = [call.length for call in parts(files) if call.name == "begin_write_back"]
    assert set(begun) <= {WRITE_BACK_EVERY_BYTES + more for more in range(100_000)}
    assert len(begun) == 2 * (SYNC_EVERY_BYTES // WRITE_BACK_EVERY_BYTES - 1)
    synced = [call.name for call in parts(files)].count("sync_data")
    assert synced == 2
    upload.commit().result()
    names = [call.name for call in files.calls]
    assert names[names.index("begin_write_back") :].count("sync_data") >= synced + 2
    farm.engine.close()


@pytest.mark.parametrize(
    ("number", "refusal"), [(errno.EIO, VolumeUnavailableError), (errno.ENOSPC, NoSpaceError)]
)
def test_a_disk_that_does_not_begin_ends_the_store(
    tmp_path: Path, number: int, refusal: type[Exception]
) -> None:
    files = RecordingFiles()
    farm, data = Farm(tmp_path, files=files, quota_bytes=256 * MIB), noise(SIZE)
    upload = farm.begin(data)
    files.fault = Fault(1, number, lambda call: call.name == "begin_write_back")
    with pytest.raises(refusal):
        for start in range(0, SIZE, MIB):
            upload.write(data[start : start + MIB])
    upload.abandon()
    assert not list(farm.path.rglob("*.part"))
    assert farm.engine.usage(ALICE).reserved_bytes == 0
    files.fault = None
    assert farm.read(farm.store(data).shard) == data
    farm.engine.close()


def test_what_is_no_file_cannot_be_begun(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with pytest.raises(OSError, match="seek"):
        syscalls.begin_write_back(writing, 0, 4096)
    os.close(reading)
    os.close(writing)
    with pytest.raises(OSError, match="descriptor"):
        syscalls.begin_write_back(writing, 0, 4096)
    with (tmp_path / "file").open("wb") as file:
        file.write(bytes(8192))
        file.flush()
        syscalls.begin_write_back(file.fileno(), 0, 8192)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_where_nothing_can_be_begun_nothing_is(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """An old kernel, a filter of system calls, another system: the sync does it all."""

    def fails(*_: object) -> int:
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(syscalls, "_sync_file_range", fails)
    syscalls.begin_write_back(-1, 0, 4096)
    monkeypatch.setattr(syscalls, "_sync_file_range", None)
    syscalls.begin_write_back(-1, 0, 4096)


def test_a_call_that_was_interrupted_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def is_interrupted(*_: object) -> int:
        asked.append(1)
        ctypes.set_errno(errno.EINTR)
        return -1 if len(asked) < 3 else 0

    monkeypatch.setattr(syscalls, "_sync_file_range", is_interrupted)
    syscalls.begin_write_back(-1, 0, 4096)
    assert len(asked) == 3
