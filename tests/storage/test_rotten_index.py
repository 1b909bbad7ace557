"""An index in which a value has become one of another kind: SQLite itself finds nothing wrong."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from farmer.model.status import VolumeState
from farmer.storage import keeper
from farmer.storage.directory import VolumeSettings
from farmer.storage.volume import Volume
from tests.storage.bench import MIB, Farm, noise


@pytest.mark.parametrize(
    "rot",
    [
        "UPDATE state SET segment = NULL",
        "UPDATE state SET offset = 'x'",
        "UPDATE renters SET renter = 'x'",
        "UPDATE renters SET renter = x'00'",
        "UPDATE usage SET live = NULL",
        "UPDATE segments SET size = NULL",
    ],
)
def test_it_is_made_again_and_no_other_volume_waits(tmp_path: Path, rot: str) -> None:
    farm = Farm(tmp_path, volumes=2)
    shard = farm.store(noise(9000)).shard
    farm.engine.close()
    for path in tmp_path.rglob("index.sqlite"):
        with closing(sqlite3.connect(path)) as index:
            index.execute(rot)
            index.commit()
    farm.open()
    with closing(farm.engine) as engine:
        assert farm.read(shard) == noise(9000)
        assert [volume.state for volume in engine.volumes()] == [VolumeState.HEALTHY] * 2


def test_what_nobody_thought_of_stops_one_volume_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = Farm(tmp_path, volumes=2)
    farm.engine.close()
    bad, opened = farm.settings[0], keeper.open_volume

    def surprised(settings: VolumeSettings, *words: Any) -> Volume:
        if settings is bad:
            raise TypeError("no such kind")
        return opened(settings, *words)

    monkeypatch.setattr(keeper, "open_volume", surprised)
    farm.open()
    with closing(farm.engine) as engine:
        states = [volume.state for volume in engine.volumes()]
        assert states == [VolumeState.GONE, VolumeState.HEALTHY]
        farm.store(noise(9000))


def test_a_directory_of_the_systems_own_in_staging_is_left_alone(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    shard = farm.store(noise(3 * MIB)).shard
    farm.engine.close()
    stray = farm.path / "staging" / "@eaDir"
    stray.mkdir()
    farm.open()
    with closing(farm.engine):
        assert farm.read(shard) == noise(3 * MIB)
        assert stray.is_dir()
