"""Which volumes a home knows, and what of them its settings leave out."""

from __future__ import annotations

from pathlib import Path

import pytest

from farmer.model.ids import NodeId, ShardId
from farmer.model.status import VolumeState
from farmer.running import register, volumes
from farmer.running.files import write_json
from farmer.running.home import Home, HomeError
from farmer.running.own_identity import own_identity
from farmer.running.register import REGISTER_BYTES_MAX, REGISTER_FILE, RetiredVolume
from farmer.running.retired import SHOWN_MS, Retired
from farmer.running.stores import Stores, open_stores, rebuild
from farmer.running.volumes import VolumePlan, doubts, free_bytes, plan_volumes
from farmer.settings.loader import load_text
from farmer.settings.schema import Settings
from farmer.storage.directory import MARKER_NAME, create_volume
from farmer.storage.errors import ShardNotFoundError, VolumeUnavailableError
from farmer.storage.files import OsFiles
from farmer.storage.outside import Holdings, holdings, live_shards, volume_id
from tests.storage.bench import contract_of, noise, shard_of

NOW_MS = 1_700_000_000_000
RENTER = NodeId(b"r" * 32)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.find(str(tmp_path / "home"), None, {}, 1000)
    home.make()
    return home


def settings_of(*paths: Path) -> Settings:
    rows = "".join(f"  - {{path: {path}, quota: 100MB}}\n" for path in paths)
    return load_text("version: 1\nvolumes:\n" + rows, "f", {}).settings


def opened(home: Home, *paths: Path) -> Stores:
    return open_stores(home, settings_of(*paths), lambda: NOW_MS, print)


def store(stores: Stores, data: bytes) -> ShardId:
    shard = shard_of(data)
    upload = stores.engine.begin(contract_of(RENTER), shard, len(data))
    upload.write(data)  # type: ignore[union-attr]  # a new shard
    upload.commit().result()  # type: ignore[union-attr]
    return shard


def use(home: Home, path: Path, data: bytes = b"bytes") -> ShardId:
    """Let a farmer run with this one volume and take a shard."""
    stores = opened(home, path)
    try:
        return store(stores, data)
    finally:
        stores.close()


def test_a_volume_is_seen_from_outside(home: Home, tmp_path: Path) -> None:
    """Without a lock, and without a file more in it; also one that was only made."""
    use(home, tmp_path / "a", noise(70_000))
    before = sorted(path.name for path in (tmp_path / "a").iterdir())
    held = holdings(tmp_path / "a")
    assert held is not None
    assert (held.shards, held.trash_bytes, held.quarantined) == (1, 0, 0)
    assert live_shards(tmp_path / "a") == (1, 70_000)
    assert len(volume_id(tmp_path / "a")) == 32
    marker = tmp_path / "a" / MARKER_NAME
    no_hex = marker.read_text().replace(volume_id(tmp_path / "a"), "no hex")
    for damaged in (no_hex, "[" * 50_000):
        marker.write_text(damaged)
        assert volume_id(tmp_path / "a") == ""
        assert holdings(tmp_path / "a", tmp_path / "annexes") == held
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == before
    create_volume(tmp_path / "made", RENTER, OsFiles(), 0)
    assert holdings(tmp_path / "made") == Holdings(0, 0, 0, 0, 0)
    assert (holdings(tmp_path / "nowhere"), volume_id(tmp_path / "nowhere")) == (None, "")


def test_an_open_volume_is_seen_from_outside_too(home: Home, tmp_path: Path) -> None:
    stores = opened(home, tmp_path / "a")
    try:
        store(stores, b"one")
        store(stores, b"two")
        assert live_shards(tmp_path / "a") == (2, 6)
    finally:
        stores.close()


def test_shards_of_a_volume_that_the_settings_leave_out_are_unavailable(
    home: Home, tmp_path: Path
) -> None:
    """Not absent: their renters would take them for lost.  It is told, with what to type."""
    shard = use(home, tmp_path / "a")

    stores = opened(home, tmp_path / "b")

    try:
        with pytest.raises(VolumeUnavailableError):
            stores.engine.open(RENTER, shard)
        stores.engine.look_after_disks()
        stores.engine.sweep(NOW_MS, 0)
        [offered, left_out] = stores.engine.volumes()
        assert (left_out.state.value, left_out.quota_bytes) == ("gone", 0)
        [alert] = stores.engine.trouble()
        assert (alert.name, alert.about) == ("VolumeNotInSettings", str(tmp_path / "a"))
        assert "with 1 shard, is not in the settings" in alert.message
        assert alert.command == f"farmer volume add {tmp_path / 'a'}=100MB"
        assert offered.state.value == "healthy"
    finally:
        stores.close()


def test_it_is_served_again_when_it_is_named_again(home: Home, tmp_path: Path) -> None:
    shard = use(home, tmp_path / "a")
    opened(home, tmp_path / "b").close()
    stores = opened(home, tmp_path / "a", tmp_path / "b")
    assert stores.engine.stat(RENTER, shard).size_bytes == 5
    assert stores.engine.trouble() == ()
    stores.close()


def test_a_volume_that_was_given_up_is_not_missed(home: Home, tmp_path: Path) -> None:
    shard = use(home, tmp_path / "a")
    register.forget(home, tmp_path / "a")
    stores = opened(home, tmp_path / "b")
    with pytest.raises(ShardNotFoundError):
        stores.engine.open(RENTER, shard)
    stores.close()


def test_a_retired_volume_is_shown_for_a_month_or_until_its_place_is_used_again(
    home: Home, tmp_path: Path
) -> None:
    use(home, tmp_path / "a")
    given_up = Retired(home)
    assert given_up.shown(NOW_MS) == ()
    given_up.add(tmp_path / "a", "moved to b", NOW_MS)
    register.retire(home, RetiredVolume(tmp_path / "c", "retired", NOW_MS + 1))
    given_up.look_again()
    first, second = given_up.shown(NOW_MS + 2)
    assert (first.path, first.state, first.reason) == (
        str(tmp_path / "a"),
        VolumeState.RETIRED,
        "moved to b",
    )
    assert first.quota_bytes == first.shards == 0
    assert str(tmp_path / "a") not in register.quotas(home)
    assert Retired(home).shown(NOW_MS + SHOWN_MS) == (second,)
    register.remember(home, [(tmp_path / "a", 7)])
    register.forget(home, tmp_path / "c")
    assert Retired(home).shown(NOW_MS) == ()


def test_a_volume_that_was_never_used_is_not_missed(home: Home, tmp_path: Path) -> None:
    opened(home, tmp_path / "a").close()
    assert register.not_among(home, [tmp_path / "b"]) == []


def test_a_volume_whose_disk_is_away_is_missed(home: Home, tmp_path: Path) -> None:
    """Nobody can tell what lies on it."""
    opened(home, tmp_path / "a").close()
    (tmp_path / "a" / MARKER_NAME).unlink()
    [known] = register.not_among(home, [tmp_path / "b"])
    assert known.shown == "that cannot be read now"


def test_a_disk_that_is_mounted_elsewhere_is_no_second_volume(home: Home, tmp_path: Path) -> None:
    """The volume's id says so, also while the disk is away."""
    shard = use(home, tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    stores = opened(home, tmp_path / "b")
    assert stores.engine.stat(RENTER, shard)
    assert len(stores.engine.volumes()) == 1
    stores.close()
    (tmp_path / "b").rename(tmp_path / "away")
    assert register.not_among(home, [tmp_path / "b"]) == []


def test_the_last_quota_is_remembered(home: Home, tmp_path: Path) -> None:
    opened(home, tmp_path / "a").close()
    register.remember(home, [(tmp_path / "a", 7)])
    assert register.quotas(home) == {str(tmp_path / "a"): 7}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "damaged"),
        (b'{"made": {"/mnt/disk1', "damaged"),
        (b'{"made": \xff}', "damaged"),
        (b"[" * 100_000, "damaged"),
        (b"[]", "not what a farmer writes"),
        (b"{}", "not what a farmer writes"),
        (b'{"made": ["/mnt/disk1"]}', "not what a farmer writes"),
        (b'{"made": {"/mnt/disk1": "1GB"}}', "not what a farmer writes"),
        (b'{"made": {}, "ids": {"/mnt/disk1": 1}}', "not what a farmer writes"),
        (b'{"made": {}, "retired": []}', "not what a farmer writes"),
        (b'{"made": {}, "names": []}', "not what a farmer writes"),
        (b'{"made": {}, "names": {"/mnt/disk1": 1}}', "not what a farmer writes"),
        (b'{"made": {}}' + b" " * REGISTER_BYTES_MAX, "larger than"),
    ],
    ids=range(13),
)
def test_a_register_that_cannot_be_used_is_not_an_empty_one(
    home: Home, tmp_path: Path, content: bytes, why: str
) -> None:
    """All volumes would be new, and be made in the empty directories of unmounted disks."""
    use(home, tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "unmounted")
    (tmp_path / "a").mkdir()
    file = home.state / REGISTER_FILE
    file.write_bytes(content)
    with pytest.raises(HomeError, match=why):
        opened(home, tmp_path / "a")
    with pytest.raises(HomeError, match="bring it back from a backup"):
        register.remember(home, [(tmp_path / "a", 7)])
    assert list((tmp_path / "a").iterdir()) == []
    assert file.read_bytes() == content


def test_a_register_that_cannot_be_read_is_not_an_empty_one(home: Home, tmp_path: Path) -> None:
    own_identity(home)
    (home.state / REGISTER_FILE).mkdir()
    with pytest.raises(HomeError, match="Is a directory"):
        opened(home, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_many_volumes_that_were_given_up_leave_the_others_known(home: Home) -> None:
    """They stay in the register for good."""
    paths = [Path(f"/mnt/disk{number}") for number in range(1000)]
    document = {
        "made": {"/mnt/last": 7},
        "ids": {},
        "retired": {str(path): {"why": "its owner retired it", "at_ms": NOW_MS} for path in paths},
    }
    write_json(home.state / REGISTER_FILE, document)
    assert (home.state / REGISTER_FILE).stat().st_size > 64 * 1024
    assert register.quotas(home) == {"/mnt/last": 7}
    assert [one.path for one in register.retired(home)] == paths


def test_a_rebuild_tells_shards_and_bytes(home: Home, tmp_path: Path) -> None:
    use(home, tmp_path / "a", noise(70_000))
    told: list[str] = []
    [plan] = plan_volumes(home, settings_of(tmp_path / "a"))
    assert rebuild(home, plan, told.append) == (1, 70_000)
    assert all("lost" not in line for line in told)


def test_an_index_that_was_lost_is_told_in_an_owners_words(home: Home, tmp_path: Path) -> None:
    use(home, tmp_path / "a")
    (tmp_path / "a" / "index.sqlite").unlink()
    stores = opened(home, tmp_path / "a")
    [alert] = stores.engine.trouble()
    stores.close()
    assert alert.name == "IndexRebuilt"
    assert "table" not in alert.message
    assert "no shard was lost" in alert.message


def plan_of(path: Path, quota_bytes: int) -> VolumePlan:
    return VolumePlan(path, path.name, quota_bytes, 0, new=True)


def test_what_an_owner_had_better_know_of_volumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quota that the disk cannot hold; several volumes on one disk, told once."""
    monkeypatch.setattr(volumes, "warning_of", lambda _path: "")
    assert doubts([plan_of(tmp_path / "a", 10**6)]) == []
    [doubt] = doubts([plan_of(tmp_path / "a", 2 * free_bytes(tmp_path) + 10**9)])
    assert "stores beyond that are refused" in doubt
    [doubt] = doubts([plan_of(tmp_path / name, 10**6) for name in "abc"])
    assert doubt.startswith(f"{tmp_path}/a and {tmp_path}/b and {tmp_path}/c lie on one")
