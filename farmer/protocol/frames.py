"""Cutting a byte stream into frames, however TCP slices it."""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass
from typing import Final, cast

from farmer.protocol.limits import (
    CONTROL_BYTES_MAX,
    DATA_BYTES_MAX,
    FRAME_HEADER_BYTES,
    TINY_DATA_BYTES,
    TINY_FRAMES_MAX,
)
from farmer.protocol.refusals import Refusal, Refused, RemoteProtocolError
from farmer.protocol.types import Type

LARGE_BYTES: Final = 16 * 1024
"""What comes at once and is kept as it is: a full TLS record."""

KEPT_PART: Final = 8
"""What is given out without a copy, to stay, keeps at most such a part of its size besides."""

Piece = bytes | memoryview
"""Bytes that have come; a memoryview is of single bytes, and at least half of what it keeps."""

Chunk = bytes | bytearray | memoryview
"""What `gather` keeps pieces in."""


def gather(pieces: MutableSequence[Chunk], data: Piece) -> None:
    """
    Append bytes to what is gathered: what is large as it is, what is small put together.

    An object for each byte that comes alone would be hundreds of times as large.
    """
    if len(data) >= LARGE_BYTES:
        pieces.append(data)
    elif pieces and isinstance(last := pieces[-1], bytearray):
        last += data
    else:
        pieces.append(bytearray(data))


def joined(pieces: Sequence[Chunk]) -> Piece:
    """
    Return all that was gathered; nothing of it changes any more.

    One piece, as most shards of a block are, is worth no copy, unless it keeps much besides.
    """
    if len(pieces) == 1:
        (piece,) = pieces
        whole = piece.obj if isinstance(piece, memoryview) else piece
        if isinstance(whole, bytes) and KEPT_PART * (len(whole) - len(piece)) <= len(piece):
            return cast(Piece, piece)
    return b"".join(pieces)


@dataclass(frozen=True, slots=True)
class ControlFrame:
    """A whole frame that is not DATA; *kind* is raw, it may be unknown."""

    kind: int
    body: bytes


@dataclass(frozen=True, slots=True)
class DataPart:
    """Some bytes of a DATA frame, as they came."""

    data: Piece


class FrameReader:
    """
    Holds what has arrived and gives out one frame, or part of a DATA frame, at a time.

    What comes much at once is kept as it came, and most of it is given out without a copy.
    """

    def __init__(self) -> None:
        self.waiting_bytes = 0
        """Bytes that have arrived and were not taken out."""
        self._first: Chunk = b""
        self._at = 0
        """Where in the first what was not taken out begins."""
        self._later: list[Chunk] = []
        """Few at most.  An empty deque would take half a KiB, of each of ten thousand sessions."""
        self._data_left = 0
        self._tiny_frames = 0
        """DATA with hardly any, without another frame in between."""

    def feed(self, data: bytes) -> None:
        """Append what came from the wire."""
        self.waiting_bytes += len(data)
        gather(self._later, data)

    def clear(self) -> None:
        """Forget what was not taken out; nobody will."""
        self._first, self._at, self.waiting_bytes = b"", 0, 0
        self._later.clear()

    def peek(self) -> int | None:
        """Return the type of the next frame if its header is here."""
        if self._data_left:
            return Type.DATA
        return self._first[self._at] if self._has(FRAME_HEADER_BYTES) else None

    @property
    def has_whole(self) -> bool:
        """Whether `take` has something to give out, or a frame that is too long."""
        if self._data_left:
            return self.waiting_bytes > 0
        if not self._has(FRAME_HEADER_BYTES):
            return False
        kind, length = self._header()
        needed_bytes = min(length, 1) if kind == Type.DATA else length
        is_fault = needed_bytes > CONTROL_BYTES_MAX
        return is_fault or self.waiting_bytes >= FRAME_HEADER_BYTES + needed_bytes

    def take(self) -> ControlFrame | DataPart | None:
        """
        Return the next whole control frame or piece of data; None until more arrives.

        Raises:
            RemoteProtocolError: a frame declares more bytes than its kind may have, or is DATA
                without any, or of many in a row with hardly any: a flood of those would be
                neither slow nor ever done.

        """
        if not self.waiting_bytes:
            return None
        if not self._data_left:
            frame = self._take_header()
            if not isinstance(frame, int):
                return frame
            self._data_left = frame
        part = self._take_part(self._data_left)
        return DataPart(part) if part else None

    def take_data(self, limit_bytes: int) -> Piece:
        """
        Return bytes of one DATA frame, at most *limit_bytes*; none if something else comes next.

        Raises as `take`.
        """
        if not self.waiting_bytes:
            return b""
        if not self._data_left:
            if self.peek() != Type.DATA:
                return b""
            length = self._take_header()
            assert isinstance(length, int), length
            self._data_left = length
        return self._take_part(min(self._data_left, limit_bytes))

    def check_length(self, most_bytes: int) -> None:
        """
        Look at the next frame, whose header is here; nothing is taken.

        Raises:
            RemoteProtocolError: it is to have more than *most_bytes*.

        """
        _kind, length = self._header()
        if length > most_bytes:
            raise RemoteProtocolError(Refused(Refusal.FRAME_TOO_LARGE, length, most_bytes))

    def _take_part(self, size_bytes: int) -> Piece:
        if not self._has(1):
            return b""
        end = min(self._at + size_bytes, len(self._first))
        part: Piece = memoryview(self._first)[self._at : end]
        if len(part) < LARGE_BYTES or 2 * len(part) < len(self._first):
            # Nobody keeps the whole for the sake of this.
            part = bytes(part)
        self._pass(len(part))
        self._data_left -= len(part)
        return part

    def _take_header(self) -> ControlFrame | int | None:
        """Return a control frame, or the length of a DATA frame whose header was removed."""
        if not self._has(FRAME_HEADER_BYTES):
            return None
        kind, length = self._header()
        allowed = DATA_BYTES_MAX if kind == Type.DATA else CONTROL_BYTES_MAX
        if length > allowed:
            raise RemoteProtocolError(Refused(Refusal.FRAME_TOO_LARGE, length, allowed))
        if kind == Type.DATA:
            self._check_data(length)
            self._pass(FRAME_HEADER_BYTES)
            return length
        size_bytes = FRAME_HEADER_BYTES + length
        if not self._has(size_bytes):
            return None
        body = bytes(self._first[self._at + FRAME_HEADER_BYTES : self._at + size_bytes])
        self._pass(size_bytes)
        self._tiny_frames = 0
        return ControlFrame(kind, body)

    def _header(self) -> tuple[int, int]:
        """Return type and length of the next frame, whose header is here."""
        header = int.from_bytes(self._first[self._at : self._at + FRAME_HEADER_BYTES], "big")
        return header >> 24, header & 0xFF_FFFF

    def _check_data(self, length: int) -> None:
        self._tiny_frames = self._tiny_frames + 1 if length < TINY_DATA_BYTES else 0
        if not length or self._tiny_frames > TINY_FRAMES_MAX:
            what = "too many tiny DATA" if length else "empty DATA"
            raise RemoteProtocolError(Refused(Refusal.MALFORMED, Type.DATA), what)

    def _has(self, size_bytes: int) -> bool:
        """Tell whether so many bytes are here; then they are in the first."""
        if self.waiting_bytes < size_bytes:
            return False
        while len(self._first) - self._at < size_bytes:
            left, self._first = self._first[self._at :], self._later.pop(0)
            self._at = 0
            if left:
                self._first = bytes(left) + self._first
        return True

    def _pass(self, size_bytes: int) -> None:
        self._at += size_bytes
        self.waiting_bytes -= size_bytes
        if 2 * self._at > len(self._first):
            # No more lies here than twice what is said to wait.
            self._first, self._at = bytes(self._first[self._at :]), 0


def data_header(length: int) -> bytes:
    """Return the header of a DATA frame whose *length* bytes follow."""
    assert 0 < length <= DATA_BYTES_MAX, length
    return bytes((Type.DATA,)) + length.to_bytes(3, "big")
