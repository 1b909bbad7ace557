"""Frames, messages, and the two state machines of a connection."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Final

from farmer.protocol.connection import (
    DataReceived,
    Event,
    FarmerConnection,
    RenterConnection,
    UnknownReceived,
)
from farmer.protocol.fields import LayoutError
from farmer.protocol.frames import ControlFrame, DataPart, FrameReader
from farmer.protocol.limits import CONTROL_BYTES_MAX, DATA_BYTES_MAX, PIPELINE_MAX
from farmer.protocol.messages import Message, decode, encode
from farmer.protocol.opening import MAGIC
from farmer.protocol.refusals import LocalProtocolError, Refusal, RemoteProtocolError
from farmer.protocol.state import RENTERS_TURN, TRANSITIONS, Side, State, may, sender_of
from farmer.protocol.types import Type
from tests.fuzz.mutate import Picker, change_steps, havoc
from tests.fuzz.target import Target

VECTORS: Final = Path(__file__).parent.parent / "vectors"
_FAULTS: Final = frozenset(
    {Refusal.MALFORMED, Refusal.OUT_OF_ORDER, Refusal.FRAME_TOO_LARGE, Refusal.UNKNOWN_MESSAGE}
)


def frames_of(kind: Type | None = None) -> list[bytes]:
    """Return the frames of the test vectors, of one type or of all."""
    rows = json.loads((VECTORS / "messages.json").read_text())
    frames = [bytes.fromhex(row["frame"]) for row in (*rows["messages"], *rows["data"])]
    return [frame for frame in frames if kind in (None, frame[0])]


def samples() -> list[Message]:
    """Return one message of each type, short ones."""
    found: dict[Type, Message] = {}
    for frame in sorted(frames_of(), key=len, reverse=True):
        if frame[0] != Type.DATA:
            found[Type(frame[0])] = decode(Type(frame[0]), frame[4:])
    return [found[kind] for kind in sorted(found)]


SAMPLES: Final = samples()
BY_KIND: Final = {message.TYPE: number for number, message in enumerate(SAMPLES)}


class Frames(Target):
    """Four bytes that say where the stream is cut, then the stream."""

    name = "frames"
    executions = 150_000

    def seeds(self) -> list[bytes]:
        frames = [frame for frame in frames_of() if len(frame) < 600]
        return [
            b"\0\0\0" + bytes([at]) + b"".join(frames[at : at + 3]) for at in range(len(frames))
        ]

    def mend(self, pick: Picker, data: bytes, seed: bytes) -> bytes:
        stream, at = bytearray(data), 4
        while at + 4 <= len(stream):
            allowed = DATA_BYTES_MAX if stream[at] == Type.DATA else CONTROL_BYTES_MAX
            length = int.from_bytes(stream[at + 1 : at + 4], "big")
            rest = len(stream) - at - 4
            if length > min(allowed, rest):
                length = rest if pick.chance() < 0.5 else min(rest, length % 64)
                stream[at + 1 : at + 4] = length.to_bytes(3, "big")
            at += 4 + length
        return bytes(stream)

    def run(self, data: bytes) -> bool:
        cuts, stream = Random(data[:4]), data[4:]
        reader, found, at, refused = FrameReader(), [], 0, None
        while at < len(stream) and refused is None:
            size = 1 + int(cuts.random() ** 3 * len(stream))
            reader.feed(stream[at : at + size])
            at = min(at + size, len(stream))
            assert reader.waiting_bytes <= at, "more is waiting than has come"
            try:
                while (frame := reader.take()) is not None:
                    _note(found, frame)
            except RemoteProtocolError as error:
                refused = (error.refused.refusal, error.refused.first, error.refused.second)
        expected, why = _cut_up(stream)
        assert (found, refused) == (expected, why), "not the frames that are in the stream"
        return refused is None and bool(found)


def _note(found: list[tuple[int, bytes]], frame: ControlFrame | DataPart) -> None:
    match frame:
        case ControlFrame(kind, body):
            found.append((kind, body))
        case DataPart(data) if data:
            if found and found[-1][0] == Type.DATA:
                data = found.pop()[1] + data
            found.append((Type.DATA, bytes(data)))


def _cut_up(stream: bytes) -> tuple[list[tuple[int, bytes]], tuple[int, int, int] | None]:
    """Do the same in the plainest way, from the page about frames."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at + 4 <= len(stream):
        kind, length = stream[at], int.from_bytes(stream[at + 1 : at + 4], "big")
        allowed = 1_048_576 if kind == 4 else 65_536
        if length > allowed:
            return found, (Refusal.FRAME_TOO_LARGE, length, allowed)
        if kind == 4 and not length:
            return found, (Refusal.MALFORMED, 4, 0)
        body = stream[at + 4 : at + 4 + length]
        if kind == 4:
            _note(found, DataPart(body))
        elif len(body) < length:
            break
        else:
            found.append((kind, body))
        at += 4 + length
    return found, None


class Body(Target):
    """The body of one type of message."""

    executions = 50_000
    mended = 0.7

    def __init__(self, kind: Type) -> None:
        self.name = f"message-{kind.name.lower().replace('_', '-')}"
        self._kind = kind

    def seeds(self) -> list[bytes]:
        return [frame[4:] for frame in frames_of(self._kind) if len(frame) < 4096]

    def mutate(self, pick: Picker, seed: bytes, other: bytes) -> bytes:
        return havoc(pick, seed, other, grow=pick.chance() < 0.3)

    def mend(self, pick: Picker, data: bytes, seed: bytes) -> bytes:
        head = MAGIC if self._kind is Type.HELLO else b""
        body = data[: len(seed)] + seed[len(data) :]
        if pick.chance() < 0.6:
            # All as it should be but for a few bytes: what stands around them is right.
            at = pick.below(len(seed) or 1)
            body = seed[:at] + body[at : at + 4] + seed[at + 4 :]
        return head + body[len(head) :]

    def run(self, data: bytes) -> bool:
        try:
            message = decode(self._kind, data)
        except LayoutError as error:
            assert error.refused.refusal is Refusal.MALFORMED, error.refused
            assert error.refused.first == self._kind, error.refused
            return False
        body = message.body()
        assert body == data, "two encodings of one value"
        assert decode(self._kind, body) == message, "what was encoded is not what is decoded"
        assert len(encode(message)) == len(body) + 4
        return True


FEED_MAX: Final = 0xA0
"""Below: so many bytes follow, from the wire.  From here on: a step of our own side."""


class Steps(Target):
    """A program: bytes that arrive, in pieces, and what our own side does between them."""

    executions = 60_000
    side: Side
    own: tuple[Type, ...]

    def seeds(self) -> list[bytes]:
        programs = []
        who = "renter" if self.side is Side.FARMER else "farmer"
        for size in (7, 60, 159):
            steps: list[bytes] = []
            for row in json.loads((VECTORS / "conversation.json").read_text())["steps"]:
                frame = bytes.fromhex(row["bytes"])
                if row["from"] == who:
                    pieces = [frame[at : at + size] for at in range(0, len(frame), size)]
                    steps += [bytes([len(piece)]) + piece for piece in pieces]
                else:
                    steps += [bytes([FEED_MAX + self._number(kind)]) for kind in _kinds(frame)]
            whole = b"".join(steps)
            # The beginning of it is a program, too; short ones run faster.
            programs += [b"".join(steps[:count]) for count in (4, 12, 30)] + [whole[:4000]]
        return programs

    def _number(self, kind: int) -> int:
        return len(SAMPLES) if kind == Type.DATA else BY_KIND[Type(kind)]

    def mutate(self, pick: Picker, seed: bytes, other: bytes) -> bytes:
        if pick.chance() < 0.2:
            return havoc(pick, seed, other)
        return b"".join(change_steps(pick, _steps(seed), _steps(other)))

    def mend(self, pick: Picker, data: bytes, seed: bytes) -> bytes:
        """Begin as it should be, so that what comes later is tried, too."""
        right = _steps(seed)
        kept = (len(right) + pick.below(len(right) + 1)) // 2
        return b"".join([*right[:kept], *_steps(data)[kept:]])

    def connection(self) -> FarmerConnection | RenterConnection:
        raise NotImplementedError

    def run(self, data: bytes) -> bool:
        connection, events, fed = self.connection(), 0, 0
        for step in _steps(data):
            if step[0] < FEED_MAX:
                connection.receive(step[1:])
                fed += len(step) - 1
                assert connection.waiting_bytes <= fed
            else:
                self._own_step(connection, step[0] - FEED_MAX)
            try:
                events += self._drain(connection)
            except RemoteProtocolError as error:
                assert error.refused.refusal in _FAULTS, error.refused
                break
        return events >= 2

    def _own_step(self, connection: FarmerConnection | RenterConnection, number: int) -> None:
        before = connection.state
        kind = SAMPLES[number].TYPE if number < len(SAMPLES) else Type.DATA
        allowed = may(before, kind, self.side)
        try:
            if kind is Type.DATA:
                sent = connection.send_data(b"shard bytes")
            else:
                sent = connection.send(SAMPLES[number % len(SAMPLES)])
        except LocalProtocolError:
            assert connection.state is before, "a refused step changed the state"
            assert not allowed or before is State.IDLE, "an allowed step was refused"
        else:
            assert sent[0] == kind and int.from_bytes(sent[1:4], "big") == len(sent) - 4
            pipelined = self.side is Side.RENTER and sender_of(State.IDLE, kind) is Side.RENTER
            assert allowed or pipelined, "a step that the table does not have"

    def _drain(self, connection: FarmerConnection | RenterConnection) -> int:
        events = 0
        while True:
            before = connection.state
            event = connection.next_event()
            if event is None:
                return events
            events += 1
            self._check(before, event, connection.state)

    def _check(self, before: State, event: Event, after: State) -> None:
        if isinstance(event, UnknownReceived):
            assert self.side is Side.FARMER and before is State.IDLE is after
            return
        kind = Type.DATA if isinstance(event, DataReceived) else event.TYPE
        last_words = self.side is Side.RENTER and kind is Type.REFUSE
        peer = Side.RENTER if self.side is Side.FARMER else Side.FARMER
        assert last_words or may(before, kind, peer), f"{kind.name} in {before.name}"
        if self.side is Side.FARMER:
            assert before in RENTERS_TURN, "read while an answer is owed"
            assert after is TRANSITIONS[before, kind]


def _kinds(stream: bytes) -> list[int]:
    kinds, at = [], 0
    while at < len(stream):
        kinds.append(stream[at])
        at += 4 + int.from_bytes(stream[at + 1 : at + 4], "big")
    return kinds


def _steps(program: bytes) -> list[bytes]:
    steps, at = [], 0
    while at < len(program):
        size = 1 + program[at] if program[at] < FEED_MAX else 1
        steps.append(program[at : at + size])
        at += size
    return steps


class FarmersSide(Steps):
    name = "connection-farmer"
    side = Side.FARMER

    def connection(self) -> FarmerConnection:
        return FarmerConnection()


class RentersSide(Steps):
    name = "connection-renter"
    side = Side.RENTER

    def connection(self) -> RenterConnection:
        return RenterConnection()


class BothSides(Target):
    """Two ends that keep the rules, whatever they choose: neither ever finds a fault."""

    name = "conversation"
    executions = 60_000
    memory_bytes = 4 << 20

    def seeds(self) -> list[bytes]:
        greeting = bytes([0, 0x80 | 63, 0x40, 0xC0 | 63])
        return [greeting + Random(number).randbytes(40 + number) for number in range(40)]

    def mend(self, pick: Picker, data: bytes, seed: bytes) -> bytes:
        return seed[:4] + data

    def run(self, data: bytes) -> bool:
        ends = RenterConnection(), FarmerConnection()
        wires = bytearray(), bytearray()
        events = 0
        for byte in data[:400]:
            if byte < 0x80:
                side = byte >> 6
                wires[side].extend(_say(ends[side], (Side.RENTER, Side.FARMER)[side], byte & 63))
            else:
                events += _pass_on(ends, wires, byte >> 6 & 1, 1 + (byte & 63) ** 2)
        for side in (0, 1, 0, 1):
            events += _pass_on(ends, wires, side, 1 << 24)
        renter, farmer = ends[0].state, ends[1].state
        queued = len(ends[0]._asked)
        assert queued <= PIPELINE_MAX
        if not queued and not ends[1].waiting_bytes and farmer is not State.OPENED:
            assert renter is farmer, f"the renter is in {renter}, the farmer in {farmer}"
        return events >= 2


def _say(end: RenterConnection | FarmerConnection, side: Side, choice: int) -> bytes:
    """Let one side do one of the things that it may do now."""
    pipelines = side is Side.RENTER
    # A refusal of nothing answers an unknown type only, and there is none here.
    options = [
        kind
        for (state, kind) in TRANSITIONS
        if state is (State.IDLE if pipelines and choice % 3 == 0 else end.state)
        and sender_of(state, kind) is side
        and not (kind is Type.REFUSE and state in (State.IDLE, State.OPENED))
    ]
    if not options:
        return b""
    kind = options[choice % len(options)]
    try:
        if kind is Type.DATA:
            return end.send_data(bytes(1 + choice))
        return end.send(SAMPLES[BY_KIND[kind]])
    except LocalProtocolError:
        assert pipelines, "the farmer was refused what the table allows"
        return b""


def _pass_on(
    ends: tuple[RenterConnection, FarmerConnection],
    wires: tuple[bytearray, bytearray],
    side: int,
    size: int,
) -> int:
    """Let some bytes of what *side* said arrive."""
    hears, wire, events = ends[1 - side], wires[side], 0
    hears.receive(bytes(wire[:size]))
    del wire[:size]
    while hears.next_event() is not None:
        events += 1
    return events


TARGETS: Final = (
    Frames,
    *(lambda kind=kind: Body(kind) for kind in Type if kind is not Type.DATA),
    FarmersSide,
    RentersSide,
    BothSides,
)
