"""Retrieving a shard or a part of it, checked while it streams, over one or more sessions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, Protocol

from farmer.audit.proof import ProofError
from farmer.audit.ranges import RangeVerifier, whole_leaves
from farmer.audit.tree import TreeHasher
from farmer.client.door import Door
from farmer.client.errors import WrongBytesError
from farmer.client.limits import READ_AHEAD_BYTES
from farmer.client.patience import Pace
from farmer.client.session import Session
from farmer.client.storing import Progress
from farmer.identity.records import READ_BYTES
from farmer.model.ids import ShardId
from farmer.model.shard import SHARD_BYTES_MAX
from farmer.protocol.connection import DataReceived, Event
from farmer.protocol.frames import Chunk, gather
from farmer.protocol.limits import DATA_BYTES_SENT
from farmer.protocol.opening import End
from farmer.protocol.transfers import TO_THE_END, Retrieve, Send


class _Verifier(Protocol):
    """Sees every byte of the range that was sent; knows at the end whether they are right."""

    def update(self, data: bytes) -> None:
        """Take the next bytes; raises `ProofError`."""

    def finish(self) -> None:
        """Return if all were right; raises `ProofError`."""


class _WholeVerifier:
    """Makes the shard id anew."""

    def __init__(self, shard: ShardId) -> None:
        self._shard = shard
        self._hasher = TreeHasher()

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        self._hasher.update(data)

    def finish(self) -> None:
        """Compare."""
        if self._hasher.finish().shard_id() != self._shard:
            raise ProofError("the bytes that came are not those which the shard id names")


class _Unverified:
    """A part without a proof: TLS and the farmer's word are all there is."""

    def update(self, data: bytes) -> None:
        """Look away."""

    def finish(self) -> None:
        """Say nothing."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to retrieve: a shard, or a part of it."""

    shard: ShardId
    offset: int = 0
    length: int | None = None
    """None: all that follows the offset."""
    proved: bool = False
    """Ask for a proof of the part; a whole shard proves itself."""
    size_bytes: int | None = None
    """The shard's size, if known from a receipt: a farmer cannot send more then."""

    def __post_init__(self) -> None:
        if self.offset < 0 or (self.length is not None and self.length < 0):
            raise ValueError("a range begins at 0 or later and has a length of 0 or more")

    def request(self) -> Retrieve:
        """Return the first message to send."""
        length = TO_THE_END if self.length is None else self.length
        return Retrieve(self.shard, self.offset, length, self.proved)

    def expected(self, size_bytes: int) -> tuple[int, int] | None:
        """Return offset and length that an answer must have, or None if none is right."""
        end = size_bytes if self.length is None else self.offset + self.length
        size_is_right = self.size_bytes in (None, size_bytes) and size_bytes <= SHARD_BYTES_MAX
        if not size_is_right or not self.offset <= end <= size_bytes:
            return None
        if self.proved:
            return whole_leaves(size_bytes, self.offset, end - self.offset)
        return self.offset, end - self.offset

    def verifier(self, answer: Send) -> _Verifier:
        """Return what checks the bytes that follow an answer; raises `ProofError`."""
        if self.proved:
            return RangeVerifier(
                self.shard, answer.size_bytes, answer.offset, answer.length, answer.nodes
            )
        whole = answer.length == answer.size_bytes
        return _WholeVerifier(self.shard) if whole else _Unverified()


class Retrieval:
    """
    One retrieve: what was asked, how far it got, and what has been seen of the bytes.

    `attempt` may be called again after a lost connection and goes on where the last one
    stopped; the verifier has seen all bytes since the first.
    """

    def __init__(self, wanted: Wanted, target: BinaryIO) -> None:
        self._wanted = wanted
        self._target = target
        self._verifier: _Verifier | None = None
        self._size_bytes = 0
        self._at = self._sent_end = 0
        self._first = self._end = 0
        self._is_checked = False
        """Whether all bytes came, and were right."""

    @property
    def done_bytes(self) -> int:
        """Bytes that have come so far."""
        return self._at - self._first

    async def attempt(self, session: Session, door: Door, progress: Progress) -> None:
        """
        Fetch what is still missing, then check the whole.

        Raises:
            WrongBytesError: not the shard's bytes; what was written must not be used.
            RefusedError, ConnectionLostError, FarmerBrokeProtocolError; what the target raises.

        """
        session.wire.read_at_most(READ_AHEAD_BYTES)
        try:
            if self._verifier is None:
                verifier = self._verifier = await self._begin(session)
                await self._receive(session, verifier, door, progress)
            else:
                verifier = self._verifier
                if self._at < self._sent_end:
                    await self._go_on(session)
                    await self._receive(session, verifier, door, progress)
            if not self._is_checked:
                await door.run(verifier.finish)
        except ProofError as error:
            session.abort()
            raise WrongBytesError(f"shard {self._wanted.shard}: {error}") from error
        finally:
            session.wire.read_at_most(READ_BYTES)

    def adopt(self, partial: BinaryIO) -> None:
        """
        Take the first bytes of the shard from an earlier attempt, up to the file's end; blocking.

        Only for a whole shard of known size.  They are checked with the others.
        """
        wanted = self._wanted
        assert wanted.size_bytes is not None and (wanted.offset, wanted.length) == (0, None)
        verifier = _WholeVerifier(wanted.shard)
        while part := partial.read(min(DATA_BYTES_SENT, wanted.size_bytes - self._at)):
            verifier.update(part)
            self._at += len(part)
        self._verifier = verifier
        self._size_bytes = self._sent_end = self._end = wanted.size_bytes

    async def _begin(self, session: Session) -> _Verifier:
        wanted = self._wanted
        answer = await session.ask(wanted.request(), Send)
        expected = wanted.expected(answer.size_bytes)
        if (answer.offset, answer.length) != expected or (answer.nodes and not wanted.proved):
            raise session.broke(
                f"it sends {answer.length} bytes from {answer.offset} of {answer.size_bytes}, "
                "which is not what was asked for"
            )
        end = answer.size_bytes if wanted.length is None else wanted.offset + wanted.length
        self._size_bytes = answer.size_bytes
        self._first = self._at = answer.offset
        self._sent_end = answer.offset + answer.length
        self._end = end
        return wanted.verifier(answer)

    async def _go_on(self, session: Session) -> None:
        """Ask for the rest: unproved, since the proof that came first covers it."""
        left = self._sent_end - self._at
        answer = await session.ask(Retrieve(self._wanted.shard, self._at, left, False), Send)
        if answer != Send(self._size_bytes, self._at, left):
            raise session.broke("it sends another range than before")

    async def _receive(
        self, session: Session, verifier: _Verifier, door: Door, progress: Progress
    ) -> None:
        """Take DATA up to the END, one step of the stream in memory."""
        pace = Pace()
        progress(self.done_bytes, self._sent_end - self._first)
        while True:
            step, event = _gathered(session, await session.wire.next_event(pace))
            if len(step) > self._sent_end - self._at:
                raise session.broke("it sends more bytes than it announced")
            if step:
                await door.run(self._take, verifier, step)
                pace.moved(len(step))
                progress(self.done_bytes, self._sent_end - self._first)
            if isinstance(event, End):
                if self._at < self._sent_end:
                    raise session.broke("it sends fewer bytes than it announced")
                return
            if event is not None:
                raise session.failure_of(event)

    def _take(self, verifier: _Verifier, step: bytes) -> None:
        """Check and write some bytes; those around the range that are only proof are cut off."""
        verifier.update(step)
        if self._at + len(step) == self._sent_end:
            verifier.finish()
            self._is_checked = True
        start = max(0, self._wanted.offset - self._at)
        stop = max(start, self._end - self._at)
        part = memoryview(step)[start:stop]
        while part:
            part = part[self._target.write(part) :]
        self._at += len(step)


def _gathered(session: Session, event: Event | None) -> tuple[bytes, Event | None]:
    """Return all data that is here, up to a step of the stream, and what follows it if known."""
    parts: list[Chunk] = []
    size = 0
    while isinstance(event, DataReceived):
        gather(parts, event.data)
        size += len(event.data)
        event = session.wire.event_now() if size < DATA_BYTES_SENT else None
    return b"".join(parts), event
