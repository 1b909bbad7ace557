"""Slow volumes: what makes one slow, what does not, and how it becomes quick again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from farmer.model.status import VolumeState
from farmer.storage.engine import Engine
from farmer.storage.files import Access
from farmer.storage.fill import Fill
from farmer.storage.health import Health
from farmer.storage.pace import (
    FROM_MEMORY_S,
    QUICK_FOR_S,
    SLOW_S,
    TOLD_AFTER_S,
    Meter,
    Meters,
    Tempo,
)
from farmer.storage.watch import Watch
from farmer.storage.watched import WatchedFiles
from tests.storage.bench import LIMITS, NODE, Farm, noise
from tests.storage.recording import RecordingFiles

LOOK_S = 0.5


class Disk:
    """One volume's meters, whose calls take as long as is said; looked at twice a second."""

    def __init__(self, others: Sequence[Disk] = ()) -> None:
        self.now_s = 1000.0
        self.meters = Meters()
        self.health = Health("attic", lambda: int(self.now_s * 1000), lambda: self.now_s)
        self._tempo = Tempo(self.meters, self.health)
        self._others = others
        self._looked_s = self.now_s
        self.was_slow = False

    @property
    def is_slow(self) -> bool:
        return self.health.state is VolumeState.SLOW

    def go(self, until_s: float) -> None:
        """Let time go on, with its looks."""
        while self._looked_s + LOOK_S <= until_s:
            self._looked_s += LOOK_S
            self._tempo.judge([other.meters for other in self._others], self._looked_s)
            self.was_slow |= self.is_slow
        self.now_s = until_s

    def syncs(self, took_s: float, for_s: float) -> None:
        """Sync without a pause."""
        end_s = self.now_s + for_s
        while self.now_s < end_s:
            self.call(self.meters.syncs, took_s)

    def call(self, meter: Meter, took_s: float) -> None:
        since_s = self.now_s
        self.go(since_s + took_s)
        meter.note(since_s, self.now_s)

    def idle(self, for_s: float) -> None:
        self.go(self.now_s + for_s)


@pytest.mark.parametrize("took_s", [1.5, 2.0, 3.0, 4.0])
def test_a_disk_that_becomes_slow_is_noticed_within_ten_seconds(took_s: float) -> None:
    disk = Disk()
    disk.syncs(0.03, 60)
    assert not disk.is_slow
    disk.syncs(took_s, 9)
    disk.idle(LOOK_S)
    assert disk.is_slow
    assert disk.health.reason.startswith("a sync takes 1.")


@pytest.mark.parametrize("took_s", [0.03, 0.25, 0.9])
def test_a_busy_home_disk_alone_is_not_slow(took_s: float) -> None:
    disk = Disk()
    disk.syncs(took_s, 120)
    assert not disk.is_slow


def test_a_disk_that_slept_is_not_slow_however_many_waited_for_it() -> None:
    other = Disk()
    disk = Disk([other])
    for _ in range(5):
        other.syncs(0.03, disk.now_s - other.now_s + 1)
        since_s = disk.now_s
        disk.go(since_s + 5.9)
        for number in range(8):
            disk.go(disk.now_s + 0.02 * number)
            disk.meters.reads.note(since_s, disk.now_s)
        disk.call(disk.meters.syncs, 0.03)
        disk.idle(300)
    assert not disk.was_slow


def test_a_moment_is_not_slow_however_many_calls_it_has() -> None:
    disk = Disk()
    for _ in range(2):
        since_s = disk.now_s
        disk.go(since_s + 2)
        for _ in range(8):
            disk.meters.reads.note(since_s, disk.now_s)
    disk.idle(10)
    assert not disk.was_slow


def test_what_was_long_ago_does_not_count() -> None:
    disk = Disk()
    disk.syncs(0.9, 60)
    disk.idle(3600)
    disk.syncs(2, 4)
    disk.idle(10)
    assert not disk.was_slow


def test_slow_is_what_takes_far_longer_than_the_other_volumes() -> None:
    other, third = Disk(), Disk()
    disk = Disk([other, third])
    for one in (other, third):
        one.syncs(0.05, 60)
    disk.syncs(0.5, 60)
    assert disk.is_slow
    assert disk.health.reason == "a sync takes 0.5 s, on the other volumes 50.0 ms"


@pytest.mark.parametrize(("own_s", "other_s"), [(0.25, 0.001), (0.8, 0.7), (0.9, 0.25)])
def test_neither_what_is_quick_enough_nor_what_all_volumes_are_is_slow(
    own_s: float, other_s: float
) -> None:
    """An SSD beside a spinning disk does not make that one slow, nor does a busy NAS."""
    other = Disk()
    disk = Disk([other])
    other.syncs(other_s, 60)
    disk.syncs(own_s, 60)
    assert not disk.is_slow


def test_nobody_is_compared_with_a_volume_that_rests() -> None:
    other = Disk()
    disk = Disk([other])
    other.syncs(0.01, 10)
    disk.idle(100)
    disk.syncs(0.6, 60)
    assert not disk.is_slow


def test_it_is_quick_again_after_a_minute_and_not_before() -> None:
    disk = Disk()
    disk.syncs(2, 20)
    disk.syncs(0.03, QUICK_FOR_S - 5)
    assert disk.is_slow, "it may be slow again in a moment"
    disk.syncs(2, 10)
    disk.syncs(0.03, QUICK_FOR_S - 5)
    assert disk.is_slow
    disk.syncs(0.03, 20)
    assert not disk.is_slow
    assert not disk.health.reason


def test_one_that_is_hardly_quicker_stays_slow() -> None:
    disk = Disk()
    disk.syncs(2, 20)
    disk.syncs(0.7 * SLOW_S, 3 * QUICK_FOR_S)
    assert disk.is_slow


def test_one_that_is_not_used_becomes_quick_by_itself() -> None:
    disk = Disk()
    disk.syncs(2, 20)
    assert disk.is_slow
    disk.idle(QUICK_FOR_S)
    assert disk.is_slow
    disk.idle(QUICK_FOR_S)
    assert not disk.is_slow


def test_the_owner_is_told_of_what_lasts_and_not_of_a_busy_moment() -> None:
    disk = Disk()
    disk.syncs(2, TOLD_AFTER_S)
    assert disk.is_slow
    assert not disk.health.alerts()
    disk.syncs(2, 20)
    (alert,) = disk.health.alerts()
    assert alert.name == "VolumeSlow"
    assert "a sync takes 2.0 s" in alert.message
    assert "farmer volume drain" in alert.message
    assert alert.command == "dmesg | tail"
    disk.syncs(5, 60)
    assert disk.health.alerts() == (alert,), "new words would be a new alert"
    disk.idle(200)
    assert not disk.health.alerts()


def test_reads_from_memory_do_not_hide_a_slow_disk() -> None:
    disk = Disk()
    for _ in range(10):
        disk.call(disk.meters.reads, 1.5)
        for _ in range(500):
            disk.call(disk.meters.reads, FROM_MEMORY_S / 10)
    assert disk.is_slow
    assert disk.health.reason.startswith("a read takes")


class SlowFiles(RecordingFiles):
    """Calls below one directory make the clock go on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.now_s = 500.0
        self.slow = ""
        self.took_s = 0.0
        self._paths: dict[int, Path] = {}

    def clock(self) -> float:
        return self.now_s

    def open(self, path: Path, access: Access) -> int:
        fd = super().open(path, access)
        self._paths[fd] = path
        return fd

    def sync_data(self, fd: int) -> None:
        self._wait(fd)
        super().sync_data(fd)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        self._wait(fd)
        return super().pread(fd, length, offset)

    def _wait(self, fd: int) -> None:
        self.now_s += self.took_s if self.slow and self.slow in self._paths[fd].parts else 0.01


def test_what_waits_for_the_disk_is_what_is_measured(tmp_path: Path) -> None:
    files = SlowFiles()
    files.slow, files.took_s = "a", 3.0
    watch = Watch(files.clock)
    watched = WatchedFiles(files, watch)
    fd = watched.open(tmp_path / "a", Access.CREATE)
    for _ in range(9):
        watched.sync_data(fd)
    assert watch.meters.syncs.average_s(files.now_s) > SLOW_S
    assert not watch.meters.reads.is_known(files.now_s)
    for _ in range(9):
        watched.pread(fd, 10, 0)
    assert watch.meters.reads.average_s(files.now_s) > SLOW_S
    watched.close(fd)


def test_new_shards_avoid_a_slow_volume_until_its_probes_are_quick(tmp_path: Path) -> None:
    files = SlowFiles()
    farm = Farm(tmp_path, volumes=2, files=files)
    farm.engine.close()
    engine = farm.engine = Engine(
        farm.settings,
        NODE,
        files,
        clock_ms=lambda: farm.clocks.now_ms,
        observed_ms=lambda: farm.clocks.observed_ms,
        limits=LIMITS,
        monotonic_s=files.clock,
    )
    engine.fill = Fill.FIRST

    def states() -> list[VolumeState]:
        engine.watch_disks()
        return [status.state for status in engine.volumes()]

    def shards() -> list[int]:
        return [status.shards for status in engine.volumes()]

    files.slow, files.took_s = "volume0", 2.0
    for number in range(6):
        farm.store(noise(100, number))
    assert states() == [VolumeState.SLOW, VolumeState.HEALTHY]
    assert "sync takes" in engine.volumes()[0].reason
    before = shards()
    farm.store(noise(100, 100))
    assert shards() == [before[0], before[1] + 1]
    for _ in range(100):
        files.now_s += 2.0
        engine.look_after_disks()
        assert states()[0] is VolumeState.SLOW, "its probes are slow"
    files.took_s = 0.01
    waited_s = 0.0
    while states()[0] is VolumeState.SLOW:
        files.now_s += 2.0
        engine.look_after_disks()
        waited_s += 2.0
        assert waited_s < 2 * QUICK_FOR_S
    farm.store(noise(100, 101))
    assert shards()[0] == before[0] + 1
    engine.close()
