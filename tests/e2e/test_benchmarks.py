"""Our own benchmarks, each as small as can be: they work, and leave nothing out."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import handshakes, load, small
from benchmarks.rig.crowding import Job
from benchmarks.rig.errors import MeasuringError
from benchmarks.rig.ground import Ground
from benchmarks.rig.listing import listing
from benchmarks.rig.population import Population
from benchmarks.rig.together import measured

SHARDS = 1500
"""More than a page of a list."""


@pytest.fixture
def full(tmp_path: Path) -> Ground:
    ground = Ground(tmp_path, 1_000_000_000)
    ground.admit(range(2))
    ground.fill(("store", Population(SHARDS, renters=1)))
    return ground


@pytest.mark.slow
def test_small_requests_are_counted_and_cost_something(tmp_path: Path) -> None:
    """Of each kind, over several processes of renters."""
    found = small.measure(tmp_path, rounds=1, seconds=0.3, processes=2)
    for [tally] in (found.pings, found.audits, found.stores):
        assert tally.count > 0
        assert tally.farmer_s > 0
        assert len(tally.clients_s) == 2
        assert all(tally.clients_s)
    assert found.flushes_per_s[0] > 0
    assert all(value for value in found.figures().values())


@pytest.mark.slow
def test_handshakes_are_counted(tmp_path: Path) -> None:
    """Each is a connection of its own."""
    [tally] = handshakes.measure(tmp_path, rounds=1, seconds=0.3, processes=1)
    assert tally.count > 0
    assert tally.farmer_s > 0


@pytest.mark.slow
def test_the_load_is_that_of_farmer_bench(tmp_path: Path) -> None:
    """With all its cells, and nothing of it stays."""
    found = load.figures([load.bench(tmp_path, 0.1, "300MB")])
    assert {"store", "retrieve", "audit"} <= {name.split()[0] for name in found}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_answer_that_is_none_ends_the_measuring(full: Ground) -> None:
    """A renter without that shard: refusals are quick, and would be a fine figure."""
    with full, full.running() as farmer:
        stranger = Job(farmer.address, "audit", Population(2, renters=2), (1,))
        with pytest.raises(MeasuringError, match="renters failed"):
            measured(farmer.pid, stranger, 0.3, 1)


@pytest.mark.slow
def test_a_whole_list_has_every_shard_and_another_one_is_told_apart(full: Ground) -> None:
    """Over several pages; one shard less makes another list of it."""
    with full:
        with full.running() as farmer:
            before = listing(farmer.address, 0)
            assert before.shards == SHARDS
            assert listing(farmer.address, 0) == before
            assert listing(farmer.address, 1).shards == 0
        full.fill(("erase", Population(1)))
        with full.running() as farmer:
            after = listing(farmer.address, 0)
        assert after.shards == SHARDS - 1
        assert after.digest != before.digest
