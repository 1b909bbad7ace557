"""The reserve alone: what it holds, what it gives up, and that it leaves nothing open."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from farmer.storage.files import Filesystem
from farmer.storage.quota import RESERVE_BYTES
from farmer.storage.reserve import SPEND_BYTES, Reserve
from tests.storage.recording import Always, Call, Fault, RecordingFiles


class Disk(RecordingFiles):
    """Files on a disk that gives a file no more than so much."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.room_bytes = 1 << 40
        self.free_bytes = 0
        self.is_mute = False

    def filesystem(self, path: Path) -> Filesystem:
        if self.is_mute:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return Filesystem(1 << 40, self.free_bytes)

    def preallocate(self, fd: int, length: int) -> None:
        if length > self.room_bytes:
            # As some filesystems do, it takes what there is before it says no.
            super().preallocate(fd, self.room_bytes)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().preallocate(fd, length)


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    assert not disk.is_open


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "reserve"


def size(path: Path) -> int:
    return path.stat().st_size


def test_all_is_missing_until_it_is_taken(disk: Disk, path: Path) -> None:
    reserve = Reserve(disk, path)
    assert reserve.missing_bytes == RESERVE_BYTES
    assert not reserve.spend(), "there is none"
    reserve.take()
    assert (reserve.missing_bytes, size(path)) == (0, RESERVE_BYTES)


def test_what_was_taken_before_is_not_taken_twice(disk: Disk, path: Path) -> None:
    Reserve(disk, path).take()
    disk.room_bytes = 0
    reserve = Reserve(disk, path)
    reserve.take()
    assert (reserve.missing_bytes, size(path)) == (0, RESERVE_BYTES)


def test_of_a_reserve_that_is_too_long_no_more_counts_than_it_should_have(
    disk: Disk, path: Path
) -> None:
    path.write_bytes(bytes(RESERVE_BYTES + 4096))
    reserve = Reserve(disk, path)
    reserve.take()
    assert reserve.missing_bytes == 0


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_as_much_is_set_aside_as_the_disk_has_in_whole_steps(
    disk: Disk, path: Path, steps: int
) -> None:
    disk.room_bytes = steps * SPEND_BYTES + 5000
    reserve = Reserve(disk, path)
    reserve.take()
    assert reserve.missing_bytes == RESERVE_BYTES - steps * SPEND_BYTES
    assert size(path) == steps * SPEND_BYTES, "the rest of it is given back"
    disk.room_bytes = 1 << 40
    reserve.take()
    assert (reserve.missing_bytes, size(path)) == (0, RESERVE_BYTES)


def test_a_reserve_that_cannot_be_opened_is_none(disk: Disk, path: Path) -> None:
    reserve = Reserve(disk, path)
    reserve.take()
    disk.fault = Fault(0, errno.EIO)
    reserve.take()
    assert reserve.missing_bytes == RESERVE_BYTES
    assert not reserve.spend()


def test_it_is_spent_step_by_step_until_there_is_none(disk: Disk, path: Path) -> None:
    reserve = Reserve(disk, path)
    reserve.take()
    assert reserve.spend()
    assert reserve.missing_bytes == SPEND_BYTES == RESERVE_BYTES - size(path)
    assert reserve.spend(RESERVE_BYTES), "as much as there is"
    assert (reserve.missing_bytes, size(path)) == (RESERVE_BYTES, 0)
    assert not reserve.spend()


def test_of_what_goes_to_others_no_more_is_given_up_until_there_is_room(
    disk: Disk, path: Path
) -> None:
    reserve = Reserve(disk, path)
    reserve.take()
    assert reserve.spend()
    reserve.was_in_vain()
    assert not reserve.spend()
    assert size(path) == RESERVE_BYTES - SPEND_BYTES, "it is kept"
    disk.free_bytes = 1
    assert reserve.spend(), "there is some, and it may be a little too little"
    disk.free_bytes = 0
    assert reserve.spend(), "what was given up since has not been in vain"


def test_where_the_disk_has_room_another_step_may_help(disk: Disk, path: Path) -> None:
    """One was too little; or it is a quota that is spent, of which the disk says nothing."""
    reserve = Reserve(disk, path)
    reserve.take()
    disk.free_bytes = 4096
    assert reserve.spend()
    reserve.was_in_vain()
    assert reserve.spend()


def test_a_disk_that_does_not_say_what_is_free_gets_another_step(disk: Disk, path: Path) -> None:
    reserve = Reserve(disk, path)
    reserve.take()
    assert reserve.spend()
    disk.is_mute = True
    reserve.was_in_vain()
    assert reserve.spend()


@pytest.mark.parametrize("what", ["open", "truncate"])
def test_what_cannot_be_cut_off_is_given_up_whole(disk: Disk, path: Path, what: str) -> None:
    reserve = Reserve(disk, path)
    reserve.take()
    disk.fault = Fault(0, errno.ENOSPC, lambda call: call.name == what)
    assert reserve.spend()
    assert not path.exists()
    assert reserve.missing_bytes == RESERVE_BYTES


def test_what_can_be_neither_cut_off_nor_removed_is_no_room(disk: Disk, path: Path) -> None:
    reserve = Reserve(disk, path)
    reserve.take()

    def refuses(call: Call) -> bool:
        return call.name in {"truncate", "unlink"}

    disk.fault = Always(errno.ENOSPC, refuses)
    assert not reserve.spend()
    assert reserve.missing_bytes == RESERVE_BYTES


def test_asking_for_more_takes_nothing(disk: Disk, path: Path) -> None:
    reserve = Reserve(disk, path)
    reserve.take()
    disk.forget()
    reserve.ask_for_more()
    assert (reserve.missing_bytes, size(path)) == (0, RESERVE_BYTES)
    asked = [call.length for call in disk.calls if call.name == "preallocate"]
    assert asked == [RESERVE_BYTES + SPEND_BYTES], "more than it has, not what it has"


def test_asking_for_more_tells_of_a_full_disk(disk: Disk, path: Path) -> None:
    reserve = Reserve(disk, path)
    reserve.take()
    disk.room_bytes = RESERVE_BYTES + SPEND_BYTES - 1
    with pytest.raises(OSError, match="No space"):
        reserve.ask_for_more()
