"""Whether the wire takes more, as Twisted tells its producers."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from farmer.node.held import Account


@implementer(IPushProducer)
class Outbox:
    """
    Registered for a session's whole life: without a producer TLS buffers without bound.

    `full` becomes true when about 64 KiB lie unsent in the transport.  From then on what was
    written last is held: of the rest at most those 64 KiB are left.
    """

    def __init__(self, account: Account) -> None:
        self.full = False
        self._account = account
        self._last_bytes = self._counted_bytes = 0
        self._room: Deferred[None] | None = None

    def writes(self, size_bytes: int) -> None:
        """Note what is about to be written."""
        self._last_bytes = size_bytes

    @property
    def unsent_bytes(self) -> int:
        """How much of what was written last may still be held."""
        return self._counted_bytes

    def room(self) -> Deferred[None]:
        """Return a Deferred that fires when the wire takes more again; one at a time."""
        assert self.full, "there is room"
        self._room = Deferred()
        return self._room

    def pauseProducing(self) -> None:
        """Hear that the wire is full."""
        self.full = True
        self._count(self._last_bytes)

    def resumeProducing(self) -> None:
        """Hear that the wire takes more."""
        self.full = False
        self._count(0)
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)

    def stopProducing(self) -> None:
        """Hear that nobody listens any more; the session hears of it by itself."""
        self._count(0)

    def _count(self, unsent_bytes: int) -> None:
        self._account.add(unsent_bytes - self._counted_bytes)
        self._counted_bytes = unsent_bytes
