"""Which copies of a shard count: rows made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from farmer.model.shard import ShardState
from farmer.storage.copies import that_count, that_stays
from farmer.storage.places import Row
from tests.storage.bench import row

ROW = row(stored_at_ms=1_000)
NEWER = replace(ROW, stored_at_ms=2_000, sequence=2)
ALONE = replace(NEWER, alone_ms=500)
"""Stored again while the volume of the older copy could not be asked."""


def counting(*rows: Row, buried_ms: int = 0) -> list[Row]:
    return that_count(rows, lambda row: row, buried_ms)


def staying(*rows: Row, buried_ms: int = 0) -> Row | None:
    return that_stays(rows, lambda row: row, buried_ms)


def test_a_lone_copy_counts_unless_its_shard_was_deleted_since() -> None:
    assert counting(ROW) == [ROW]
    assert counting(ROW, buried_ms=1) == []
    assert counting(ALONE, buried_ms=500) == [ALONE]
    assert counting(ALONE, buried_ms=501) == []
    assert counting() == counting(buried_ms=1) == []


def test_what_was_stored_last_is_the_best() -> None:
    assert counting(ROW, NEWER) == counting(NEWER, ROW) == [NEWER, ROW]


@pytest.mark.parametrize(
    "better",
    [ROW, replace(ROW, state=ShardState.TRASH)],
    ids=["live", "in the trash"],
)
def test_a_sound_copy_is_better_than_a_damaged_one(better: Row) -> None:
    damaged = replace(NEWER, is_damaged=True)
    assert counting(damaged, better) == [better, damaged]


def test_a_live_copy_is_better_than_one_in_the_trash() -> None:
    trashed = replace(NEWER, state=ShardState.TRASH)
    assert counting(trashed, ROW) == [ROW, trashed]


def test_one_that_was_stored_alone_speaks_against_what_is_older() -> None:
    assert counting(ROW, ALONE) == [ALONE]
    same = replace(ROW, alone_ms=500)
    assert counting(same, ALONE) == [ALONE, same]


def test_a_damaged_one_does_not_speak_against_a_sound_one_but_its_deletion_does() -> None:
    """Their bytes are the same; whoever deleted it meant the older one, too."""
    damaged = replace(ALONE, is_damaged=True)
    assert counting(ROW, damaged) == [ROW, damaged]
    deleted = replace(damaged, state=ShardState.TRASH)
    assert counting(ROW, deleted) == [deleted]


TRASHED = replace(ROW, state=ShardState.TRASH)
ROTTEN = replace(ALONE, is_damaged=True, state=ShardState.QUARANTINED)
"""Stored since, and damaged: its shard was wanted again."""


def test_what_was_stored_since_is_not_in_the_trash_though_it_is_damaged() -> None:
    assert counting(TRASHED, ROTTEN) == counting(ROTTEN, TRASHED) == [ROTTEN]
    assert staying(TRASHED, ROTTEN) == staying(ROTTEN, TRASHED) == TRASHED, "its bytes are sound"
    later = replace(TRASHED, alone_ms=501)
    assert counting(later, ROTTEN) == [later]
    assert staying(later, ROTTEN) == later


def test_what_is_damaged_as_well_or_was_given_up_since_stays_behind_what_counts() -> None:
    assert staying(replace(TRASHED, is_damaged=True), ROTTEN) == ROTTEN
    assert staying(TRASHED, ROTTEN, buried_ms=1) == ROTTEN
    since = replace(TRASHED, alone_ms=400, sequence=3)
    assert staying(replace(TRASHED, alone_ms=300), since, ROTTEN) == since
    assert staying(TRASHED, replace(since, is_damaged=True), ROTTEN) == ROTTEN


def test_the_best_stays_wherever_nothing_is_to_be_taken_from_the_trash() -> None:
    assert staying() is None
    assert staying(ROW, buried_ms=1) is None
    assert staying(ROW) == ROW
    assert staying(ROW, NEWER) == NEWER
    assert staying(ROW, ROTTEN) == ROW
    assert staying(TRASHED, ALONE) == ALONE
    deleted = replace(ROTTEN, state=ShardState.TRASH)
    assert staying(ROW, deleted) == staying(TRASHED, deleted) == deleted
