"""Cutting a byte stream into frames, however TCP slices it."""

from __future__ import annotations

from dataclasses import dataclass

from farmer.protocol.limits import CONTROL_BYTES_MAX, DATA_BYTES_MAX, FRAME_HEADER_BYTES
from farmer.protocol.refusals import Refusal, Refused, RemoteProtocolError
from farmer.protocol.types import Type


@dataclass(frozen=True, slots=True)
class ControlFrame:
    """A whole frame that is not DATA; *kind* is raw, it may be unknown."""

    kind: int
    body: bytes


@dataclass(frozen=True, slots=True)
class DataPart:
    """Some bytes of a DATA frame, as they came."""

    data: bytes


class FrameReader:
    """Holds what has arrived and gives out one frame, or part of a DATA frame, at a time."""

    def __init__(self) -> None:
        self._inbound = bytearray()
        self._data_left = 0

    @property
    def waiting_bytes(self) -> int:
        """Bytes that have arrived and were not taken out."""
        return len(self._inbound)

    def feed(self, data: bytes) -> None:
        """Append what came from the wire."""
        self._inbound += data

    def clear(self) -> None:
        """Forget what was not taken out; nobody will."""
        self._inbound.clear()

    def peek(self) -> int | None:
        """Return the type of the next frame if its header is here."""
        if self._data_left:
            return Type.DATA
        return self._inbound[0] if len(self._inbound) >= FRAME_HEADER_BYTES else None

    def take(self) -> ControlFrame | DataPart | None:
        """
        Return the next whole control frame or piece of data; None until more arrives.

        Raises:
            RemoteProtocolError: a frame declares more bytes than its kind may have, or is DATA
                without any: a flood of those would be neither slow nor ever done.

        """
        if not self._data_left:
            frame = self._take_header()
            if not isinstance(frame, int):
                return frame
            self._data_left = frame
        part = self._take_part(self._data_left)
        return DataPart(part) if part else None

    def take_data(self, limit_bytes: int) -> bytes:
        """
        Return bytes of one DATA frame, at most *limit_bytes*; none if something else comes next.

        Raises as `take`.
        """
        if not self._data_left:
            if self.peek() != Type.DATA:
                return b""
            length = self._take_header()
            assert isinstance(length, int), length
            self._data_left = length
        return self._take_part(min(self._data_left, limit_bytes))

    def _take_part(self, size_bytes: int) -> bytes:
        with memoryview(self._inbound) as inbound:
            part = bytes(inbound[:size_bytes])
        del self._inbound[: len(part)]
        self._data_left -= len(part)
        return part

    def _take_header(self) -> ControlFrame | int | None:
        """Return a control frame, or the length of a DATA frame whose header was removed."""
        if len(self._inbound) < FRAME_HEADER_BYTES:
            return None
        kind, length = self._inbound[0], int.from_bytes(self._inbound[1:4], "big")
        allowed = DATA_BYTES_MAX if kind == Type.DATA else CONTROL_BYTES_MAX
        if length > allowed:
            raise RemoteProtocolError(Refused(Refusal.FRAME_TOO_LARGE, length, allowed))
        if kind == Type.DATA:
            if not length:
                raise RemoteProtocolError(Refused(Refusal.MALFORMED, kind), "empty DATA")
            del self._inbound[:FRAME_HEADER_BYTES]
            return length
        end = FRAME_HEADER_BYTES + length
        if len(self._inbound) < end:
            return None
        body = bytes(self._inbound[FRAME_HEADER_BYTES:end])
        del self._inbound[:end]
        return ControlFrame(kind, body)


def data_header(length: int) -> bytes:
    """Return the header of a DATA frame whose *length* bytes follow."""
    assert 0 < length <= DATA_BYTES_MAX, length
    return bytes((Type.DATA,)) + length.to_bytes(3, "big")
