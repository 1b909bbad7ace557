"""Sending a farmer the damaged blocks of a shard again, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from farmer.client.door import Door
from farmer.client.errors import SourceChangedError
from farmer.client.limits import HASHED_BYTES_PER_S_MIN
from farmer.client.patience import Pace, Patience
from farmer.client.session import Session
from farmer.client.storing import Progress, Source, settle_refusal
from farmer.model.contract import Receipt
from farmer.model.ids import ShardId
from farmer.model.shard import BLOCK_BYTES, BadBlocks
from farmer.protocol.limits import ANSWER_S, DATA_BYTES_SENT
from farmer.protocol.opening import End
from farmer.protocol.repairs import BadBlocksNamed, Examine, Repair
from farmer.protocol.transfers import Stored


@dataclass(frozen=True, slots=True)
class Repaired:
    """A shard that is whole again, and what had to be sent for that."""

    receipt: Receipt
    bad: BadBlocks


async def examine(session: Session, shard: ShardId, size_bytes: int) -> BadBlocks:
    """
    Return which blocks the farmer found damaged just now.

    Raises:
        RefusedError, ConnectionLostError, FarmerBrokeProtocolError.

    """
    answer = await session.ask(Examine(shard), BadBlocksNamed, _reading(size_bytes))
    return _checked(session, answer, size_bytes)


async def repair(
    session: Session, source: Source, door: Door, progress: Progress
) -> tuple[Receipt, BadBlocks]:
    """
    Repair one shard over one session; return the receipt, not yet checked, and what was sent.

    Raises:
        RefusedError, SourceChangedError, ConnectionLostError, FarmerBrokeProtocolError.

    """
    wire, size_bytes = session.wire, source.size_bytes
    wire.send(Repair(source.shard))
    event = await wire.next_event(_reading(size_bytes))
    if isinstance(event, Stored):
        return event.receipt, BadBlocks(size_bytes, ())
    if not isinstance(event, BadBlocksNamed):
        raise session.failure_of(event)
    bad = _checked(session, event, size_bytes)
    await _send(session, source, bad, door, progress)
    wire.send(End())
    event = await wire.next_event(_reading(size_bytes))
    if isinstance(event, Stored):
        return event.receipt, bad
    raise session.failure_of(event)


async def _send(
    session: Session, source: Source, bad: BadBlocks, door: Door, progress: Progress
) -> None:
    wire, pace, done = session.wire, Pace(), 0
    for offset, length in _steps(bad):
        progress(done, bad.wanted_bytes)
        part = await door.run(_part, source, offset, length)
        event = await wire.until_clear(pace)
        if event is not None:
            settle_refusal(session, event)
            raise session.failure_of(event)
        wire.send_data(part)
        done += length
        pace.moved(length)
    progress(done, bad.wanted_bytes)


def _steps(bad: BadBlocks) -> Iterator[tuple[int, int]]:
    """Yield offset and length of runs of damaged blocks, cut to what one frame carries."""
    start = end = 0
    for block in bad.blocks:
        at, stop = block * BLOCK_BYTES, min((block + 1) * BLOCK_BYTES, bad.size_bytes)
        if at != end or stop - start > DATA_BYTES_SENT:
            if end > start:
                yield start, end - start
            start = at
        end = stop
    if end > start:
        yield start, end - start


def _part(source: Source, offset: int, length: int) -> bytes:
    source.file.seek(source.start + offset)
    part = source.file.read(length)
    if len(part) != length:
        raise SourceChangedError("the file became shorter while it was sent")
    return part


def _checked(session: Session, answer: BadBlocksNamed, size_bytes: int) -> BadBlocks:
    if answer.bad.size_bytes != size_bytes:
        raise session.broke(
            f"it speaks of {answer.bad.size_bytes} bytes of a shard that has {size_bytes}"
        )
    return answer.bad


def _reading(size_bytes: int) -> Patience:
    """Return patience for an answer before which the whole shard is read."""
    return Patience(ANSWER_S + size_bytes / HASHED_BYTES_PER_S_MIN)
