"""The running farmer's front: listens, lets in, drains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocol,
    IReactorTCP,
)
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from farmer.identity.records import RecordTLS
from farmer.identity.tls import peer_id
from farmer.model.ids import NodeId
from farmer.node.accepting import accept_few
from farmer.node.admission import Sessions, TurnedAway, Welcomed
from farmer.node.arrival import Arrival
from farmer.node.chores import Chore
from farmer.node.farm import Farm
from farmer.node.handlers import Conversation
from farmer.node.listen_errors import why_not
from farmer.node.origins import origin
from farmer.node.ports import CloseReason, Meter
from farmer.node.session import Session, Surroundings
from farmer.node.tasks import Tasks, next_turn, within
from farmer.protocol.refusals import Refusal

CHECK_S: Final = 1.0
"""How often deadlines are looked at: one timer for all sessions."""

CHECKED_PER_TURN: Final = 256
"""Sessions whose deadlines are looked at before the others get their turn."""

HANG_UP_CHECKS: Final = 32
"""As many looks take as long as hanging up: of those who are late together, eight go at once."""

BACKLOG: Final = 128
"""Connections that the kernel holds until we accept them."""

LAST_WORK_S: Final = 10.0
"""How long a stop waits for threads once everybody is out; longer than a hang takes to be seen."""


class ListenError(Exception):
    """An address cannot be listened on: which, why, and what to do."""


class Doorkeeper(ServerFactory):
    """
    Decides before TLS costs anything.

    Who is turned away is not told why: that would cost a handshake.
    """

    noisy = False
    log = Logger()

    def __init__(self, sessions: Sessions, meter: Meter, inner: Callable[[str], Protocol]) -> None:
        """*inner* makes the protocol of a connection from an `origin`."""
        self._sessions = sessions
        self._meter = meter
        self._inner = inner

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """Let a connection in, maybe instead of a stranger's, or have it closed at once."""
        address = origin(getattr(addr, "host", "local"))
        match self._sessions.decide(address):
            case TurnedAway(have, allowed):
                self._meter.refused(Refusal.TOO_MANY_SESSIONS.name)
                self.log.debug("turned away: {have} of {allowed}", have=have, allowed=allowed)
                return None
            case Welcomed(instead):
                if instead is not None:
                    instead.abort(CloseReason.SHED)
                return self._inner(address)


class FarmerService:
    """
    Serves a farm on some addresses.

    `start`, then `drain` once; stopped services are not started again.
    """

    log = Logger()

    def __init__(
        self,
        tcp: IReactorTCP,
        farm: Farm,
        side: IOpenSSLServerConnectionCreator,
        listen: Sequence[tuple[str, int]],
        sessions: Sessions | None = None,
    ) -> None:
        """*listen* are hosts and ports, 0 is any; time is the farm's."""
        self.sessions = Sessions() if sessions is None else sessions
        self.tasks = Tasks()
        self._tcp = tcp
        self._farm = farm
        self._listen = tuple(listen)
        self._ports: list[IListeningPort] = []
        self._around = self.surroundings(peer_id)
        self._tls = TLSMemoryBIOFactory(side, False, ServerFactory(), farm.clock)
        self._tls.protocol = RecordTLS
        self._door = Doorkeeper(self.sessions, farm.meter, self._arrival)
        self._checks = Chore("deadlines", CHECK_S, self._check, farm.clock, self.tasks)

    def surroundings(self, identify: Callable[[Any], NodeId]) -> Surroundings:
        """Return what this service's sessions share; *identify* names a transport's renter."""
        guests = self.sessions
        conversation = Conversation(self._farm, guests.began, guests.ended, guests.introduce)
        return Surroundings(
            clock=self._farm.clock,
            tasks=self.tasks,
            meter=self._farm.meter,
            visitors=self.sessions,
            identify=identify,
            serve=conversation.serve,
        )

    def start(self) -> None:
        """
        Listen on all addresses.

        Raises:
            ListenError: one of them cannot be had; then none is.

        """
        for host, port in self._listen:
            try:
                self._ports.append(self._tcp.listenTCP(port, self._door, BACKLOG, host))
                accept_few(self._ports[-1])
            except CannotListenError as error:
                self._let_go()
                raise ListenError(
                    f"cannot listen on {show_address(host, port)}: {why_not(error.socketError)}. "
                    "Choose another address in listen.shards"
                ) from error
        self._checks.start()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it really listens: `host:port`, IPv6 in brackets."""
        where = [cast(IPv4Address | IPv6Address, port.getHost()) for port in self._ports]
        return tuple(show_address(address.host, address.port) for address in where)

    async def drain(self, grace_s: float) -> bool:
        """
        Stop in order: listen no more, refuse new stores, let requests finish, close all.

        Return whether all of them finished within *grace_s*; the others were cut off.  When this
        returns nothing of this service runs any more, in no thread, but for those that some disk
        has held up for `LAST_WORK_S`: no watch tells when that of the contracts hangs.
        """
        self._farm.draining = True
        await self._stop_listening()
        finished = await self._within(grace_s, self.sessions.drain())
        await self.sessions.close()
        self._checks.stop()
        if not await within(self._farm.clock, LAST_WORK_S, self.tasks.drain()):
            self.log.warn("work for renters is left: a disk is slow, or does not answer")
        return finished

    async def _within(self, grace_s: float, quiet: Deferred[None]) -> bool:
        """Wait for something or for the end of the grace; tell which came first."""
        timer = self._farm.clock.callLater(grace_s, quiet.cancel)
        try:
            await quiet
        except CancelledError:
            return False
        timer.cancel()
        return True

    def _let_go(self) -> None:
        """Stop listening at once: whoever tries again may want the same addresses."""
        sockets = [getattr(port, "socket", None) for port in self._ports]
        self.tasks.start("closing ports", self._stop_listening())
        # The reactor has let go of them, but would close them only in its next turn.
        for bound in sockets:
            if bound is not None:
                bound.close()

    async def _stop_listening(self) -> None:
        ports, self._ports = self._ports, []
        await gatherResults([maybeDeferred(port.stopListening) for port in ports])

    def _arrival(self, address: str) -> Arrival:
        return Arrival(self._around, address, self._behind_tls)

    def _behind_tls(self, session: Session) -> IProtocol:
        return self._tls.protocol(self._tls, session)

    async def _check(self) -> None:
        checked = 0
        for guest in self.sessions:
            checked += HANG_UP_CHECKS if guest.check() else 1
            if checked >= CHECKED_PER_TURN:
                checked = 0
                await next_turn(self._farm.clock)


def show_address(host: str, port: int) -> str:
    """Return `host:port`, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
