"""One connection to one farmer: greeting, single questions, and the end of it."""

from __future__ import annotations

from typing import TypeVar

from farmer.client.errors import ClientError, FarmerBrokeProtocolError
from farmer.client.patience import Patience
from farmer.client.refusals import error_of
from farmer.client.wire import Wire
from farmer.protocol.connection import Event
from farmer.protocol.limits import HANDSHAKE_S, VERSION_MAX, VERSION_MIN
from farmer.protocol.messages import Message
from farmer.protocol.opening import Hello, Refuse, Welcome
from farmer.protocol.state import State
from farmer.version import VERSION

A = TypeVar("A", bound=Message)


class Session:
    """One connection, used for one exchange at a time."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._ended = False

    @property
    def is_reusable(self) -> bool:
        """True between exchanges, while the connection stands and nobody hung up."""
        idle = self.wire.connection.state is State.IDLE
        return idle and self.wire.is_quiet and not self._ended

    async def greet(self) -> Welcome:
        """
        Exchange HELLO and WELCOME.

        Raises:
            RefusedError: no common version, or too many sessions.
            ConnectionLostError, FarmerBrokeProtocolError.

        """
        hello = Hello(VERSION_MIN, VERSION_MAX, f"renter/{VERSION}")
        welcome = await self.ask(hello, Welcome, Patience(HANDSHAKE_S))
        if not VERSION_MIN <= welcome.version <= VERSION_MAX:
            raise self.broke(f"version {welcome.version} was not offered")
        return welcome

    async def ask(self, question: Message, answer: type[A], patience: Patience | None = None) -> A:
        """
        Send a message and return its answer.

        Raises:
            RefusedError: the farmer said no.
            ConnectionLostError, FarmerBrokeProtocolError.

        """
        self.wire.send(question)
        event = await self.wire.next_event(patience or Patience())
        if isinstance(event, answer):
            return event
        raise self.failure_of(event)

    def failure_of(self, event: Event) -> ClientError:
        """Return what an event means that was not the hoped-for one; raise it."""
        if isinstance(event, Refuse):
            self._ended = self._ended or event.final
            return error_of(event.refused)
        return self.broke(f"{type(event).__name__} is not an answer to this")

    def broke(self, detail: str) -> FarmerBrokeProtocolError:
        """Hang up on a farmer that does what it may not; raise what this returns."""
        self.abort()
        return FarmerBrokeProtocolError(f"the farmer broke the protocol: {detail}")

    async def close(self) -> None:
        """Hang up in order."""
        self._ended = True
        await self.wire.close()

    def abort(self) -> None:
        """Hang up at once."""
        self._ended = True
        self.wire.abort()
