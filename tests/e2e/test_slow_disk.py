"""A real farmer with a healthy and a slow disk."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.sick_disks import (
    NOTICED_S,
    P99_S,
    SharedDisk,
    address_of,
    alerts_of,
    figures,
    noticed_s,
    p99,
    renters,
    two_disks,
    volume_at,
)
from tests.waiting import wait_until

pytestmark = [pytest.mark.apart, pytest.mark.slow, pytest.mark.alone]


def test_a_slow_disk_gets_no_new_shards_and_its_owner_is_told(tmp_path: Path) -> None:
    """It is served from all the while, and takes shards again by itself when it is quick."""
    disk = SharedDisk(tmp_path)
    try:
        sooner = (sys.executable, "-m", "tests.e2e.impatient")
        with two_disks(tmp_path, disk.mount / "volume", *sooner) as (daemon, path):
            with renters(daemon, tmp_path, lambda: disk.tire(0)) as workers:
                time.sleep(4)
                disk.tire(2)
                began = time.monotonic()
                seen_s = noticed_s(daemon, path, "slow")
                # Stores that had begun there go on, each behind syncs of two seconds.
                time.sleep(12)
                before, gone_on = volume_at(daemon, path)["shards"], time.monotonic()
                told_s = seen_s + wait_until(lambda: "VolumeSlow" in alerts_of(daemon), 60)
                while_slow = figures(workers, gone_on, time.monotonic())
                reason = volume_at(daemon, path)["reason"]
                assert volume_at(daemon, path)["shards"] == before
                disk.tire(0)
                back_s = wait_until(lambda: volume_at(daemon, path)["state"] == "healthy", 180)
                wait_until(lambda: volume_at(daemon, path)["shards"] > before, 20)
            print(
                f"noticed {seen_s:.1f} s, told {told_s:.1f} s ({reason}), back {back_s:.1f} s;"
                f" before {len(figures(workers, 0, began))} requests, while slow"
                f" {len(while_slow)}, p99 {p99(while_slow):.3f} s"
            )
            assert seen_s <= NOTICED_S
            # On the average: those of before count for a while, and 0.3 s are slow beside others.
            assert re.match(r"a (sync|read) takes (0\.[3-9]|[12]\.\d) s", reason)
            assert "VolumeSlow" not in alerts_of(daemon)
            assert len(while_slow) > 20
            assert p99(while_slow) <= P99_S
            for worker in workers:
                worker.check_all(address_of(daemon, worker))
    finally:
        disk.end()
