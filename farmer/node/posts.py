"""What threads have to tell the reactor: it is woken once for all that lies there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, ParamSpec

from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

P = ParamSpec("P")


class Posts:
    """
    Calls to be made on the reactor, in the order they were put; safe from any thread.

    `callFromThread` alone writes a byte to a pipe for each of them.
    """

    log = Logger()

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self._reactor = reactor
        self._posts: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._is_woken = False

    def put(self, tell: Callable[P, object], *words: P.args, **_none: P.kwargs) -> None:
        """Have something called on the reactor soon."""
        self._posts.append((tell, words))
        # Whoever reads True here was before `_deliver` looked, which therefore finds the post.
        if not self._is_woken:
            self._is_woken = True
            try:
                self._reactor.callFromThread(self._deliver)
            except MemoryError:
                # It lies there: whoever comes next wakes the reactor, or it looks by itself.
                self._is_woken = False

    def look(self) -> None:
        """Deliver what nobody could wake the reactor for; on the reactor, now and then."""
        if self._posts and not self._is_woken:
            self._deliver()

    def _deliver(self) -> None:
        self._is_woken = False
        for _ in range(len(self._posts)):
            tell, words = self._posts.popleft()
            try:
                tell(*words)
            except Exception:
                self.log.failure("what a thread had to tell failed")
