"""Costly steps a few at a time: between them everybody else who is being served has a turn."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, TypeAlias

from twisted.internet.interfaces import IReactorTime

from farmer.model.ids import NodeId

STEPS_PER_TURN: Final = 1
"""Costly steps before all others get their turn: a handshake's, or a read of a transfer."""

EVENTS_PER_TURN: Final = 64
"""
Frames of all sessions together that are handled in one turn: tiny ones cost time, too.

Hundreds of sessions that send some each would else make a turn of a third of a second.
"""

Who: TypeAlias = NodeId | str
"""Whose a step is: a renter's with a contract, or of all others from one network."""

Step = Callable[[], None]

_Line = OrderedDict[Who, deque[Step]]

_NOTHING: Final[deque[Step]] = deque()


class Turnstile:
    """
    Does a few costly steps in each turn of the reactor, however many are asked for.

    Renters and all others stand in two lines, which are served by turns: networks cost nothing,
    and who has hundreds may not make a renter wait for all of them.  Those in a line take
    turns, and of one it is the first that he asked for: who wants much delays himself.  Nothing
    is kept of anybody without a step to be done; whoever goes takes his steps back, or each of
    them would cost those who stay a turn.
    """

    def __init__(self, clock: IReactorTime, per_turn: int = STEPS_PER_TURN) -> None:
        self._clock = clock
        self._per_turn = per_turn
        self._renters: _Line = OrderedDict()
        self._others: _Line = OrderedDict()
        self._is_others_turn = False
        self._left = per_turn
        """Steps that may be done before the next turn."""
        self._turn_comes = False

    @property
    def waiting(self) -> int:
        """How many steps are to be done."""
        return sum(len(steps) for line in (self._renters, self._others) for steps in line.values())

    def passes(self) -> bool:
        """
        Say whether a small step may be done without asking, and count it.

        The reactor is woken for a turn only when half of what may be done is: where little is
        asked for, nobody waits and no turn is made for it.
        """
        if not self._left or self._renters or self._others:
            return False
        self._left -= 1
        if self._left <= self._per_turn // 2:
            self._plan()
        return True

    def ask(self, who: Who, step: Step) -> None:
        """Do a step: at once, if few were done in this turn."""
        # First of all, and noted when it is so: whatever fails, there will be a next turn.
        self._plan()
        if self._left and not (self._renters or self._others):
            self._left -= 1
            step()
        else:
            self._line(who).setdefault(who, deque()).append(step)

    def withdraw(self, who: Who, step: Step) -> None:
        """Take back a step that was asked for, if it is still to be done."""
        line = self._line(who)
        steps = line.get(who, _NOTHING)
        # One has no more steps than sessions, or than a network may have connections.
        if step in steps:
            steps.remove(step)
            if not steps:
                del line[who]

    def _line(self, who: Who) -> _Line:
        return self._renters if isinstance(who, NodeId) else self._others

    def _plan(self) -> None:
        if not self._turn_comes:
            self._clock.callLater(0, self._turn)
            self._turn_comes = True

    def _turn(self) -> None:
        self._turn_comes = False
        self._left = self._per_turn
        while self._left and (self._renters or self._others):
            self._plan()
            self._left -= 1
            self._next()()

    def _next(self) -> Step:
        is_others = bool(self._others) and (self._is_others_turn or not self._renters)
        self._is_others_turn = not is_others
        line = self._others if is_others else self._renters
        who, steps = line.popitem(last=False)
        step = steps.popleft()
        if steps:
            line[who] = steps
        return step
