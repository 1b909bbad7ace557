"""
The two clients, made alike: ours, and the one that all HTTP peers are asked with.

Both hash a shard before they send it and hash again all that comes back, in threads of the same
kind; both read and write the same kind of file, in the same steps; both use the same TLS.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory

from benchmarks.peers.dialects import Dialect, dav, swift, tahoe
from benchmarks.peers.http import HttpConnection, HttpError
from benchmarks.peers.job import Target
from farmer.audit.tree import TreeHasher
from farmer.client.door import Door, ThreadDoor
from farmer.client.farmer import Farmer, connect
from farmer.client.limits import SESSIONS_MAX
from farmer.client.storing import Source
from farmer.identity.keys import Identity
from farmer.identity.signing import parse_link
from farmer.identity.tls import renter_side
from farmer.model.ids import ShardId


@dataclass(frozen=True, slots=True)
class Held:
    """A shard that was stored."""

    shard: ShardId
    size_bytes: int


class Client(Protocol):
    """Stores and retrieves, one after the other."""

    async def store(self, file: BinaryIO) -> Held:
        """Hash what the file holds and send it; return when the server has acknowledged it."""

    async def retrieve(self, held: Held, target: BinaryIO) -> None:
        """Write a shard to a file; raises if its hash is another."""


class RenterClient:
    """Our own client library."""

    def __init__(self, farmer: Farmer) -> None:
        self._farmer = farmer

    async def store(self, file: BinaryIO) -> Held:
        """See `Client`."""
        receipt = await self._farmer.store(file)
        return Held(receipt.shard, receipt.size_bytes)

    async def retrieve(self, held: Held, target: BinaryIO) -> None:
        """See `Client`."""
        await self._farmer.retrieve(held.shard, target)


class HttpClient:
    """A peer, over a connection of its own."""

    def __init__(self, connection: HttpConnection, dialect: Dialect, door: Door) -> None:
        self._connection = connection
        self._dialect = dialect
        self._door = door

    async def store(self, file: BinaryIO) -> Held:
        """See `Client`."""
        source = await self._door.run(Source.hashed, file)

        async def part(at: int) -> bytes:
            return await self._door.run(source.part, at)

        for request in self._dialect.storing(str(source.shard), source.size_bytes):
            if request.sends_shard:
                await self._connection.exchange(request, source.size_bytes, part, _drop)
            else:
                await self._connection.ask(request)
        return Held(source.shard, source.size_bytes)

    async def retrieve(self, held: Held, target: BinaryIO) -> None:
        """See `Client`."""
        hasher = TreeHasher()

        def write(step: bytes) -> None:
            hasher.update(step)
            target.write(step)

        async def take(step: bytes) -> None:
            await self._door.run(write, step)

        request = self._dialect.retrieving(str(held.shard), held.size_bytes)
        await self._connection.exchange(request, 0, None, take)
        tree = await self._door.run(hasher.finish)
        if tree.shard_id() != held.shard:
            raise HttpError(f"shard {held.shard} came back with other bytes")


@asynccontextmanager
async def clients(
    target: Target,
    folder: Path,
    count: int,
    reactor: Any,
) -> AsyncIterator[list[Client]]:
    """Connect so many clients; as many connections, whatever the server."""
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
    dialects = {"dav": dav, "swift": swift, "tahoe": lambda: tahoe(target.secret)}
    dialect = dialects[target.dialect]()
    factory = Factory.forProtocol(HttpConnection)
    factory.noisy = False
    if target.pin:
        # The very context of our own client; a server that does not ask is shown no certificate.
        side = renter_side(Identity.create(folder / "renter"))
        factory = TLSMemoryBIOFactory(side, True, factory, reactor)
    found: list[Client] = []
    for number in range(count):
        if number % SESSIONS_MAX == 0:
            door = ThreadDoor(reactor)
            stack.callback(door.close)
        connection = await _connected(target, factory, reactor)
        stack.callback(connection.close)
        found.append(HttpClient(connection, dialect, door))
    return found


async def _connected(target: Target, factory: Factory, reactor: Any) -> HttpConnection:
    outer = await HostnameEndpoint(reactor, "127.0.0.1", target.port).connect(factory)
    if not target.pin:
        return outer
    connection: HttpConnection = outer.wrappedProtocol
    await connection.until_secured()
    shown = outer.getHandle().get_peer_certificate().digest("sha256").decode().replace(":", "")
    if shown.lower() != target.pin:
        raise HttpError(f"another server answers at port {target.port}")
    return connection


async def _drop(_step: bytes) -> None:
    """Nobody reads it."""
