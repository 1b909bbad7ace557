"""The daemon under a limit of memory: it refuses, loses nothing, and goes on with more."""

from __future__ import annotations

import os
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from farmer.model.shard import RECORD_HEADER_BYTES
from farmer.storage.records import Kind, decode_record
from tests.e2e.daemon import Daemon, Renter

MIB = 1 << 20
ROOM_BYTES = (0, 2 * MIB)
"""How much more than it has the farmer may take: nothing; not enough for all at once."""


def taken_bytes(pid: int) -> int:
    """Return what counts against RLIMIT_DATA: all that is private and may be written."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmData:")[2].split()[0]) * 1024


def stored(renter: Renter, path: Path, size: int) -> bool:
    path.write_bytes(os.urandom(size))
    return bool(renter.store(path)[0]["stored"])


def audited(renter: Renter) -> int:
    """Have all audited; return how many were not answered.  What is answered is a proof."""
    told = renter.ask("audit", "--all")
    assert told["failed"] == 0, told
    return len(told["postponed"]) + len(told["errors"])


def work(renter: Renter, folder: Path) -> int:
    """Store small and large, and have all audited; return how much was refused."""
    path = folder / f"{renter.home.name}.more"
    return sum(not stored(renter, path, size) for size in (MIB, 3 * MIB)) + audited(renter)


def has_leases(volume: Path) -> bool:
    """Say whether an upload is unfinished; a file that waits for its shelf is a stored shard."""
    headers = [
        decode_record(path.read_bytes()[:RECORD_HEADER_BYTES], bytes.fromhex(path.stem), path)
        for path in (volume / "staging").iterdir()
    ]
    return any(header.kind is Kind.STAGING for header in headers)


@pytest.mark.slow
def test_a_farmer_without_memory_refuses_loses_nothing_and_goes_on(tmp_path: Path) -> None:
    """At no moment does it stand still, and afterwards nothing is promised to nobody."""
    with Daemon(tmp_path / "home", tmp_path / "volume") as daemon:
        daemon.start()
        assert daemon.process is not None
        pid, refused = daemon.process.pid, []
        renters = [Renter(tmp_path / f"renter{number}") for number in range(3)]
        for renter in renters:
            renter.join(daemon.invite("100MB"))
            assert stored(renter, tmp_path / "first", 200_000)
        before = resource.prlimit(pid, resource.RLIMIT_DATA)

        for room in ROOM_BYTES:
            resource.prlimit(pid, resource.RLIMIT_DATA, (taken_bytes(pid) + room, before[1]))
            with ThreadPoolExecutor(len(renters)) as threads:
                refused += threads.map(lambda renter: work(renter, tmp_path), renters)
            assert daemon.process.poll() is None, daemon.logs.read_text()[-3000:]
            resource.prlimit(pid, resource.RLIMIT_DATA, before)
            for renter in renters:
                assert stored(renter, tmp_path / "after", 1000), "it goes on at once"
                assert audited(renter) == 0

        assert sum(refused), "it was not short of anything"
        [volume] = daemon.status()["volumes"]
        assert (volume["state"], volume["quarantined"]) == ("healthy", 0)
        assert (volume["reserved_bytes"] > 0) is has_leases(daemon.volume)
        daemon.kill()
        daemon.start()
        assert not any(audited(renter) for renter in renters)
        assert [one["state"] for one in daemon.status()["volumes"]] == ["healthy"]
