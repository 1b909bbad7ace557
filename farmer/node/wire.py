"""All that a session asks of a transport."""

from __future__ import annotations

from typing import Protocol


class Wire(Protocol):
    """TCP, TLS and fakes have it."""

    def write(self, data: bytes) -> None:
        """Send bytes; what is short may wait a turn for more."""

    def write_now(self, data: bytes) -> None:
        """Send bytes that nothing follows for now."""

    def pauseProducing(self) -> None:
        """Read no more for now: the peer feels our pace."""

    def resumeProducing(self) -> None:
        """Read again."""

    def read_at_most(self, size_bytes: int) -> None:
        """Take so much at once from now on."""

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Tell this producer when to pause."""

    def unregisterProducer(self) -> None:
        """Tell it no more."""

    def loseConnection(self) -> None:
        """Send what is unsent, then say goodbye in order."""

    def abortConnection(self) -> None:
        """Hang up at once."""
