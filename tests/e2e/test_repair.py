"""From rot on a real disk to a shard that is whole again, by the two command lines alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.daemon import Daemon, Renter
from tests.e2e.test_promises import make_files
from tests.waiting import wait_until

BLOCK = 65536
WAIT_S = 60.0


def rot(volume: Path, needle: bytes) -> None:
    """Change one byte of what a renter stored, in the file that holds it."""
    for file in volume.rglob("*"):
        if file.suffix in {".seg", ".part"}:
            content = file.read_bytes()
            at = content.find(needle)
            if at >= 0:
                with file.open("r+b") as opened:
                    opened.seek(at)
                    opened.write(bytes([content[at] ^ 1]))
                return
    raise AssertionError("not on the disk")


def scrub(daemon: Daemon) -> dict[str, Any]:
    """Have everything read again, and wait until it is."""
    ended = daemon.status()["volumes"][0]["scrub"]["ended_at_ms"]
    told = daemon.call("scrub", "now", "--json")
    assert told.returncode == 0, told.stderr

    def row() -> dict[str, Any]:
        answer = daemon.call("scrub", "status", "--json")
        (row,) = json.loads(answer.stdout)["volumes"]
        return row  # type: ignore[no-any-return]  # JSON

    def is_read() -> bool:
        now = row()
        return now["state"] == "idle" and now["ended_at_ms"] > ended

    wait_until(is_read, WAIT_S, shown=row)
    return row()


@pytest.mark.slow
def test_rot_is_found_told_served_around_and_repaired(
    daemon: Daemon, renter: Renter, tmp_path: Path
) -> None:
    """Rot, scrub, stat, a range beside it, repair, audit."""
    small, large = make_files(tmp_path / "files", (900_000, 3_000_000))
    rows = renter.store(small, large)
    for path in (small, large):
        rot(daemon.volume, path.read_bytes()[5 * BLOCK + 100 :][:64])

    found = scrub(daemon)

    assert (found["checked"], found["damaged"]) == (2, 2)
    alerts = {alert["name"] for alert in daemon.status()["alerts"]}
    assert alerts >= {"ShardsQuarantined", "ScrubFoundDamage"}
    for row, path in zip(rows, (small, large), strict=True):
        shard, data = row["shard"], path.read_bytes()
        stated = renter.ask("stat", shard)
        assert (stated["state"], stated["bad_blocks"]) == ("quarantined", [5])
        part = tmp_path / "part"
        beside = ("--offset", str(6 * BLOCK), "--length", str(BLOCK))
        assert renter.call("retrieve", shard, *beside, "-o", str(part)).returncode == 0
        assert part.read_bytes() == data[6 * BLOCK : 7 * BLOCK]
        touching = ("--offset", str(5 * BLOCK - 1), "--length", "2")
        refused = renter.call("retrieve", shard, *touching, "-o", str(part))
        assert refused.returncode == 1
        assert "CORRUPT" in refused.stderr
    assert renter.ask("audit", "--all")["failed"] == 2

    copy = small.rename(tmp_path / "moved")
    lost = renter.call("repair", rows[0]["shard"])
    assert lost.returncode == 1
    assert "--from" in lost.stderr
    wrong = renter.call("repair", rows[0]["shard"], "--from", str(large))
    assert wrong.returncode == 1
    repaired = renter.ask("repair", rows[0]["shard"], "--from", str(copy))
    assert (repaired["blocks"], repaired["sent_bytes"]) == ([5], BLOCK)
    assert renter.ask("repair", rows[1]["shard"])["sent_bytes"] == BLOCK
    assert renter.ask("repair", rows[1]["shard"])["sent_bytes"] == 0

    assert renter.ask("audit", "--all", "--full")["failed"] == 0
    daemon.kill()
    daemon.start()
    assert renter.ask("audit", "--all")["failed"] == 0
    assert scrub(daemon)["damaged"] == 0
    assert daemon.status()["alerts"] == []


def test_the_owner_pauses_the_scrub(daemon: Daemon) -> None:
    """What the owner says is kept, and shown."""
    assert daemon.call("scrub", "pause").returncode == 0
    assert "paused" in daemon.call("scrub", "status").stdout
    assert daemon.call("scrub", "resume", "--volume", "cellar").returncode == 1
    assert daemon.call("scrub", "resume").returncode == 0
    assert "paused" not in daemon.call("scrub", "status").stdout
