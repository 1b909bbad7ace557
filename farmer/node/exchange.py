"""One request being served: the session as a handler sees it, with its share counted."""

from __future__ import annotations

from typing import TypeVar

from twisted.internet.defer import Deferred

from farmer.model.ids import NodeId
from farmer.node.farm import Farm
from farmer.node.ports import Verb
from farmer.node.session import Session, Step
from farmer.protocol.messages import Message

R = TypeVar("R")


class Exchange:
    """
    Handlers talk through this, and only this.

    Every method raises `RenterLeftError` once the renter is gone; handlers let it pass.
    """

    def __init__(self, farm: Farm, session: Session, renter: NodeId, verb: Verb) -> None:
        self.renter = renter
        self.verb = verb
        self._farm = farm
        self._session = session
        self._began_s = farm.clock.seconds()
        self._nothing_sent = True

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return self._farm.clock.seconds() - self._began_s

    def known(self) -> None:
        """Note that the renter turned out to have a contract."""
        self._session.greeted(known=True)

    def answer(self, message: Message) -> None:
        """Send a message."""
        self._session.answer(message)

    async def next_step(self, least_bytes: int) -> Step:
        """Return the next bytes of a store; see `Session.next_step`."""
        step = await self._session.next_step(least_bytes)
        self._farm.meter.received(self.verb, len(step.data))
        return step

    async def room(self) -> None:
        """Wait until the wire takes more: before reading what is to be sent."""
        await self._session.room()

    def send(self, data: bytes) -> None:
        """Send at most 256 KiB."""
        self._session.send(data)
        if self._nothing_sent and self.verb is Verb.RETRIEVE:
            self._farm.meter.first_byte(self.seconds)
        self._nothing_sent = False
        self._farm.meter.sent(self.verb, len(data))

    async def wait(self, turn: Deferred[R]) -> R:
        """Wait for a turn; it is cancelled if the renter leaves meanwhile."""
        return await self._session.wait(turn)
