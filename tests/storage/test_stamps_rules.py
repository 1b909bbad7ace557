"""Times that tell what came later between two looks at the clock; what is remembered as buried."""

from __future__ import annotations

from farmer.model.ids import NodeId, ShardId
from farmer.storage import buried
from farmer.storage.buried import Buried
from farmer.storage.places import Key
from farmer.storage.stamps import AHEAD_MS, Stamps


def key_of(number: int) -> Key:
    return NodeId(bytes(32)), ShardId(number.to_bytes(32, "big"))


def test_each_time_is_later_than_the_one_before_though_the_clock_stands() -> None:
    stamps = Stamps(lambda: 5000)
    assert [stamps.later_ms() for _ in range(4)] == [5000, 5001, 5002, 5003]
    assert stamps.observed_ms() == 5000


def test_a_clock_that_goes_on_is_followed_and_one_that_went_back_is_not() -> None:
    seen = iter([5000, 9000, 8000, 8000])
    stamps = Stamps(lambda: next(seen))
    assert [stamps.later_ms() for _ in range(4)] == [5000, 9000, 9001, 9002]


def test_no_time_is_a_minute_ahead() -> None:
    """What is kept for days by this time would otherwise go early at the next start."""
    stamps = Stamps(lambda: 0)
    last = [stamps.later_ms() for _ in range(AHEAD_MS + 10)][-1]
    assert last == AHEAD_MS - 1


def test_the_latest_deletion_of_a_shard_is_known_until_it_is_forgotten() -> None:
    known = Buried()
    assert known.since_ms(key_of(1)) == 0
    known.note(key_of(1), 7)
    known.note(key_of(1), 5)
    known.note(key_of(2), 9)
    assert (known.since_ms(key_of(1)), known.since_ms(key_of(2))) == (7, 9)
    known.forget([key_of(1), key_of(3)])
    assert (known.since_ms(key_of(1)), known.since_ms(key_of(2))) == (0, 9)


def test_of_too_many_deletions_the_oldest_is_forgotten() -> None:
    known = Buried()
    for number in range(buried.BURIED_MAX + 1):
        known.note(key_of(number), 1)
        known.note(key_of(1), 2)
    assert known.since_ms(key_of(0)) == 0
    assert known.since_ms(key_of(1)) == 2, "it was noted last"
    assert known.since_ms(key_of(buried.BURIED_MAX)) == 1
