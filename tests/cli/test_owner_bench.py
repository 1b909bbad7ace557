"""`farmer bench`: what it keeps to on the disk that it measures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from farmer.benching.disk import PIECE_BYTES, measure_disk
from farmer.cli import owner_bench
from farmer.cli.exits import CommandError
from farmer.model.shard import BLOCK_BYTES
from farmer.running.home import Home
from farmer.settings.written import VolumeLine, settings_text


def test_its_file_has_a_bound_however_fast_the_disk_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both kinds of flushes append as often as there is time for, which may be more than fits."""
    sizes: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: sizes.append(os.fstat(fd).st_size))
    measure_disk(tmp_path, PIECE_BYTES, 0.3)
    assert sizes.count(BLOCK_BYTES) > 2, "one of them began anew"
    assert max(sizes) == PIECE_BYTES
    assert list(tmp_path.iterdir()) == []


def test_it_measures_beside_the_first_volume_or_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it may: the volume of a service lies in /srv, which is root's."""
    home, volume = Home.at(tmp_path / "home"), tmp_path / "srv" / "farmer"
    volume.mkdir(parents=True)
    home.state.mkdir()
    home.settings.write_text(settings_text(volumes=[VolumeLine.parse(f"{volume}=1GB")]))
    forbidden: set[Path] = set()
    monkeypatch.setattr(os, "access", lambda path, _how: path not in forbidden)
    assert owner_bench._disk_of(home) == volume.parent
    forbidden.add(volume.parent)
    assert owner_bench._disk_of(home) == volume
    forbidden.add(volume)
    with pytest.raises(CommandError, match="neither there nor beside it: name a directory on"):
        owner_bench._disk_of(home)
