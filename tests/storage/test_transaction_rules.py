"""One change of the index: what it makes of records and marks, and that its sums are right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from farmer.model.contract import TRASH_MS
from farmer.model.ids import NodeId, ShardId
from farmer.model.shard import ShardState
from farmer.storage import transaction as transaction_module
from farmer.storage.index import Index, create_index
from farmer.storage.marks import Action, Mark
from farmer.storage.places import Doomed, Place, Position, Row
from farmer.storage.quota import Changes, Tally
from farmer.storage.tombstones import Tombstone
from farmer.storage.transaction import Transaction
from tests.storage import bench
from tests.storage.bench import ALICE, BOB, MIB
from tests.storage.log_bytes import plain_of

FIRST = ShardId(bytes(32))
SEGMENT = 1
CHARGE = 4096
FILE = b"f" * 16


def row(number: int, sequence: int, renter: NodeId = ALICE, **fields: object) -> Row:
    small = bench.row(
        number,
        renter=renter,
        place=Place(SEGMENT, CHARGE * sequence),
        stored_at_ms=1000 + sequence,
        sequence=sequence,
    )
    return replace(small, **fields)  # type: ignore[arg-type]  # a test's shorthand


def large(number: int, sequence: int) -> Row:
    return replace(row(number, sequence), place=Place(0, 0, FILE), size_bytes=2 * MIB)


def doomed(one: Row) -> Doomed:
    return Doomed(one.sequence, one.place, one.charge_bytes)


def mark(one: Row, action: Action, at_ms: int = 0, observed_ms: int = 0, late: int = 0) -> Mark:
    return Mark(
        action=action,
        at_ms=at_ms,
        observed_ms=observed_ms,
        renter=one.renter,
        shard=one.shard,
        sequence=one.sequence + late,
    )


class Desk:
    """An index with one segment; every change is entered in a ledger that must agree with it."""

    def __init__(self, folder: Path) -> None:
        self.index: Index = create_index(folder / "index.sqlite", bytes(16))
        self.sum = Changes()
        self.change(lambda t: t.open_segment(SEGMENT, b"u" * 16))

    def change(self, *steps: Callable[[Transaction], None]) -> list[Doomed]:
        with self.index.transaction() as transaction:
            for step in steps:
                step(transaction)
        for renter, tally in transaction.changes.renters.items():
            self.sum.of(renter).add(tally)
        self.sum.log_bytes += transaction.changes.log_bytes
        self.sum.renters = {who: tally for who, tally in self.sum.renters.items() if tally.shards}
        assert self.index.totals() == self.sum
        return transaction.doomed

    def put(self, *rows: Row) -> list[Doomed]:
        return self.change(*((lambda t, one=one: t.put(one)) for one in rows))

    def apply(self, *marks: Mark) -> list[Doomed]:
        return self.change(*((lambda t, one=one: t.apply(one)) for one in marks))

    def rows(self, renter: NodeId = ALICE) -> list[Row]:
        return self.index.page(renter, FIRST, 99)

    def tally(self, renter: NodeId = ALICE) -> Tally | None:
        return self.index.totals().renters.get(renter)

    def stones(self) -> list[Tombstone]:
        return self.index.tombstones(99)

    def sizes(self) -> tuple[int, int, int]:
        segment = self.index.segment(SEGMENT)
        assert segment is not None
        return segment.size_bytes, segment.live_bytes, segment.punched_bytes


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.index.close(clean=False)


def test_what_is_in_it_counts_for_its_renter_by_kind(desk: Desk) -> None:
    trashed = row(2, 2, state=ShardState.TRASH, gone_at_ms=7, observed_ms=8)
    bad = row(3, 3, state=ShardState.QUARANTINED, is_damaged=True)
    desk.put(row(1, 1), trashed, bad, large(4, 4), row(1, 5, BOB))
    assert desk.rows() == [row(1, 1), trashed, bad, large(4, 4)]
    assert desk.tally() == Tally(
        live_bytes=2 * CHARGE + large(4, 4).charge_bytes,
        trash_bytes=CHARGE,
        shards=4,
        files=1,
        quarantined=1,
    )
    assert desk.tally(BOB) == Tally(live_bytes=CHARGE, shards=1)
    assert desk.sizes() == (0, 4 * CHARGE, 0)


def test_a_shard_of_one_mib_is_no_file_of_its_own(desk: Desk) -> None:
    desk.put(row(1, 1, size_bytes=MIB))
    tally = desk.tally()
    assert tally is not None
    assert tally.files == 0


def test_who_holds_nothing_any_more_is_in_no_total(desk: Desk) -> None:
    desk.put(row(1, 1), row(2, 2), row(1, 3, BOB))
    desk.apply(mark(row(1, 1), Action.GONE))
    assert desk.tally() == Tally(live_bytes=CHARGE, shards=1)
    desk.apply(mark(row(2, 2), Action.GONE))
    assert desk.index.totals().renters == {BOB: Tally(live_bytes=CHARGE, shards=1)}


def test_who_came_and_went_in_one_change_is_in_no_total(desk: Desk) -> None:
    one = row(1, 1)
    desk.change(lambda t: t.put(one), lambda t: t.apply(mark(one, Action.GONE)))
    assert desk.index.totals().renters == {}


def test_a_later_record_takes_the_place_of_an_earlier_one_that_is_given_up(desk: Desk) -> None:
    first, second = row(1, 1), row(1, 2)
    assert desk.put(first) == []
    before = desk.index.rows_changed
    assert desk.put(second) == [doomed(first)]
    assert desk.index.rows_changed == before + 2
    assert desk.rows() == [second]
    assert desk.index.doomed() == [doomed(first)]
    assert desk.put(first) == [doomed(first)]
    assert desk.put(second) == []
    assert desk.rows() == [second]
    assert desk.tally() == Tally(live_bytes=CHARGE, shards=1)
    assert desk.sizes() == (0, CHARGE, 0)


def test_entering_a_new_shard_changes_no_row_that_was_there(desk: Desk) -> None:
    before = desk.index.rows_changed
    desk.put(row(1, 1))
    assert desk.index.rows_changed == before


@pytest.mark.parametrize("sequence", [1, 3])
def test_a_correction_counts_whatever_the_sequence_and_gives_nothing_up(
    desk: Desk, sequence: int
) -> None:
    new = row(1, sequence, size_bytes=5000)
    desk.put(row(1, 2))
    assert desk.change(lambda t: t.correct(new)) == []
    assert desk.rows() == [new]
    other = row(2, 4)
    desk.change(lambda t: t.correct(other))
    assert desk.rows() == [new, other]
    assert desk.index.doomed() == []


@pytest.mark.parametrize(("sequence", "is_there"), [(4, False), (5, False), (6, True)])
@pytest.mark.parametrize("at_once", [False, True])
def test_a_tombstone_stops_its_own_record_and_earlier_ones(
    desk: Desk, sequence: int, is_there: bool, at_once: bool
) -> None:
    desk.apply(mark(row(1, 5), Action.TOMBSTONE, observed_ms=77))
    assert desk.stones() == [Tombstone(ALICE, row(1, 5).shard, 5, 77)]
    one = row(1, sequence)
    if at_once:
        desk.change(lambda t: t.put_plain({SEGMENT: [plain_of(one)]}))
    else:
        desk.put(one)
    assert desk.rows() == ([one] if is_there else [])
    assert desk.index.doomed() == ([] if is_there else [doomed(one)])
    assert bool(desk.stones()) is not is_there
    assert desk.index.has_tombstones is not is_there


def test_many_plain_records_count_for_each_renter_and_their_segment(desk: Desk) -> None:
    many = [row(1, 1), row(2, 2, size_bytes=5000), row(1, 3, BOB)]
    desk.change(lambda t: t.put_plain({SEGMENT: [plain_of(one) for one in many]}))
    assert desk.rows() == many[:2]
    assert desk.rows(BOB) == many[2:]
    assert desk.tally() == Tally(live_bytes=3 * CHARGE, shards=2)
    assert desk.sizes() == (0, 4 * CHARGE, 0)
    desk.change(lambda t: t.grow_segment(SEGMENT, 4 * CHARGE))
    assert desk.change(lambda t: t.put_plain({SEGMENT: [plain_of(one) for one in many]})) == []
    again = row(1, 4)
    assert desk.change(lambda t: t.put_plain({SEGMENT: [plain_of(again)]})) == [doomed(many[0])]
    assert desk.rows() == [again, many[1]]


def test_a_mark_speaks_of_its_record_and_earlier_ones_but_not_of_a_later_one(desk: Desk) -> None:
    one = row(1, 2)
    desk.put(one)
    for action in (Action.TRASH, Action.GONE, Action.TOMBSTONE):
        assert desk.apply(mark(one, action, late=-1)) == []
        assert desk.rows() == [one]
    assert desk.stones() == []
    desk.apply(mark(one, Action.TRASH, at_ms=5, observed_ms=6, late=1))
    assert desk.rows()[0].state is ShardState.TRASH
    assert desk.apply(mark(one, Action.GONE)) == [doomed(one)]
    assert desk.rows() == []
    assert desk.index.doomed() == [doomed(one)]


def test_marks_of_a_shard_that_is_not_there_do_nothing(desk: Desk) -> None:
    for action in (Action.TRASH, Action.UNDELETE, Action.QUARANTINE, Action.GONE):
        assert desk.apply(mark(row(1, 1), action)) == []
    assert desk.index.totals() == Changes()
    assert desk.index.rows_changed == 0


def test_the_trash_lasts_from_its_mark_and_out_of_it_a_shard_is_as_it_was(desk: Desk) -> None:
    one = row(1, 1)
    desk.put(one, row(2, 2), row(1, 3, BOB))
    before = desk.index.rows_changed
    desk.apply(mark(one, Action.TRASH, at_ms=50, observed_ms=60))
    assert desk.index.rows_changed == before + 2
    trashed = replace(
        one, state=ShardState.TRASH, gone_at_ms=50 + TRASH_MS, observed_ms=60, alone_ms=0
    )
    assert desk.rows() == [trashed, row(2, 2)]
    assert desk.rows(BOB) == [row(1, 3, BOB)]
    assert desk.tally() == Tally(live_bytes=CHARGE, trash_bytes=CHARGE, shards=2)
    desk.apply(mark(one, Action.UNDELETE))
    assert desk.rows() == [one, row(2, 2)]
    assert desk.tally() == Tally(live_bytes=2 * CHARGE, shards=2)


@pytest.mark.parametrize(("before", "after"), [(0, 60), (59, 60), (61, 61)])
def test_what_was_deleted_alone_speaks_against_older_copies_since_then(
    desk: Desk, before: int, after: int
) -> None:
    one = row(1, 1, alone_ms=before)
    desk.put(one)
    desk.apply(mark(one, Action.TRASH, observed_ms=60))
    assert desk.rows()[0].alone_ms == before
    desk.apply(mark(one, Action.TRASH_ALONE, observed_ms=60))
    assert desk.rows()[0].alone_ms == after


def test_a_damaged_shard_stays_so_through_the_trash(desk: Desk) -> None:
    one = row(1, 1)
    bad = replace(one, state=ShardState.QUARANTINED, is_damaged=True)
    desk.put(one)
    desk.apply(mark(one, Action.QUARANTINE))
    assert desk.rows() == [bad]
    assert desk.tally() == Tally(live_bytes=CHARGE, shards=1, quarantined=1)
    desk.apply(mark(one, Action.TRASH))
    assert desk.rows()[0].is_damaged
    assert desk.tally() == Tally(trash_bytes=CHARGE, shards=1)
    desk.apply(mark(one, Action.UNDELETE))
    assert desk.rows() == [bad]


def test_gone_lifts_the_tombstone_and_a_later_one_replaces_an_earlier(desk: Desk) -> None:
    one = row(1, 1)
    desk.put(one, row(1, 9, BOB))
    assert desk.apply(mark(one, Action.TOMBSTONE, observed_ms=5)) == [doomed(one)]
    assert desk.rows() == []
    desk.apply(mark(row(1, 4, BOB), Action.TOMBSTONE, observed_ms=5))
    changed = desk.index.stones_changed
    desk.apply(mark(one, Action.TOMBSTONE, observed_ms=8, late=1))
    assert desk.stones() == [Tombstone(ALICE, one.shard, 2, 8)]
    assert desk.index.stones_changed == changed + 1
    assert desk.index.has_tombstones
    desk.apply(mark(one, Action.GONE))
    assert desk.stones() == []
    assert not desk.index.has_tombstones
    assert desk.index.stones_changed == changed + 2
    desk.apply(mark(one, Action.GONE))
    assert desk.index.stones_changed == changed + 2, "there was none"


def test_a_tombstone_is_seen_within_the_change_that_sets_it(desk: Desk) -> None:
    one = row(1, 3)
    stone = mark(one, Action.TOMBSTONE)
    assert desk.change(lambda t: t.apply(stone), lambda t: t.put(one)) == [doomed(one)]
    assert desk.rows() == []


def test_who_has_met_all_is_alone_no_more_unless_it_is_another_record(desk: Desk) -> None:
    one, other = row(1, 1, alone_ms=5), row(2, 2, alone_ms=6)
    desk.put(one, other, row(1, 9, BOB, alone_ms=7))
    desk.change(lambda t: t.met_all(replace(one, sequence=8)))
    assert len(desk.index.stored_alone(9)) == 3
    before = desk.index.rows_changed
    desk.change(lambda t: t.met_all(one))
    assert desk.index.rows_changed == before + 2
    assert desk.rows() == [replace(one, alone_ms=0), other]
    assert [each.alone_ms for each in desk.rows(BOB)] == [7]


def test_the_log_counts_what_is_neither_a_shard_nor_a_hole(desk: Desk) -> None:
    desk.put(row(1, 1))
    desk.change(lambda t: t.grow_segment(SEGMENT, 10 * CHARGE, 2 * CHARGE))
    assert desk.sizes() == (10 * CHARGE, CHARGE, 2 * CHARGE)
    assert desk.index.totals().log_bytes == 7 * CHARGE
    desk.change(lambda t: t.grow_segment(SEGMENT, 12 * CHARGE))
    desk.change(lambda t: t.grow_segment(SEGMENT, 13 * CHARGE, CHARGE))
    assert desk.sizes() == (13 * CHARGE, CHARGE, 3 * CHARGE)
    desk.change(lambda t: t.open_segment(SEGMENT, b"u" * 16))
    assert desk.sizes() == (13 * CHARGE, CHARGE, 3 * CHARGE)
    segment = desk.index.segment(SEGMENT)
    assert segment is not None
    assert segment.uuid == b"u" * 16


def test_a_record_that_was_given_back_is_a_hole_once(desk: Desk) -> None:
    one = row(1, 1)
    desk.put(one)
    desk.change(lambda t: t.grow_segment(SEGMENT, 3 * CHARGE))
    desk.apply(mark(one, Action.GONE))
    assert desk.index.totals().log_bytes == 3 * CHARGE
    for _ in range(2):
        desk.change(lambda t: t.release(doomed(one)))
        assert desk.sizes() == (3 * CHARGE, 0, CHARGE)
        assert desk.index.totals().log_bytes == 2 * CHARGE
        assert desk.index.doomed() == []


def test_a_file_that_was_given_up_counts_until_it_is_given_back(desk: Desk) -> None:
    one = large(1, 1)
    desk.put(one)
    assert desk.index.totals().log_bytes == 0
    desk.apply(mark(one, Action.GONE))
    assert desk.index.doomed() == [doomed(one)]
    assert desk.index.totals().log_bytes == one.charge_bytes
    for _ in range(2):
        desk.change(lambda t: t.release(doomed(one)))
        assert desk.index.totals().log_bytes == 0
    assert desk.sizes() == (0, 0, 0)


def test_given_up_records_are_known_by_whose_they_are(desk: Desk) -> None:
    one = row(1, 1)
    desk.change(lambda t: t.give_up(one))
    with desk.index.transaction() as transaction:
        assert transaction.has_doomed(ALICE, one.shard)
        assert not transaction.has_doomed(BOB, one.shard)
        assert not transaction.has_doomed(ALICE, row(2, 1).shard)
    assert desk.rows() == []


def test_records_of_marks_are_known_until_they_are_given_back(desk: Desk) -> None:
    desk.change(
        lambda t: t.grow_segment(SEGMENT, 5 * CHARGE),
        lambda t: t.add_marks(7, Place(SEGMENT, CHARGE), 2 * CHARGE),
        lambda t: t.add_marks(8, Place(SEGMENT, 3 * CHARGE), CHARGE),
    )
    first, second = (
        Doomed(7, Place(SEGMENT, CHARGE), 2 * CHARGE),
        Doomed(8, Place(SEGMENT, 3 * CHARGE), CHARGE),
    )
    assert desk.index.marks() == [first, second]
    for _ in range(2):
        desk.change(lambda t: t.drop_marks(first))
        assert desk.index.marks() == [second]
        assert desk.sizes() == (5 * CHARGE, 0, 2 * CHARGE)


def test_a_segment_is_forgotten_with_all_that_lay_in_it(desk: Desk) -> None:
    one, kept = row(1, 1), row(2, 2, place=Place(2, 0))
    desk.change(lambda t: t.open_segment(2, b"w" * 16), lambda t: t.grow_segment(2, 9 * CHARGE))
    desk.put(one, kept)
    desk.apply(mark(one, Action.GONE))
    desk.change(
        lambda t: t.grow_segment(SEGMENT, 5 * CHARGE),
        lambda t: t.add_marks(7, Place(SEGMENT, CHARGE), CHARGE),
        lambda t: t.add_marks(8, Place(2, CHARGE), CHARGE),
    )
    assert desk.index.totals().log_bytes == 5 * CHARGE + 8 * CHARGE
    assert desk.index.span(SEGMENT) == (1, 7)
    desk.change(lambda t: t.drop_segment(SEGMENT, desk.index.span(SEGMENT)))
    assert desk.index.span(SEGMENT) == (0, 0)
    assert desk.index.span(2) == (8, 8)
    assert desk.index.totals().log_bytes == 8 * CHARGE
    assert [segment.number for segment in desk.index.segments()] == [2]
    assert desk.index.doomed() == []
    assert [record.sequence for record in desk.index.marks()] == [8]
    desk.change(lambda t: t.open_segment(SEGMENT, b"x" * 16))
    assert desk.sizes() == (0, 0, 0)


@pytest.mark.parametrize("at_once", [1, 2, 3, 5, 6, 1000])
def test_a_stretch_of_the_log_is_from_its_start_to_before_its_end(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(transaction_module, "_ROWS_AT_ONCE", at_once)
    rows = [row(number, number) for number in (1, 2, 3, 4)]
    desk.change(lambda t: t.open_segment(2, b"w" * 16))
    rows[1] = replace(rows[1], renter=BOB)
    desk.put(*rows, row(5, 5, place=Place(2, 2 * CHARGE)))
    with desk.index.transaction() as transaction:
        found = transaction.rows_between(SEGMENT, 2 * CHARGE, 4 * CHARGE)
    assert sorted(found, key=lambda one: one.sequence) == rows[1:3]


def test_changes_so_far_are_seen_within_a_transaction(desk: Desk) -> None:
    one = row(1, 1)
    with desk.index.transaction() as transaction:
        assert transaction.find(ALICE, one.shard) is None
        transaction.put(one)
        assert transaction.find(ALICE, one.shard) == one
        assert transaction.find(BOB, one.shard) is None
        assert desk.index.find(ALICE, one.shard) is None
    assert desk.index.find(ALICE, one.shard) == one


def test_names_of_staged_files_are_kept_until_they_are_not_there(desk: Desk) -> None:
    desk.change(*(lambda t, name=name: t.stage(name) for name in (b"a" * 16, b"b" * 16)))
    desk.change(lambda t: t.stage(b"a" * 16))
    assert desk.index.staged() == [b"a" * 16, b"b" * 16]
    desk.change(lambda t: t.unstage(b"a" * 16))
    assert desk.index.staged() == [b"b" * 16]


def test_sequences_that_were_taken_stay_so(desk: Desk) -> None:
    desk.change(lambda t: t.set_position(Position(3, 8192, 50)))
    desk.change(lambda t: t.set_position(Position(2, 4096, 40)))
    assert desk.index.position() == Position(2, 4096, 50)
    desk.change(lambda t: t.raise_sequence(45))
    assert desk.index.position() == Position(2, 4096, 50)
    desk.change(lambda t: t.raise_sequence(51))
    assert desk.index.position() == Position(2, 4096, 51)


def test_an_index_that_is_opened_again_goes_on_with_what_it_had(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.put(row(1, 1))
    desk.index.finish()
    desk.index.close(clean=False)
    index = Index(tmp_path / "index.sqlite", bytes(16))
    with index.transaction() as transaction:
        transaction.put(row(2, 2))
        transaction.apply(mark(row(1, 1), Action.GONE))
        assert transaction.changes.renters == {ALICE: Tally()}
    assert index.page(ALICE, FIRST, 9) == [row(2, 2)]
    assert index.totals().renters == {ALICE: Tally(live_bytes=CHARGE, shards=1)}
    index.close(clean=False)
