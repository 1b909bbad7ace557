"""A real farmer whose files another user has put back, as root from a backup: told, not mended."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon, Renter
from tests.needs import as_root
from tests.waiting import wait_until

pytestmark = [as_root, pytest.mark.tool("setpriv")]

_POWERS = "-dac_override,-dac_read_search"
WITH_THE_RIGHTS_OF_AN_OWNER = ("setpriv", "--bounding-set", _POWERS, "--inh-caps", _POWERS)
ANOTHER = 12_345


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path / "home", tmp_path / "volume", "100MB") as farmer:
        yield farmer


def give_away(path: Path) -> None:
    os.chown(path, ANOTHER, ANOTHER)
    path.chmod(0o700 if path.is_dir() else 0o600)


@pytest.mark.parametrize("name", ["", "identity", "identity/identity.key", "contracts.sqlite"])
def test_a_home_of_which_another_user_has_a_part_is_told_with_what_mends_it(
    daemon: Daemon, name: str
) -> None:
    daemon.start()
    daemon.stop()
    give_away(daemon.home / name)
    with pytest.raises(AssertionError, match="no ready line"):
        daemon.start(*WITH_THE_RIGHTS_OF_AN_OWNER)
    [line] = daemon.logs.read_text().splitlines()[-1:]
    assert f"{daemon.home / name}" in line
    assert f"belongs to the user #{ANOTHER}" in line
    assert "Nothing was touched" in line
    # A home that is another's altogether may be in use by its farmer.
    taken = f"sudo chown -R root {daemon.home}"
    as_theirs = f"sudo -u '#{ANOTHER}' farmer --home {daemon.home}"
    assert (taken in line, as_theirs in line) == (name != "", name == "")
    daemon.stop()


@pytest.mark.slow
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_an_index_of_another_user_is_kept_and_told_until_it_is_ours_again(
    daemon: Daemon, tmp_path: Path, mode: int
) -> None:
    daemon.start()
    renter, file = Renter(tmp_path / "renter"), tmp_path / "file"
    renter.join(daemon.invite("50MB"))
    file.write_bytes(os.urandom(5000))
    renter.store(file)
    daemon.stop()
    index = daemon.volume / "index.sqlite"
    give_away(index)
    index.chmod(mode)
    before = index.stat().st_ino, index.read_bytes()
    daemon.start(*WITH_THE_RIGHTS_OF_AN_OWNER)
    [alert] = daemon.status()["alerts"]
    assert alert["name"] == "VolumeGone"
    assert str(index) in alert["message"]
    assert alert["message"].endswith(f"Type: sudo chown -R root {daemon.volume}")
    assert (index.stat().st_ino, index.read_bytes()) == before
    os.chown(index, 0, 0)
    wait_until(lambda: daemon.status()["state"] == "running")
    assert daemon.status()["alerts"] == []
    assert daemon.status()["volumes"][0]["shards"] == 1
