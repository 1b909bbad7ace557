"""Twisted's side of one renter connection: moves bytes, decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast
from typing import Protocol as Shape

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IHandshakeListener, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from farmer.identity.tls import PeerCertificateError, is_tls_failure
from farmer.model.ids import NodeId
from farmer.model.shard import BLOCK_BYTES
from farmer.node.deadlines import Patience, WaitingFor
from farmer.node.held import STEP_BYTES, Account, Held, Keeping
from farmer.node.inbox import Inbox
from farmer.node.origins import widest
from farmer.node.outbox import Outbox
from farmer.node.ports import CloseReason, Meter
from farmer.node.tasks import Tasks
from farmer.node.turnstile import EVENTS_PER_TURN, Turnstile, Who
from farmer.node.wire import Wire
from farmer.protocol.connection import DataReceived, Event, FarmerConnection
from farmer.protocol.frames import Chunk, Piece, gather, joined
from farmer.protocol.messages import Message
from farmer.protocol.opening import End, Refuse
from farmer.protocol.refusals import Refused
from farmer.protocol.state import RENTERS_TURN, State

R = TypeVar("R")


class RenterLeftError(Exception):
    """There is nobody to talk to any more; whoever serves cleans up and ends."""


class Guest(Shape):
    """A connection that takes a place: a session, or one that is none yet."""

    @property
    def address(self) -> str:
        """Admission's key for where it comes from."""

    @property
    def known(self) -> bool:
        """Whether a contract was seen; others are shed first."""

    @property
    def over(self) -> bool:
        """Whether nothing more can be said."""

    @property
    def has_unread(self) -> bool:
        """Whether the renter has already sent something more, whole."""

    def check(self) -> bool:
        """Hang up if it is late, and say so; called every second or so."""

    def hang_up(self, refused: Refused, reason: CloseReason) -> None:
        """Say why, if that is possible, then close in order."""

    def close(self, reason: CloseReason) -> None:
        """Close in order."""

    def abort(self, reason: CloseReason) -> None:
        """Close at once; its place is free from now on."""


class Visitors(Shape):
    """Who keeps the list of guests."""

    def enter(self, guest: Guest) -> None:
        """Note one that has come."""

    def leave(self, guest: Guest) -> None:
        """Note that it is over; safe twice."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all sessions of a farmer share."""

    clock: IReactorTime
    tasks: Tasks
    meter: Meter
    visitors: Visitors
    identify: Callable[[Any], NodeId]
    """Gives the renter's id from a transport whose handshake is done, or raises
    `PeerCertificateError`."""
    serve: Callable[[Session], Coroutine[Deferred[Any], Any, None]]
    """Talks with one renter until one of the two hangs up."""
    held: Held = field(default_factory=Held)
    turnstile: Turnstile = field(init=False)
    """For costly steps."""
    events: Turnstile = field(init=False)
    """For frames, of which a session may handle some without asking."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "turnstile", Turnstile(self.clock))
        object.__setattr__(self, "events", Turnstile(self.clock, EVENTS_PER_TURN))


@dataclass(frozen=True, slots=True)
class Step:
    """Some bytes of a store, and whether they were the last."""

    data: Piece
    last: bool


@implementer(IHandshakeListener)
class Session(Protocol):
    """
    One renter, from accept to close.

    One coroutine (`Surroundings.serve`) lives as long as the session and calls the methods
    below.  At most one of them waits at a time; when the renter has left, or was hung up on,
    every one of them raises `RenterLeftError`.  Work in a thread is never interrupted: the
    coroutine hears of the end when it comes back.
    """

    log = Logger()
    _wire: Wire
    """From `connectionMade` on."""

    def __init__(
        self, around: Surroundings, address: str, patience: Patience | None = None
    ) -> None:
        """*patience* began at the accept, if the connection has been counted since then."""
        self.address = address
        self.known = False
        self.invites_refused = 0
        self._around = around
        self._is_counted = patience is not None
        self._connection = FarmerConnection()
        self._account = Account(around.held)
        self._outbox = Outbox(self._account)
        self._patience = patience or Patience(around.clock.seconds())
        self._inbox = Inbox(
            self._connection,
            self._account,
            around.turnstile,
            _time_of(self._patience, around.clock),
        )
        self._renter: NodeId | None = None
        self._waiting: Deferred[Any] | None = None
        self._over = False
        self._greeted = False
        self._why: CloseReason | None = None
        self._is_held_back = False
        """Whether an event is taken and waits for its turn."""
        self._wanted: Callable[[], bool] | None = None
        """Tells whether another renter waits for what this one holds."""

    # What Twisted tells us.

    def connectionMade(self) -> None:
        """Begin to serve."""
        self._wire = cast(Wire, self.transport)
        self._inbox.attach(self._wire)
        self._wire.registerProducer(self._outbox, True)
        if not self._is_counted:
            self._around.meter.connection_opened()
        self._around.visitors.enter(self)
        self._around.tasks.start("session", self._around.serve(self))

    def handshakeCompleted(self) -> None:
        """Drop at once who shows a certificate that names nobody, before it says a word."""
        try:
            self._renter = self._around.identify(self.transport)
            self._inbox.whose = self._whose
        except PeerCertificateError as error:
            self.log.debug("no usable certificate: {error!r}", error=str(error))
            self.abort(CloseReason.CERTIFICATE)

    def dataReceived(self, data: bytes) -> None:
        """Keep bytes until they are asked for."""
        if not self._over:
            self._inbox.receive(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Let go; what a thread still uses is closed when it comes back."""
        self._around.visitors.leave(self)
        if self._why is None:
            self._why = CloseReason.TLS if is_tls_failure(reason.value) else CloseReason.LEFT
        if not self._greeted:
            self._around.meter.handshake_failed(self._why.value)
        self._around.meter.connection_closed(self._why.value)
        self._finish(self._why)
        self._inbox.drop()
        self._outbox.stopProducing()

    def check(self) -> bool:
        """Hang up on a renter that is late, and say so; called every second or so."""
        hurried = self._account.is_missed or (self._wanted is not None and self._wanted())
        late = self._patience.late(self._around.clock.seconds(), hurried=hurried)
        if late is None:
            return False
        if self._over or not self._greeted or self._outbox.full:
            # Whoever takes nothing hears no last words either: they would lie there, too.
            self.abort(late.reason)
        elif late.refused is not None:
            self.hang_up(late.refused, late.reason)
        else:
            self.close(late.reason)
        return True

    # What the serving coroutine calls.

    @property
    def is_shaken(self) -> bool:
        """Whether the handshake is done, so that it is known whose it is."""
        return self._renter is not None

    @property
    def state(self) -> State:
        """Where the conversation stands."""
        return self._connection.state

    @property
    def over(self) -> bool:
        """Whether nothing more can be said."""
        return self._over

    @property
    def has_unread(self) -> bool:
        """See `Guest`."""
        return self._is_held_back or self._connection.has_whole

    def renter(self) -> NodeId:
        """Return who it is; known from the handshake on."""
        assert self._renter is not None, "bytes before the handshake"
        return self._renter

    def greeted(self, *, known: bool) -> None:
        """Note that HELLO was answered, and whether the renter has a contract."""
        self._greeted, self.known = True, known
        self._inbox.whose = self._whose
        self._patience.greeted(known=known)

    def begin(self) -> None:
        """Note that a request is being served: its rate counts from here."""
        self._patience.begin()

    def holds(self, wanted: Callable[[], bool] | None) -> None:
        """Note that the renter holds what others may want, and how to ask; None: no more."""
        self._wanted = wanted

    def answer(self, message: Message) -> None:
        """Send a message."""
        if self._over:
            raise RenterLeftError
        self._answer(self._connection.send(message))

    def send_last(self, data: bytes, head: Message | None = None) -> None:
        """Send *head*, the last bytes of an answer (as `send`) and END by one write."""
        if self._over:
            raise RenterLeftError
        self._patience.moved(len(data))
        self._answer(self._connection.send_last(data, head))

    def _answer(self, frame: bytes) -> None:
        self._outbox.writes(len(frame))
        if self._connection.state in RENTERS_TURN and self._inbox.is_empty:
            self._wire.write_now(frame)
        else:
            self._wire.write(frame)

    def refuse(self, refused: Refused) -> None:
        """Turn the open exchange down."""
        self.answer(Refuse(refused))

    def send(self, data: Chunk) -> None:
        """Send at most 256 KiB, better no more than `step_bytes`; wait for `room` first."""
        if self._over:
            raise RenterLeftError
        self._patience.moved(len(data))
        frame = self._connection.send_data(data)
        self._outbox.writes(len(frame))
        self._wire.write(frame)

    async def room(self) -> None:
        """Wait until the wire takes more."""
        if self._over:
            raise RenterLeftError
        if self._outbox.full:
            unsent_bytes = self._outbox.unsent_bytes
            room = self.wait(self._outbox.room())
            await self._patiently(WaitingFor.TRANSFER, room, unsent_bytes)

    async def turn(self) -> None:
        """Wait for our turn to do something costly."""
        await self._turn(self._around.turnstile)

    async def _turn(self, turnstile: Turnstile) -> None:
        if self._over:
            raise RenterLeftError
        turn: Deferred[None] = Deferred()
        whose = self._whose

        def step() -> None:
            turn.callback(None)

        turnstile.ask(whose, step)
        if not turn.called:
            try:
                await self.wait(turn)
            except RenterLeftError:
                turnstile.withdraw(whose, step)
                raise

    async def next_event(self) -> Event:
        """
        Return what the renter does next.

        Raises:
            RemoteProtocolError: it broke the protocol.

        """
        event = self._next()
        if event is None:
            waiting = _WAITING.get(self._connection.state, WaitingFor.REQUEST)
            event = await self._patiently(waiting, self._arrival())
        self._is_held_back = True
        await self._let_others()
        self._is_held_back = False
        return event

    async def next_step(self, least_bytes: int) -> Step:
        """
        Return the next bytes of a store: what has arrived, up to 256 KiB.

        Waits for *least_bytes* (so that a thread is not woken for every packet), unless END
        comes first, or there is a block and much is held for everybody.  Raises as `next_event`.
        """
        gathered: list[Chunk] = []
        size_bytes = 0
        try:
            while size_bytes < STEP_BYTES:
                data = self._data(STEP_BYTES - size_bytes)
                if data:
                    gather(gathered, data)
                    size_bytes += len(data)
                    self._account.add(len(data))
                    await self._let_others()
                elif (event := self._next()) is not None:
                    assert isinstance(event, End), event
                    return Step(joined(gathered), last=True)
                elif size_bytes >= min(least_bytes, max(self.step_bytes, BLOCK_BYTES + 1)):
                    break
                else:
                    await self._patiently(WaitingFor.TRANSFER, self.wait(self._inbox.arrival()))
            return Step(joined(gathered), last=False)
        finally:
            self._account.add(-size_bytes)

    @property
    def step_bytes(self) -> int:
        """How much to take into memory at once; less when much is held for everybody."""
        return self._around.held.step_bytes

    def keeping(self, size_bytes: int) -> Keeping:
        """Count bytes that lie here until the renter has taken them."""
        return self._account.keeping(size_bytes)

    def discarded(self) -> None:
        """Note that the rest of a refused store has been thrown away."""
        self._patience.discarded()

    async def wait(self, turn: Deferred[R]) -> R:
        """Wait for something of ours that may be given up: cancels it if the renter leaves."""
        if self._over:
            raise RenterLeftError
        self._waiting = turn
        try:
            return await turn
        except CancelledError as cancelled:
            # Its frames hold the session, and one of them holds it, in a circle.
            cancelled.__traceback__ = None
            raise RenterLeftError from None
        finally:
            self._waiting = None

    # How it ends.

    def hang_up(self, refused: Refused, reason: CloseReason) -> None:
        """Say why, then close in order."""
        if not self._over:
            self._around.meter.refused(refused.refusal.name)
            self._wire.write(self._connection.hang_up(refused))
            self.close(reason)

    def close(self, reason: CloseReason) -> None:
        """Send what is unsent, close in order; a peer that does not follow is cut off."""
        if self._over:
            return
        self._patience.closing(self._around.clock.seconds())
        self._finish(reason)
        self._wire.unregisterProducer()
        self._inbox.read_on()
        self._wire.loseConnection()

    def abort(self, reason: CloseReason) -> None:
        """Close at once; its place is free from now on."""
        self._finish(reason)
        self._around.visitors.leave(self)
        self._wire.abortConnection()

    # How it works.

    def _finish(self, reason: CloseReason) -> None:
        self._over = True
        if self._why is None:
            self._why = reason
        if self._waiting is not None:
            self._waiting.cancel()

    def _next(self) -> Event | None:
        if self._over:
            raise RenterLeftError
        event = self._inbox.take()
        if isinstance(event, DataReceived):
            self._patience.moved(len(event.data))
        return event

    def _data(self, limit_bytes: int) -> Piece:
        """Return bytes of a store that have arrived, if any have."""
        if self._over:
            raise RenterLeftError
        data = self._inbox.take_data(limit_bytes)
        if data:
            self._patience.moved(len(data))
        return data

    async def _arrival(self) -> Event:
        """Return the next event, which is not here yet, however many packets it takes."""
        event: Event | None = None
        while event is None:
            await self.wait(self._inbox.arrival())
            event = self._next()
        return event

    async def _patiently(
        self, waiting: WaitingFor, step: Coroutine[Deferred[Any], Any, R], unsent_bytes: int = 0
    ) -> R:
        """Await a step of the renter's with its deadline running."""
        seconds = self._around.clock.seconds
        self._patience.wait(waiting, seconds(), unsent_bytes)
        try:
            return await step
        finally:
            if not self._over:
                self._patience.go_on(waiting, seconds())

    async def _let_others(self) -> None:
        if not self._around.events.passes():
            await self._turn(self._around.events)

    @property
    def _whose(self) -> Who:
        """Who waits when this waits for its turn: keys cost nothing, networks do."""
        return self.renter() if self.known else widest(self.address)


def _time_of(patience: Patience, clock: IReactorTime) -> Callable[[bool], None]:
    """Return what lets the renter's time stand still, and run on."""

    def hold_up(is_ours: bool) -> None:
        if is_ours:
            patience.stand_still(clock.seconds())
        else:
            patience.run_on(clock.seconds())

    return hold_up


_WAITING: Final = {
    State.RECEIVING: WaitingFor.TRANSFER,
    State.DISCARDING: WaitingFor.END,
}
