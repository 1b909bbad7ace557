"""What reaches the disk before a store is complete: a sync of it that fails is not repeated."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from farmer.storage.errors import NoSpaceError, VolumeUnavailableError
from farmer.storage.staging import SYNC_EVERY_BYTES
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
