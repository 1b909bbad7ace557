"""Clients with their connections: one connection each, to whatever server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory

from benchmarks.peers.clients import Client, HttpClient, RenterClient
from benchmarks.peers.dialects import Dialect, dav, swift, tahoe
from benchmarks.peers.http import HttpConnection, HttpError
from benchmarks.peers.job import Target
from farmer.client.door import ThreadDoor
from farmer.client.farmer import connect
from farmer.client.limits import SESSIONS_MAX
from farmer.identity.keys import Identity
from farmer.identity.signing import parse_link
from farmer.identity.tls import renter_side


@asynccontextmanager
async def connected(
    target: Target, folder: Path, count: int, reactor: Any
) -> AsyncIterator[list[Client]]:
    """Connect so many clients, and hang up at the end; *folder* is for their identities."""
    async with AsyncExitStack() as stack:
        if target.dialect == "farmer":
            yield await _renters(stack, target, folder, count, reactor)
        else:
            yield await _http_clients(stack, target, folder, count, reactor)


async def _renters(
    stack: AsyncExitStack, target: Target, folder: Path, count: int, reactor: Any
) -> list[Client]:
    """Let as many renters redeem as are needed: each makes up to `SESSIONS_MAX` connections."""
    found: list[Client] = []
    for number, invite in enumerate(target.invites):
        if len(found) >= count:
            break
        link = parse_link(invite)
        identity = Identity.create(folder / f"renter{number}")
        farmer = await stack.enter_async_context(connect(link, identity, reactor))
        await farmer.redeem(link.invite)
        found += [RenterClient(farmer)] * SESSIONS_MAX
    return found[:count]


async def _http_clients(
    stack: AsyncExitStack, target: Target, folder: Path, count: int, reactor: Any
) -> list[Client]:
    """Connect, with threads for as many connections as a renter has."""
    dialect, factory = _dialect(target), _factory(target, folder, reactor)
    doors = [ThreadDoor(reactor) for _ in range(-(-count // SESSIONS_MAX))]
    for door in doors:
        stack.push_async_callback(door.close)
    found: list[Client] = []
    for number in range(count):
        connection = await _connection(target, factory, reactor)
        stack.callback(connection.close)
        found.append(HttpClient(connection, dialect, doors[number // SESSIONS_MAX]))
    return found


def _dialect(target: Target) -> Dialect:
    if target.dialect == "tahoe":
        return tahoe(target.secret)
    return {"dav": dav, "swift": swift}[target.dialect]()


def _factory(target: Target, folder: Path, reactor: Any) -> Any:
    factory = Factory.forProtocol(HttpConnection)
    factory.noisy = False
    if not target.pin:
        return factory
    # The very context of our own client; a server that does not ask is shown no certificate.
    side = renter_side(Identity.create(folder / "renter"))
    return TLSMemoryBIOFactory(side, True, factory, reactor)


async def _connection(target: Target, factory: Any, reactor: Any) -> HttpConnection:
    # Any: a plain connection is the protocol itself, one over TLS is wrapped.
    outer: Any = await HostnameEndpoint(reactor, "127.0.0.1", target.port).connect(factory)
    connection: HttpConnection = outer.wrappedProtocol if target.pin else outer
    if target.pin:
        await connection.until_secured()
        shown = outer.getHandle().get_peer_certificate().digest("sha256").decode()
        if shown.replace(":", "").lower() != target.pin:
            raise HttpError(f"another server answers at port {target.port}")
    return connection
