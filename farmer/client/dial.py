"""Reaching a farmer: its addresses in order, TLS, and whether it is the one we meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, Self, cast

from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory

from farmer.client.errors import (
    ConnectionFailedError,
    ConnectionLostError,
    WrongFarmerError,
)
from farmer.client.limits import CONNECT_S, DIAL_S
from farmer.client.patience import Patience
from farmer.client.session import Session
from farmer.client.unreached import unreached, why_no_connection, why_no_session
from farmer.client.wire import Wire
from farmer.identity.keys import Identity
from farmer.identity.records import RecordTLS
from farmer.identity.signing import SCHEME, parse_link
from farmer.identity.tls import (
    PeerCertificateError,
    TlsTransport,
    peer_id,
    refused_peer,
    renter_side,
)
from farmer.model.addresses import ADDRESSES_MAX, is_address
from farmer.model.contract import InviteLink
from farmer.model.ids import NodeId
from farmer.protocol.limits import HANDSHAKE_S


class AddressError(ValueError):
    """Not an address of a farmer; says what one looks like."""


@dataclass(frozen=True, slots=True)
class FarmerAddress:
    """Whom to call and where."""

    farmer: NodeId
    addresses: tuple[str, ...]
    """`host:port`, IPv6 in brackets; tried in order, `ADDRESSES_MAX` of them at most."""

    @classmethod
    def of(cls, target: FarmerAddress | InviteLink | str) -> Self:
        """
        Return the address in an invite, a link `farmer://ID@HOST:PORT/...`, or `ID@HOST:PORT`.

        Raises:
            AddressError, InviteLinkError: not one of these.

        """
        if isinstance(target, str):
            line = target.strip()
            head, at, tail = line.removeprefix(SCHEME).partition("@")
            places, slash, _ = tail.partition("/")
            if slash:
                return cls.of(parse_link(line))
            if not at or not places:
                raise AddressError(
                    f"{line!r} is not a farmer: <node id>@<host:port>, or an invite"
                )
            target = FarmerAddress(NodeId.parse(head), tuple(places.split(",")))
        if len(target.addresses) > ADDRESSES_MAX:
            raise AddressError(
                f"{len(target.addresses)} addresses are more than the {ADDRESSES_MAX} that a "
                "farmer may have"
            )
        for address in target.addresses:
            split_address(address)
        return cls(target.farmer, target.addresses)


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of what `is_address` takes, as invites do; raises `AddressError`."""
    if not is_address(address):
        raise AddressError(
            f"{address!r} is not an address: write host:port, the host a name of letters, digits, "
            ". - and _ (others as the DNS has them, xn--...), an IPv4 address, or an IPv6 address "
            "in brackets without a zone, and a port from 1 to 65535"
        )
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


class Dialer(Protocol):
    """Makes connections to one farmer."""

    async def dial(self) -> Session:
        """
        Return a fresh session, greeted.

        Raises:
            ConnectionFailedError: nobody, or somebody else, was reached.
            RefusedError: the farmer wants no session.

        """


class TlsDialer:
    """Reaches a farmer over TCP and TLS; pins its node id."""

    def __init__(self, reactor: Any, identity: Identity, address: FarmerAddress) -> None:  # noqa: ANN401 - a reactor is many interfaces at once
        self._reactor = reactor
        self._address = address
        wires = Factory.forProtocol(lambda: Wire(reactor))
        wires.noisy = False
        side = renter_side(identity, address.farmer)
        self._factory = TLSMemoryBIOFactory(side, True, wires, reactor)
        self._factory.protocol = RecordTLS

    async def dial(self) -> Session:
        """Try the addresses in order while there is time; of all that fail, tell why."""
        why: list[tuple[str, str]] = []
        wrong: list[WrongFarmerError] = []
        until_s = self._reactor.seconds() + DIAL_S
        for address in self._address.addresses:
            left_s = until_s - self._reactor.seconds()
            if left_s <= 0:
                why.append((address, "not tried, there was no time left"))
                continue
            try:
                return await self._dial(address, left_s)
            except WrongFarmerError as error:
                wrong.append(error)
            except ConnectionFailedError as error:
                why.append((address, str(error)))
        if not wrong:
            raise ConnectionFailedError(unreached(why))
        others = [unreached(why)] if why else []
        raise WrongFarmerError("; ".join([*map(str, wrong), *others]))

    async def _dial(self, address: str, left_s: float) -> Session:
        """Return a session with an address; what it raises says why not, without the address."""
        host, port = split_address(address)
        endpoint = HostnameEndpoint(self._reactor, host, port, timeout=CONNECT_S)
        try:
            # A name may stand for any number of hosts, each of which is tried.
            outer = await endpoint.connect(self._factory).addTimeout(
                left_s, self._reactor, _too_late
            )
        except (CancelledError, ConnectingCancelledError) as error:
            # Whoever cancels wants no other address and no further attempt.
            raise CancelledError from error
        except Exception as error:
            raise ConnectionFailedError(why_no_connection(error)) from error
        session = Session(cast(Wire, cast(Any, outer).wrappedProtocol))
        # Twisted lets go of it when the connection is lost.
        handle = cast(TlsTransport, outer).getHandle()
        try:
            await session.wire.until_secured(Patience(HANDSHAKE_S))
            self._pin(address, cast(TlsTransport, outer))
            await session.greet()
        except ConnectionLostError as error:
            session.abort()
            if (found := refused_peer(handle)) is not None:
                raise self._wrong(address, found) from error
            reason = why_no_session(error, is_secured=session.wire.is_secured)
            raise ConnectionFailedError(reason) from error
        except BaseException:
            session.abort()
            raise
        return session

    def _pin(self, address: str, transport: TlsTransport) -> None:
        """Make sure that no handshake was let through that ought not to be."""
        try:
            found = peer_id(transport)
        except PeerCertificateError as error:
            raise self._wrong(address, error) from error
        if found != self._address.farmer:
            raise self._wrong(address, found)

    def _wrong(self, address: str, found: NodeId | PeerCertificateError) -> WrongFarmerError:
        if isinstance(found, PeerCertificateError):
            return WrongFarmerError(f"{address} is no farmer: {found}")
        return WrongFarmerError(
            f"another farmer answers at {address}: {found.short}... instead of "
            f"{self._address.farmer.short}...; the address is old, or somebody is in between"
        )


def _too_late(_cancelled: object, timeout_s: float) -> NoReturn:
    raise TimeoutError(f"no answer in {timeout_s:.0f} s")
