"""Each step of a batch alone: what it does to the index, what it says, when it stands back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farmer.model.contract import TRASH_MS
from farmer.model.ids import NodeId, ShardId
from farmer.model.shard import Deletion, DeletionOutcome, ShardState
from farmer.storage.errors import BusyError, ShardNotFoundError
from farmer.storage.index import Index, create_index
from farmer.storage.log import Batch, Sequencer, Tail, marks_bytes
from farmer.storage.marks import Action, Mark
from farmer.storage.operations import (
    Adopt,
    Delete,
    Move,
    Operation,
    Quarantine,
    Remove,
    Restate,
    StoreRecord,
    Undelete,
    Upkeep,
    mark_of,
    new_mark,
    row_of,
    state_marks,
)
from farmer.storage.places import Place, Position, Row
from farmer.storage.quota import Ledger, Reservation, VolumeAccount
from farmer.storage.records import DAMAGED, MOVED, Kind, RecordHeader, decode_record
from farmer.storage.transaction import Transaction
from tests.storage.bench import ALICE, BOB, MIB, row

UUID = b"s" * 16
FILE = b"f" * 16
SHARD, OTHER = ShardId(b"1" * 32), ShardId(b"2" * 32)
KEY = (ALICE, SHARD)
LIVE, TRASH, QUARANTINED = ShardState.LIVE, ShardState.TRASH, ShardState.QUARANTINED
ROW = row(shard=SHARD, stored_at_ms=10, sequence=5)


class Bench:
    """An index, and batches that are carried out in it as the writer does it."""

    def __init__(self, folder: Path) -> None:
        self.index: Index = create_index(folder / "index.sqlite", bytes(16))
        self.sequencer = Sequencer(100)
        self.end = 1 << 20
        self.marks: list[Mark] = []
        self.buffers: list[bytes] = []
        with self.index.transaction() as transaction:
            transaction.open_segment(1, UUID)
            transaction.grow_segment(1, self.end)

    def enter(self, *rows: Row) -> None:
        with self.index.transaction() as transaction:
            for row in rows:
                transaction.put(row)

    def mark(self, of: Row, action: Action, at_ms: int = 0, observed_ms: int = 0) -> None:
        with self.index.transaction() as transaction:
            transaction.apply(mark_of(of, action, at_ms, observed_ms))

    def apply(self, operation: Operation[Any]) -> None:
        with self.index.transaction() as transaction:
            batch = Batch(transaction, Tail(1, UUID, -1, self.end), self.sequencer)
            operation.apply(batch)
            self.marks = list(batch.marks)
            self.buffers = [bytes(one) for one in batch.buffers]

    def row(self, renter: NodeId = ALICE, shard: ShardId = SHARD) -> Row:
        found = self.index.find(renter, shard)
        assert found is not None
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.index.close(clean=False)


def held() -> tuple[Reservation, Callable[[], int]]:
    """Return a reservation, and what tells how much the volume has promised."""
    ledger, account = Ledger(10, 10), VolumeAccount(64 * MIB, 0)
    reservation = ledger.restore(account, ALICE, 100)
    return reservation, lambda: ledger.usage(ALICE).reserved_bytes


def header(**fields: object) -> RecordHeader:
    plain = RecordHeader(
        kind=Kind.SHARD,
        segment=bytes(16),
        sequence=0,
        payload_bytes=100,
        trailer_bytes=36,
        trailer_crc=1,
        renter=ALICE,
        shard=SHARD,
        contract=ROW.contract,
        stored_at_ms=20,
    )
    return replace(plain, **fields)  # type: ignore[arg-type]


def headed(*, segment: bytes, sequence: int) -> RecordHeader:
    return header(segment=segment, sequence=sequence)


def store(instead_of: int | None = None) -> StoreRecord:
    return StoreRecord(KEY, headed, [bytes(100), bytes(36)], held()[0], instead_of)


def adopt(instead_of: int | None = None) -> Adopt:
    row = replace(ROW, place=Place(0, 0, FILE), sequence=50)
    return Adopt(row, held()[0], lambda: None, instead_of)


def mark(action: Action = Action.TRASH, at_ms: int = 1000, observed_ms: int = 7) -> Mark:
    return new_mark(ALICE, SHARD, action, at_ms, observed_ms)


# Storing.


def test_a_small_shard_is_appended_and_entered_under_the_next_sequence(bench: Bench) -> None:
    operation = store()
    assert (operation.takes_space, operation.keys) == (True, ((ALICE, SHARD),))
    assert operation.log_bytes == header().record_bytes
    bench.apply(operation)
    row = bench.row()
    assert (row.sequence, row.place) == (100, Place(1, bench.end))
    written = decode_record(bench.buffers[0], UUID, "it")
    assert row_of(written, row.place) == row
    assert operation.result(frozenset()) == row.stored()


def test_a_large_shard_is_entered_with_its_file(bench: Bench) -> None:
    operation = adopt()
    assert (operation.takes_space, operation.stages, operation.log_bytes) == (True, 1, 0)
    bench.apply(operation)
    assert bench.row().place == Place(0, 0, FILE)
    assert bench.index.staged() == [FILE]
    assert operation.result(frozenset()) == bench.row().stored()


@pytest.mark.parametrize("make", [store, adopt])
@pytest.mark.parametrize(
    ("there", "is_still"),
    [
        (ROW, True),
        (replace(ROW, state=QUARANTINED, is_damaged=True), True),
        (replace(ROW, state=TRASH), False),
        (replace(ROW, sequence=6), False),
        (None, False),
    ],
)
def test_a_record_is_replaced_only_while_it_is_the_shards(
    bench: Bench,
    make: Callable[[int | None], Operation[Any]],
    there: Row | None,
    is_still: bool,
) -> None:
    if there is not None:
        bench.enter(there)
    if is_still:
        bench.apply(make(5))
        assert bench.row().sequence > 6
        assert [one.sequence for one in bench.index.doomed()] == [5]
        return
    with pytest.raises(ShardNotFoundError):
        bench.apply(make(5))
    assert bench.buffers == [] == bench.index.staged()
    assert bench.index.find(ALICE, SHARD) == there


@pytest.mark.parametrize("is_large", [False, True])
def test_a_copy_of_a_shard_takes_the_place_of_none(bench: Bench, *, is_large: bool) -> None:
    """What was stored there while it was on its way counts more, however old its sequence."""
    row = replace(ROW, place=Place(0, 0, FILE), sequence=50)
    copy: Operation[Any] = (
        Adopt(row, held()[0], lambda: None, only_new=True)
        if is_large
        else StoreRecord(KEY, headed, [bytes(100), bytes(36)], held()[0], only_new=True)
    )
    bench.enter(ROW)
    with pytest.raises(BusyError):
        bench.apply(copy)
    assert bench.row() == ROW


def test_what_was_refused_gives_its_space_back() -> None:
    reservation, promised = held()
    assert promised() > 0
    StoreRecord(KEY, headed, [bytes(100)], reservation).give_up()
    assert promised() == 0
    Undelete(mark()).give_up()


def test_a_refused_large_shard_removes_its_file_and_leaves_the_space_to_that() -> None:
    reservation, promised = held()
    told = list[str]()
    Adopt(ROW, reservation, lambda: told.append("gone")).give_up()
    assert told == ["gone"]
    assert promised() > 0


# Deleting.


def delete(*, erase: bool = False, is_alone: bool = False) -> Delete:
    said = mark(Action.GONE if erase else Action.TRASH)
    return Delete(said, erase=erase, is_alone=True) if is_alone else Delete(said, erase=erase)


def test_a_deleted_shard_is_in_the_trash_from_then_on(bench: Bench) -> None:
    bench.enter(ROW)
    operation = delete()
    assert (operation.gives_back, operation.keys) == (False, ((ALICE, SHARD),))
    assert operation.log_bytes == marks_bytes(1)
    bench.apply(operation)
    row = bench.row()
    assert (row.state, row.gone_at_ms, row.observed_ms) == (TRASH, 1000 + TRASH_MS, 7)
    assert [(one.action, one.sequence) for one in bench.marks] == [(Action.TRASH, 5)]
    assert operation.result(frozenset()) == Deletion(DeletionOutcome.TRASHED, 1000 + TRASH_MS)


def test_what_is_in_the_trash_keeps_its_first_date(bench: Bench) -> None:
    bench.enter(ROW)
    bench.mark(ROW, Action.TRASH, 400, 3)
    operation = delete()
    bench.apply(operation)
    assert (bench.marks, bench.row().gone_at_ms) == ([], 400 + TRASH_MS)
    assert operation.result(frozenset()) == Deletion(DeletionOutcome.TRASHED, 400 + TRASH_MS)


@pytest.mark.parametrize("in_trash", [False, True])
def test_an_erased_shard_is_gone_and_says_whether_its_space_is(
    bench: Bench, in_trash: bool
) -> None:
    bench.enter(ROW)
    if in_trash:
        bench.mark(ROW, Action.TRASH, 400, 3)
    operation = delete(erase=True)
    assert operation.gives_back
    bench.apply(operation)
    assert bench.index.find(ALICE, SHARD) is None
    assert [(one.action, one.sequence) for one in bench.marks] == [(Action.GONE, 5)]
    assert operation.result(frozenset({5})) == Deletion(DeletionOutcome.ERASED, 0)
    later = Deletion(DeletionOutcome.ERASED_AT_COMPACTION, 0)
    assert operation.result(frozenset({6})) == operation.result(frozenset()) == later


@pytest.mark.parametrize("make", [delete, lambda: Undelete(mark(Action.UNDELETE))])
def test_a_shard_that_is_not_there_is_not_found(
    bench: Bench, make: Callable[[], Operation[Any]]
) -> None:
    bench.enter(replace(ROW, renter=BOB), replace(ROW, shard=OTHER, sequence=6))
    with pytest.raises(ShardNotFoundError):
        bench.apply(make())
    assert bench.marks == []


def test_what_is_erased_while_a_volume_is_away_leaves_a_tombstone(bench: Bench) -> None:
    bench.enter(ROW)
    bench.apply(delete(erase=True, is_alone=True))
    stone = bench.index.tombstone(ALICE, SHARD)
    assert stone is not None
    assert (stone.sequence, stone.observed_ms) == (5, 7)


@pytest.mark.parametrize(("alone_ms", "observed_ms"), [(3, 7), (9, 9)])
def test_what_was_stored_while_one_was_away_leaves_a_tombstone_too(
    bench: Bench, alone_ms: int, observed_ms: int
) -> None:
    bench.enter(replace(ROW, alone_ms=alone_ms))
    bench.apply(delete(erase=True))
    stone = bench.index.tombstone(ALICE, SHARD)
    assert stone is not None
    assert stone.observed_ms == observed_ms, "the later of the two"


def test_what_is_deleted_while_a_volume_is_away_says_so(bench: Bench) -> None:
    bench.enter(ROW)
    bench.apply(delete(is_alone=True))
    row = bench.row()
    assert [one.action for one in bench.marks] == [Action.TRASH_ALONE]
    assert (row.state, row.gone_at_ms, row.alone_ms) == (TRASH, 1000 + TRASH_MS, 7)


def test_what_is_in_the_trash_already_says_so_too_and_keeps_its_date(bench: Bench) -> None:
    bench.enter(ROW)
    bench.mark(ROW, Action.TRASH, 400, 3)
    operation = delete(is_alone=True)
    bench.apply(operation)
    row = bench.row()
    assert (row.state, row.gone_at_ms, row.alone_ms) == (TRASH, 400 + TRASH_MS, 7)
    assert operation.result(frozenset()) == Deletion(DeletionOutcome.TRASHED, 400 + TRASH_MS)


# Taking back.


@pytest.mark.parametrize(("damaged", "state"), [(False, LIVE), (True, QUARANTINED)])
def test_a_shard_is_taken_out_of_the_trash_as_it_was(
    bench: Bench, damaged: bool, state: ShardState
) -> None:
    bench.enter(replace(ROW, is_damaged=damaged, state=TRASH, gone_at_ms=9, observed_ms=9))
    operation = Undelete(mark(Action.UNDELETE))
    assert operation.keys == ((ALICE, SHARD),)
    assert operation.log_bytes == marks_bytes(1)
    bench.apply(operation)
    row = bench.row()
    assert (row.state, row.gone_at_ms) == (state, 0)
    assert [(one.action, one.sequence) for one in bench.marks] == [(Action.UNDELETE, 5)]
    assert operation.result(frozenset()) == row.stored()


def test_a_shard_that_is_not_in_the_trash_stays_as_it_is(bench: Bench) -> None:
    there = replace(ROW, is_damaged=True, state=QUARANTINED)
    bench.enter(there)
    operation = Undelete(mark(Action.UNDELETE))
    bench.apply(operation)
    assert (bench.marks, bench.row()) == ([], there)
    assert operation.result(frozenset()) == there.stored()


# Quarantine.


def test_a_damaged_record_is_news_once(bench: Bench) -> None:
    bench.enter(ROW)
    first, second = (
        Quarantine(mark_of(ROW, Action.QUARANTINE, 0, 0)),
        Quarantine(mark_of(ROW, Action.QUARANTINE, 0, 0)),
    )
    assert first.log_bytes >= marks_bytes(2)
    bench.apply(first)
    assert (bench.row().state, bench.row().is_damaged) == (QUARANTINED, True)
    assert first.result(frozenset())
    bench.apply(second)
    assert (bench.marks, second.result(frozenset())) == ([], False)


def test_what_is_in_the_trash_stays_there_and_is_damaged(bench: Bench) -> None:
    bench.enter(ROW)
    bench.mark(ROW, Action.TRASH, 400, 3)
    before = bench.row()
    operation = Quarantine(mark_of(ROW, Action.QUARANTINE, 0, 0))
    bench.apply(operation)
    assert bench.row() == replace(before, is_damaged=True)
    assert operation.result(frozenset())


@pytest.mark.parametrize("there", [None, replace(ROW, sequence=6)])
def test_a_record_that_is_the_shards_no_more_is_no_news(bench: Bench, there: Row | None) -> None:
    if there is not None:
        bench.enter(there)
    operation = Quarantine(mark_of(ROW, Action.QUARANTINE, 0, 0))
    bench.apply(operation)
    assert (bench.marks, operation.result(frozenset())) == ([], False)
    assert bench.index.find(ALICE, SHARD) == there


# Removing and moving.


def test_of_the_chosen_shards_those_go_that_are_what_they_were(bench: Bench) -> None:
    rows = [
        replace(ROW, shard=ShardId(bytes([number]) * 32), sequence=number, alone_ms=number == 4)
        for number in range(1, 5)
    ]
    bench.enter(*rows[:1], replace(rows[1], sequence=50), *rows[2:])
    bench.mark(rows[2], Action.TRASH)
    operation = Remove([*rows, replace(ROW, shard=OTHER)], 30)
    assert (operation.rows, operation.log_bytes) == (5, marks_bytes(5))
    assert operation.keys == (*((ALICE, row.shard) for row in rows), (ALICE, OTHER))
    bench.apply(operation)
    assert operation.result(frozenset()) == 2
    assert [(one.action, one.sequence, one.at_ms) for one in bench.marks] == [
        (Action.GONE, 1, 30),
        (Action.TOMBSTONE, 4, 30),
    ]
    left = [row.sequence for row in bench.index.page(ALICE, ShardId(bytes(32)), 9)]
    assert left == [50, 3]


def test_a_step_that_is_done_again_counts_from_nothing(bench: Bench) -> None:
    bench.enter(ROW)
    operation = Remove([ROW], 30)
    with pytest.raises(RuntimeError), bench.index.transaction() as transaction:
        operation.apply(Batch(transaction, Tail(1, UUID, -1, bench.end), bench.sequencer))
        raise RuntimeError
    bench.apply(operation)
    assert operation.result(frozenset()) == 1


@pytest.mark.parametrize("damaged", [False, True])
def test_a_moved_record_is_the_shards_as_it_is_now(bench: Bench, damaged: bool) -> None:
    bench.enter(replace(ROW, is_damaged=damaged, alone_ms=3))
    bench.mark(ROW, Action.TRASH, 400, 2)
    before = bench.row()
    operation = Move(ROW, header(stored_at_ms=10), [bytes(100), bytes(36)])
    assert (operation.takes_space, operation.log_bytes) == (True, header().record_bytes)
    bench.apply(operation)
    written = decode_record(bench.buffers[0], UUID, "it")
    assert written.flags == MOVED | (DAMAGED if damaged else 0)
    assert bench.row() == replace(before, sequence=100, place=Place(1, bench.end))
    assert operation.result(frozenset())
    assert [one.sequence for one in bench.index.doomed()] == [5]


@pytest.mark.parametrize("there", [None, replace(ROW, sequence=6)])
def test_a_record_that_is_the_shards_no_more_is_not_moved(bench: Bench, there: Row | None) -> None:
    if there is not None:
        bench.enter(there)
    operation = Move(ROW, header(), [bytes(100), bytes(36)])
    bench.apply(operation)
    assert (bench.buffers, operation.result(frozenset())) == ([], False)
    assert bench.sequencer.peek() == 100


def test_marks_are_written_again_and_the_index_is_left_alone(bench: Bench) -> None:
    bench.enter(ROW)
    marks = [mark_of(ROW, Action.TRASH, 1, 1), mark_of(ROW, Action.QUARANTINE, 0, 0)]
    operation = Restate(lambda _transaction: marks, 300)
    assert (operation.checkpoints, operation.rows) == (True, 300)
    assert operation.log_bytes == marks_bytes(600), "two for each"
    bench.apply(operation)
    assert (bench.marks, bench.row()) == (marks, ROW)
    assert operation.result(frozenset()) == 2


def test_upkeep_changes_the_index_alone(bench: Bench) -> None:
    def work(transaction: Transaction) -> None:
        transaction.set_position(Position(1, 8192, 200))

    operation = Upkeep(work)
    assert operation.log_bytes == 0
    bench.apply(operation)
    assert bench.index.position() == Position(1, 8192, 200)


def test_a_plain_step_asks_for_nothing_special(bench: Bench) -> None:
    """What bounds a batch, and what makes others wait, is asked for by whoever needs it."""
    plain: list[Operation[Any]] = [Upkeep(lambda _transaction: None), Undelete(mark()), delete()]
    for one in plain:
        assert (one.rows, one.stages) == (1, 0)
        assert not (one.gives_back or one.checkpoints or one.takes_space)
    assert plain[0].keys == ()
    assert not store().checkpoints


def test_a_step_that_was_asked_for_can_be_withdrawn_by_nobody() -> None:
    assert not Upkeep(lambda _transaction: None).future.cancel()


# Rows and marks.


@pytest.mark.parametrize(
    ("flags", "state", "is_damaged"),
    [
        (0, LIVE, False),
        (MOVED, LIVE, False),
        (MOVED | DAMAGED, LIVE, True),
        (DAMAGED, TRASH, True),
        (MOVED, TRASH, False),
        (MOVED, QUARANTINED, True),
    ],
)
def test_the_row_of_a_record_is_what_its_header_says(
    flags: int, state: ShardState, is_damaged: bool
) -> None:
    said = header(flags=flags, state=state, sequence=3, gone_at_ms=4, observed_ms=5, alone_ms=6)
    assert row_of(said, Place(2, 4096)) == Row(
        renter=ALICE,
        shard=SHARD,
        place=Place(2, 4096),
        size_bytes=100,
        contract=ROW.contract,
        stored_at_ms=20,
        sequence=3,
        state=state,
        gone_at_ms=4,
        observed_ms=5,
        is_damaged=is_damaged,
        alone_ms=6,
    )


@pytest.mark.parametrize("alone_ms", [0, 3])
@pytest.mark.parametrize("is_damaged", [False, True])
@pytest.mark.parametrize("is_trash", [False, True])
def test_the_marks_of_a_row_make_it_of_any_other(
    bench: Bench, alone_ms: int, is_damaged: bool, is_trash: bool
) -> None:
    row = replace(ROW, is_damaged=is_damaged, state=QUARANTINED if is_damaged else LIVE)
    if is_trash:
        row = replace(row, state=TRASH, gone_at_ms=50 + TRASH_MS, observed_ms=9)
        row = replace(row, alone_ms=9 if alone_ms else 0)
    marks = state_marks(row)
    assert [one.action for one in marks] == [
        *([Action.QUARANTINE] if is_damaged else []),
        *([Action.TRASH_ALONE if alone_ms else Action.TRASH] if is_trash else []),
        *([] if is_damaged or is_trash else [Action.UNDELETE]),
    ]
    times = [(one.at_ms, one.observed_ms) for one in marks]
    assert times[-1] == ((50, 9) if is_trash else (0, 0)), "only the trash has a time"
    assert times[:-1] == [(0, 0)] * (len(marks) - 1)
    bench.enter(ROW)
    bench.mark(ROW, Action.TRASH, 1, 1)
    for one in marks:
        with bench.index.transaction() as transaction:
            transaction.apply(one)
    assert bench.row() == row
