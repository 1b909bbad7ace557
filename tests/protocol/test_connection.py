from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmer.model.ids import ShardId
from farmer.model.shard import ShardState
from farmer.protocol.connection import (
    DataReceived,
    Event,
    FarmerConnection,
    RenterConnection,
    UnknownReceived,
)
from farmer.protocol.frames import data_header
from farmer.protocol.limits import (
    DATA_BYTES_SENT,
    FRAME_HEADER_BYTES,
    HELLO_BYTES_MAX,
    PIPELINE_MAX,
    TEXT_BYTES_MAX,
)
from farmer.protocol.messages import Message, encode
from farmer.protocol.opening import End, Hello, Refuse, Welcome
from farmer.protocol.questions import Ping, Stat, Stated
from farmer.protocol.refusals import (
    LocalProtocolError,
    Refusal,
    Refused,
    RemoteProtocolError,
)
from farmer.protocol.repairs import Repair
from farmer.protocol.state import (
    FARMER_SENDS,
    RENTERS_TURN,
    REQUESTS,
    TRANSITIONS,
    Side,
    State,
    may,
)
from farmer.protocol.transfers import TO_THE_END, Accept, Retrieve, Send, Store
from farmer.protocol.types import Type
from tests.protocol.strategies import BY_TYPE, messages

SHARD = ShardId(bytes(range(32)))
HELLO = Hello(1, 1, "test")
WELCOME = Welcome(1, 0, 1 << 26, "test")
STATED = Stated(SHARD, 5, 0, ShardState.LIVE, 0)
SAMPLES: dict[Type, Message] = {
    Type.HELLO: HELLO,
    Type.WELCOME: WELCOME,
    Type.REFUSE: Refuse(Refused(Refusal.BUSY, 5)),
    Type.END: End(),
    Type.STORE: Store(SHARD, 5),
    Type.ACCEPT: Accept(0),
    Type.STAT: Stat(SHARD),
    Type.STATED: STATED,
    Type.PING: Ping(1),
}


def events_of(connection: FarmerConnection | RenterConnection) -> list[Event]:
    """Return all events that are there, neighbouring data joined."""
    events: list[Event] = []
    while (event := connection.next_event()) is not None:
        if isinstance(event, DataReceived) and events and isinstance(events[-1], DataReceived):
            events[-1] = DataReceived(bytes(events[-1].data) + event.data)
        else:
            events.append(event)
    return events


def pair() -> tuple[RenterConnection, FarmerConnection]:
    """Return both sides after HELLO and WELCOME."""
    renter, farmer = RenterConnection(), FarmerConnection()
    farmer.receive(renter.send(HELLO))
    assert events_of(farmer) == [HELLO]
    renter.receive(farmer.send(WELCOME))
    assert events_of(renter) == [WELCOME]
    return renter, farmer


def frame_of(kind: Type) -> bytes:
    return data_header(3) + b"abc" if kind is Type.DATA else encode(example(kind))


def example(kind: Type) -> Message:
    return SAMPLES.get(kind) or EXAMPLES[kind]


EXAMPLES: dict[Type, Message] = {}


@given(st.data())
def _collect(data: st.DataObject) -> None:
    for kind, strategy in BY_TYPE.items():
        EXAMPLES[kind] = data.draw(strategy)


_collect()


def slices(stream: bytes, data: st.DataObject) -> list[bytes]:
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12).map(sorted))
    return [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


@given(chunks=st.lists(st.binary(min_size=1, max_size=300), max_size=5), data=st.data())
def test_any_slicing_of_a_store_gives_the_farmer_the_same_events(
    chunks: list[bytes], data: st.DataObject
) -> None:
    _, farmer = pair()
    stream = b"".join(data_header(len(chunk)) + chunk for chunk in chunks) + encode(End())
    farmer.receive(encode(Store(SHARD, 5)))
    events_of(farmer)
    farmer.send(Accept(0))
    seen: list[Event] = []
    for part in slices(stream, data):
        farmer.receive(part)
        seen += events_of(farmer)
    whole = b"".join(event.data for event in seen if isinstance(event, DataReceived))
    assert whole == b"".join(chunks)
    assert [event for event in seen if not isinstance(event, DataReceived)] == [End()]
    assert farmer.state is State.SETTLING


@given(
    requests=st.lists(
        st.one_of(*(BY_TYPE[kind] for kind in sorted(REQUESTS - {Type.STORE, Type.REPAIR}))),
        max_size=6,
    ),
    data=st.data(),
)
def test_any_slicing_of_pipelined_requests_gives_the_same_events(
    requests: list[Message], data: st.DataObject
) -> None:
    """Each request comes out once, in order, and only after the one before was answered."""
    renter, farmer = pair()
    stream = b"".join(renter.send(request) for request in requests)
    seen = []
    for part in slices(stream, data):
        farmer.receive(part)
        while (event := farmer.next_event()) is not None:
            seen.append(event)
            assert farmer.next_event() is None
            renter.receive(farmer.refuse(Refused(Refusal.BUSY)))
    assert seen == requests
    assert len(events_of(renter)) == len(requests)
    assert renter.state is farmer.state is State.IDLE


@pytest.mark.parametrize("first", [Store(SHARD, 5), Repair(SHARD)])
def test_nothing_follows_what_brings_data(first: Message) -> None:
    """Shard data comes next if it is accepted: a request in between would be out of order."""
    renter, _farmer = pair()
    renter.send(Ping(1))
    renter.send(first)

    with pytest.raises(LocalProtocolError):
        renter.send(Ping(2))


@given(lengths=st.lists(st.integers(1, 300), max_size=4), data=st.data())
def test_any_slicing_of_a_retrieve_gives_the_renter_the_same_events(
    lengths: list[int], data: st.DataObject
) -> None:
    renter, farmer = pair()
    ask = Retrieve(SHARD, 0, TO_THE_END, proved=False)
    farmer.receive(renter.send(ask))
    assert events_of(farmer) == [ask]
    send = Send(sum(lengths), 0, sum(lengths))
    stream = farmer.send(send)
    stream += b"".join(farmer.send_data(bytes(length)) for length in lengths)
    stream += farmer.send(End())
    seen: list[Event] = []
    for part in slices(stream, data):
        renter.receive(part)
        seen += events_of(renter)
    assert seen[0] == send
    assert seen[-1] == End()
    assert sum(len(event.data) for event in seen if isinstance(event, DataReceived)) == sum(
        lengths
    )
    assert renter.state is farmer.state is State.IDLE


@pytest.mark.parametrize("state", sorted(RENTERS_TURN, key=lambda state: state.name))
@pytest.mark.parametrize("kind", list(Type))
def test_the_farmer_obeys_the_table(state: State, kind: Type) -> None:
    """Whatever comes when the renter may speak: the table's next state, or a refusal."""
    farmer = FarmerConnection()
    farmer.state = state
    farmer.receive(frame_of(kind))
    if may(state, kind, Side.RENTER):
        assert farmer.next_event() is not None
        assert farmer.state is TRANSITIONS[state, kind]
    else:
        with pytest.raises(RemoteProtocolError) as caught:
            farmer.next_event()
        assert caught.value.refused == Refused(Refusal.OUT_OF_ORDER, kind)
        assert farmer.state is state


@pytest.mark.parametrize("state", [state for state in State if state not in RENTERS_TURN])
def test_the_farmer_leaves_requests_unread_until_it_has_answered(state: State) -> None:
    farmer = FarmerConnection()
    farmer.state = state
    farmer.receive(b"\xff" * 100)
    assert farmer.next_event() is None
    assert farmer.waiting_bytes == 100


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("kind", list(Type))
def test_the_renter_obeys_the_table(state: State, kind: Type) -> None:
    renter = RenterConnection()
    renter.state = state
    renter.receive(frame_of(kind))
    if may(state, kind, Side.FARMER):
        assert renter.next_event() is not None
        assert renter.state is TRANSITIONS[state, kind]
    elif kind is Type.REFUSE:  # last words are heard in any state, and change none
        assert isinstance(renter.next_event(), Refuse)
        assert renter.state is state
    else:
        with pytest.raises(RemoteProtocolError) as caught:
            renter.next_event()
        assert caught.value.refused == Refused(Refusal.OUT_OF_ORDER, kind)


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("kind", sorted(FARMER_SENDS | {Type.END}))
def test_the_farmer_cannot_say_what_the_table_does_not_have(state: State, kind: Type) -> None:
    farmer = FarmerConnection()
    farmer.state = state
    if may(state, kind, Side.FARMER):
        assert farmer.send(example(kind)) == encode(example(kind))
        assert farmer.state is TRANSITIONS[state, kind]
    else:
        with pytest.raises(LocalProtocolError):
            farmer.send(example(kind))
        assert farmer.state is state


@given(message=messages)
def test_a_stranger_who_does_not_say_hello_is_out_of_order(message: Message) -> None:
    farmer = FarmerConnection()
    farmer.receive(encode(message))
    if message.TYPE is Type.HELLO:
        assert farmer.next_event() == message
        return
    with pytest.raises(RemoteProtocolError) as caught:
        farmer.next_event()
    assert caught.value.refused.refusal is Refusal.OUT_OF_ORDER


def test_a_first_frame_longer_than_a_hello_or_none_is_refused_by_its_header() -> None:
    longest = encode(Hello(1, 1, "x" * TEXT_BYTES_MAX))
    assert len(longest) == FRAME_HEADER_BYTES + HELLO_BYTES_MAX
    farmer = FarmerConnection()
    farmer.receive(longest)
    assert events_of(farmer) == [Hello(1, 1, "x" * TEXT_BYTES_MAX)]

    for kind in (Type.HELLO, Type.DATA, Type.PING, 0xEE):
        farmer = FarmerConnection()
        farmer.receive(bytes((kind, 0, 0)))
        assert farmer.next_event() is None
        farmer.receive(bytes((HELLO_BYTES_MAX + 1,)))
        with pytest.raises(RemoteProtocolError) as caught:
            farmer.next_event()
        expected = Refused(Refusal.OUT_OF_ORDER, kind)
        if kind == Type.HELLO:
            expected = Refused(Refusal.FRAME_TOO_LARGE, HELLO_BYTES_MAX + 1, HELLO_BYTES_MAX)
        assert caught.value.refused == expected


@given(noise=st.binary(min_size=1, max_size=200))
def test_noise_is_an_event_a_wait_or_a_named_refusal(noise: bytes) -> None:
    for connection in (FarmerConnection(), *pair()):
        connection.receive(noise)
        try:
            events_of(connection)
        except RemoteProtocolError as error:
            assert error.refused.refusal in {
                Refusal.MALFORMED,
                Refusal.OUT_OF_ORDER,
                Refusal.UNKNOWN_MESSAGE,
                Refusal.FRAME_TOO_LARGE,
            }


def test_unknown_requests_are_refused_and_the_connection_goes_on() -> None:
    renter, farmer = pair()
    farmer.receive(b"\xee\0\0\x02hi" + encode(Ping(1)))
    assert farmer.next_event() == UnknownReceived(0xEE)
    renter.receive(farmer.refuse(Refused(Refusal.UNKNOWN_MESSAGE, 0xEE)))
    assert farmer.next_event() == Ping(1)
    assert events_of(renter) == [Refuse(Refused(Refusal.UNKNOWN_MESSAGE, 0xEE))]


def test_unknown_messages_in_mid_store_are_out_of_order() -> None:
    farmer = FarmerConnection()
    farmer.state = State.RECEIVING
    farmer.receive(b"\xee\0\0\0")
    with pytest.raises(RemoteProtocolError) as caught:
        farmer.next_event()
    assert caught.value.refused == Refused(Refusal.OUT_OF_ORDER, 0xEE)


def test_an_unknown_answer_is_the_farmers_fault() -> None:
    renter, _ = pair()
    renter.receive(b"\xee\0\0\0")
    with pytest.raises(RemoteProtocolError) as caught:
        renter.next_event()
    assert caught.value.refused == Refused(Refusal.UNKNOWN_MESSAGE, 0xEE)


def test_after_a_refusal_in_mid_store_the_rest_is_discarded_up_to_end() -> None:
    renter, farmer = pair()
    farmer.receive(renter.send(Store(SHARD, 9)))
    events_of(farmer)
    renter.receive(farmer.send(Accept(0)))
    events_of(renter)
    farmer.receive(renter.send_data(b"abc"))
    assert events_of(farmer) == [DataReceived(b"abc")]
    refusal = farmer.refuse(Refused(Refusal.NO_SPACE, 9, 0))
    assert farmer.state is State.DISCARDING
    farmer.receive(renter.send_data(b"def"))  # was on its way
    renter.receive(refusal)
    assert events_of(renter) == [Refuse(Refused(Refusal.NO_SPACE, 9, 0))]
    assert renter.state is State.DISCARDING
    farmer.receive(renter.send(End()) + renter.send(Ping(7)))
    assert events_of(farmer) == [DataReceived(b"def"), End(), Ping(7)]
    renter.receive(farmer.refuse(Refused(Refusal.BUSY)))
    assert events_of(renter) == [Refuse(Refused(Refusal.BUSY))]
    assert renter.state is farmer.state is State.IDLE


def test_an_end_that_crosses_the_refusal_closes_the_exchange_on_both_sides() -> None:
    renter, farmer = pair()
    farmer.receive(renter.send(Store(SHARD, 3)))
    events_of(farmer)
    renter.receive(farmer.send(Accept(0)))
    events_of(renter)
    crossing = renter.send_data(b"abc") + renter.send(End())
    refusal = farmer.refuse(Refused(Refusal.NO_SPACE, 9, 0))
    renter.receive(refusal)
    farmer.receive(crossing)
    assert events_of(farmer) == [DataReceived(b"abc"), End()]
    assert events_of(renter) == [Refuse(Refused(Refusal.NO_SPACE, 9, 0))]
    assert renter.state is farmer.state is State.IDLE


def test_a_data_frame_may_be_cut_by_the_refusal() -> None:
    _, farmer = pair()
    farmer.receive(encode(Store(SHARD, 6)))
    events_of(farmer)
    farmer.send(Accept(0))
    farmer.receive(data_header(6) + b"abc")
    assert events_of(farmer) == [DataReceived(b"abc")]
    farmer.refuse(Refused(Refusal.NO_SPACE))
    farmer.receive(b"def" + encode(End()))
    assert events_of(farmer) == [DataReceived(b"def"), End()]
    assert farmer.state is State.IDLE


def test_requests_may_run_ahead_of_their_answers() -> None:
    renter, farmer = pair()
    farmer.receive(renter.send(Stat(SHARD)) + renter.send(Ping(1)))
    assert farmer.next_event() == Stat(SHARD)
    assert farmer.next_event() is None
    first = farmer.send(STATED)
    assert farmer.next_event() == Ping(1)
    renter.receive(first)
    assert events_of(renter) == [STATED]
    assert renter.state is State.PINGING


def test_a_request_waits_for_the_whole_answer_before_it() -> None:
    renter, farmer = pair()
    farmer.receive(renter.send(Retrieve(SHARD, 0, 6, proved=False)) + renter.send(Ping(1)))
    assert isinstance(farmer.next_event(), Retrieve)
    answer = [farmer.send(Send(6, 0, 6)), farmer.send_data(b"abc"), farmer.send_data(b"def")]
    for frame in answer:
        renter.receive(frame)
        assert len(events_of(renter)) == 1
        assert renter.state is State.SENDING
    renter.receive(farmer.send(End()))
    assert events_of(renter) == [End()]
    assert renter.state is State.PINGING


def test_nothing_follows_a_store_that_is_not_answered() -> None:
    renter, _ = pair()
    renter.send(Ping(1))
    renter.send(Store(SHARD, 1))
    with pytest.raises(LocalProtocolError, match="wait"):
        renter.send(Ping(2))
    with pytest.raises(LocalProtocolError):
        renter.send_data(b"x")


@pytest.mark.parametrize(
    "state",
    [State.OPENED, State.GREETING, State.OFFERED, State.RECEIVING, State.DISCARDING],
)
def test_no_request_during_greeting_or_store(state: State) -> None:
    renter = RenterConnection()
    renter.state = state
    with pytest.raises(LocalProtocolError):
        renter.send(Ping(1))


def test_a_request_may_follow_the_end_of_a_store() -> None:
    renter, _ = pair()
    renter.state = State.SETTLING
    assert renter.send(Ping(1)) == encode(Ping(1))


def test_the_pipeline_has_an_end() -> None:
    renter, _ = pair()
    for number in range(PIPELINE_MAX + 1):  # one is open, the others wait
        renter.send(Ping(number))
    with pytest.raises(LocalProtocolError):
        renter.send(Ping(0))


def test_last_words_can_be_said_in_any_state() -> None:
    for state in State:
        farmer, renter = FarmerConnection(), RenterConnection()
        farmer.state = renter.state = state
        renter.receive(farmer.hang_up(Refused(Refusal.TOO_SLOW, 1, 2)))
        assert renter.next_event() == Refuse(Refused(Refusal.TOO_SLOW, 1, 2), final=True)


def test_a_step_of_data_is_bounded() -> None:
    renter, _ = pair()
    renter.state = State.RECEIVING
    assert len(renter.send_data(bytes(DATA_BYTES_SENT))) == DATA_BYTES_SENT + 4
    with pytest.raises(AssertionError):
        renter.send_data(bytes(DATA_BYTES_SENT + 1))


def test_errors_name_the_refusal() -> None:
    error: Any = RemoteProtocolError(Refused(Refusal.TOO_SLOW, 1, 2))
    assert str(error) == "TOO_SLOW (1, 2)"
