"""What every renter of ours does with an answer: the parts of its scripts, and when it is none."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from benchmarks.rig.errors import MeasuringError
from farmer.protocol.connection import DataReceived, Event
from farmer.protocol.opening import End
from tests.load.lines import EVENT

CONNECT_S: Final = 60.0

PROOF_BYTES_MIN: Final = 256
"""A refusal has less, a proof of any shard that is measured more."""

Asked = Generator[float, Event | None, Any]
"""A part of a script: yields what it waits for, returns what came of it."""


def data_bytes() -> Asked:
    """Take the data of an answer to its END; return how many bytes there were."""
    got, event = 0, (yield EVENT)
    while isinstance(event, DataReceived):
        got += len(event.data)
        event = yield EVENT
    expect(event, End)
    return got


def expect(event: object, wanted: type) -> None:
    """Raise `MeasuringError` unless this is the answer that was wanted."""
    if not isinstance(event, wanted):
        raise MeasuringError(f"{wanted.__name__} was expected, but it was {event}")
