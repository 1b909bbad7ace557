"""
HTTP/1.1 answers out of bytes, in any slices; does no I/O.

What our peers send, and no more: a length or chunks (RFC 9112, sections 6 and 7), one answer
after the other on a connection that stays open.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

HEAD_BYTES_MAX: Final = 64 * 1024
"""Far beyond what any of them sends; a server that never ends a head is not read for ever."""

LINE_BYTES_MAX: Final = 1024
"""Of a chunk's size."""


class AnswerError(Exception):
    """What came is not an answer that we can read."""


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers, names in lower case."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)


class End:
    """The answer is whole."""


END: Final = End()

Event = Head | bytes | End


class _At(Enum):
    HEAD = auto()
    BODY = auto()
    CHUNK_SIZE = auto()
    CHUNK = auto()
    CHUNK_END = auto()
    TRAILER = auto()
    END = auto()


class AnswerReader:
    """Takes bytes, gives events: a head, its body in pieces, the end; then the next."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = _At.HEAD
        self._left = 0

    @property
    def waiting_bytes(self) -> int:
        """How much lies here unread."""
        return len(self._buffer)

    def receive(self, data: bytes) -> None:
        """Take what came."""
        self._buffer += data

    def next_event(self) -> Event | None:
        """Return the next event, or None while too little has come; raises `AnswerError`."""
        while True:
            match self._at:
                case _At.HEAD:
                    return self._head()
                case _At.BODY | _At.CHUNK if self._left:
                    return self._piece()
                case _At.BODY | _At.END:
                    self._at = _At.HEAD
                    return END
                case _At.CHUNK:
                    self._at = _At.CHUNK_END
                case _:
                    if not self._between_chunks():
                        return None

    def _head(self) -> Head | None:
        lines = self._until(b"\r\n\r\n", HEAD_BYTES_MAX)
        if lines is None:
            return None
        first, *rest = lines.decode("latin-1").split("\r\n")
        try:
            version, status = first.split(" ", 2)[:2]
            headers = {
                name.lower(): value.strip()
                for name, value in (line.split(":", 1) for line in rest)
            }
            head = Head(int(status), headers)
            self._begin_body(version, head)
        except ValueError as error:
            raise AnswerError(f"not the head of an answer: {first!r}") from error
        return head

    def _begin_body(self, version: str, head: Head) -> None:
        chunked = head.headers.get("transfer-encoding", "").lower() == "chunked"
        empty = head.status in {204, 304} or 100 <= head.status < 200
        if not version.startswith("HTTP/1.1") or (
            not (chunked or empty) and "content-length" not in head.headers
        ):
            raise AnswerError(f"an answer whose end cannot be told: {version} {head}")
        self._left = 0 if chunked or empty else int(head.headers["content-length"])
        self._at = _At.CHUNK_SIZE if chunked and not empty else _At.BODY

    def _piece(self) -> bytes | None:
        piece = bytes(self._buffer[: self._left])
        del self._buffer[: self._left]
        self._left -= len(piece)
        return piece or None

    def _between_chunks(self) -> bool:
        """Read the line at hand; tell whether it was whole."""
        line = self._until(b"\r\n", LINE_BYTES_MAX)
        if line is None:
            return False
        if self._at is _At.CHUNK_SIZE:
            try:
                self._left = int(line.split(b";")[0], 16)
            except ValueError as error:
                raise AnswerError(f"not the size of a chunk: {bytes(line)!r}") from error
            self._at = _At.CHUNK if self._left else _At.TRAILER
        elif line and self._at is _At.CHUNK_END:
            raise AnswerError("a chunk is longer than it said")
        elif not line:
            self._at = _At.CHUNK_SIZE if self._at is _At.CHUNK_END else _At.END
        return True

    def _until(self, mark: bytes, most: int) -> bytes | None:
        """Take what stands before a mark, and the mark."""
        found = self._buffer.find(mark, 0, most)
        if found < 0:
            if len(self._buffer) >= most:
                raise AnswerError(f"{most} bytes without the end of a line or head")
            return None
        taken = bytes(self._buffer[:found])
        del self._buffer[: found + len(mark)]
        return taken
