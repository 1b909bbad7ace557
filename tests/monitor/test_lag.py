from __future__ import annotations

from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock

from farmer.monitor.lag import LagSampler

LATE_S: Final = 0.375


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


class LateClock(Clock):
    """Runs each timer three eighths of a second late."""

    def callLater(self, when: float, *args: Any, **named: Any) -> IDelayedCall:
        return super().callLater(when + LATE_S, *args, **named)


def test_a_reactor_that_is_late_each_second_is_seen_to_be() -> None:
    clock, seen = LateClock(), []
    LagSampler(clock, seen.append).start()
    for _ in range(100):
        clock.advance(0.0625)
    assert seen == [LATE_S] * 4


def test_it_stops_and_leaves_no_timer() -> None:
    clock, seen = Clock(), []
    sampler = LagSampler(clock, seen.append)
    sampler.stop()
    sampler.start()
    sampler.stop()
    assert clock.getDelayedCalls() == []
