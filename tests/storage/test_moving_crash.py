"""
Killed, or without power, at any call of an emptying: no shard is lost, none comes back.

Before each call that changes something both volumes are copied as a kill would leave them,
and as a power cut would: what was not synced is zeros, and the index is the last durable one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import ShardState, StoredShard
from farmer.storage import emptying
from farmer.storage.directory import VolumeSettings
from farmer.storage.errors import ShardNotFoundError, VolumeUnavailableError
from farmer.storage.files import Access
from tests.storage.bench import ALICE, MIB, Farm, crash_copy, noise, shard_of
from tests.storage.recording import WRITING, RecordingFiles
from tests.storage.test_moving import DRAIN

DATA = [noise(size) for size in (0, 5000, 70_000, MIB + 1)]
TRASHED = shard_of(DATA[2])


@dataclass
class Cut:
    """Two volumes as they were at one moment."""

    what: str
    roots: list[Path]
    is_crossing: bool


class CuttingFiles(RecordingFiles):
    """Copies two volumes before each change."""

    def __init__(self, *, power: bool) -> None:
        super().__init__()
        self.power = power
        self.roots: list[Path] = []
        self.cuts: list[Cut] = []
        self.paths: dict[int, Path] = {}
        self.dirty: dict[Path, list[tuple[int, int]]] = {}

    def _do(self, call, work):  # type: ignore[no-untyped-def]  # as the class it watches
        if self.roots and call.name in WRITING:
            self.cut(f"{call.name} {call.path}")
        return super()._do(call, work)

    def open(self, path: Path, access: Access) -> int:
        fd = super().open(path, access)
        self.paths[fd] = path
        return fd

    def pwritev(self, fd, buffers, offset) -> None:  # type: ignore[no-untyped-def]  # as above
        super().pwritev(fd, buffers, offset)
        if self.roots:
            length = sum(map(len, buffers))
            self.dirty.setdefault(self.paths[fd], []).append((offset, length))

    def sync_data(self, fd: int) -> None:
        super().sync_data(fd)
        self.dirty.pop(self.paths[fd], None)

    def cut(self, what: str) -> None:
        number = len(self.cuts)
        copies = [root.parent / f"cut{number}" / root.name for root in self.roots]
        for root, copy in zip(self.roots, copies, strict=True):
            crash_copy(root, copy)
            if self.power:
                self._lose(root, copy)
        is_crossing = all((copy / "moving").exists() for copy in copies)
        self.cuts.append(Cut(what, copies, is_crossing))

    def _lose(self, root: Path, copy: Path) -> None:
        for name in ("index.sqlite-wal", "index.sqlite-shm"):
            (copy / name).unlink(missing_ok=True)
        for path, lost in self.dirty.items():
            if path.is_relative_to(root) and (copy / path.relative_to(root)).exists():
                with (copy / path.relative_to(root)).open("r+b") as file:
                    for offset, length in lost:
                        file.seek(offset)
                        file.write(bytes(length))


def cuts_of(root: Path, *, power: bool) -> tuple[list[Cut], list[StoredShard]]:
    """Empty a volume and return every moment of it, and what a renter is to see at all times."""
    files = CuttingFiles(power=power)
    farm = Farm(root, volumes=2, files=files)
    with closing(farm.engine):
        first, second = farm.engine._slots.opened()
        second.duty = DRAIN
        for data in DATA:
            farm.store(data)
        second.duty = None
        farm.delete(TRASHED)
        farm.engine.mover.begin(first, DRAIN)
        farm.engine.close()
    farm.open()
    with closing(farm.engine):
        seen = page(farm)
        files.roots = [settings.path for settings in farm.settings]
        while farm.engine.mover.step() is not None:
            pass
        files.roots = []
        assert [volume.shards for volume in farm.engine.volumes()] == [0, len(DATA)]
    return files.cuts, seen


World = tuple[Farm, list[Cut], list[StoredShard]]


def page(farm: Farm) -> list[StoredShard]:
    return farm.engine.page(ALICE, ShardId(bytes(32)), 100)


def open_at(farm: Farm, roots: list[Path]) -> None:
    farm.settings = [VolumeSettings(root, 64 * MIB) for root in roots]
    farm.open()


def check_all(farm: Farm, expected: list[StoredShard]) -> None:
    """Each shard is there once, as it was; the ledger agrees with the disks."""
    assert page(farm) == expected
    assert sum(volume.shards for volume in farm.engine.volumes()) == len(expected)
    usage = farm.engine.usage(ALICE)
    assert usage.live_bytes + usage.trash_bytes == sum(row.charge_bytes for row in expected)
    for data in DATA:
        shard = shard_of(data)
        if shard != TRASHED and shard in {row.shard for row in expected}:
            assert farm.read(shard) == data
    farm.engine.compare_with_disk()
    for volume in farm.engine.volumes():
        assert abs(volume.drift_bytes) <= 8 * 4096


def lose_indexes(farm: Farm) -> None:
    farm.engine.close()
    for settings in farm.settings:
        for path in settings.path.glob("index.sqlite*"):
            path.unlink()
    farm.open()


@pytest.fixture(params=["kill", "power"])
def world(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    # Small shards in more than one crossing: the journal of one is still there in the next.
    monkeypatch.setattr(emptying, "CROSSING_MAX", 2)
    cuts, seen = cuts_of(tmp_path / "world", power=request.param == "power")
    farm = Farm(tmp_path / "other")
    farm.engine.close()
    yield farm, cuts, seen
    shutil.rmtree(tmp_path / "world")


@pytest.mark.slow
def test_it_goes_on_after_a_crash_at_any_call(world: World) -> None:
    """Every shard is there once at the start, at the end, and when both indexes are lost."""
    farm, cuts, seen = world
    assert len(cuts) > 40
    for cut in cuts:
        open_at(farm, cut.roots)
        check_all(farm, seen)
        while farm.engine.mover.step() is not None:
            pass
        check_all(farm, seen)
        assert farm.engine.volumes()[0].shards == 0, cut.what
        lose_indexes(farm)
        check_all(farm, seen)
        farm.engine.close()


@pytest.mark.parametrize("away", [0, 1], ids=["source", "target"])
def test_what_is_erased_while_a_disk_is_away_stays_erased(world: World, away: int) -> None:
    """What cannot be decided without the missing disk is refused; what was promised holds."""
    farm, cuts, seen = world
    refused = 0
    for cut in (cut for cut in cuts if cut.is_crossing):
        hidden = cut.roots[away].with_name("hidden")
        cut.roots[away].rename(hidden)
        open_at(farm, cut.roots)
        left = list(seen)
        for row in seen:
            with suppress(VolumeUnavailableError, ShardNotFoundError):
                farm.delete(row.shard, erase=True)
                left.remove(row)
        refused += len(left)
        farm.engine.close()
        hidden.rename(cut.roots[away])
        farm.open()
        check_all(farm, left)
        lose_indexes(farm)
        check_all(farm, left)
        farm.engine.close()
    assert refused


def test_a_disk_that_comes_back_while_serving_is_settled_before_anybody_deletes(
    world: World,
) -> None:
    """The shard is on one volume once the disk is noticed."""
    farm, cuts, seen = world
    cut = [cut for cut in cuts if cut.is_crossing][len(seen)]
    hidden = cut.roots[0].with_name("hidden")
    cut.roots[0].rename(hidden)
    open_at(farm, cut.roots)
    hidden.rename(cut.roots[0])
    farm.engine.look_after_disks()
    check_all(farm, seen)
    live = next(row for row in seen if row.state is ShardState.LIVE)
    farm.delete(live.shard, erase=True)
    lose_indexes(farm)
    check_all(farm, [row for row in seen if row != live])
    farm.engine.close()
