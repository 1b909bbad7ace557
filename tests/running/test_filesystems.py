"""What an owner is told of the filesystem that he offers."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import pytest

from farmer.running import filesystems, volumes
from farmer.running.filesystems import WARNINGS, warning_of
from farmer.running.volumes import VolumePlan, doubts

SHARED_MEMORY = Path("/dev/shm")
EXT4, XFS, BTRFS = 0xEF53, 0x58465342, 0x9123683E


def doubts_of(path: Path) -> list[str]:
    return doubts([VolumePlan(path, path.name, 10**6, 0, new=True)])


@pytest.mark.parametrize("number", WARNINGS)
def test_a_filesystem_that_may_lose_shards_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(filesystems, "filesystem_number", lambda _fd: number)
    name, what = WARNINGS[number]
    assert doubts_of(tmp_path / "new") == [f"{tmp_path}/new lies on {name}, which {what}"]


@pytest.mark.parametrize("number", [EXT4, XFS, BTRFS])
def test_of_what_is_tried_with_power_cuts_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(filesystems, "filesystem_number", lambda _fd: number)
    assert not doubts_of(tmp_path / "new")


def test_a_disk_that_was_silent_is_not_asked_again_and_of_an_error_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def failing(path: Path) -> str:
        asked.append(path)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(volumes, "warning_of", failing)
    assert doubts_of(tmp_path / "new") == []
    assert asked == [tmp_path]
    monkeypatch.setattr(volumes, "room_on_disk_bytes", lambda _plan: None)
    [doubt] = doubts_of(tmp_path / "new")
    assert "does not answer" in doubt
    assert asked == [tmp_path]


@pytest.mark.needs(SHARED_MEMORY.is_mount(), "/dev/shm")
def test_a_directory_in_memory_is_seen_also_when_it_may_not_be_listed() -> None:
    """The system's own answer, not ours."""
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as made:
        Path(made).chmod(0o100)
        assert warning_of(Path(made)).startswith("tmpfs, which is memory")
        Path(made).chmod(0o700)
