"""Which bytes can be marks, and how one of them stands on the disk."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from farmer.storage.marks import Action, Mark, are_marks, decode_marks, encode_marks
from farmer.storage.records import Kind
from tests.storage.bench import ALICE, shard_of

LARGEST = 2**62 - 1
MARK = Mark(
    action=Action.TOMBSTONE,
    at_ms=0x0102,
    observed_ms=0x0304,
    renter=ALICE,
    shard=shard_of(b"a shard"),
    sequence=0x0506,
)


def payload_of(*marks: Mark) -> bytes:
    _, parts = encode_marks(marks, bytes(16), 1)
    return bytes(parts[0])


def test_a_mark_stands_on_the_disk_as_it_is_drawn() -> None:
    numbers = [number.to_bytes(8, "big") for number in (0x0102, 0x0304, 0x0506)]
    front = b"\5" + bytes(7) + numbers[0] + numbers[1]
    assert payload_of(MARK) == front + ALICE.raw + MARK.shard.raw + numbers[2]


def test_the_record_of_marks_says_how_many_bytes_they_are() -> None:
    header, parts = encode_marks([MARK, MARK], b"s" * 16, 9)
    assert header.kind is Kind.MARKS
    assert (header.segment, header.sequence) == (b"s" * 16, 9)
    assert (
        [len(part) for part in parts] == [header.payload_bytes, header.trailer_bytes] == [192, 4]
    )


@pytest.mark.parametrize("action", [1, 2, 3, 4, 5, 6])
def test_every_known_action_makes_a_mark(action: int) -> None:
    raw = bytes([action]) + payload_of(MARK)[1:]
    assert are_marks(raw)
    assert [mark.action for mark in decode_marks(raw)] == [Action(action)]


@pytest.mark.parametrize("action", [0, 7, 255])
def test_one_action_that_nobody_knows_spoils_them_all(action: int) -> None:
    good = payload_of(MARK)
    assert are_marks(good + good)
    assert not are_marks(good + bytes([action]) + good[1:])
    assert not are_marks(bytes([action]) + good[1:] + good)


def test_only_whole_entries_are_marks() -> None:
    good = payload_of(MARK)
    assert are_marks(b"")
    assert not are_marks(good[:-1])
    assert not are_marks(good + good[:1])


@pytest.mark.parametrize("name", ["at_ms", "observed_ms", "sequence"])
def test_a_number_that_no_release_has_written_makes_no_mark(name: str) -> None:
    fields: dict[str, Any] = {name: LARGEST}
    largest = replace(MARK, **fields)
    assert are_marks(payload_of(MARK, largest))
    assert list(decode_marks(payload_of(largest))) == [largest]
    fields[name] += 1
    assert not are_marks(payload_of(MARK, replace(MARK, **fields)))
