"""Storing one shard: hashed first, then sent, then the farmer's receipt checked."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO

from farmer.audit.tree import TreeHasher
from farmer.client.door import Door
from farmer.client.errors import ClientError, SourceChangedError
from farmer.client.limits import GIVE_UP_S, HASHED_BYTES_PER_S_MIN
from farmer.client.patience import Pace, Patience
from farmer.client.session import Session
from farmer.model.contract import Receipt
from farmer.model.ids import ShardId
from farmer.model.shard import BLOCK_BYTES, SHARD_BYTES_MAX
from farmer.protocol.limits import ANSWER_S, DATA_BYTES_SENT
from farmer.protocol.opening import End, Refuse
from farmer.protocol.state import State
from farmer.protocol.transfers import Accept, Store, Stored
from farmer.units import format_size

Progress = Callable[[int, int], None]
"""Told how many bytes of how many are done; called on the reactor, often."""


def no_progress(_done_bytes: int, _total_bytes: int) -> None:
    """Nobody looks."""


@dataclass(frozen=True, slots=True)
class Source:
    """Bytes to store: a seekable binary file, from *start* on."""

    file: BinaryIO
    start: int
    shard: ShardId
    size_bytes: int
    held: bytes | None = field(default=None, repr=False, compare=False)
    """All of them, if they are so few that they were kept when they were hashed."""

    @classmethod
    def hashed(cls, file: BinaryIO) -> Source:
        """
        Read the file from where it stands to its end; blocking.

        Raises:
            OSError: it cannot be read, or has more than any shard can: a device may have no end.

        """
        start = file.tell()
        hasher, size_bytes, last = TreeHasher(), 0, b""
        while part := file.read(DATA_BYTES_SENT):
            size_bytes, last = size_bytes + len(part), part
            if size_bytes > SHARD_BYTES_MAX:
                raise OSError(
                    errno.EFBIG,
                    f"it has more than {format_size(SHARD_BYTES_MAX)}, as much as a shard can: "
                    "split it (split -b 64M FILE part-)",
                )
            hasher.update(part)
        tree = hasher.finish()
        held = last if size_bytes == len(last) <= BLOCK_BYTES else None
        return cls(file, start, tree.shard_id(), tree.size_bytes, held)

    async def step(self, offset: int, door: Door) -> bytes:
        """Return the bytes from *offset* on, one step of them; raises as `part`."""
        if self.held is not None:
            return self.held[offset:]
        return await door.run(self.part, offset)

    def part(self, offset: int) -> bytes:
        """
        Return the bytes from *offset* on, one step of them; blocking.

        Raises:
            SourceChangedError: the file has become shorter.

        """
        wanted = min(DATA_BYTES_SENT, self.size_bytes - offset)
        self.file.seek(self.start + offset)
        part = self.file.read(wanted)
        if len(part) != wanted:
            raise SourceChangedError("the file became shorter while it was stored")
        return part


async def store(session: Session, source: Source, door: Door, progress: Progress) -> Receipt:
    """
    Store one shard over one session and return the farmer's receipt, not yet checked.

    Raises:
        RefusedError, SourceChangedError, ConnectionLostError, FarmerBrokeProtocolError.

    """
    wire = session.wire
    wire.send(Store(source.shard, source.size_bytes))
    # What it has of an earlier attempt, it reads and hashes again before it says how much.
    hashing_s = source.size_bytes / HASHED_BYTES_PER_S_MIN
    event = await wire.next_event(Patience(ANSWER_S + hashing_s))
    if isinstance(event, Stored):
        return event.receipt
    if not isinstance(event, Accept):
        raise session.failure_of(event)
    offset = event.offset
    if offset > source.size_bytes:
        raise session.broke(f"it wants bytes from {offset} of {source.size_bytes}")
    await _send(session, source, door, progress, offset)
    wire.send(End())
    event = await wire.next_event(Patience())
    if isinstance(event, Stored):
        return event.receipt
    raise session.failure_of(event)


async def _send(
    session: Session, source: Source, door: Door, progress: Progress, offset: int
) -> None:
    wire, pace = session.wire, Pace()
    while offset < source.size_bytes:
        progress(offset, source.size_bytes)
        try:
            part = await source.step(offset, door)
        except SourceChangedError:
            await _give_up(session)
            raise
        event = await wire.until_clear(pace)
        if event is not None:
            settle_refusal(session, event)
            raise session.failure_of(event)
        wire.send_data(part)
        offset += len(part)
        pace.moved(len(part))
    progress(offset, source.size_bytes)


async def _give_up(session: Session) -> None:
    """End a store short: the farmer refuses it and keeps neither its bytes nor its space."""
    session.wire.send(End())
    with suppress(ClientError):
        session.failure_of(await session.wire.next_event(Patience(GIVE_UP_S)))


def settle_refusal(session: Session, event: object) -> None:
    """After a refusal in mid-store the renter owes the END that the farmer reads up to."""
    if isinstance(event, Refuse) and session.wire.connection.state is State.DISCARDING:
        session.wire.send(End())
