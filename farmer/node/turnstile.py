"""Handshakes one at a time: between two of them everybody who is being served has a turn."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

Step = Callable[[], None]


class Turnstile:
    """
    Does one costly step in each turn of the reactor, whoever asks for how many.

    Addresses take turns, and within one it goes by arrival: a household that calls again and
    again delays its own calls.  Nothing is kept of an address without a step to be done.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: OrderedDict[str, deque[Step]] = OrderedDict()
        self._is_turning = False

    @property
    def waiting(self) -> int:
        """How many steps are to be done."""
        return sum(map(len, self._waiting.values()))

    def ask(self, address: str, step: Step) -> None:
        """Do a step: at once, if none was done in this turn."""
        self._waiting.setdefault(address, deque()).append(step)
        if not self._is_turning:
            self._turn()

    def _turn(self) -> None:
        self._is_turning = bool(self._waiting)
        if not self._waiting:
            return
        # Before the step, which may ask for more, and may fail.
        self._clock.callLater(0, self._turn)
        address, steps = self._waiting.popitem(last=False)
        step = steps.popleft()
        if steps:
            self._waiting[address] = steps
        step()
