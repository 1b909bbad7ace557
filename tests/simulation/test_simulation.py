"""The simulation itself: a few seeds, the same run twice, and what it must be able to show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from farmer.storage.files import FOLIO_BYTES_MAX, Access
from tests.simulation.disk import FOLIOS_BYTES, SimDisk
from tests.simulation.house import House
from tests.simulation.nodes import BLOCK, Drive
from tests.simulation.run import run

ROOT = Path(__file__).parent.parent.parent
ONE = "import sys; from tests.simulation.run import run; print(run(int(sys.argv[1]), 400).trace)"


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_a_few_seeds_break_no_promise(seed: int) -> None:
    """Crashes, faults and all: nothing acknowledged is lost, nothing wrong is served."""
    assert not run(seed, 150).violation


@pytest.mark.parametrize("seed", [5, 7, 9, 307])
def test_a_seed_is_the_same_run_in_every_process(seed: int) -> None:
    """Every call and byte agree, whatever order the process gives to its hashes."""
    traces = {
        subprocess.run(
            [sys.executable, "-c", ONE, str(seed)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(traces) == 1
    assert len(traces.pop().strip()) == 64


def test_no_copy_outlives_the_farmer_that_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever garbage is collected, a later life, or the world outside, would see its end."""
    die, amid = House.die, list[bool]()

    def die_and_look(house: House) -> None:
        under_way = [one._steps for one in house.engine.mover._emptying.values() if one._steps]
        amid.extend(one.gi_frame is not None for one in under_way)  # type: ignore[attr-defined]
        die(house)
        assert not any(one.gi_frame for one in under_way)  # type: ignore[attr-defined]

    monkeypatch.setattr(House, "die", die_and_look)
    assert not run(15, 150).violation
    assert any(amid)


class _Nobody:
    """Hears of every call, and lets it be."""

    def called(self, name: str, where: str, what: object = "") -> None:
        pass

    def answered(self, what: object) -> None:
        pass

    def struck(self, kind: str) -> None:
        pass

    def befell(self, kind: str) -> None:
        pass

    def betrayed(self, *_: object) -> None:
        pass


def test_what_a_crash_met_half_written_is_known_as_torn_until_it_is_written_again(
    tmp_path: Path,
) -> None:
    """The ledger is held to every other block."""
    disk = SimDisk(tmp_path, Random(1), _Nobody(), lambda _s: None)
    drive = disk.add_drive("one", 1 << 20, can_punch=True)
    fd = disk.open(tmp_path / "one" / "file", Access.CREATE)
    disk.pwritev(fd, [b"a" * 4 * BLOCK], 0)
    disk.sync_data(fd)
    disk.sync_directory(tmp_path / "one")
    disk.punch(fd, 0, BLOCK)
    disk.pwritev(fd, [b"b" * 2 * BLOCK], 4 * BLOCK)
    disk.crash()
    node = drive.nodes()[0]
    assert node.torn == {0, 4, 5}
    assert node.blocks >= {1, 2, 3}
    fd = disk.open(tmp_path / "one" / "file", Access.WRITE)
    disk.pwritev(fd, [b"c" * BLOCK], 4 * BLOCK)
    assert node.torn == {0, 5}
    disk.truncate(fd, 4 * BLOCK)
    assert node.torn == {0}


def sixteen_unsynced_blocks(root: Path, seed: int) -> tuple[SimDisk, Drive, int]:
    disk = SimDisk(root, Random(seed), _Nobody(), lambda _s: None)
    drive = disk.add_drive("one", 1 << 20, can_punch=True)
    fd = disk.open(root / "one" / "file", Access.CREATE)
    for block in range(16):
        disk.pwritev(fd, [bytes([block + 1]) * BLOCK], block * BLOCK)
    return disk, drive, fd


def test_what_is_lost_in_early_write_back_is_told_by_the_next_sync_and_once(
    tmp_path: Path,
) -> None:
    """As by Linux: the cache shows the bytes, calls them clean, and the platter lacks some."""
    disk, drive, fd = sixteen_unsynced_blocks(tmp_path, 1)
    drive.armed["begin_write_back"] = "lost early"
    disk.begin_write_back(fd, 0, 8 * BLOCK)
    node = drive.nodes()[0]
    assert len(node.pending) == 8, "the rest waits for the sync"
    assert node.platter[8 * BLOCK :] == b""
    with pytest.raises(OSError, match="fsync"):
        disk.sync_data(fd)
    assert node.cached[8 * BLOCK :] == node.platter[8 * BLOCK :], "that was written"
    assert node.cached != node.platter
    disk.sync_data(fd)
    assert node.cached != node.platter, "nobody tries again"
    assert disk.pread(fd, BLOCK, 0) == bytes([1]) * BLOCK


def test_what_is_written_back_early_may_outlive_a_crash_and_no_lie_can_take_it(
    tmp_path: Path,
) -> None:
    disk, drive, fd = sixteen_unsynced_blocks(tmp_path, 3)
    node = drive.nodes()[0]
    disk.begin_write_back(fd, 0, 8 * BLOCK)
    disk.begin_write_back(fd, 8 * BLOCK, 8 * BLOCK)
    early = [offset for _, offset, _ in node.written_early]
    assert min(early) < 8 * BLOCK <= max(early), "of both"
    assert len(node.pending) == 16
    for offset in early:
        assert node.platter[offset : offset + BLOCK] == node.cached[offset : offset + BLOCK]
    drive.armed["sync_data"] = "lost"
    disk.sync_data(fd)
    lost = [
        at
        for at in range(0, 16 * BLOCK, BLOCK)
        if node.platter[at : at + BLOCK] != node.cached[at : at + BLOCK]
    ]
    assert len(lost) == 1
    assert lost[0] not in early


@pytest.mark.parametrize("folio", FOLIOS_BYTES)
def test_memory_forgets_whole_folios_of_which_nothing_waits_to_be_written(
    tmp_path: Path, folio: int
) -> None:
    """As Linux does: what lies around it goes, too, or keeps it there."""
    disk = SimDisk(tmp_path, Random(1), _Nobody(), lambda _s: None)
    drive = disk.add_drive("one", 1 << 30, can_punch=True)
    fd = disk.open(tmp_path / "one" / "file", Access.CREATE)
    (node,) = drive.nodes()
    node.number = FOLIOS_BYTES.index(folio)
    disk.pwritev(fd, [b"a" * 2 * FOLIO_BYTES_MAX], 0)
    disk.sync_data(fd)
    node.platter[:] = bytes(len(node.platter))
    disk.pwritev(fd, [b"b"], 3 * BLOCK)
    disk.uncache(fd, BLOCK, BLOCK)
    assert (disk.pread(fd, 1, BLOCK) == b"a") is (folio > BLOCK)
    disk.sync_data(fd)
    disk.uncache(fd, BLOCK, BLOCK)
    assert disk.pread(fd, 1, BLOCK) == b"\0"
    assert disk.pread(fd, 1, 3 * BLOCK) == b"b"
    assert disk.pread(fd, 1, FOLIO_BYTES_MAX) == b"a"
