"""What the process is told from outside: stop, stop now, read the settings again."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IReactorFromThreads

STOPPED_AT_ONCE: Final = 1
"""The exit code after a second request to stop."""

ONE_REQUEST_S: Final = 0.5
"""
So long after the first signal another one belongs to the same request: `timeout` tells its child
and then all of its group, and a child that is `make` tells the farmer as well.
"""


class Signals:
    """
    Turns SIGTERM and SIGINT into *stop*, and SIGHUP into *reload*, both on the reactor.

    A second request to stop ends the process at once.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        stop: Callable[[], None],
        reload: Callable[[], None],
        end_now: Callable[[int], object],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reactor = reactor
        self._stop = stop
        self._reload = reload
        self._end_now = end_now
        self._monotonic_s = monotonic_s
        self._stopping = False
        self._asked_s = 0.0

    def catch_reloads(self) -> None:
        """
        Take SIGHUP over before a start, which it would end: the reactor reloads when it runs.

        The other two still end a start: it may take hours.  Only the main thread may.
        """
        signal.signal(signal.SIGHUP, self.reload_asked)

    def catch(self) -> None:
        """Take all of them over; only the main thread may."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop_asked)
        self.catch_reloads()

    def stop_asked(self, _number: int = 0, _frame: object = None) -> None:
        """Stop in order; asked again, end: nothing that was acknowledged is lost by that."""
        now_s = self._monotonic_s()
        if self._stopping:
            if now_s - self._asked_s >= ONE_REQUEST_S:
                self._end_now(STOPPED_AT_ONCE)
            return
        self._stopping, self._asked_s = True, now_s
        self._reactor.callFromThread(self._stop)

    def reload_asked(self, _number: int = 0, _frame: object = None) -> None:
        """Read the settings again, unless we are stopping."""
        if not self._stopping:
            self._reactor.callFromThread(self._reload)
