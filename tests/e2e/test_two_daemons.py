"""Two daemons where there should be one: on one home, on one volume, on a copy of the home."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon, Renter
from tests.waiting import wait_until


def stored(renter: Renter, path: Path) -> bool:
    path.write_bytes(path.name.encode() * 1000)
    return bool(renter.store(path)[0]["stored"])


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_a_second_daemon_on_the_same_home_learns_of_the_first(tmp_path: Path) -> None:
    with Daemon(tmp_path / "home", tmp_path / "volume") as daemon:
        daemon.start()
        assert daemon.process is not None
        second = daemon.call("run")
        assert second.returncode == 1
        assert f"process {daemon.process.pid}" in second.stderr.replace("pid", "process")
        renter = Renter(tmp_path / "renter")
        renter.join(daemon.invite())
        assert stored(renter, tmp_path / "file")


def test_another_farmer_does_not_get_a_volume_that_is_anothers(tmp_path: Path) -> None:
    """Whether or not the first one runs; nothing of it is changed."""
    with Daemon(tmp_path / "home", tmp_path / "volume") as daemon:
        daemon.start()
        other = Daemon(tmp_path / "other", tmp_path / "own")
        settings = other.home / "farmer.yaml"
        settings.write_text(settings.read_text().replace(str(other.volume), str(daemon.volume)))
        for _ in range(2):
            before = contents(daemon.volume)
            refused = other.call("run")
            assert refused.returncode == 1
            assert "belongs to the farmer" in refused.stderr
            assert contents(daemon.volume) == before
            daemon.stop()


@pytest.mark.slow
def test_a_copy_of_the_home_gets_neither_the_volume_nor_an_invite(tmp_path: Path) -> None:
    """When the first one has ended, it learns from the volume how old it is."""
    with Daemon(tmp_path / "home", tmp_path / "volume") as daemon:
        daemon.start()
        shared, late = daemon.invite(), daemon.invite()
        copy = tmp_path / "copy"
        shutil.copytree(daemon.home, copy, ignore=shutil.ignore_patterns("run.json", "*.lock"))
        renter = Renter(tmp_path / "renter")
        renter.join(shared)
        assert stored(renter, tmp_path / "before")

        with Daemon(copy, daemon.volume, with_init=False) as clone:
            clone.start()
            [volume] = clone.status()["volumes"]
            assert volume["state"] == "gone"
            assert "in use by another process" in volume["reason"]
            thief = Renter(tmp_path / "thief")
            assert thief.call("join", at(shared, clone)).returncode, "no volume can remember it"
            assert stored(renter, tmp_path / "meanwhile")
            assert renter.ask("audit", "--all")["passed"] == 2

            assert daemon.stop() == 0
            wait_until(lambda: clone.status()["volumes"][0]["state"] == "healthy")
            wait_until(lambda: "ContractsRolledBack" in alerts(clone))
            for invite in (shared, late):
                assert thief.call("join", at(invite, clone)).returncode, "withdrawn"
            assert clone.stop() == 0
        daemon.start()
        assert renter.ask("audit", "--all")["passed"] == 2


def at(invite: str, daemon: Daemon) -> str:
    """Return an invite that leads to this daemon: all have the same key."""
    scheme, _, rest = invite.partition("@")
    return f"{scheme}@{daemon.status()['listen'][0]}/{rest.partition('/')[2]}"


def alerts(daemon: Daemon) -> list[str]:
    return [alert["name"] for alert in daemon.status()["alerts"]]
