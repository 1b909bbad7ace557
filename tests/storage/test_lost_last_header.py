"""A stored large shard whose last header, the one that says so, the disk has lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from farmer.model.shard import RECORD_HEADER_BYTES
from farmer.storage.directory import VolumeSettings
from farmer.storage.leases import Leases
from farmer.storage.records import decode_record
from farmer.storage.staging import Lease
from tests.storage.bench import ALICE, MIB, Farm, contract_of, crash_copy, noise, shard_of

DATA = noise(12 * MIB)
KEY = (ALICE, shard_of(DATA))


def store(farm: Farm) -> tuple[Path, bytes]:
    """Return its file, which waits in staging, and the header that it had before the last."""
    upload = farm.begin(DATA)
    for start in range(0, len(DATA), MIB):
        upload.write(DATA[start : start + MIB])
    (part,) = (farm.path / "staging").iterdir()
    header = part.read_bytes()[:RECORD_HEADER_BYTES]
    upload.commit().result(20)
    return part, header


@pytest.mark.parametrize("is_read_first", [False, True])
def test_it_is_no_lease_and_stays(tmp_path: Path, is_read_first: bool) -> None:
    farm = Farm(tmp_path)
    part, header = store(farm)
    copy = farm.path.with_name("copy")
    crash_copy(farm.path, copy)
    farm.engine.close()
    with (copy / "staging" / part.name).open("r+b") as file:
        file.write(header)
    farm.settings = [VolumeSettings(copy, 64 * MIB)]
    farm.open()
    assert not farm.engine.opened()[0].leases.of()
    if is_read_first:
        assert farm.read(shard_of(DATA)) == DATA
    assert farm.engine.usage(ALICE).reserved_bytes == 0
    farm.clocks.pass_days(2)
    farm.sweep()
    assert farm.read(shard_of(DATA)) == DATA
    farm.engine.close()


@pytest.mark.parametrize(
    "end",
    [
        Leases.end,
        lambda leases, _lease: leases.erase(KEY),
        lambda leases, _lease: leases.drop(leases.take(KEY)),
    ],
    ids=["end", "erase", "drop"],
)
def test_no_lease_ends_by_the_file_of_a_stored_shard(
    tmp_path: Path, end: Callable[[Leases, Lease], object]
) -> None:
    """However it came to stand for one."""
    farm = Farm(tmp_path)
    part, raw = store(farm)
    volume = farm.engine.opened()[0]
    header = decode_record(raw, raw[16:32], part)
    ground = volume.ground
    held = ground.ledger.reserve(ground.account, contract_of(ALICE), len(DATA))
    lease = Lease(header, held)
    volume.leases.keep(lease)
    end(volume.leases, lease)
    assert not volume.leases.of()
    assert part.exists()
    assert farm.engine.usage(ALICE).reserved_bytes == 0
    farm.engine.close()
