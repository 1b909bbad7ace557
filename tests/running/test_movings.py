"""What the farmer does, turn by turn, of the emptying of its volumes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from twisted.internet.defer import ensureDeferred

from farmer.identity.keys import Identity
from farmer.running.home import Home
from farmer.running.pacing import Pacing
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


def pacing_of(farm: Farm, home: Home) -> Pacing:
    """Return what moves shards while a renter is being served: one piece of work a turn."""
    household = Household(
        home=home,
        environ={},
        identity=Identity.load_or_create(home.identity),
        now_ms=lambda: 1,
        adopted=lambda _settings: None,
        retired=Retired(home),
        report=lambda _alerts: None,
    )
    minutes = count(step=60.0)
    retiring = Retiring(farm.engine, household)
    return Pacing(farm.engine, InlineDisk(), retiring, lambda: True, lambda: next(minutes))


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
