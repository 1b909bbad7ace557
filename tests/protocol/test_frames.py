from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from farmer.protocol.frames import (
    KEPT_PART,
    LARGE_BYTES,
    ControlFrame,
    DataPart,
    FrameReader,
    data_header,
    gather,
    joined,
)
from farmer.protocol.limits import (
    CONTROL_BYTES_MAX,
    DATA_BYTES_MAX,
    TINY_DATA_BYTES,
    TINY_FRAMES_MAX,
)
from farmer.protocol.refusals import Refusal, Refused, RemoteProtocolError
from farmer.protocol.types import Type


def header(kind: int, length: int) -> bytes:
    return bytes((kind,)) + length.to_bytes(3, "big")


def test_a_control_frame_is_given_out_whole() -> None:
    reader = FrameReader()
    frame = header(Type.STAT, 3) + b"abc"
    for byte in frame[:-1]:
        reader.feed(bytes((byte,)))
        assert reader.take() is None
    reader.feed(frame[-1:])
    assert reader.take() == ControlFrame(Type.STAT, b"abc")
    assert reader.waiting_bytes == 0


def test_data_is_given_out_as_it_comes() -> None:
    reader = FrameReader()
    reader.feed(header(Type.DATA, 5) + b"ab")
    assert reader.take() == DataPart(b"ab")
    assert reader.take() is None
    assert reader.peek() == Type.DATA
    reader.feed(b"cdeX")
    assert reader.take() == DataPart(b"cde")
    assert reader.take() is None
    assert reader.peek() is None
    assert reader.waiting_bytes == 1


@pytest.mark.parametrize(
    ("come", "whole"),
    [
        (b"", False),
        (header(Type.STAT, 3)[:3], False),
        (header(Type.STAT, 3) + b"ab", False),
        (header(Type.STAT, 3) + b"abc", True),
        (header(Type.END, 0), True),
        (header(Type.STAT, CONTROL_BYTES_MAX + 1), True),
        (header(Type.DATA, 5), False),
        (header(Type.DATA, 5) + b"a", True),
        (header(Type.DATA, 0), True),
    ],
)
def test_it_is_known_whether_there_is_something_to_give_out(come: bytes, whole: bool) -> None:
    reader = FrameReader()
    reader.feed(come)
    assert reader.has_whole is whole


def test_data_that_has_begun_is_whole_by_the_byte() -> None:
    reader = FrameReader()
    reader.feed(header(Type.DATA, 5) + b"ab")
    assert reader.take() == DataPart(b"ab")
    assert not reader.has_whole
    reader.feed(b"c")
    assert reader.has_whole


def test_data_alone_is_taken_frame_by_frame_and_no_more_than_wanted() -> None:
    reader = FrameReader()
    reader.feed(header(Type.DATA, 5) + b"abcde" + header(Type.DATA, 3) + b"fg")
    assert [reader.take_data(4) for _ in range(4)] == [b"abcd", b"e", b"fg", b""]
    assert reader.peek() == Type.DATA
    reader.feed(b"h" + header(Type.END, 0) + header(Type.DATA, 1) + b"i")
    assert [reader.take_data(4) for _ in range(2)] == [b"h", b""]
    assert reader.take() == ControlFrame(Type.END, b"")
    assert reader.take_data(4) == b"i"


def test_data_alone_waits_for_a_whole_header() -> None:
    reader = FrameReader()
    for byte in header(Type.DATA, 1):
        assert reader.take_data(4) == b""
        reader.feed(bytes((byte,)))
    assert reader.take_data(4) == b""
    reader.feed(b"a")
    assert reader.take_data(4) == b"a"


def test_what_comes_much_at_once_is_given_out_as_it_came_whatever_is_around_it() -> None:
    reader = FrameReader()
    much = bytes(range(256)) * (LARGE_BYTES // 256)
    stream = (
        data_header(3)
        + b"abc"
        + data_header(2 * len(much))
        + much
        + much
        + header(Type.STAT, 3)
        + b"xyz"
    )
    cuts = (5, 11 + 100, 11 + len(much) + 100, len(stream) - 2)
    taken = bytearray()
    for start, end in pairwise((0, *cuts, len(stream))):
        reader.feed(stream[start:end])
        while data := reader.take_data(1 << 20):
            taken += data
    assert bytes(taken) == b"abc" + much + much
    assert reader.take() == ControlFrame(Type.STAT, b"xyz")
    assert not reader.waiting_bytes


def test_no_more_is_kept_than_twice_what_waits() -> None:
    reader = FrameReader()
    chunk = data_header(8 * LARGE_BYTES) + bytes(8 * LARGE_BYTES)
    reader.feed(chunk)
    for _ in range(8):
        reader.take_data(LARGE_BYTES)
        assert len(reader._first) <= 2 * reader.waiting_bytes


def test_what_comes_little_by_little_is_one_object() -> None:
    reader = FrameReader()
    for _ in range(10_000):
        reader.feed(b"\x01")
    assert len(reader._later) == 1


def test_small_parts_keep_nothing_but_themselves() -> None:
    reader = FrameReader()
    reader.feed((data_header(5) + b"small") * LARGE_BYTES)
    part = reader.take_data(5)
    assert (part, type(part)) == (b"small", bytes)

    reader = FrameReader()
    reader.feed(data_header(5) + b"small")
    assert type(reader.take_data(5)) is bytes

    reader = FrameReader()
    reader.feed(data_header(8 * LARGE_BYTES) + bytes(8 * LARGE_BYTES))
    assert type(reader.take_data(LARGE_BYTES)) is bytes
    assert type(reader.take_data(6 * LARGE_BYTES)) is memoryview


def test_what_is_gathered_is_one_object_where_it_is_small() -> None:
    pieces: list[bytes | bytearray | memoryview] = []
    for data in (b"a", memoryview(b"b"), bytes(LARGE_BYTES), b"c", b"d"):
        gather(pieces, data)
    assert pieces == [b"ab", bytes(LARGE_BYTES), b"cd"]


def test_one_piece_is_handed_on_without_a_copy_unless_it_keeps_much_besides() -> None:
    much = bytes(range(256)) * (LARGE_BYTES // 256)
    most = len(much) // KEPT_PART
    assert joined([much]) is much
    nearly_all = memoryview(much + bytes(most))[: len(much)]
    assert joined([nearly_all]) is nearly_all
    keeps_more = joined([memoryview(much + bytes(most + 1))[: len(much)]])
    assert (type(keeps_more), keeps_more) == (bytes, much)
    assert joined([much, b"a"]) == much + b"a"
    assert joined([]) == b""


@pytest.mark.parametrize("readonly", [False, True])
def test_what_is_handed_on_does_not_change_any_more(readonly: bool) -> None:
    """What is small goes on growing where it is gathered."""
    gathered = bytearray(b"small")
    view = memoryview(gathered)
    handed_on = joined([gathered]), joined([view.toreadonly() if readonly else view])
    gathered[:] = b"other"
    assert handed_on == (b"small", b"small")


@pytest.mark.parametrize("take", [FrameReader.take, lambda reader: reader.take_data(4)])
def test_an_empty_data_frame_is_a_fault(take: Callable[[FrameReader], object]) -> None:
    """Else a flood of them would never be too slow."""
    reader = FrameReader()
    reader.feed(header(Type.DATA, 0) + header(Type.END, 0))
    with pytest.raises(RemoteProtocolError) as caught:
        take(reader)
    assert caught.value.refused == Refused(Refusal.MALFORMED, Type.DATA)


@pytest.mark.parametrize(
    ("kind", "allowed"),
    [
        (Type.DATA, DATA_BYTES_MAX),
        (Type.STORE, CONTROL_BYTES_MAX),
        (0xEE, CONTROL_BYTES_MAX),
        (0x00, CONTROL_BYTES_MAX),
    ],
)
def test_a_frame_may_be_as_large_as_its_limit_and_no_larger(kind: int, allowed: int) -> None:
    reader = FrameReader()
    reader.feed(header(kind, allowed) + bytes(allowed))
    frame = reader.take()
    assert frame is not None
    assert len(frame.data if isinstance(frame, DataPart) else frame.body) == allowed
    reader.feed(header(kind, allowed + 1))
    with pytest.raises(RemoteProtocolError) as caught:
        reader.take()
    refused = caught.value.refused
    assert (refused.refusal, refused.first, refused.second) == (
        Refusal.FRAME_TOO_LARGE,
        allowed + 1,
        allowed,
    )


def test_a_length_is_judged_before_its_bytes_arrive() -> None:
    reader = FrameReader()
    reader.feed(b"\x20\xff\xff\xff")
    with pytest.raises(RemoteProtocolError):
        reader.take()


def test_our_own_data_frames_keep_the_limit() -> None:
    assert data_header(DATA_BYTES_MAX) == header(Type.DATA, DATA_BYTES_MAX)
    with pytest.raises(AssertionError):
        data_header(DATA_BYTES_MAX + 1)


@pytest.mark.parametrize("between", [header(Type.END, 0), data_header(1024) + bytes(1024)])
def test_tiny_frames_of_data_do_not_come_without_end(between: bytes) -> None:
    """A frame costs as much time with a byte in it as with a thousand."""
    tiny = data_header(TINY_DATA_BYTES - 1) + bytes(TINY_DATA_BYTES - 1)

    def taken(frames: bytes) -> int:
        reader, data = FrameReader(), 0
        reader.feed(frames)
        while (frame := reader.take()) is not None:
            data += isinstance(frame, DataPart)
        assert reader.waiting_bytes == 0
        return data

    assert taken(tiny * TINY_FRAMES_MAX + between + tiny * TINY_FRAMES_MAX) >= 2 * TINY_FRAMES_MAX
    with pytest.raises(RemoteProtocolError) as caught:
        taken(tiny * (TINY_FRAMES_MAX + 1))
    assert caught.value.refused == Refused(Refusal.MALFORMED, Type.DATA)
