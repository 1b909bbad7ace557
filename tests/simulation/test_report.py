"""A campaign fails below its floors, and says which faults met what."""

from __future__ import annotations

from collections import Counter

from tests.simulation.network import Line
from tests.simulation.report import (
    FAULTS,
    FLOORS_FROM_SEEDS,
    LEAST_PER_SEED,
    OPERATIONS,
    PHASES,
    Report,
)
from tests.simulation.run import Outcome

CRASHES_OF_A_SEED = 7


def a_campaign(without: str = "", crashes: int = CRASHES_OF_A_SEED) -> Report:
    """Return one that has met everything, but for one kind of fault."""
    report = Report()
    met = [fault for fault in FAULTS if fault != without]
    for seed in range(FLOORS_FROM_SEEDS):
        outcome = Outcome(seed, operations=400)
        outcome.crashes = Counter({phase: crashes // len(PHASES) for phase in PHASES})
        outcome.counts = Counter({("store", "changed"): 300, ("store", "ok"): 100})
        outcome.times = Counter(dict.fromkeys(met, 20))
        outcome.struck = Counter(
            {(name, fault, "rest"): 1 for name in OPERATIONS for fault in met}
        )
        report.add(outcome)
    return report


def test_a_campaign_that_has_met_everything_is_enough() -> None:
    assert a_campaign().unmet() == []


def test_a_campaign_with_fewer_than_five_crashes_a_seed_fails() -> None:
    """Five thousand in a thousand seeds are promised."""
    report = a_campaign()
    report.crashes = Counter(dict.fromkeys(PHASES, 36))
    assert report.unmet() == []
    report.crashes = Counter(dict.fromkeys(PHASES, 35))
    assert report.unmet() == ["only 245 crashes in 20000 operations"]


def test_a_campaign_that_tore_reordered_or_overtook_too_little_fails() -> None:
    for fault in LEAST_PER_SEED:
        assert f"no {fault} was met" in a_campaign(without=fault).unmet()
        report = a_campaign()
        report.times[fault] = int(LEAST_PER_SEED[fault] * FLOORS_FROM_SEEDS) - 1
        assert len(report.unmet()) == 1
        assert report.unmet()[0].startswith(f"too few {fault}")


def test_the_phases_of_each_operation_are_told_for_each_fault() -> None:
    report = Report()
    report.struck = Counter(
        {("store", "rot", "recovery"): 3, ("store", "rot", "rest"): 1, ("list", "slow", "move"): 2}
    )
    lines = list(report.lines())
    assert "  rot: store 0/3/0/0/0/0/1" in lines
    assert "  slow: list 0/0/0/2/0/0/0" in lines
    every = len({*FAULTS}) * len(OPERATIONS) * len(PHASES)
    assert f"  3 of {every} were met, {every - 3} never" in lines


def test_a_request_that_arrives_before_an_earlier_one_has_overtaken_it_once() -> None:
    """Not one on a line that is over: that one never arrives."""
    first, second, over = Line(1), Line(2), Line(3)
    over.asks, first.asks, second.asks = 1, 2, 3
    over.is_half_open = True
    first.to_farmer += b"late"
    assert second.has_overtaken([first, second, over])
    assert not second.has_overtaken([first, second, over]), "it has arrived"
    assert not first.has_overtaken([first, second, over]), "it is still on its way"
    first.to_farmer.clear()
    second.asks = 4
    assert not first.has_overtaken([first, second, over]), "the other one was sent later"
