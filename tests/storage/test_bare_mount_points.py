"""Where a disk has gone, its mount point is an empty directory: nothing may be written there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from farmer.storage.directory import retire_marker
from farmer.storage.duty import write_duty
from farmer.storage.errors import StorageError
from farmer.storage.journal import Crossers
from farmer.storage.met import note_met
from farmer.storage.volume import Volume
from tests.storage.bench import ALICE, Farm, noise, shard_of
from tests.storage.rot import volume_of
from tests.storage.test_moving import DRAIN


class Gone:
    """A volume whose disk goes after it has been opened, and comes back."""

    def __init__(self, farm: Farm) -> None:
        self._path, self._hidden = farm.path, farm.path.with_name("hidden")

    def __enter__(self) -> None:
        self._path.rename(self._hidden)
        self._path.mkdir()

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path)
        self._hidden.rename(self._path)


def test_a_scrub_writes_no_notes(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    with closing(farm.engine) as engine:
        for number in range(10):
            farm.store(noise(900_000, str(number)))
        engine.scrubs.begin_now()
        engine.scrubs.turn("volume0", 0.0, farm.clocks.now_ms, 30)
        with Gone(farm):
            for _ in range(100):
                with suppress(StorageError):
                    engine.scrubs.turn("volume0", 0.05, farm.clocks.now_ms, 30)
            engine.scrubs.pause(paused=True)
            assert list(farm.path.iterdir()) == []


def _journal(volume: Volume) -> None:
    uuid = volume.ground.volume
    volume.journal.write(Crossers(uuid, uuid, frozenset({(ALICE, shard_of(b"x"))})))


WRITES: dict[str, Callable[[Volume], None]] = {
    "journal": _journal,
    "duty": lambda one: write_duty(one.ground.files, one.ground.paths.root, DRAIN),
    "met": lambda one: note_met(one.ground.files, one.ground.paths.root, 7),
    "marker": lambda one: retire_marker(one.ground.paths.root, one.ground.files, "moved"),
}


@pytest.mark.parametrize("what", WRITES)
def test_nothing_else_is_noted(tmp_path: Path, what: str) -> None:
    farm = Farm(tmp_path)
    with closing(farm.engine):
        with Gone(farm):
            with pytest.raises(OSError, match="No such file"):
                WRITES[what](volume_of(farm))
            assert list(farm.path.iterdir()) == []
        WRITES[what](volume_of(farm))
