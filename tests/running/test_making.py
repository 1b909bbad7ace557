"""Volumes that never were are made; on a silent disk later, and never where none is mounted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from farmer.identity.keys import Identity
from farmer.model.ids import NodeId
from farmer.running import making, register
from farmer.running.home import Home
from farmer.running.making import Unmade, make_volumes
from farmer.running.register import REGISTER_FILE
from farmer.running.volumes import VolumePlan
from farmer.storage.directory import MARKER_NAME, VolumeSetupError, read_marker
from farmer.storage.files import Files, OsFiles

NOW_MS = 1_700_000_000_000
QUOTA_BYTES = 1 << 27


class House:
    def __init__(self, root: Path) -> None:
        self.home = Home.at(root / "home")
        self.home.make()
        self.identity = Identity.load_or_create(self.home.identity)
        self.unmade = Unmade(self.home, self.identity, lambda: NOW_MS)
        self.plan = VolumePlan(root / "disk" / "a", "a", QUOTA_BYTES, 0, new=True)
        self.silent = replace(self.plan, is_guess=True)

    @property
    def is_made(self) -> bool:
        return (self.plan.path / MARKER_NAME).exists()


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_a_volume_is_made_and_remembered(house: House) -> None:
    house.unmade.make(house.plan)
    assert read_marker(house.plan.path, house.identity.node_id, OsFiles())
    assert register.quotas(house.home) == {str(house.plan.path): QUOTA_BYTES}
    assert not house.unmade.waiting


def test_a_silent_disk_is_not_touched_and_its_volume_made_when_it_answers(house: House) -> None:
    house.unmade.make(house.silent)
    assert house.unmade.waiting == {house.plan.path}
    assert not house.plan.path.parent.exists()
    assert not register.quotas(house.home)
    assert house.unmade.make_late([house.silent]) == []
    assert not house.is_made
    assert house.unmade.make_late([house.plan]) == []
    assert house.is_made
    assert not house.unmade.waiting


def test_what_answers_in_the_place_of_an_unmounted_disk_is_no_place_for_a_volume(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`umount -l` of a dead share leaves an empty directory on another disk."""
    mounted = Path("/mnt/share")
    monkeypatch.setattr(making, "mount_point", lambda _path: mounted)
    house.unmade.make(house.silent)
    mounted = Path("/")
    assert house.unmade.make_late([house.plan]) == []
    assert not house.plan.path.parent.exists()
    mounted = Path("/mnt/share")
    house.unmade.make_late([house.plan])
    assert house.is_made


def test_a_volume_that_cannot_be_remembered_keeps_no_others_from_being_made(
    house: House,
) -> None:
    house.unmade.make(house.silent)
    (house.home.state / REGISTER_FILE).write_bytes(b"")
    [alert] = house.unmade.make_late([house.plan])
    assert alert.name == "VolumeNotMade"
    assert "volumes.json" in alert.message


def test_only_those_that_were_kept_are_made_later(house: House) -> None:
    assert house.unmade.make_late([house.plan]) == []
    assert not house.is_made


def test_why_it_cannot_be_made_is_told(house: House) -> None:
    house.unmade.make(house.silent)
    house.plan.path.mkdir(parents=True)
    (house.plan.path / "film").touch()
    [alert] = house.unmade.make_late([house.plan])
    assert alert.name == "VolumeNotMade"
    assert "film is in it" in alert.message
    assert alert.about == str(house.plan.path)
    (house.plan.path / "film").unlink()
    assert house.unmade.make_late([house.plan]) == []
    assert house.is_made


def test_a_quota_that_is_too_small_keeps_no_others_from_being_made(
    house: House, tmp_path: Path
) -> None:
    """Neither that of a volume that waits, nor that of one that was made before."""
    waiting, made = tmp_path / "b", tmp_path / "c"
    house.unmade.make(replace(house.silent, path=waiting))
    house.unmade.make(house.silent)
    small = replace(house.plan, path=waiting, quota_bytes=5)
    found = house.unmade.make_late([small, replace(small, path=made, new=False), house.plan])
    assert [(one.name, one.about) for one in found] == [
        ("VolumeNotMade", str(waiting)),
        ("VolumeNotSized", str(made)),
    ]
    assert house.is_made
    assert house.unmade.waiting == {waiting}


def test_a_disk_that_is_silent_when_asked_by_hand_is_refused(house: House) -> None:
    with pytest.raises(VolumeSetupError, match="does not answer"):
        make_volumes(house.home, house.identity, [house.silent], NOW_MS)
    assert not house.plan.path.parent.exists()
    assert not register.quotas(house.home)


class Hanging:
    """Making a volume does not return until it may."""

    def __init__(self) -> None:
        self.begun = 0
        self.let_go = threading.Event()
        self._real = making.create_volume

    def __call__(self, root: Path, node: NodeId, files: Files, now_ms: int) -> None:
        self.begun += 1
        assert self.let_go.wait(60)
        self._real(root, node, files, now_ms)


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    made = Hanging()
    monkeypatch.setattr(making, "create_volume", made)
    monkeypatch.setattr(making, "MAKE_S", 0.2)
    yield made
    made.let_go.set()


def test_a_disk_that_hangs_while_a_volume_is_made_holds_nobody_up(
    house: House, hanging: Hanging
) -> None:
    """And it is not made twice: two makers would give it two markers."""
    house.unmade.make(house.plan)
    assert house.unmade.make_late([house.plan]) == []
    assert hanging.begun == 1
    assert house.unmade.waiting
    hanging.let_go.set()
    while house.unmade.waiting:
        house.unmade.make_late([house.plan])
    assert house.is_made
    assert hanging.begun == 1


def test_by_hand_it_is_refused_after_a_while(house: House, hanging: Hanging) -> None:
    with pytest.raises(VolumeSetupError, match="does not answer"):
        make_volumes(house.home, house.identity, [house.plan], NOW_MS)
    assert hanging.begun == 1
    assert not register.quotas(house.home)
