from __future__ import annotations

from twisted.internet.task import Clock

from farmer.monitor.lag import LagSampler


def test_a_punctual_reactor_has_no_lag() -> None:
    clock, seen = Clock(), []
    LagSampler(clock, seen.append).start()
    clock.pump([1.0] * 5)
    assert seen == [0.0] * 5


def test_a_blocked_reactor_is_late_once() -> None:
    clock, seen = Clock(), []
    LagSampler(clock, seen.append).start()
    clock.advance(1.0)
    clock.advance(3.5)
    clock.advance(1.0)
    assert seen[:2] == [0.0, 2.5]
    assert sum(seen) == 2.5


def test_it_stops_and_leaves_no_timer() -> None:
    clock, seen = Clock(), []
    sampler = LagSampler(clock, seen.append)
    sampler.stop()
    sampler.start()
    sampler.stop()
    assert clock.getDelayedCalls() == []
