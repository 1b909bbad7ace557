"""What a running farmer notes of itself is found, also where the disk of its home is full."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from farmer.running.files import read_json
from farmer.running.run_note import forget_run, is_noted, note_run

DOCUMENT = {"pid": 1, "control": "/run/control"}


class Places:
    """A home and a directory beside it, each of which may be full."""

    def __init__(self, folder: Path) -> None:
        self.home, self.beside = folder / "home", folder / "beside"
        for place in (self.home, self.beside):
            place.mkdir()
        self.run = self.home / "run.json"
        self.full: set[Path] = set()
        self.number = errno.ENOSPC

    def fsync(self, fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if path.is_file() and path.parent in self.full:
            raise OSError(self.number, os.strerror(self.number))

    def note(self) -> bool:
        return note_run(self.run, DOCUMENT, self.beside)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    made = Places(tmp_path)
    monkeypatch.setattr(os, "fsync", made.fsync)
    return made


def left(places: Places) -> list[Path]:
    return [*places.home.iterdir(), *places.beside.iterdir()]


def test_it_lies_in_the_home_while_the_farmer_runs(places: Places) -> None:
    assert not is_noted(places.run)
    assert places.note()
    assert read_json(places.run) == DOCUMENT
    assert left(places) == [places.run]
    forget_run(places.run, places.beside)
    assert not left(places)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_in_a_full_home_it_is_found_all_the_same(places: Places, number: int) -> None:
    places.full, places.number = {places.home}, number
    assert places.note()
    assert read_json(places.run) == DOCUMENT
    assert is_noted(places.run)
    forget_run(places.run, places.beside)
    assert not left(places)


def test_what_was_in_memory_is_gone_after_a_power_cut_but_not_that_there_was_one(
    places: Places,
) -> None:
    places.full = {places.home}
    places.note()
    (places.beside / places.run.name).unlink()
    assert is_noted(places.run)
    assert read_json(places.run) is None
    places.full = set()
    assert places.note()
    assert not places.run.is_symlink()
    assert read_json(places.run) == DOCUMENT


def test_where_there_is_no_room_anywhere_that_is_said_and_no_hindrance(places: Places) -> None:
    places.full = {places.home, places.beside}
    assert not places.note()
    assert read_json(places.run) is None
    forget_run(places.run, places.beside)
    assert not left(places)


def test_a_disk_that_fails_otherwise_is_told_with_the_file(places: Places) -> None:
    places.full, places.number = {places.home}, errno.EIO
    with pytest.raises(OSError, match=f"Input/output error: '{places.run}'"):
        places.note()
