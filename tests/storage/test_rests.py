"""Rests: how long, after what, and that work in the background takes them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from farmer.model.ids import ShardId
from farmer.storage import rests as rests_module
from farmer.storage import volume as volume_module
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.moving import Mover
from farmer.storage.rests import REST_FACTOR, REST_S_MAX, Rests
from farmer.storage.volume import Volume
from farmer.storage.worthwhile import MARKS_SLACK_BYTES
from tests.storage.bench import ALICE, Farm, noise


class Timed:
    """Rests by a clock that only the test moves; *taken* is what was rested."""

    def __init__(self) -> None:
        self.now_s = 5.0
        self.taken: list[float] = []
        self.rests = Rests(lambda: self.now_s)
        self.rests._over = self  # type: ignore[assignment]

    def wait(self, seconds: float) -> None:
        self.taken.append(seconds)


def test_a_rest_is_a_multiple_of_its_step() -> None:
    timed = Timed()
    for took_s in (0.01, 0.002):
        with timed.rests.after():
            timed.now_s += took_s
    assert timed.taken == pytest.approx([REST_FACTOR * 0.01, REST_FACTOR * 0.002])


def test_a_step_that_hung_is_not_rested_from_for_long() -> None:
    timed = Timed()
    with timed.rests.after():
        timed.now_s += 300
    assert timed.taken == [REST_S_MAX]


def test_no_rest_after_a_failure_or_in_a_hurry() -> None:
    timed = Timed()
    with pytest.raises(OSError), timed.rests.after():
        timed.now_s += 1
        raise OSError
    with timed.rests.after(hurried=True):
        timed.now_s += 1
    assert timed.taken == []


def test_a_farmer_that_stops_does_not_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a purge that is in the middle of one."""
    monkeypatch.setattr(rests_module, "REST_FACTOR", 10**9)
    monkeypatch.setattr(rests_module, "REST_S_MAX", 300)
    monkeypatch.setattr(volume_module, "REMOVE_AT_ONCE", 1)
    farm = Farm(tmp_path)
    for number in range(3):
        farm.store(noise(100, number))
    with ThreadPoolExecutor(1) as pool:
        purge = pool.submit(farm.engine.purge, ALICE, None)
        while farm.engine.usage(ALICE).shards == 3:
            assert not purge.done()
            time.sleep(0.001)
        farm.engine.begin_close()
        assert purge.result(20) == 3
    farm.engine.close()


def test_a_purge_rests_only_while_nothing_is_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = Farm(tmp_path)
    for number in range(3):
        farm.store(noise(100, number))
    is_idle = iter([True, False])
    monkeypatch.setattr(Mover, "is_idle", property(lambda _: next(is_idle)))
    monkeypatch.setattr(volume_module, "LOOK_AT_ONCE", 2)
    steps = _count(monkeypatch)
    monkeypatch.setattr(Volume, "tidy", lambda _: None)
    assert farm.engine.purge(ALICE) == 3
    assert steps == [False, True]
    farm.engine.close()


def test_what_failed_in_a_purge_is_not_tidied_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hang, and would hold up the sweeps of all volumes."""
    farm = Farm(tmp_path, volumes=2)
    first, second = farm.engine.opened()
    tidied: list[Volume] = []

    def tidy(volume: Volume) -> None:
        tidied.append(volume)

    def purge(volume: Volume, *_what: object) -> int:
        if volume is first:
            volume.ground.health.fail("it hangs")
            raise VolumeUnavailableError("it hangs")
        return 1

    monkeypatch.setattr(Volume, "tidy", tidy)
    monkeypatch.setattr(Volume, "purge", purge)
    with pytest.raises(VolumeUnavailableError):
        farm.engine.purge(ALICE)
    assert tidied == [second]
    farm.engine.close()


@pytest.mark.parametrize("how", ["close", "forsake"])
def test_a_volume_that_goes_is_not_rested_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    farm = Farm(tmp_path)
    (volume,) = farm.engine.opened()
    ended: list[Rests] = []

    def end(rests: Rests) -> None:
        ended.append(rests)

    monkeypatch.setattr(Rests, "end", end)
    getattr(volume, how)()
    assert ended == [volume.ground.rests]


def _count(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Count the steps, by whether they are hurried, and take no rests."""
    steps: list[bool] = []

    @contextmanager
    def after(_rests: Rests, *, hurried: bool = False) -> Iterator[None]:
        steps.append(hurried)
        yield

    monkeypatch.setattr(Rests, "after", after)
    return steps


def test_a_purge_rests_after_each_few_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volume_module, "REMOVE_AT_ONCE", 4)
    farm = Farm(tmp_path)
    for number in range(20):
        farm.store(noise(100, number))
    (volume,) = farm.engine.opened()
    steps = _count(monkeypatch)
    assert volume.remove(volume.page(ALICE, ShardId(bytes(32)), 20)) == 20
    assert steps == [False] * 5
    steps.clear()
    assert volume.reclaim() > 0
    assert len(steps) >= 2
    assert not any(steps)
    farm.engine.close()


def test_who_deletes_one_by_one_waits_for_no_rests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = Farm(tmp_path)
    shards = sorted(farm.store(noise(100, number)).shard for number in range(3))
    (volume,) = farm.engine.opened()
    volume.remove(volume.page(ALICE, ShardId(bytes(32)), 1), hurried=True)
    steps, run = _count(monkeypatch), volume.reclaimer.run
    hurries: list[bool] = []

    def told(*, hurried: bool) -> int:
        hurries.append(hurried)
        return run(hurried=hurried)

    monkeypatch.setattr(volume.reclaimer, "run", told)
    volume.reclaimer._settled_bytes -= 2 * MARKS_SLACK_BYTES
    farm.delete(shards[1], erase=True)
    assert hurries == [True]
    assert steps
    assert all(steps)
    farm.engine.close()
