"""Whether the wire takes more, as Twisted tells its producers."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer


@implementer(IPushProducer)
class Outbox:
    """
    Registered for a session's whole life: without a producer TLS buffers without bound.

    `full` becomes true when about 64 KiB lie unsent in the transport.
    """

    def __init__(self) -> None:
        self.full = False
        self._room: Deferred[None] | None = None

    def room(self) -> Deferred[None]:
        """Return a Deferred that fires when the wire takes more again; one at a time."""
        assert self.full, "there is room"
        self._room = Deferred()
        return self._room

    def pauseProducing(self) -> None:
        """Hear that the wire is full."""
        self.full = True

    def resumeProducing(self) -> None:
        """Hear that the wire takes more."""
        self.full = False
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)

    def stopProducing(self) -> None:
        """Hear that nobody listens any more; the session hears of it by itself."""
