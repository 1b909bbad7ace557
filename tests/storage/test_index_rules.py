"""What the index answers, and what it says of itself, with rows made by hand."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from farmer.model.contract import TRASH_MS
from farmer.model.ids import ShardId
from farmer.model.shard import ShardState
from farmer.storage import index as index_module
from farmer.storage.errors import FormatTooNewError
from farmer.storage.index import INDEX_DESCRIPTORS, INDEX_VERSION, Index, create_index
from farmer.storage.index_errors import (
    CommitInDoubtError,
    IndexDamagedError,
    IndexOutdatedError,
)
from farmer.storage.index_file import LOCK_TIMEOUT_S, Connect, connect
from farmer.storage.marks import Action
from farmer.storage.operations import mark_of
from farmer.storage.places import Place, Position, Row
from farmer.storage.quota import Tally
from farmer.storage.transaction import Transaction
from tests.storage.bench import ALICE, BOB, open_files, row

VOLUME = b"v" * 16
NOTHING = ShardId(bytes(32))
FILE = b"f" * 16


def shard(number: int) -> ShardId:
    return ShardId(bytes([number]) * 32)


def put(index: Index, *rows: Row) -> None:
    with index.transaction() as transaction:
        for one in rows:
            transaction.put(one)


def apply(index: Index, of: Row, action: Action, at_ms: int = 0, observed_ms: int = 0) -> None:
    mark = mark_of(of, action, at_ms, observed_ms)
    change(index, lambda transaction: transaction.apply(mark))


def change(index: Index, how: Callable[[Transaction], object]) -> None:
    with index.transaction() as transaction:
        how(transaction)


def segmented(transaction: Transaction) -> None:
    transaction.open_segment(1, b"s" * 16)
    transaction.grow_segment(1, 1 << 20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite"


@pytest.fixture
def index(path: Path) -> Iterator[Index]:
    index = create_index(path, VOLUME)
    change(index, segmented)
    index.finish()
    yield index
    with suppress(sqlite3.Error):
        index.close(clean=False)


@contextmanager
def ready(path: Path, connect: Connect) -> Iterator[Index]:
    index = create_index(path, VOLUME, connect)
    change(index, segmented)
    index.finish()
    yield index
    index.close(clean=False)


def changed_by_hand(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as rows:
        rows.execute(statement, values)


# How it was left.


@pytest.mark.parametrize("clean", [True, False])
def test_an_index_knows_whether_it_was_closed_in_peace(
    index: Index, path: Path, clean: bool
) -> None:
    index.opened()
    index.close(clean=clean)
    again = Index(path, VOLUME)
    assert again.was_clean is clean
    again.opened()
    again.close(clean=False)
    last = Index(path, VOLUME)
    assert not last.was_clean
    last.close(clean=False)


def test_a_new_index_is_at_the_beginning_and_was_never_closed_in_peace(path: Path) -> None:
    index = create_index(path, VOLUME)
    assert not index.was_clean
    assert index.position() == Position(0, 0, 1)
    index.close(clean=False)


def test_an_index_that_was_not_finished_is_opened_only_by_who_makes_it(path: Path) -> None:
    create_index(path, VOLUME).close(clean=False)
    with pytest.raises(IndexDamagedError, match="unfinished"):
        Index(path, VOLUME)
    Index(path, VOLUME, unfinished=True).close(clean=False)


def test_an_index_of_another_volume_is_refused(index: Index, path: Path) -> None:
    index.close(clean=True)
    for unfinished in (False, True):
        with pytest.raises(IndexDamagedError, match="of another volume"):
            Index(path, b"w" * 16, unfinished=unfinished)
    Index(path, VOLUME).close(clean=True)


def test_an_older_format_is_made_again_and_a_newer_one_is_left_alone(
    index: Index, path: Path
) -> None:
    index.close(clean=True)
    changed_by_hand(path, "UPDATE state SET version = ?", INDEX_VERSION - 1)
    with pytest.raises(IndexOutdatedError, match="older release"):
        Index(path, VOLUME)
    changed_by_hand(path, "UPDATE state SET version = ?", INDEX_VERSION + 1)
    with pytest.raises(FormatTooNewError, match=f"format {INDEX_VERSION + 1}"):
        Index(path, VOLUME)


def test_a_refused_index_leaves_no_connection_open(index: Index, path: Path) -> None:
    index.close(clean=True)
    opened: list[sqlite3.Connection] = []

    def counting(path: Path) -> sqlite3.Connection:
        opened.append(connect(path))
        return opened[-1]

    with pytest.raises(IndexDamagedError):
        Index(path, b"w" * 16, connect=counting)
    assert opened
    for connection in opened:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")


def test_a_closed_index_has_no_connection_open(path: Path) -> None:
    opened: list[sqlite3.Connection] = []

    def counting(path: Path) -> sqlite3.Connection:
        opened.append(connect(path))
        return opened[-1]

    create_index(path, VOLUME, counting).close(clean=False)
    assert len(opened) > 2
    for connection in opened:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")


class Interrupted(sqlite3.Connection):
    """A connection at which something happens in the middle of a look-up."""

    happens: Callable[[], object] | None = None

    def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
        cursor = super().execute(sql, *values)  # type: ignore[arg-type]
        if self.happens and "FROM shards" in sql:
            self.happens()
        return cursor


def test_an_index_that_is_closed_during_a_look_up_has_no_connection_open_after_it(
    path: Path,
) -> None:
    """The look-up has its answer; Python 3.13 warns of a connection that nobody has closed."""
    opened: list[Interrupted] = []

    def interrupted(path: Path) -> sqlite3.Connection:
        opened.append(
            sqlite3.connect(
                path, factory=Interrupted, isolation_level=None, check_same_thread=False
            )
        )
        return opened[-1]

    index = create_index(path, VOLUME, interrupted)
    change(index, segmented)
    put(index, row(1))
    for connection in opened:
        connection.happens = lambda: index.close(clean=False)
    assert index.find(ALICE, shard(1)) == row(1)
    for connection in opened:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        index.find(ALICE, shard(1))


def test_a_clean_end_leaves_all_in_the_database_itself(index: Index, path: Path) -> None:
    put(index, row(1))
    index.close(clean=True)
    # As whoever has a copy of the one file alone.
    with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as rows:
        assert rows.execute("SELECT count(*) FROM shards").fetchone() == (1,)
        assert rows.execute("SELECT clean FROM state").fetchone() == (1,)


def test_a_condemned_index_is_made_again(index: Index, path: Path) -> None:
    index.condemn()
    index.close(clean=True)
    with pytest.raises(IndexDamagedError):
        Index(path, VOLUME)


def test_a_change_that_is_taken_back_does_not_take_the_verdict_with_it(
    index: Index, path: Path
) -> None:
    with pytest.raises(RuntimeError), index.transaction():
        index.condemn()
        raise RuntimeError
    index.close(clean=False)
    with pytest.raises(IndexDamagedError):
        Index(path, VOLUME)


def test_a_change_that_is_taken_back_condemns_nothing(index: Index, path: Path) -> None:
    with pytest.raises(RuntimeError), index.transaction() as transaction:
        transaction.put(row(1))
        raise RuntimeError
    put(index, row(2))
    assert index.page(ALICE, NOTHING, 9) == [row(2)]
    index.close(clean=False)
    Index(path, VOLUME).close(clean=False)


def test_a_finished_index_is_durable_from_then_on(index: Index, path: Path) -> None:
    """A journal that was off while it was made is on, and what stands there is synced."""
    writer = index._writer
    assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert writer.execute("PRAGMA synchronous").fetchone() == (1,), "NORMAL"
    assert path.with_name("index.sqlite-wal").stat().st_size == 0, "it was all written back"


def test_an_index_is_journalled_from_its_opening_on_and_not_while_it_is_made(path: Path) -> None:
    opened: list[sqlite3.Connection] = []

    def counting(path: Path) -> sqlite3.Connection:
        opened.append(connect(path))
        return opened[-1]

    def modes() -> set[tuple[object, ...]]:
        names = ("journal_mode", "synchronous")
        live = opened[-5:]
        return {
            tuple(one.execute(f"PRAGMA {name}").fetchone()[0] for name in names) for one in live
        }

    made = create_index(path, VOLUME, counting)
    assert modes() == {("off", 0)}, "what a crash leaves of it is thrown away"
    made.finish()
    made.close(clean=True)
    again = Index(path, VOLUME, connect=counting)
    assert modes() == {("wal", 1)}
    again.close(clean=True)


def test_only_for_the_cutting_off_the_writer_is_impatient(index: Index) -> None:
    """Whoever else holds the file, a person with a shell, is waited for as before."""

    def patience_ms() -> int:
        return int(index._writer.execute("PRAGMA busy_timeout").fetchone()[0])

    seen = list[str]()
    index._writer.set_trace_callback(seen.append)
    index.checkpoint()
    index._writer.set_trace_callback(None)
    at = [number for number, said in enumerate(seen) if "TRUNCATE" in said]
    (cut,) = at
    assert seen[cut - 1] == f"PRAGMA busy_timeout={int(index_module.GIVING_WAY_S * 1000)}"
    assert patience_ms() == LOCK_TIMEOUT_S * 1000


def test_an_index_is_complete_only_once_its_rows_are_on_the_disk(path: Path) -> None:
    index, said = create_index(path, VOLUME), list[str]()
    index._writer.set_trace_callback(said.append)
    index.finish()
    index._writer.set_trace_callback(None)
    index.close(clean=False)
    steps = ("synchronous=FULL", "journal_mode=WAL", "complete = 1")
    full, wal, complete = (
        next(at for at, one in enumerate(said) if step in one) for step in steps
    )
    assert max(full, wal) < complete, said


def test_an_index_has_as_many_files_open_as_it_says(index: Index, path: Path) -> None:
    put(index, row(1))
    for _ in range(20):
        assert index.find(ALICE, shard(1)) is not None
    names = [one.name for one in open_files(path.parent)]
    assert len([one for one in names if one.startswith(path.name)]) == INDEX_DESCRIPTORS


# What it is asked.


def test_a_page_begins_behind_a_shard_and_has_one_renters_alone(index: Index) -> None:
    put(index, *(row(number) for number in (3, 1, 2)), row(9, renter=BOB))
    assert index.page(ALICE, NOTHING, 99) == [row(1), row(2), row(3)]
    assert index.page(ALICE, shard(1), 1) == [row(2)]
    assert index.page(ALICE, shard(3), 99) == []
    assert index.page(BOB, NOTHING, 99) == [row(9, renter=BOB)]


def test_all_shards_are_walked_over_in_parts(index: Index) -> None:
    rows = [row(1), row(2), row(3, renter=BOB), row(4, renter=BOB)]
    put(index, *rows)
    walked, after = list[Row](), None
    while some := index.some(after, 1):
        walked += some
        after = (some[-1].renter, some[-1].shard)
    assert walked == rows == index.some(None, 99)


def test_a_lone_shard_is_found_or_is_not(index: Index) -> None:
    put(index, row(1))
    assert index.find(ALICE, shard(1)) == row(1)
    assert index.find(BOB, shard(1)) is None
    assert index.find(ALICE, shard(2)) is None


def test_the_trash_is_told_piece_by_piece_as_it_ends(index: Index) -> None:
    put(index, *(row(number) for number in range(1, 5)))
    for number, at_ms in ((1, 3000), (2, 1000), (3, 2000), (4, 1000)):
        apply(index, row(number), Action.TRASH, at_ms, 60 - number)

    def over(until_ms: int, after: Row | None = None, limit: int = 9) -> list[Row]:
        return index.in_trash(until_ms + TRASH_MS, after, limit)

    assert [one.shard for one in over(3000)] == [shard(2), shard(4), shard(3), shard(1)]
    assert [one.shard for one in over(2999)] == [shard(2), shard(4), shard(3)]
    assert over(999) == []
    assert over(3000, limit=2) == over(3000)[:2]
    assert over(3000, over(3000)[0], limit=2) == over(3000)[1:3]
    assert over(3000, over(3000)[3]) == []
    assert index.latest_observed_ms() == 59


def test_the_trash_of_several_renters_is_told_once(index: Index) -> None:
    rows = [replace(row(number), renter=renter) for renter in (BOB, ALICE) for number in (1, 2)]
    put(index, *(replace(one, sequence=at) for at, one in enumerate(rows, 1)))
    for at, one in enumerate(rows, 1):
        apply(index, replace(one, sequence=at), Action.TRASH, 1000, 50)
    told: list[Row] = []
    while some := index.in_trash(1000 + TRASH_MS, told[-1] if told else None, 1):
        told += some
    assert [(one.renter, one.shard) for one in told] == [(one.renter, one.shard) for one in rows]


def test_a_look_into_the_trash_takes_no_longer_the_more_there_is_in_it(path: Path) -> None:
    steps = [0]

    def step() -> None:
        steps[0] += 1

    def counting(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.set_progress_handler(step, 1)
        return connection

    def taken(before: int, trashed: int) -> int:
        for number in range(before + 1, trashed + 1):
            one = replace(row(number), shard=ShardId(number.to_bytes(32)))
            put(index, one)
            apply(index, one, Action.TRASH, 1000, 50)
        half = index.in_trash(1000 + TRASH_MS, None, trashed // 2)
        steps[0] = 0
        assert len(index.in_trash(1000 + TRASH_MS, half[-1], 8)) == 8
        return steps[0]

    with ready(path, counting) as index:
        assert taken(0, 20) == taken(20, 80)


def test_to_forget_a_segment_takes_no_longer_the_more_is_given_up_in_others(path: Path) -> None:
    """A store waits for that."""
    steps, sequences = [0], count(1)

    def step() -> None:
        steps[0] += 1

    def counting(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.set_progress_handler(step, 1)
        return connection

    def given_up(transaction: Transaction, segment: int, records: int) -> None:
        transaction.open_segment(segment, b"s" * 16)
        for _ in range(records):
            transaction.add_marks(next(sequences), Place(segment, 0), 1)
            one = replace(row(1), sequence=next(sequences), place=Place(segment, 0))
            transaction.give_up(one)

    def taken(others: int) -> int:
        change(index, lambda transaction: given_up(transaction, 2, others))
        change(index, lambda transaction: given_up(transaction, 1, 5))
        change(index, lambda transaction: given_up(transaction, 3, others))
        span = index.span(1)
        with index.transaction() as transaction:
            steps[0] = 0
            transaction.drop_segment(1, span)
            looked_at = steps[0]
        assert {one.place.segment for one in (*index.doomed(), *index.marks())} == {2, 3}
        return looked_at

    with ready(path, counting) as index:
        of_few = taken(20)
        assert taken(200) < 2 * of_few


def test_without_trash_no_time_was_seen(index: Index) -> None:
    put(index, row(1))
    assert index.latest_observed_ms() == 0


def test_shards_stored_alone_are_told_a_few_at_a_time(index: Index) -> None:
    put(index, row(1), *(replace(row(number), alone_ms=1) for number in (2, 3)))
    assert {one.shard for one in index.stored_alone(9)} == {shard(2), shard(3)}
    assert len(index.stored_alone(1)) == 1


def test_given_up_records_wait_in_their_order_until_they_are_given_back(index: Index) -> None:
    rows = [row(number) for number in (1, 2, 3)]
    put(index, *rows)
    for one in reversed(rows):
        apply(index, one, Action.GONE)
    assert [one.sequence for one in index.doomed()] == [1, 2, 3]
    assert [one.sequence for one in index.doomed(1, 1)] == [2]
    assert [one.place for one in index.doomed(2)] == [row(3).place]
    assert index.is_doomed(2)
    change(index, lambda transaction: transaction.release(index.doomed(1, 1)[0]))
    assert not index.is_doomed(2)
    assert [one.sequence for one in index.doomed()] == [1, 3]


def test_marks_are_told_of_one_segment_or_of_all(index: Index) -> None:
    def marked(transaction: Transaction) -> None:
        transaction.open_segment(2, b"t" * 16)
        transaction.add_marks(8, Place(2, 4096), 4096)
        transaction.add_marks(7, Place(1, 8192), 4096)

    change(index, marked)
    assert [one.sequence for one in index.marks()] == [7, 8]
    assert [one.sequence for one in index.marks(2)] == [8]
    assert index.marks(3) == []


def test_a_file_of_its_own_is_known_while_it_holds_a_shard_or_waits_to_go(index: Index) -> None:
    own = replace(row(1), place=Place(0, 0, FILE))
    put(index, own, row(2))
    assert index.knows_file(FILE, ALICE, shard(1))
    assert not index.knows_file(b"g" * 16, ALICE, shard(1))
    assert not index.knows_file(FILE, ALICE, shard(2))
    assert not index.knows_file(FILE, BOB, shard(1))
    apply(index, own, Action.GONE)
    assert index.knows_file(FILE, ALICE, shard(1)), "it is to be removed yet"
    (gone,) = index.doomed()
    change(index, lambda transaction: transaction.release(gone))
    assert not index.knows_file(FILE, ALICE, shard(1))


def test_totals_count_what_waits_in_files_and_what_is_idle_in_the_log(index: Index) -> None:
    own = replace(row(1), place=Place(0, 0, FILE))
    put(index, own, row(2), row(3))
    apply(index, row(3), Action.TRASH)
    apply(index, own, Action.GONE)
    totals, charge = index.totals(), row(2).charge_bytes
    assert totals.renters == {ALICE: Tally(charge, charge, 2, 0, 0)}
    assert totals.log_bytes == own.charge_bytes + (1 << 20) - 2 * charge


def test_a_database_grows_and_tells_its_size(index: Index, path: Path) -> None:
    before = index.size_bytes()
    put(
        index, *(replace(row(1), shard=ShardId(bytes([n % 256, n >> 8] * 16))) for n in range(999))
    )
    index.checkpoint()
    assert before < index.size_bytes() == path.stat().st_size


def test_a_staged_file_is_told_until_it_has_moved(index: Index) -> None:
    change(index, lambda transaction: transaction.stage(FILE))
    assert index.staged() == [FILE]
    change(index, lambda transaction: transaction.unstage(FILE))
    assert index.staged() == []


@pytest.mark.parametrize(
    ("statement", "question"),
    [
        ("UPDATE state SET offset = 'rot'", Index.position),
        ("INSERT INTO staged VALUES ('rot')", Index.staged),
        ("UPDATE usage SET live = 'rot'", Index.totals),
        ("UPDATE segments SET size = 'rot'", Index.totals),
    ],
)
def test_a_value_of_another_kind_is_damage(
    index: Index, path: Path, statement: str, question: Callable[[Index], object]
) -> None:
    put(index, row(1))
    changed_by_hand(path, statement)
    with pytest.raises(IndexDamagedError):
        question(index)


def test_totals_that_cannot_be_read_are_no_damage(index: Index) -> None:
    """Only what stands there is; a call that failed says nothing of it."""
    index.close(clean=True)
    with pytest.raises(sqlite3.ProgrammingError):
        index.totals()


# What others compare.


def test_tombstones_are_told_and_whether_there_are_any_is_known(index: Index) -> None:
    put(index, row(1), row(2))
    assert (index.has_tombstones, index.tombstones(9)) == (False, [])
    assert index.tombstone(ALICE, shard(1)) is None
    for one in (row(1), row(2)):
        apply(index, one, Action.TOMBSTONE, observed_ms=5)
    assert index.has_tombstones
    stone = index.tombstone(ALICE, shard(1))
    assert stone is not None
    assert (stone.sequence, stone.observed_ms) == (1, 5)
    assert index.tombstone(BOB, shard(1)) is None
    assert {one.shard for one in index.tombstones(9)} == {shard(1), shard(2)}
    assert len(index.tombstones(1)) == 1
    for one in (row(1), row(2)):
        apply(index, one, Action.GONE)
    assert (index.has_tombstones, index.tombstones(9)) == (False, [])


def test_an_index_that_is_opened_again_knows_its_tombstones(index: Index, path: Path) -> None:
    put(index, row(1))
    apply(index, row(1), Action.TOMBSTONE)
    index.close(clean=False)
    again = Index(path, VOLUME)
    assert again.has_tombstones
    again.close(clean=False)


def test_each_commit_with_a_tombstone_counts_once(index: Index) -> None:
    put(index, row(1), row(2))
    assert index.stones_changed == 0
    apply(index, row(1), Action.TOMBSTONE)
    assert index.stones_changed == 1
    put(index, row(3))
    assert index.stones_changed == 1
    apply(index, row(1), Action.GONE)
    assert index.stones_changed == 2


def test_after_a_failure_there_may_be_tombstones(index: Index) -> None:
    with pytest.raises(RuntimeError), index.transaction() as transaction:
        transaction.put(row(1))
        transaction.apply(mark_of(row(1), Action.TOMBSTONE, 0, 0))
        raise RuntimeError
    assert index.has_tombstones, "of a commit that failed nobody knows whether it was one"
    assert index.stones_changed == 0


def test_rows_that_change_are_told_before_and_after_and_new_ones_are_not(index: Index) -> None:
    put(index, row(1))
    assert index.rows_changed == 0
    seen = list[tuple[str, int]]()
    index._writer.set_trace_callback(lambda said: seen.append((said, index.rows_changed)))
    apply(index, row(1), Action.TRASH)
    index._writer.set_trace_callback(None)
    assert ("COMMIT", 1) in seen
    assert index.rows_changed == 2


class FailingCommit(sqlite3.Connection):
    """A connection of which a commit fails for want of memory."""

    fails = False

    def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
        if self.fails and sql == "COMMIT":
            error = sqlite3.OperationalError("out of memory")
            error.sqlite_errorcode = self.code
            raise error
        return super().execute(sql, *values)  # type: ignore[arg-type]

    code = sqlite3.SQLITE_NOMEM


@pytest.mark.parametrize("code", [sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_IOERR])
def test_a_commit_without_memory_is_in_doubt_and_others_failed(path: Path, code: int) -> None:
    def failing(path: Path) -> sqlite3.Connection:
        return sqlite3.connect(
            path, factory=FailingCommit, isolation_level=None, check_same_thread=False
        )

    index = create_index(path, VOLUME, failing)
    change(index, segmented)
    index.finish()
    put(index, row(1))
    writer = index._writer
    assert isinstance(writer, FailingCommit)
    writer.fails, writer.code = True, code
    with pytest.raises(sqlite3.OperationalError) as caught:
        apply(index, row(1), Action.TRASH)
    assert isinstance(caught.value, CommitInDoubtError) is (code == sqlite3.SQLITE_NOMEM)
    assert index.rows_changed == 2, "nobody may believe what he looked up before"
    writer.fails = False
    assert not writer.in_transaction
    apply(index, row(1), Action.TRASH)
    found = index.find(ALICE, shard(1))
    assert found is not None and found.state is ShardState.TRASH
    index.close(clean=False)


class FailingQuery(sqlite3.Connection):
    """A connection of which one query fails for want of memory, or it does behind a commit."""

    failing = "nothing"

    def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
        if self.failing == "COMMIT" == sql:
            super().execute(sql)
            raise MemoryError
        if self.failing in sql:
            error = sqlite3.OperationalError("out of memory")
            error.sqlite_errorcode = sqlite3.SQLITE_NOMEM
            raise error
        return super().execute(sql, *values)  # type: ignore[arg-type]


def failing_index(path: Path) -> tuple[Index, FailingQuery]:
    def failing(path: Path) -> sqlite3.Connection:
        return sqlite3.connect(
            path, factory=FailingQuery, isolation_level=None, check_same_thread=False
        )

    index = create_index(path, VOLUME, failing)
    change(index, segmented)
    index.finish()
    put(index, row(1))
    assert isinstance(index._writer, FailingQuery)
    return index, index._writer


def test_what_fails_to_see_whether_tombstones_are_left_has_not_been_committed(path: Path) -> None:
    """Whoever is told of a failure takes the records behind it out of the log."""
    index, writer = failing_index(path)
    writer.failing = "EXISTS (SELECT 1 FROM tombstones)"
    with pytest.raises(sqlite3.OperationalError):
        apply(index, row(1), Action.TOMBSTONE)
    assert index.find(ALICE, shard(1)) is not None
    assert index.has_tombstones, "for all that it knows"
    writer.failing = "nothing"
    apply(index, row(1), Action.TOMBSTONE)
    assert index.tombstone(ALICE, shard(1)) is not None
    apply(index, row(1), Action.GONE)
    assert not index.has_tombstones
    index.close(clean=False)


def test_a_commit_behind_which_memory_runs_out_is_in_doubt(path: Path) -> None:
    index, writer = failing_index(path)
    writer.failing = "COMMIT"
    with pytest.raises(CommitInDoubtError):
        apply(index, row(1), Action.TRASH)
    writer.failing = "nothing"
    found = index.find(ALICE, shard(1))
    assert found is not None and found.state is ShardState.TRASH
    index.close(clean=False)


# The write-ahead log.


def test_a_log_of_which_nobody_can_say_how_long_it_is_waits_for_another_time(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is asked when all is committed: it is no failure of what was stored."""

    class Stale:
        def stat(self) -> None:
            raise OSError(errno.ESTALE, "Stale file handle")

    put(index, row(1))
    monkeypatch.setattr(index_module, "WAL_BYTES_MAX", 0)
    with monkeypatch.context() as patched:
        patched.setattr(index, "_log_path", Stale())
        assert not index.checkpoint_if_long()
    assert index.checkpoint_if_long()


def test_a_short_log_is_not_cut_off(
    index: Index, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(index, row(1))
    log = path.with_name("index.sqlite-wal")
    monkeypatch.setattr(index_module, "WAL_BYTES_MAX", log.stat().st_size)
    assert not index.checkpoint_if_long()
    assert log.stat().st_size > 0
    monkeypatch.setattr(index_module, "WAL_BYTES_MAX", log.stat().st_size - 1)
    assert index.checkpoint_if_long()
    assert log.stat().st_size == 0


def test_an_index_that_is_being_made_has_no_log_to_cut_off(path: Path) -> None:
    index = create_index(path, VOLUME)
    assert not index.checkpoint_if_long()
    index.close(clean=False)


def test_a_look_that_is_over_is_not_told_to_end(index: Index) -> None:
    told = list[str]()
    with index.gives_way(lambda: told.append("over")):
        pass
    with index.gives_way(lambda: told.append("under way")):
        index.checkpoint()
    assert told == ["under way"]


def test_look_ups_go_on_after_nobody_was_let_in(index: Index) -> None:
    put(index, row(1))
    with pytest.raises(RuntimeError), index.unmoved():
        raise RuntimeError
    for _ in range(9):
        assert index.find(ALICE, shard(1)) == row(1)


def test_a_failed_question_does_not_cost_a_connection(index: Index) -> None:
    for _ in range(9):
        with pytest.raises(sqlite3.ProgrammingError):
            index.segments(since=object())  # type: ignore[arg-type]
    assert index.segment(1) is not None
