"""Costly steps a few at a time: between them everybody else who is being served has a turn."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Final

from twisted.internet.interfaces import IReactorTime

STEPS_PER_TURN: Final = 1
"""Costly steps before all others get their turn: a handshake's, or a read of a transfer."""

Step = Callable[[], None]

_NOTHING: Final[deque[Step]] = deque()


class Turnstile:
    """
    Does a few costly steps in each turn of the reactor, however many are asked for.

    Those who ask take turns, and of one it is the first that he asked for: who wants much
    delays himself.  Nothing is kept of anybody without a step to be done; whoever goes takes his
    steps back, or each of them would cost those who stay a turn.
    """

    def __init__(self, clock: IReactorTime, per_turn: int = STEPS_PER_TURN) -> None:
        self._clock = clock
        self._per_turn = per_turn
        self._waiting: OrderedDict[Hashable, deque[Step]] = OrderedDict()
        self._left = per_turn
        """Steps that may be done before the next turn."""
        self._turn_comes = False

    @property
    def waiting(self) -> int:
        """How many steps are to be done."""
        return sum(map(len, self._waiting.values()))

    def ask(self, who: Hashable, step: Step) -> None:
        """Do a step: at once, if few were done in this turn."""
        # First of all, and noted when it is so: whatever fails, there will be a next turn.
        self._plan()
        if self._left and not self._waiting:
            self._left -= 1
            step()
        else:
            self._waiting.setdefault(who, deque()).append(step)

    def withdraw(self, who: Hashable, step: Step) -> None:
        """Take back a step that was asked for, if it is still to be done."""
        steps = self._waiting.get(who, _NOTHING)
        # One has no more steps than sessions, or than an address may have connections.
        if step in steps:
            steps.remove(step)
            if not steps:
                del self._waiting[who]

    def _plan(self) -> None:
        if not self._turn_comes:
            self._clock.callLater(0, self._turn)
            self._turn_comes = True

    def _turn(self) -> None:
        self._turn_comes = False
        self._left = self._per_turn
        while self._left and self._waiting:
            self._plan()
            self._left -= 1
            self._next()()

    def _next(self) -> Step:
        who, steps = self._waiting.popitem(last=False)
        step = steps.popleft()
        if steps:
            self._waiting[who] = steps
        return step
