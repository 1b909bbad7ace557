"""An identity that is lost is asked for, and not replaced by another one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from farmer.identity.keys import IdentityError
from farmer.running.birth import make_farmer
from farmer.running.home import Home
from farmer.running.offline import do
from farmer.running.own_identity import own_identity
from farmer.running.stores import open_stores
from farmer.settings.loader import load_text

NOW_MS = 1_800_000_000_000


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home.at(tmp_path / "home")
    made.make()
    return made


def settings_text(home: Home) -> str:
    return f"version: 1\nvolumes:\n  - {{path: {home.volume}, quota: 64MiB}}\n"


def begin(home: Home) -> bytes:
    """Make a farmer and let it serve once; return who it is."""
    text = settings_text(home)
    settings = load_text(text, "f", {}).settings
    make_farmer(home, settings, text)
    stores = open_stores(home, settings, lambda: NOW_MS, print)
    stores.close()
    return stores.identity.public_key


def test_a_new_home_gets_one_and_keeps_it(home: Home) -> None:
    assert own_identity(home) == own_identity(home)


@pytest.mark.parametrize("left", ["contracts.sqlite", "volumes.json"])
def test_a_lost_one_is_asked_for_and_nothing_made_in_its_place(
    home: Home, tmp_path: Path, left: str
) -> None:
    was = begin(home)
    backup = tmp_path / "backup"
    shutil.move(home.identity, backup)
    for name in {"contracts.sqlite", "volumes.json"} - {left}:
        (home.state / name).unlink()
    text = settings_text(home)
    settings = load_text(text, "f", {}).settings
    words = f"{home.identity} is missing, and {left} .* bring it back from your backup"
    with pytest.raises(IdentityError, match=words):
        open_stores(home, settings, lambda: NOW_MS, print)
    with pytest.raises(IdentityError, match=words):
        do(home, settings, "invite", {})
    with pytest.raises(IdentityError, match=words):
        make_farmer(home, settings, text)
    assert not home.identity.exists()

    shutil.move(backup, home.identity)
    assert own_identity(home).public_key == was


def test_a_certificate_that_is_left_asks_for_its_key(home: Home) -> None:
    begin(home)
    (home.identity / "identity.key").unlink()
    with pytest.raises(IdentityError, match="bring the key back"):
        own_identity(home)
