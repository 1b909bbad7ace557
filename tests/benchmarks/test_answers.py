"""HTTP answers out of bytes, however they are sliced."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.peers.answers import (
    HEAD_BYTES_MAX,
    LINE_BYTES_MAX,
    AnswerError,
    AnswerReader,
    End,
    Head,
)

SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nX: y: z\r\n\r\nshards!"
CHUNKED = (
    b"HTTP/1.1 206 Partial\r\nTransfer-Encoding: Chunked\r\n\r\n"
    b"5\r\nfirst\r\n0b;note=x\r\n and second\r\n0\r\nTrailer: t\r\n\r\n"
)
EMPTY = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
BARE = b"HTTP/1.1 204 No Content\r\n\r\n"
GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"

ALL = GO_ON + SIZED + CHUNKED + EMPTY + BARE + SIZED
READ = [
    (100, b""),
    (200, b"shards!"),
    (206, b"first and second"),
    (201, b""),
    (204, b""),
    (200, b"shards!"),
]


def read(parts: list[bytes]) -> list[tuple[int, bytes]]:
    """Return status and body of all whole answers."""
    reader, found, status, body = AnswerReader(), [], 0, b""
    for part in parts:
        reader.receive(part)
        while (event := reader.next_event()) is not None:
            match event:
                case Head():
                    status, body = event.status, b""
                case bytes():
                    body += event
                case End():
                    found.append((status, body))
    assert reader.waiting_bytes == 0
    return found


@given(st.sets(st.integers(0, len(ALL)), max_size=40))
def test_any_slicing_gives_the_same_answers(cuts: set[int]) -> None:
    """Where a segment ends means nothing."""
    edges = sorted({0, len(ALL)} | cuts)
    assert read([ALL[start:end] for start, end in pairwise(edges)]) == READ


def test_one_byte_at_a_time() -> None:
    """The finest slicing is one of them."""
    assert read([ALL[at : at + 1] for at in range(len(ALL))]) == READ


def test_headers_are_found_in_lower_case() -> None:
    """A colon in a value is a part of it."""
    reader = AnswerReader()
    reader.receive(SIZED)
    assert reader.next_event() == Head(200, {"content-length": "7", "x": "y: z"})


@pytest.mark.parametrize(
    "wrong",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\n\r\nuntil the close",
        b"HTTP/1.1 200 OK\r\nContent-Length: some\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        b"H" * HEAD_BYTES_MAX,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * LINE_BYTES_MAX,
    ],
)
def test_what_cannot_be_read_is_refused(wrong: bytes) -> None:
    """No answer is guessed at, and none is waited for that never ends."""
    with pytest.raises(AnswerError):
        read([wrong])
