"""`farmer bench`: what it keeps to on the disk that it measures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from farmer.benching import process
from farmer.benching.disk import PIECE_BYTES, DiskFigures, measure_disk
from farmer.benching.load import Cell
from farmer.benching.process import BenchError, OwnFarmer
from farmer.cli import owner_bench
from farmer.cli.exits import CommandError
from farmer.cli.owner_bench_words import KIB, load_words, verdicts
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


def test_what_it_serves_is_said_to_come_from_memory() -> None:
    """A cell retrieves again and again what was stored a moment before."""
    disk = DiskFigures(100.0, 100.0, 10.0, 10.0, 10.0, 10.0)
    cells = [Cell(what, 64 * KIB, 1, 10.0, 500.0, 1.0, 1.0, 1.0) for what in ("store", "retrieve")]
    said = list(verdicts(disk, cells))
    assert [line for line in said if "from memory" in line] == [
        line for line in said if line.startswith("It serves up to 500 MB/s (4,000 Mbit/s)")
    ]
    assert any(line == "It takes up to 500 MB/s (4,000 Mbit/s)." for line in said)


@pytest.mark.parametrize(
    ("many_per_s", "said"),
    [
        (20.0, "and 20 (200%) with 16 at once: one flush is for all of them."),
        (5.0, "and no more with several at once."),
    ],
)
def test_one_flush_is_for_all_only_where_that_was_seen(many_per_s: float, said: str) -> None:
    disk = DiskFigures(100.0, 100.0, 10.0, 10.0, 10.0, 10.0)
    cells = [
        Cell("store", 64 * KIB, at_once, per_s, 500.0, 1.0, 1.0, 1.0)
        for at_once, per_s in ((1, 10.0), (16, many_per_s))
    ]
    assert next(verdicts(disk, cells)).endswith(f"10 stores (100%) one at a time, {said}")


@pytest.mark.parametrize(
    ("took_ms", "shown"), [(0.5, "0.5 ms"), (12.34, "12.3 ms"), (1360.2, "1,360 ms")]
)
def test_times_are_written_out(took_ms: float, shown: str) -> None:
    """Nobody reads 1.36e+03."""
    _head, row = load_words([Cell("store", 64 * KIB, 1, 10.0, 1.0, took_ms, took_ms, 1.0)])
    assert row.count(shown) == 2


def test_a_farmer_that_does_not_answer_in_time_is_said_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "CALL_S", 0.001)
    with pytest.raises(BenchError, match="farmer init took longer than"), OwnFarmer(tmp_path, 1):
        pass


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
