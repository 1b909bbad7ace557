"""The index alone: what it makes of records, in whatever order and groups they are entered."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farmer.model.ids import ContractId, NodeId, ShardId
from farmer.model.status import VolumeState
from farmer.storage import index as index_module
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.index import Index, create_index
from farmer.storage.index_errors import InUseError
from farmer.storage.operations import Restate
from farmer.storage.places import Doomed, Place, Row
from farmer.storage.quota import Tally
from farmer.storage.transaction import Transaction
from tests.storage.bench import ALICE, BOB, Farm, noise
from tests.storage.log_bytes import plain_of
from tests.storage.recording import RecordingFiles

Entered = tuple[set[Row], set[Doomed], dict[NodeId, Tally], int]


def row(renter: NodeId, shard: int, sequence: int) -> Row:
    return Row(
        renter=renter,
        shard=ShardId(bytes([shard]) * 32),
        place=Place(1, 4096 * sequence),
        size_bytes=100,
        contract=ContractId(bytes([sequence % 3]) * 16),
        stored_at_ms=sequence,
        sequence=sequence,
    )


ROWS = st.lists(
    st.builds(row, st.sampled_from([ALICE, BOB]), st.integers(1, 3), st.integers(1, 30)),
    unique_by=lambda one: one.sequence,
    max_size=20,
)


def entered(
    groups: Sequence[Sequence[Row]], how: Callable[[Transaction, Sequence[Row]], None]
) -> Entered:
    """Return rows, doomed records and totals after entering each group in a transaction."""
    with tempfile.TemporaryDirectory() as folder:
        index = create_index(Path(folder) / "index.sqlite", bytes(16))
        with index.transaction() as transaction:
            transaction.open_segment(1, bytes(16))
        end = 0
        for group in groups:
            with index.transaction() as transaction:
                how(transaction, group)
                # As all do who enter records: it is what they tell old ones by.
                end = max([end, *(one.place.offset + one.charge_bytes for one in group)])
                transaction.grow_segment(1, end)
        answer = contents(index)
        index.close(clean=False)
        return answer


def contents(index: Index) -> Entered:
    """Return rows, doomed records and totals."""
    first = ShardId(bytes(32))
    rows = {*index.page(ALICE, first, 99), *index.page(BOB, first, 99)}
    totals = index.totals()
    return rows, set(index.doomed()), totals.renters, totals.log_bytes


def one_by_one(transaction: Transaction, rows: Sequence[Row]) -> None:
    for one in rows:
        transaction.put(one)


@given(groups=st.lists(ROWS, max_size=4), lost=ROWS)
@settings(max_examples=30)
def test_a_transaction_that_was_rolled_back_is_as_if_it_had_not_been(
    groups: list[list[Row]], lost: list[Row]
) -> None:
    """Nothing of it is remembered either: neither numbers of renters nor segments."""

    with tempfile.TemporaryDirectory() as folder:
        index = create_index(Path(folder) / "index.sqlite", bytes(16))
        fresh = create_index(Path(folder) / "fresh.sqlite", bytes(16))
        for one in (index, fresh):
            with one.transaction() as transaction:
                transaction.open_segment(1, bytes(16))
        for group in groups:
            with suppress(NotImplementedError), index.transaction() as transaction:
                one_by_one(transaction, lost)
                transaction.grow_segment(1, 1 << 30)
                raise NotImplementedError
            for one in (index, fresh):
                with one.transaction() as transaction:
                    one_by_one(transaction, group)
        assert contents(index) == contents(fresh)
        index.close(clean=False)
        fresh.close(clean=False)


def at_once(transaction: Transaction, rows: Sequence[Row]) -> None:
    """Enter them together, as a rebuild does."""
    transaction.put_plain({1: [plain_of(one) for one in rows]})


@settings(max_examples=40, deadline=None)
@given(ROWS, st.integers(0, 30))
def test_of_the_records_of_a_shard_the_last_one_counts_however_they_are_entered(
    rows: list[Row], cut: int
) -> None:
    last: dict[tuple[NodeId, ShardId], Row] = {}
    for one in sorted(rows, key=lambda one: one.sequence):
        last[one.renter, one.shard] = one
    found, doomed, *_ = answer = entered([rows], one_by_one)

    assert found == set(last.values())
    assert {one.sequence for one in doomed} == {one.sequence for one in {*rows} - found}
    assert entered([rows[::-1]], one_by_one) == answer
    older, newer = (
        [one for one in rows if (one.sequence > cut) is late] for late in (False, True)
    )
    assert entered([older, newer], at_once) == answer
    assert entered([newer, older], at_once) == answer
    assert entered([rows, rows], at_once) == answer, "known records are no news"


def test_a_shard_that_was_erased_and_stored_again_is_there_once_after_a_rebuild(
    tmp_path: Path,
) -> None:
    farm = Farm(tmp_path, files=RecordingFiles(can_punch=False))
    for number in range(3):
        for _ in range(3):
            stored = farm.store(noise(5000, number))
            farm.delete(stored.shard, erase=True)
        stored = farm.store(noise(5000, number))
    before = (farm.engine.usage(ALICE), farm.engine.volumes()[0].allowance_bytes)
    farm.engine.close()
    for path in farm.path.glob("index.sqlite*"):
        path.unlink()
    farm.open()
    assert (farm.engine.usage(ALICE), farm.engine.volumes()[0].allowance_bytes) == before
    assert farm.read(stored.shard) == noise(5000, 2)
    farm.engine.close()


def test_one_segment_is_found_among_many(tmp_path: Path) -> None:
    """By its number, or as the next one from a number on; one that is not there is none."""
    index = create_index(tmp_path / "index.sqlite", b"v" * 16)
    with index.transaction() as transaction:
        for number in (2, 3, 7):
            transaction.open_segment(number, bytes([number]) * 16)
    assert [one.number for one in index.segments()] == [2, 3, 7]
    assert [one.number for one in index.segments(4, 1)] == [7]
    assert index.segments(8) == []
    assert [index.segment(number) is not None for number in (2, 4, 7, 8)] == [
        *(True, False, True, False)
    ]
    index.close(clean=False)


def looking(path: Path) -> sqlite3.Connection:
    """Return a connection in the middle of a long look at a database."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    connection.execute("BEGIN")
    connection.execute("SELECT * FROM state").fetchall()
    return connection


def enter(index: Index, sequence: int) -> None:
    with index.transaction() as transaction:
        transaction.put(row(ALICE, sequence, sequence))


def finished_index(folder: Path) -> Index:
    index = create_index(folder / "index.sqlite", bytes(16))
    with index.transaction() as transaction:
        transaction.open_segment(1, bytes(16))
    index.finish()
    return index


def test_a_checkpoint_that_is_due_waits_for_no_long_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not done now, which is no failure; the look is told to end, and then it is done."""
    monkeypatch.setattr(index_module, "WAL_BYTES_MAX", 0)
    index, told = finished_index(tmp_path), list[str]()
    with closing(looking(tmp_path / "index.sqlite")), index.gives_way(lambda: told.append("end")):
        enter(index, 1)
        assert not index.checkpoint_if_long()
        assert told == ["end"]
        assert index.find(ALICE, ShardId(bytes([1]) * 32)) is not None
        enter(index, 2)
    assert index.checkpoint_if_long()
    assert (tmp_path / "index.sqlite-wal").stat().st_size == 0
    index.close(clean=False)


def written_back(path: Path) -> int:
    """Return how many shards the database has without its write-ahead log."""
    with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM shards").fetchone()
    return int(count)


def test_look_ups_go_on_while_the_log_is_written_back(tmp_path: Path) -> None:
    """They wait only for the cutting off, which has nothing to write any more."""
    index, seen = finished_index(tmp_path), list[tuple[str, bool, int]]()
    for sequence in range(1, 20):
        enter(index, sequence)

    def began(statement: str) -> None:
        if "wal_checkpoint" in statement:
            is_free = not index._readers.empty()
            seen.append((statement, is_free, written_back(tmp_path / "index.sqlite")))

    index._writer.set_trace_callback(began)
    index.checkpoint()
    index._writer.set_trace_callback(None)
    assert seen == [
        ("PRAGMA wal_checkpoint(PASSIVE)", True, 0),
        ("PRAGMA wal_checkpoint(TRUNCATE)", False, 19),
    ]
    index.close(clean=False)


def test_a_long_look_gives_way_to_a_checkpoint_that_must_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not is waited for only for a moment."""
    monkeypatch.setattr(index_module, "GIVING_WAY_S", 0.01)
    index = finished_index(tmp_path)
    with closing(looking(tmp_path / "index.sqlite")) as look:
        enter(index, 1)
        with pytest.raises(InUseError):
            index.checkpoint()
        with index.gives_way(look.rollback):
            index.checkpoint()
    assert (tmp_path / "index.sqlite-wal").stat().st_size == 0
    index.close(clean=False)


def test_a_long_look_at_its_index_makes_no_volume_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What needs a durable index is refused until the look is over."""
    monkeypatch.setattr(index_module, "GIVING_WAY_S", 0.01)
    farm = Farm(tmp_path)
    farm.store(noise(100))
    (volume,) = farm.engine.opened()
    with closing(looking(farm.path / "index.sqlite")):
        farm.store(noise(200))
        with pytest.raises(VolumeUnavailableError, match="the index is not durable"):
            volume.writer.submit(Restate(lambda _transaction: [], 1)).result(20)
        farm.store(noise(300))
        assert farm.engine.volumes()[0].state is VolumeState.HEALTHY
    assert volume.writer.submit(Restate(lambda _transaction: [], 1)).result(20) == 0
    farm.engine.close()
