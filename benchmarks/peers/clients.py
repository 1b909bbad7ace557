"""
The two clients, made alike: ours, and the one that all HTTP peers are asked with.

Both hash a shard before they send it and hash again all that comes back, in threads of the same
kind; both read and write the same kind of file, in the same steps; both use the same TLS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, Protocol

from benchmarks.peers.dialects import Dialect
from benchmarks.peers.http import HttpConnection, HttpError
from farmer.audit.tree import TreeHasher
from farmer.client.door import Door
from farmer.client.farmer import Farmer
from farmer.client.storing import Source
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
            return await source.step(at, self._door)

        for request in self._dialect.storing(str(source.shard), source.size_bytes):
            if request.sends_shard:
                await self._connection.exchange(request, source.size_bytes, part, _drop)
            else:
                await self._connection.ask(request)
        return Held(source.shard, source.size_bytes)

    async def retrieve(self, held: Held, target: BinaryIO) -> None:
        """See `Client`."""
        hasher = TreeHasher()

        def write(step: bytes) -> bool:
            """Say whether that was all of it."""
            hasher.update(step)
            target.write(step)
            return is_all()

        def is_all() -> bool:
            return (
                hasher.size_bytes == held.size_bytes and hasher.finish().shard_id() == held.shard
            )

        is_right = is_all()

        async def take(step: bytes) -> None:
            nonlocal is_right
            is_right = await self._door.run(write, step)

        request = self._dialect.retrieving(str(held.shard), held.size_bytes)
        await self._connection.exchange(request, 0, None, take)
        if not is_right:
            raise HttpError(f"shard {held.shard} came back with other bytes")


async def _drop(_step: bytes) -> None:
    """Nobody reads it."""
