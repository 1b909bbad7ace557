"""One request being served: the session as a handler sees it, with its share counted."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from farmer.model.ids import NodeId
from farmer.model.shard import (
    BLOCK_BYTES,
    BLOCK_CHECKSUM_BYTES,
    BLOCK_HASH_BYTES,
    StoredShard,
    block_count,
)
from farmer.node.farm import Farm
from farmer.node.gate import Gate
from farmer.node.held import Keeping
from farmer.node.ports import Verb
from farmer.node.refusals import CROWDED_RETRY_MS, TurnedDownError
from farmer.node.session import RenterLeftError, Session, Step
from farmer.protocol.frames import Chunk
from farmer.protocol.limits import TURN_S
from farmer.protocol.messages import Message
from farmer.protocol.refusals import Refusal

P = ParamSpec("P")
R = TypeVar("R")

KEPT_PER_BLOCK_BYTES: Final = BLOCK_HASH_BYTES + BLOCK_CHECKSUM_BYTES
"""What a reader compares a block with: its hash and its checksum."""

Wanted = Callable[[], bool]
"""Tells whether others wait for what is held."""


class Exchange:
    """
    Handlers talk through this, and only this.

    Every method raises `RenterLeftError` once the renter is gone; handlers let it pass.
    """

    def __init__(
        self,
        farm: Farm,
        session: Session,
        renter: NodeId,
        verb: Verb,
        take_place: Callable[[], None] = lambda: None,
    ) -> None:
        """*take_place* finds the session a place among the renters', or hangs up."""
        self.renter = renter
        self.verb = verb
        self._farm = farm
        self._session = session
        self._take_place = take_place
        self._who: Hashable = renter if session.known else session.address
        """Who waits at a gate: keys cost nothing, addresses do."""
        self._began_s = farm.clock.seconds()
        self._is_wanted: Wanted | None = None
        """Of what is held of a gate, whether others wait for it."""
        self.sent_bytes = 0
        """Payload that went out so far."""
        self.has_ended = False
        """Whether END went out with the last of it."""

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return self._farm.clock.seconds() - self._began_s

    @property
    def is_known(self) -> bool:
        """Whether the renter had a contract when it was last looked for."""
        return self._session.known

    async def of_stranger(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Have a thread do what anybody may ask for: strangers fill no queue but their own."""
        if self.is_known:
            return await self._farm.disk.run(work, *args, **kwargs)
        async with self.inside(self._farm.strangers, 1):
            return await self._farm.disk.run(work, *args, **kwargs)

    def known(self) -> None:
        """Note that the renter turned out to have a contract: it needs a renter's place."""
        if not self._session.known:
            self._take_place()
            self._session.greeted(known=True)

    def answer(self, message: Message) -> None:
        """Send a message."""
        self._session.answer(message)

    async def next_step(self, least_bytes: int) -> Step:
        """Return the next bytes of a store; see `Session.next_step`."""
        step = await self._session.next_step(least_bytes)
        self._farm.meter.received(self.verb, len(step.data))
        self._farm.served.moved_bytes += len(step.data)
        return step

    @property
    def step_bytes(self) -> int:
        """How much to read at once of what is to be sent; ask each time anew."""
        return self._session.step_bytes

    async def room(self) -> None:
        """Wait until the wire takes more: before reading what is to be sent."""
        await self._session.room()

    async def turn(self) -> None:
        """Wait for our turn with a step of a transfer; one of a single block needs none."""
        await self._session.turn()

    async def send_raw(self, raw: bytes, *, is_last: bool = False) -> None:
        """Send bytes that lie in memory, at the wire's pace; *is_last*: END goes with them."""
        with self.keeping(len(raw)):
            at = 0
            while at < len(raw):
                await self.room()
                if len(raw) > BLOCK_BYTES:
                    await self.turn()
                step = raw[at : at + self.step_bytes]
                at += len(step)
                if is_last and at == len(raw):
                    self.send_last(step)
                else:
                    self.send(step)

    def send(self, data: Chunk) -> None:
        """Send at most 256 KiB."""
        self._session.send(data)
        self._sent(data)

    def send_last(self, data: bytes, head: Message | None = None) -> None:
        """Send the last of it, at most 256 KiB, with what goes before it and with END."""
        self._session.send_last(data, head)
        self.has_ended = True
        self._sent(data)

    def _sent(self, data: Chunk) -> None:
        if not self.sent_bytes and self.verb is Verb.RETRIEVE:
            self._farm.meter.first_byte(self.seconds)
        self.sent_bytes += len(data)
        self._farm.meter.sent(self.verb, len(data))
        self._farm.served.moved_bytes += len(data)

    def inside(self, gate: Gate, size: int) -> Inside:
        """
        Be in a gate within an `async with`, and hurry while others wait for it.

        Raises, where it begins:
            TurnedDownError: BUSY, when the turn has not come within `TURN_S`.

        """
        return Inside(self, gate, size)

    async def enter(self, gate: Gate, size: int) -> Wanted | None:
        """Get into a gate; return what `leave` puts back."""
        if self._session.over:
            raise RenterLeftError
        turn = gate.enter(self._who, size)
        if not turn.called:
            await self._turn(turn)
        outer = self._is_wanted
        try:
            self._hold(lambda: gate.is_wanted(self._who) or (outer is not None and outer()))
        except BaseException:
            # Out of memory: what is not left now would be missing from the gate for good.
            gate.leave(self._who, size)
            raise
        return outer

    def leave(self, gate: Gate, size: int, outer: Wanted | None) -> None:
        """Get out again."""
        self._hold(outer)
        gate.leave(self._who, size)

    def _hold(self, is_wanted: Wanted | None) -> None:
        self._is_wanted = is_wanted
        self._session.holds(is_wanted)

    def keeping(self, size_bytes: int) -> Keeping:
        """Count bytes that lie in memory until the disk has them, or the renter."""
        return self._session.keeping(size_bytes)

    def keeping_tree_of(self, stored: StoredShard) -> Keeping:
        """Count what an open reader keeps of a shard of which it proves something."""
        return self.keeping(tree_bytes(stored.size_bytes))

    async def _turn(self, turn: Deferred[None]) -> None:
        """Wait for a turn; it is given up if the renter leaves, or after `TURN_S`."""
        timer: IDelayedCall | None = None
        try:
            timer = self._farm.clock.callLater(TURN_S, turn.cancel)
            await self._session.wait(turn)
        except RenterLeftError:
            if self._session.over:
                raise
            raise TurnedDownError(Refusal.BUSY, CROWDED_RETRY_MS) from None
        except BaseException:
            # Out of memory: a turn that comes later would be nobody's, and never be left.
            turn.addErrback(lambda _: None)  # type: ignore[unused-awaitable]  # it is over
            turn.cancel()
            raise
        finally:
            if timer is not None and timer.active():
                timer.cancel()


def tree_bytes(size_bytes: int) -> int:
    """Return what there is to read beside a shard of that size: 2.25 MiB of the largest."""
    return block_count(size_bytes) * KEPT_PER_BLOCK_BYTES


class Inside:
    """Being in a gate; see `Exchange.inside`.  A generator would take twice as many calls."""

    __slots__ = ("_exchange", "_gate", "_outer", "_size")

    def __init__(self, exchange: Exchange, gate: Gate, size: int) -> None:
        self._exchange = exchange
        self._gate = gate
        self._size = size
        self._outer: Wanted | None = None

    async def __aenter__(self) -> None:
        self._outer = await self._exchange.enter(self._gate, self._size)

    async def __aexit__(self, *_: object) -> None:
        self._exchange.leave(self._gate, self._size, self._outer)
