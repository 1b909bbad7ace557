"""Volumes added, emptied, moved and retired on a real farmer that serves all the while."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.daemon import Daemon, Renter
from tests.e2e.test_owner import ask
from tests.e2e.test_promises import make_files
from tests.e2e.test_repair import rot
from tests.waiting import wait_until


def rows(daemon: Daemon) -> dict[str, dict[str, Any]]:
    """Return the volumes by name, without those that were given up."""
    volumes = daemon.status()["volumes"]
    return {Path(row["path"]).name: row for row in volumes if row["state"] != "retired"}


def retired(daemon: Daemon) -> dict[str, str]:
    """Return where those were, and what the owner is told of them."""
    listed = ask(daemon, "volume", "list")["volumes"]
    return {row["path"]: row["reason"] for row in listed if row["state"] == "retired"}


def fill(renter: Renter, folder: Path) -> list[Path]:
    files = []
    for number, size in enumerate((0, 5000, 400_000, 3_000_000)):
        files.append(folder / f"file{number}")
        files[-1].write_bytes(bytes([number + 1]) * size)
    renter.store(*files)
    return files


@pytest.mark.slow
def test_a_volume_moves_to_another_directory_while_it_serves(
    daemon: Daemon, renter: Renter, tmp_path: Path
) -> None:
    """The settings name the new one, the old one is never opened again, audits pass."""
    fill(renter, tmp_path)
    text = daemon.home / "farmer.yaml"
    text.write_text(text.read_text() + "# the end\n")
    moved = daemon.call("volume", "move", str(daemon.volume), str(tmp_path / "new"))
    assert moved.returncode == 0, moved.stderr
    assert "4 shards" in moved.stdout

    wait_until(lambda: list(rows(daemon)) == ["new"])

    assert (rows(daemon)["new"]["shards"], rows(daemon)["new"]["quota_bytes"]) == (4, 10**9)
    assert str(daemon.volume) not in text.read_text()
    assert "# the end" in text.read_text()
    marker = json.loads((daemon.volume / "farmer-volume.json").read_text())
    assert marker["retired"] == f"moved to {tmp_path / 'new'}"
    assert renter.ask("audit", "--all")["passed"] == 4
    [checked] = ask(daemon, "volume", "check")["volumes"]
    assert (checked["findings"], checked["shards"]) == ([], 4)
    again = daemon.call("volume", "add", f"{daemon.volume}=1GB")
    assert "no volume any more: moved to" in again.stderr
    told = retired(daemon)
    assert list(told) == [str(daemon.volume)]
    assert told[str(daemon.volume)].startswith(f"moved to {tmp_path / 'new'}; no shard is on it")
    daemon.kill()
    assert retired(daemon) == told, "also of a stopped farmer"
    daemon.start()
    assert list(rows(daemon)) == ["new"]
    assert retired(daemon) == told
    assert renter.ask("audit", "--all")["passed"] == 4
    assert daemon.call("status").returncode == 0
    assert not daemon.status()["alerts"]
    daemon.stop()
    next((tmp_path / "new" / "shards").rglob("*.seg")).unlink()
    broken = daemon.call("volume", "check", str(tmp_path / "new"))
    assert broken.returncode == 4
    assert "1 wrong" in broken.stdout
    assert daemon.call("volume", "check", str(tmp_path / "nowhere")).returncode == 1


@pytest.mark.slow
def test_a_volume_is_drained_and_retired_with_its_files(
    daemon: Daemon, renter: Renter, tmp_path: Path
) -> None:
    """Nothing is begun that has no room; an empty one stays until it is retired."""
    fill(renter, tmp_path)
    alone = daemon.call("volume", "drain", str(daemon.volume))
    assert alone.returncode == 1
    assert "can take 0 B: nothing was begun" in alone.stderr
    forced = daemon.call("volume", "drain", str(daemon.volume), "--force")
    assert forced.returncode == 0, forced.stderr
    assert ask(daemon, "volume", "drain", str(daemon.volume), "--cancel")["shards"] == 4
    added = daemon.call("volume", "add", f"{tmp_path / 'other'}=1GB")
    assert "The running farmer uses it now." in added.stdout
    assert ask(daemon, "volume", "drain", str(daemon.volume))["shards"] == 4

    wait_until(lambda: rows(daemon)["other"]["shards"] == 4)

    listed = daemon.call("volume", "list").stdout
    assert f"{daemon.volume}: drain: 4 shards" in listed
    assert "; empty" in listed
    cancelled = ask(daemon, "volume", "drain", str(daemon.volume), "--cancel")
    assert cancelled["shards"] == 0
    assert rows(daemon)["volume"]["work"] is None
    begun = daemon.call("volume", "retire", str(daemon.volume), "--remove")
    assert begun.returncode == 0, begun.stderr
    wait_until(lambda: not daemon.volume.exists())
    assert list(rows(daemon)) == ["other"]
    assert list(retired(daemon)) == [str(daemon.volume)]
    daemon.call("volume", "add", f"{daemon.volume}=500MB")
    assert list(rows(daemon)) == ["other", "volume"]
    assert not retired(daemon), "it is one again"
    daemon.call("volume", "retire", str(daemon.volume))
    wait_until(lambda: list(rows(daemon)) == ["other"])
    assert renter.ask("audit", "--all")["passed"] == 4
    only = daemon.call("volume", "retire", str(tmp_path / "other"))
    assert only.returncode == 1
    daemon.stop()
    forgotten = daemon.call("volume", "forget", str(daemon.volume))
    assert "its shards are elsewhere" in forgotten.stdout
    assert not retired(daemon)
    assert daemon.call("volume", "drain", str(tmp_path / "other")).returncode == 3


@pytest.mark.slow
def test_a_damaged_shard_holds_a_volume_until_its_owner_gives_it_up(
    daemon: Daemon, renter: Renter, tmp_path: Path
) -> None:
    """What is sound moves all the same; the damaged one would look sound as a copy."""
    well, sick = make_files(tmp_path / "files", (5000, 900_000))
    stored = renter.store(well, sick)
    rot(daemon.volume, sick.read_bytes()[500_000:500_064])
    refused = renter.call("retrieve", stored[1]["shard"], "-o", str(tmp_path / "back"))
    assert "CORRUPT" in refused.stderr
    assert daemon.call("volume", "add", f"{tmp_path / 'other'}=1GB").returncode == 0

    assert daemon.call("volume", "retire", str(daemon.volume)).returncode == 0

    wait_until(lambda: rows(daemon)["other"]["shards"] == 1)
    assert "; 1 damaged shard cannot move until renters" in daemon.call("volume", "list").stdout
    retire = ("volume", "retire", str(daemon.volume), "--give-up-damaged")
    assert daemon.call(*retire).returncode == 0
    wait_until(lambda: list(rows(daemon)) == ["other"])
    assert renter.ask("audit", "--all")["passed"] == 1
    assert renter.call("stat", stored[1]["shard"]).returncode == 1


def test_who_may_not_write_the_settings_is_told_at_once(
    daemon: Daemon, renter: Renter, tmp_path: Path
) -> None:
    """Settings written in a way that we do not touch: nothing is begun."""
    daemon.call("volume", "add", f"{tmp_path / 'other'}=1GB")
    text = f"version: 1\nvolumes: [{{path: {daemon.volume}, quota: 1GB}}, "
    text += f"{{path: {tmp_path / 'other'}, quota: 1GB}}]\n"
    (daemon.home / "farmer.yaml").write_text(text)
    refused = daemon.call("volume", "retire", str(daemon.volume))
    assert refused.returncode == 1
    assert "take" in refused.stderr
    assert "by hand" in refused.stderr
    assert rows(daemon)["volume"]["work"] is None
    nowhere = daemon.call("volume", "drain", str(tmp_path / "nowhere"))
    assert "is not a volume of this farmer. Its volumes are: " in nowhere.stderr
    itself = daemon.call("volume", "move", str(daemon.volume), str(daemon.volume))
    assert "where it is" in itself.stderr
    assert renter.ask("list") is not None
