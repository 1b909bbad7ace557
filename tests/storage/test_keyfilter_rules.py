"""The filter alone: what it rules out, what it cannot, and how large it is."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmer.storage import keyfilter
from farmer.storage.keyfilter import COLUMNS_MAX, FILTER_BYTES_MAX, ROWS_MIN, KeyFilter

KEYS = st.binary(min_size=64, max_size=64)


def keys(count: int, seed: int) -> list[bytes]:
    dice = random.Random(seed)
    return [dice.randbytes(64) for _ in range(count)]


@given(st.lists(st.tuples(st.integers(0, 9), KEYS)))
def test_what_was_added_to_a_column_may_be_there(added: Sequence[tuple[int, bytes]]) -> None:
    one = KeyFilter(10, 5)
    for column, shard in added:
        one.add(column, [shard])
    for column, shard in added:
        assert one.which(shard) >> column & 1
    assert one.which(bytes(range(64))) == 0 or added


@pytest.mark.parametrize("shards", [1, 2048, 3000, 20_000])
def test_a_full_column_rules_out_nearly_all_that_it_has_not(shards: int) -> None:
    one = KeyFilter(3, shards)
    assert one.shards >= shards
    one.add(1, keys(one.shards, 1))
    in_vain = sum(one.which(shard) != 0 for shard in keys(4000, 2))
    assert in_vain < 0.04 * 4000
    assert all(one.which(shard) & ~2 == 0 for shard in keys(100, 3)), "others have nothing"


def test_nobody_can_know_which_rows_a_key_has() -> None:
    [key] = keys(1, 5)
    assert len({KeyFilter(1, 1)._words(key) for _ in range(3)}) == 3


def test_a_column_knows_how_many_were_added() -> None:
    one = KeyFilter(2, 10)
    one.add(0, keys(3, 1))
    one.add(1, keys(5, 2))
    one.add(0, keys(3, 1))
    assert one.counts[:2] == [6, 5]


@pytest.mark.parametrize(("wanted", "columns"), [(1, 8), (8, 8), (9, 16), (33, 64), (64, 64)])
def test_a_row_is_as_narrow_as_its_columns_allow(wanted: int, columns: int) -> None:
    one = KeyFilter(wanted, 10)
    assert one.columns == columns
    shard = keys(1, 4)[0]
    for column in range(wanted):
        one.add(column, [shard])
    assert one.which(shard) == (1 << wanted) - 1


def test_there_are_no_more_columns_than_a_row_has_bits() -> None:
    with pytest.raises(ValueError, match="at most 64 columns"):
        KeyFilter(COLUMNS_MAX + 1, 1)


def rows(one: KeyFilter) -> int:
    return len(one._rows)


def test_it_takes_no_more_memory_than_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert FILTER_BYTES_MAX >= ROWS_MIN * 8
    assert rows(KeyFilter(1, 1)) == ROWS_MIN
    monkeypatch.setattr(keyfilter, "FILTER_BYTES_MAX", 1 << 18)
    assert rows(KeyFilter(8, 10**6)) == 1 << 18
    assert rows(KeyFilter(64, 10**6)) == 1 << 15
    assert KeyFilter(8, 10**6).shards == 10**6, "else it would be made anew again and again"
