"""A few connections to one farmer, kept open between exchanges and lent to one at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from twisted.internet.defer import DeferredSemaphore

from farmer.client.dial import Dialer
from farmer.client.limits import SESSIONS_MAX
from farmer.client.session import Session


class Sessions:
    """Dials when all are lent and there may be more; who comes then waits."""

    def __init__(self, dialer: Dialer, most: int = SESSIONS_MAX) -> None:
        self._dialer = dialer
        self._gate = DeferredSemaphore(most)
        self._free: list[Session] = []
        self.was_reached = False
        """Whether the farmer has answered at least once."""

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Session]:
        """
        Lend a session for one exchange; afterwards it is kept if it can be used again.

        Raises as `Dialer.dial`.
        """
        await self._gate.acquire()
        try:
            session = self._take_free() or await self._dialer.dial()
            self.was_reached = True
            try:
                yield session
            finally:
                # Left in the middle of an exchange, by an error or a cancellation, it is of
                # no use: nobody knows what its next bytes would mean.
                if session.is_reusable:
                    self._free.append(session)
                else:
                    session.abort()
        finally:
            self._gate.release()

    async def close(self) -> None:
        """Hang up all that are free, in order."""
        while self._free:
            await self._free.pop().close()

    def _take_free(self) -> Session | None:
        while self._free:
            session = self._free.pop()
            if session.is_reusable:
                return session
            session.abort()
        return None
