"""What the farmer does, turn by turn, of the emptying of its volumes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from twisted.internet.defer import ensureDeferred

from farmer.identity.keys import Identity
from farmer.running.home import Home
from farmer.running.pacing import PATIENCE_S, TURN_S, Pacing
from farmer.running.retired import Retired
from farmer.running.retiring import Household, Retiring
from farmer.storage.duty import Duty, Leaving
from farmer.storage.generation import Generation
from farmer.storage.met import note_met
from farmer.storage.scrub_notes import Notes, write_notes
from tests.fakes import InlineDisk
from tests.storage.bench import MIB, Farm, noise

DRAIN = Duty(verb=Leaving.DRAIN, since_ms=1)


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    farm = Farm(tmp_path, volumes=2)
    yield farm
    farm.engine.close()


def pacing_of(
    farm: Farm,
    home: Home,
    monotonic_s: Callable[[], float] | None = None,
    busy: Callable[[], bool] = lambda: True,
) -> Pacing:
    """Return what moves shards while a renter is being served: one piece of work a turn."""
    household = Household(
        home=home,
        environ={},
        identity=Identity.load_or_create(home.identity),
        now_ms=lambda: 1,
        adopted=lambda _path, _settings: None,
        retired=Retired(home),
        report=lambda _alerts: None,
    )
    minutes = count(step=60.0)
    retiring = Retiring(farm.engine, household)
    return Pacing(
        *(farm.engine, InlineDisk(), retiring, busy), monotonic_s or (lambda: next(minutes))
    )


def turn(pacing: Pacing) -> None:
    """Do one turn, to its end; raises what it raises."""
    turned = ensureDeferred(pacing.turn())
    assert turned.called
    turned.addErrback(lambda failure: failure.raiseException())


def test_the_next_turn_throws_away_the_copy_for_a_volume_that_is_to_stay(
    farm: Farm, tmp_path: Path
) -> None:
    """Its space is free again, though nothing is to be emptied any more."""
    home = Home.at(tmp_path / "home")
    home.make()
    source, target = farm.engine.opened()
    target.duty = DRAIN
    farm.store(noise(6 * MIB))
    target.duty = None
    pacing = pacing_of(farm, home)
    farm.engine.mover.begin(source, DRAIN)
    turn(pacing)
    assert target.ground.account.reserved_bytes > 6 * MIB
    assert len(list(target.ground.paths.staging.iterdir())) == 1
    farm.engine.mover.cancel(source)
    turn(pacing)
    assert target.ground.account.reserved_bytes == 0
    assert not list(target.ground.paths.staging.iterdir())
    assert source.readers == 0


def test_a_volume_that_is_retired_with_its_files_leaves_nothing_behind(
    farm: Farm, tmp_path: Path
) -> None:
    """Nor what scrubs, contracts and a crash have left there."""
    home = Home.at(tmp_path / "home")
    home.make()
    source, target = farm.engine.opened()
    target.duty = DRAIN
    for size in (100, 6 * MIB):
        farm.store(noise(size))
    target.duty = None
    write_notes(source.ground, Notes())
    note_met(source.ground.files, source.ground.paths.root, 1)
    source.witness.note(Generation(bytes(16), 1, bytes(8)))
    source.ground.paths.probe.touch()
    farm.engine.mover.begin(source, Duty(verb=Leaving.RETIRE, since_ms=1, remove=True))
    assert source.ground.paths.duty.exists()
    pacing = pacing_of(farm, home)
    for _ in range(100):
        turn(pacing)
    assert farm.engine.opened() == [target]
    assert not source.settings.path.exists()


class Estate:
    """A farmer of which two volumes are to be emptied into a third, and the time."""

    def __init__(self, root: Path) -> None:
        self.now_s = 100.0
        self.farm = Farm(root, volumes=3, quota_bytes=256 * MIB)
        self.first, self.second, self.target = self.farm.engine.opened()
        for filled, others in (
            (self.first, (self.second, self.target)),
            (self.second, (self.first, self.target)),
        ):
            for one in others:
                one.duty = DRAIN
            for number in range(10):
                self.farm.store(noise(1000_000, (filled.settings.label, number)))
            for one in others:
                one.duty = None
        home = Home.at(root / "home")
        home.make()
        self.pacing = pacing_of(self.farm, home, self.read, lambda: False)

    def read(self) -> float:
        # So that a turn ends by itself.
        self.now_s += 0.01
        return self.now_s

    def turns(self, for_s: float) -> None:
        until_s = self.now_s + for_s
        while self.now_s < until_s:
            turn(self.pacing)
            self.now_s += TURN_S

    def left(self) -> list[int]:
        volumes = (self.first, self.second)
        return [volume.ground.account.total.shards for volume in volumes]


@pytest.fixture
def estate(tmp_path: Path) -> Iterator[Estate]:
    made = Estate(tmp_path)
    yield made
    made.farm.engine.close()


def test_a_volume_that_is_to_be_emptied_slowly_does_not_slow_another_one(estate: Estate) -> None:
    mover = estate.farm.engine.mover
    slow = Duty(verb=Leaving.DRAIN, since_ms=1, rate_bytes=200_000)
    mover.begin(estate.first, slow)
    mover.begin(estate.second, DRAIN)
    estate.turns(4.0)
    left = estate.left()
    assert left[1] == 0
    assert left[0] == 5, "what crosses together does so at once, and then it waits"
    work, other = mover.work(estate.first), mover.work(estate.second)
    assert work is not None
    assert other is not None
    assert work.bytes_per_s == 200_000
    assert other.bytes_per_s > 1_000_000
    estate.turns(60.0)
    assert estate.left() == [0, 0]


def test_volumes_that_are_emptied_at_one_time_take_turns(estate: Estate) -> None:
    mover = estate.farm.engine.mover
    for volume in (estate.first, estate.second):
        mover.begin(volume, DRAIN)
    seen = []
    while (step := mover.step()) is not None:
        seen.append(step.volume)
    both = [estate.first.ground.volume, estate.second.ground.volume]
    assert len(seen) > 3
    assert seen == (both * len(seen))[: len(seen)]


def test_a_rate_is_kept_over_the_turns(estate: Estate) -> None:
    slow = Duty(verb=Leaving.DRAIN, since_ms=1, rate_bytes=200_000)
    estate.farm.engine.mover.begin(estate.first, slow)
    estate.turns(24.0)
    assert estate.left()[0] == 5
    estate.turns(2.0)
    assert estate.left()[0] == 0


def test_what_is_read_back_of_large_copies_is_within_the_rate(estate: Estate) -> None:
    """And is not taken for progress."""
    slow = Duty(verb=Leaving.DRAIN, since_ms=1, rate_bytes=1_000_000)
    for one in (estate.second, estate.target):
        one.duty = DRAIN
    estate.farm.store(noise(20_000_000))
    for one in (estate.second, estate.target):
        one.duty = None
    mover = estate.farm.engine.mover
    mover.begin(estate.first, slow)
    estate.turns(45.0)
    assert estate.left()[0] > 0, "10 MB of small ones, 20 MB are written, and 20 MB read again"
    work = mover.work(estate.first)
    assert work is not None
    assert work.bytes_per_s <= 1_000_000
    estate.turns(20.0)
    assert estate.left()[0] == 0


def test_one_that_waits_for_room_does_not_keep_another_waiting(estate: Estate) -> None:
    """It is tried again only after a while, and the other goes on meanwhile."""
    mover = estate.farm.engine.mover
    only = Duty(verb=Leaving.DRAIN, since_ms=1, to=bytes(16).hex())
    mover.begin(estate.first, only)
    slow = Duty(verb=Leaving.DRAIN, since_ms=1, rate_bytes=1_000_000)
    mover.begin(estate.second, slow)
    estate.turns(PATIENCE_S - 5)
    assert estate.left() == [10, 0]
