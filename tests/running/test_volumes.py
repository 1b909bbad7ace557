from __future__ import annotations

import json
from pathlib import Path

import pytest

from farmer.identity.keys import Identity
from farmer.running import register
from farmer.running.files import write_json
from farmer.running.home import Home
from farmer.running.making import make_volumes
from farmer.running.register import RetiredVolume
from farmer.running.stores import open_stores
from farmer.running.volumes import (
    NOTHING_FREE_BYTES,
    SMALL_QUOTA_BYTES,
    adopting,
    check_quotas,
    filesystem_bytes,
    free_bytes,
    in_force,
    made_at_ms,
    plan_volumes,
    remember,
    small_quota_bytes,
)
from farmer.settings.kinds import VOLUME_BYTES_MIN
from farmer.settings.loader import load_text
from farmer.settings.schema import DEFAULTS, Settings
from farmer.storage.directory import MARKER_NAME, VolumeSetupError


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.at(tmp_path / "home")
    home.make()
    return home


def test_without_settings_one_small_volume_in_the_home(home: Home) -> None:
    """Its quota is chosen once: it does not follow the free space of later days."""
    [plan] = plan_volumes(home, DEFAULTS)
    assert plan.path == home.volume
    assert plan.new
    assert VOLUME_BYTES_MIN <= plan.quota_bytes <= SMALL_QUOTA_BYTES
    remember(home, [plan])
    write_json(home.state / "volumes.json", {"made": {str(home.volume): 70_000_000}})
    [again] = plan_volumes(home, DEFAULTS)
    assert (again.new, again.quota_bytes) == (False, 70_000_000)


def test_the_volume_in_force_is_shown(home: Home, tmp_path: Path) -> None:
    """Also when nobody named one."""
    [volume] = in_force(home, DEFAULTS).volumes
    assert volume.path == str(home.volume)
    assert volume.quota.size_bytes == plan_volumes(home, DEFAULTS)[0].quota_bytes
    text = f"version: 1\nvolumes: [{{path: {tmp_path}, quota: 1GB}}]\n"
    settings = load_text(text, "f", {}).settings
    assert in_force(home, settings) is settings


@pytest.mark.parametrize(
    ("free", "quota"),
    [
        (0, VOLUME_BYTES_MIN),
        (10**9, 95 << 20),
        (10**11, SMALL_QUOTA_BYTES >> 20 << 20),
        (10**15, SMALL_QUOTA_BYTES >> 20 << 20),
    ],
)
def test_the_small_quota_leaves_nine_tenths(free: int, quota: int) -> None:
    assert small_quota_bytes(free) == quota


def test_volumes_of_the_settings_are_made_once(home: Home, tmp_path: Path) -> None:
    """A volume that was made and is not there is a disk that is not mounted: not made again."""
    path = tmp_path / "not" / "there"
    text = f"version: 1\nvolumes:\n  - {{path: {path}, quota: 80%, keep_free: 1GB}}\n"
    settings = load_text(text, "f", {}).settings
    [plan] = plan_volumes(home, settings)
    assert (plan.path, plan.new, plan.keep_free_bytes) == (path, True, 10**9)
    assert plan.quota_bytes == int(filesystem_bytes(tmp_path) * 0.8)
    remember(home, [plan])
    [again] = plan_volumes(home, settings)
    assert not again.new


def test_a_disk_that_is_not_mounted_is_not_measured_by_the_one_below(
    home: Home, tmp_path: Path
) -> None:
    """Its volume keeps the quota that it had, also in the register, until it is there again."""
    path = tmp_path / "disk"
    path.mkdir()
    register.remember(home, [(path, 8 * 10**12)])
    text = f"version: 1\nvolumes: [{{path: {path}, quota: 0.00001%}}]\n"
    settings = load_text(text, "f", {}).settings
    [plan] = plan_volumes(home, settings)
    assert (plan.quota_bytes, plan.is_guess, plan.new) == (8 * 10**12, True, False)
    assert plan.keep_free_bytes == NOTHING_FREE_BYTES
    check_quotas([plan])
    remember(home, [plan])
    assert register.quotas(home) == {str(path): 8 * 10**12}
    (path / MARKER_NAME).touch()
    [plan] = plan_volumes(home, settings)
    assert (plan.quota_bytes, plan.is_guess) == (int(filesystem_bytes(path) * 1e-7), False)


def test_a_share_that_is_too_small_for_a_volume_is_refused_before_anything_is_made(
    home: Home, tmp_path: Path
) -> None:
    path = tmp_path / "tiny"
    text = f"version: 1\nvolumes: [{{path: {path}, quota: 0.00001%}}]\n"
    settings = load_text(text, "f", {}).settings
    with pytest.raises(VolumeSetupError, match=f"the quota of {path} is .* too small"):
        open_stores(home, settings, lambda: 1, print)
    identity = Identity.load_or_create(home.identity)
    with pytest.raises(VolumeSetupError, match=f"the quota of {path} is .* too small"):
        make_volumes(home, identity, plan_volumes(home, settings), 1)
    assert not path.exists()
    assert register.quotas(home) == {}


def test_a_filesystem_has_free_space(tmp_path: Path) -> None:
    assert 0 < free_bytes(tmp_path / "a" / "b") <= filesystem_bytes(tmp_path)


def names_of(home: Home, *paths: Path) -> list[str]:
    """Plan these volumes as a farmer that starts with them, and remember them."""
    rows = "".join(f"  - {{path: {path}, quota: 100MB}}\n" for path in paths)
    plans = plan_volumes(home, load_text(f"version: 1\nvolumes:\n{rows}", "f", {}).settings)
    remember(home, plans)
    return [plan.name for plan in plans]


def test_a_volume_keeps_its_name_when_another_comes(home: Home) -> None:
    """The series of its figures would break off."""
    first, second, third = (Path(f"/mnt/disk{number}/farmer") for number in (1, 2, 3))
    assert names_of(home, first) == ["farmer"]
    for _ in range(2):
        assert names_of(home, second, first) == [str(second), "farmer"]
    assert names_of(home, second) == [str(second)]
    assert names_of(home, third, second) == ["farmer", str(second)]
    assert names_of(home, first, second, third) == [str(first), str(second), "farmer"]


def test_volumes_that_come_together_and_share_a_name_are_called_by_their_paths(home: Home) -> None:
    first, second = Path("/mnt/disk1/farmer"), Path("/mnt/disk2/farmer")
    assert names_of(home, first, second) == [str(first), str(second)]
    assert names_of(home, first) == [str(first)]


def test_a_volume_that_was_given_up_leaves_its_name(home: Home) -> None:
    first, second = Path("/mnt/disk1/farmer"), Path("/mnt/disk2/farmer")
    for give_up in (
        lambda path: register.forget(home, path),
        lambda path: register.retire(home, RetiredVolume(path, "moved", 1)),
    ):
        assert names_of(home, first) == ["farmer"]
        give_up(first)
        assert register.names(home) == {}
        assert names_of(home, second) == ["farmer"]
        register.forget(home, second)


def test_a_register_of_an_older_release_has_no_names(home: Home) -> None:
    path = Path("/mnt/disk1/farmer")
    write_json(home.state / "volumes.json", {"made": {str(path): 100_000_000}, "ids": {}})
    assert register.names(home) == {}
    assert names_of(home, path) == ["farmer"]
    assert register.names(home) == {str(path): "farmer"}


def test_the_volume_in_the_home_keeps_its_name_when_others_are_named(home: Home) -> None:
    remember(home, plan_volumes(home, DEFAULTS))
    assert names_of(home, Path("/mnt/volume"), home.volume) == ["/mnt/volume", "volume"]
    [plan] = plan_volumes(home, DEFAULTS)
    assert plan.name == "volume"


def test_a_volume_knows_when_it_was_made(home: Home, tmp_path: Path) -> None:
    identity, path = Identity.load_or_create(home.identity), tmp_path / "a"
    assert made_at_ms(path, identity.node_id) == 0
    text = f"version: 1\nvolumes: [{{path: {path}, quota: 100MB}}]\n"
    plans = plan_volumes(home, load_text(text, "f", {}).settings)
    make_volumes(home, identity, plans, 12_345)
    assert made_at_ms(path, identity.node_id) == 12_345


@pytest.mark.parametrize(
    ("mine", "theirs", "path", "expected"),
    [
        ("ab", "abc", "/c", "abc"),
        ("ab", "cab", "/c", "cab"),
        ("ab", "xc", "/c", "acb"),
        ("abc", "ac", "/b", "ac"),
        ("abc", "a", "/b", "ac"),
        ("", "hc", "/c", "hc"),
        ("ab", "", "/b", ""),
    ],
)
def test_of_other_settings_one_volume_is_taken_over(
    mine: str, theirs: str, path: str, expected: str
) -> None:
    """All of them where the one in the home is named, or not any more."""

    def settings(names: str, quota: str) -> Settings:
        volumes = [{"path": f"/{name}", "quota": quota} for name in names]
        return load_text(json.dumps({"version": 1, "volumes": volumes}), "f", {}).settings

    old, new = settings(mine, "1GiB"), settings(theirs, "2GiB")
    taken = adopting(old, new, Path(path))
    assert "".join(one.path[1:] for one in taken.volumes) == expected
    if mine and theirs:
        kept = [one for one in taken.volumes if one.path != path]
        assert all(one in old.volumes for one in kept)
