"""Walking over a log that was written by hand: what is entered, cut off, passed over and told."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import RECORD_HEADER_BYTES, ShardState
from farmer.storage import index as index_module
from farmer.storage import recovery as recovery_module
from farmer.storage.directory import Paths
from farmer.storage.files import OsFiles
from farmer.storage.index_errors import LogCutError
from farmer.storage.marks import Action, Mark
from farmer.storage.met import note_met
from farmer.storage.operations import mark_of, row_of
from farmer.storage.places import Place, Position, Row
from farmer.storage.records import (
    DAMAGED,
    MOVED,
    SEGMENT_HEADER_BYTES,
    Kind,
    SegmentHeader,
    segment_uuid,
)
from farmer.storage.recovery import Recovery, gone_segments, read_part
from tests.storage.bench import ALICE, noise
from tests.storage.log_bytes import (
    BAD,
    HOLE,
    PAGE,
    SIZE,
    VOLUME,
    Log,
    Marks,
    header_of,
    part_of,
    record,
    spoilt,
    trailer_of,
    whole,
)
from tests.storage.recording import Always, Fault


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path)
    yield log
    log.index.close(clean=False)
    assert not log.files.is_open


def row(sequence: int, number: int = 1, offset: int = PAGE) -> Row:
    return row_of(header_of(SIZE, sequence), Place(number, offset))


def gone(sequence: int, action: Action = Action.GONE, observed_ms: int = 0) -> Mark:
    return mark_of(row(sequence), action, 0, observed_ms)


def again(sequence: int, of: int, flags: int = 0, segment: int = 1) -> bytes:
    """Return a newer record of another one's shard."""
    uuid = segment_uuid(VOLUME, segment)
    header = replace(header_of(SIZE, of, uuid), sequence=sequence, flags=flags)
    data = noise(SIZE, of)
    return whole(header, data + trailer_of(data))


def rotten(sequence: int, of: int | None = None, flags: int = 0, segment: int = 1) -> bytes:
    """Return a record of which the header alone is sound; of another one's shard, if said."""
    return spoilt(again(sequence, of or sequence, flags, segment), RECORD_HEADER_BYTES + 5)


def damaged(log: Log) -> set[int]:
    """Return the records that are known to be damaged."""
    rows = log.index.page(ALICE, ShardId(bytes(32)), 999)
    return {row.sequence for row in rows if row.is_damaged}


def page(log: Log, at: int) -> bytes:
    return log.paths.segment(1).read_bytes()[at * PAGE : (at + 1) * PAGE]


# Where it begins and ends.


def test_without_a_log_there_is_nothing_to_do(log: Log) -> None:
    for recovered in (log.replay(), log.rebuild()):
        assert recovered.end == Position(0, 0, 1)
        assert (recovered.uuid, recovered.damaged, recovered.records) == (b"", [], 0)
    assert log.told == []


def test_a_replay_goes_on_where_the_index_is(log: Log) -> None:
    log.write(1, 1, 2)
    first = log.replay()
    assert (first.end, first.records) == (Position(1, 3 * PAGE, 3), 2)
    assert first.uuid == segment_uuid(VOLUME, 1)
    # What stands before that is not looked at again.
    log.write(1, BAD, BAD, 3)
    second = log.replay()
    assert (second.end, second.records, second.damaged) == (Position(1, 4 * PAGE, 4), 1, [])
    assert log.known() == {1: Place(1, PAGE), 2: Place(1, 2 * PAGE), 3: Place(1, 3 * PAGE)}


def test_a_replay_goes_on_into_the_segments_that_follow(log: Log) -> None:
    log.write(1, 1)
    log.replay()
    log.write(1, 1, 2)
    log.write(2, 3, previous_end=3 * PAGE)
    log.write(3, 4, previous_end=2 * PAGE)
    recovered = log.replay()
    assert (recovered.end, recovered.records) == (Position(3, 2 * PAGE, 5), 3)
    assert (recovered.uuid, recovered.damaged) == (segment_uuid(VOLUME, 3), [])
    assert set(log.known()) == {1, 2, 3, 4}


def test_a_replay_goes_on_behind_segments_that_are_missing_and_tells(log: Log) -> None:
    """They are numbered without gaps as they are made; but what follows, a delete, counts."""
    log.write(1, 1, 2)
    log.replay()
    log.write(4, 3, Marks(4, [gone(1)]))
    log.write(6, 5)
    recovered = log.replay()
    assert recovered.damaged == ["00000002.seg is missing", "00000005.seg is missing"]
    assert (recovered.end, recovered.records) == (Position(6, 2 * PAGE, 6), 3)
    assert set(log.known()) == {2, 3, 5}
    assert log.replay().damaged == [], "it is told once"


def test_an_index_of_nothing_goes_on_behind_what_is_missing_too(log: Log) -> None:
    log.write(3, 1)
    assert log.replay().damaged == ["00000001.seg is missing"]
    assert set(log.known()) == {1}


def test_a_log_that_is_shorter_than_it_was_needs_another_index(log: Log) -> None:
    log.write(1, 1, 2)
    log.replay()
    log.write(1, 1)
    with pytest.raises(LogCutError, match=r"00000001\.seg is shorter than it was"):
        log.replay()
    log.write(1, 1, 2)
    assert log.replay().records == 0, "of this length it is right"
    log.paths.segment(1).unlink()
    with pytest.raises(LogCutError, match=r"00000001\.seg is missing"):
        log.replay()


def test_a_rebuild_walks_over_all_segments_that_are_there(log: Log) -> None:
    log.write(2, 1, 2)
    log.write(10, 5)
    log.write(4, 3)
    for name in ("notes.seg", "00000003.txt", "3.seg~", "2.seg", "000000002.seg"):
        (log.paths.log / name).write_bytes(BAD)
    recovered = log.rebuild()
    assert log.told == [(2, 10), (4, 10), (10, 10)]
    assert (recovered.end, recovered.records) == (Position(10, 2 * PAGE, 6), 4)
    assert set(log.known()) == {1, 2, 3, 5}
    assert [one.number for one in log.index.segments()] == [2, 4, 10]
    assert [one.size_bytes for one in log.index.segments()] == [3 * PAGE, 2 * PAGE, 2 * PAGE]


def test_the_next_sequence_is_behind_all_that_was_seen(log: Log) -> None:
    log.write(1, 7, 3, Marks(12, [gone(3)]))
    assert log.rebuild().end.next_sequence == 13
    log.write(2, first_sequence=40, previous_end=4 * PAGE)
    assert log.replay().end.next_sequence == 40, "of marks that have gone nothing else tells"


def test_what_a_killed_process_left_is_durable_before_it_is_believed(log: Log) -> None:
    log.write(1, 1)
    log.write(2, 2, previous_end=2 * PAGE)
    log.files.forget()
    log.rebuild()
    done = [(call.name, call.path) for call in log.files.calls]
    assert ("sync_data", "00000001.seg") not in done, "it was synced before the next was begun"
    read = done.index(("open_read", "00000001.seg"))
    assert done.index(("sync_data", "00000002.seg")) < read
    assert done.index(("sync_directory", "log")) < read


# What is damaged.


def test_damage_between_sound_records_is_told(log: Log) -> None:
    log.write(1, 1, BAD, 2, BAD, BAD, 3)
    recovered = log.rebuild()
    assert set(log.known()) == {1, 2, 3}
    assert recovered.damaged == [f"00000001.seg at {2 * PAGE}", f"00000001.seg at {4 * PAGE}"]
    assert (recovered.records, recovered.end) == (3, Position(1, 7 * PAGE, 4))


def test_what_was_torn_at_the_end_is_cut_off_and_no_loss(log: Log) -> None:
    log.write(1, 1, BAD, BAD)
    log.files.forget()
    recovered = log.rebuild()
    assert (recovered.damaged, recovered.end) == ([], Position(1, 2 * PAGE, 2))
    assert log.size(1) == 2 * PAGE
    cut = log.files.names("truncate", "sync_data")[-2:]
    assert cut == ["truncate", "sync_data"]


def test_a_log_that_ends_where_it_should_is_not_touched(log: Log) -> None:
    log.write(1, 1)
    log.rebuild()
    assert log.files.names("truncate") == []


def test_only_the_last_segment_is_cut_off(log: Log) -> None:
    log.write(1, 1, BAD)
    log.write(2, 2, previous_end=2 * PAGE)
    log.rebuild()
    assert log.size(1) == 3 * PAGE
    assert log.index.segments()[0].size_bytes == 2 * PAGE, "the next one says where it ends"


def test_what_was_acknowledged_once_is_damage_at_the_end_too(log: Log) -> None:
    log.write(1, 1, BAD, BAD)
    log.write(2, 2, previous_end=3 * PAGE)
    recovered = log.rebuild()
    assert recovered.damaged == [f"00000001.seg at {2 * PAGE}"]
    assert log.index.segments()[0].size_bytes == 3 * PAGE


def test_a_segment_that_was_cut_short_ends_where_it_does(log: Log) -> None:
    log.write(1, 1)
    log.write(2, 2, previous_end=9 * PAGE)
    log.rebuild()
    assert log.index.segments()[0].size_bytes == 2 * PAGE


def test_of_a_segment_without_its_successor_all_is_read(log: Log) -> None:
    """What the one behind the gap says is about another one."""
    log.write(1, 1, 2)
    log.write(3, 3, previous_end=2 * PAGE)
    log.rebuild()
    assert set(log.known()) == {1, 2, 3}


def test_shards_are_verified_where_nothing_says_how_far_it_was_right(log: Log) -> None:
    """In a rebuild the end of the log alone: all else was acknowledged, and is scrubbed."""
    log.write(1, 1, rotten(2), 3)
    log.write(2, 4, previous_end=4 * PAGE)
    assert log.rebuild().damaged == []
    assert set(log.known()) == {1, 2, 3, 4}


def test_shards_at_the_end_of_the_log_are_verified(log: Log) -> None:
    log.write(1, 1, rotten(2), 3)
    recovered = log.rebuild()
    assert (recovered.records, recovered.damaged) == (3, [])
    assert set(log.known()) == {1, 2, 3}
    assert damaged(log) == {2}


def test_all_that_is_replayed_is_verified(log: Log) -> None:
    log.write(1, 1, rotten(2), 3, rotten(4))
    log.write(2, 5, previous_end=5 * PAGE)
    assert log.replay().damaged == []
    assert set(log.known()) == {1, 2, 3, 4, 5}
    assert damaged(log) == {2, 4}


@pytest.mark.parametrize("follower", ["lost header", "gone"])
def test_before_another_segment_all_was_acknowledged(log: Log, follower: str) -> None:
    """Also where that one does not say how far: what is damaged at the end is not cut off."""
    log.write(1, 1, rotten(2))
    if follower == "gone":
        log.write(3, 5)
    else:
        log.write(2, 5, previous_end=3 * PAGE)
        lose_header(log, 2)
    log.rebuild()
    assert set(log.known()) == {1, 2, 5}
    assert damaged(log) == {2}
    assert log.size(1) == 3 * PAGE
    assert log.index.segments()[0].size_bytes == 3 * PAGE


def test_a_torn_end_is_cut_off_and_a_rebuild_tells_of_it(log: Log) -> None:
    """Without a crash it would be a loss, and a rebuild does not know whether there was one."""
    log.write(1, 1, rotten(2), BAD)
    log.replay()
    assert log.size(1) == 2 * PAGE
    log.write(1, 1, rotten(2), BAD)
    log.lose_index()
    assert log.rebuild().damaged == [f"00000001.seg at {2 * PAGE}"]
    assert log.size(1) == 2 * PAGE


# What is damaged displaces nothing.


@pytest.mark.parametrize("is_whole", [True, False])
@pytest.mark.parametrize("can_punch", [True, False])
def test_a_damaged_copy_gives_way_to_what_it_was_copied_from(
    log: Log, is_whole: bool, can_punch: bool
) -> None:
    """It may be torn, and the original goes only when the index is durable."""
    log.files.can_punch = can_punch
    log.write(1, 1, rotten(2, of=1, flags=MOVED), 3)
    recovered = log.rebuild() if is_whole else log.replay()
    assert log.known() == {1: Place(1, PAGE), 3: Place(1, 3 * PAGE)}
    assert (log.index.doomed(), damaged(log)) == ([], set())
    assert page(log, 2)[:RECORD_HEADER_BYTES] == bytes(RECORD_HEADER_BYTES)
    assert [one.punched_bytes for one in log.index.segments()] == [PAGE if can_punch else 0]
    assert recovered.end == Position(1, 4 * PAGE, 4)
    # So that a walk which does not look as closely does not take it for the newer one.
    log.write(2, 5, previous_end=4 * PAGE)
    log.lose_index()
    log.rebuild()
    assert set(log.known()) == {1, 3, 5}


def test_a_copy_of_a_damaged_record_gives_way_as_well(log: Log) -> None:
    """Its bytes are not verified, so that it may be torn, too."""
    log.write(1, 1, rotten(2, of=1, flags=MOVED | DAMAGED), Marks(3, [gone(9)]))
    log.replay()
    assert set(log.known()) == {1}
    assert page(log, 2) == HOLE


@pytest.mark.parametrize("flags", [0, MOVED, MOVED | DAMAGED])
@pytest.mark.parametrize("is_there", [True, False])
def test_of_two_that_are_damaged_alike_the_newer_one_counts(
    log: Log, flags: int, is_there: bool
) -> None:
    """It knows more of what became of the shard; the older one may have been given back."""
    newer = rotten(2, of=1, flags=flags)
    log.write(1, rotten(1), newer, 3)
    if not is_there:
        log.write(1, 1)
        log.replay()
        log.write(1, HOLE, newer, 3)
    log.replay()
    assert log.known() == {2: Place(1, 2 * PAGE), 3: Place(1, 3 * PAGE)}
    assert [one.sequence for one in log.index.doomed()] == [1]
    assert damaged(log) == {2}


def test_a_copy_of_a_damaged_record_is_believed_where_it_cannot_be_torn(log: Log) -> None:
    """A later segment was begun since.  It alone may know that the shard is in the trash."""
    trashed = replace(
        header_of(SIZE, 1, segment_uuid(VOLUME, 1)),
        sequence=2,
        flags=MOVED | DAMAGED,
        state=ShardState.TRASH,
        gone_at_ms=9,
    )
    copy = spoilt(whole(trashed, noise(SIZE, 1) + trailer_of(noise(SIZE, 1))), 300)
    log.write(1, 1, copy, 3)
    log.write(2, 4, previous_end=4 * PAGE)
    log.rebuild()
    assert set(log.known()) == {2, 3, 4}
    (found,) = (one for one in log.index.page(ALICE, ShardId(bytes(32)), 9) if one.sequence == 2)
    assert (found.state, found.gone_at_ms) == (ShardState.TRASH, 9)


def test_holes_in_front_of_a_damaged_end_are_counted(log: Log) -> None:
    log.write(1, 1, HOLE, HOLE, rotten(2))
    log.write(3, 5)
    log.rebuild()
    first = log.index.segments()[0]
    assert (first.size_bytes, first.punched_bytes) == (5 * PAGE, 2 * PAGE)


@pytest.mark.parametrize("at_once", [1, 2, 3, 99])
def test_where_the_older_one_had_ended_the_damaged_one_is_entered(
    log: Log, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """In however many steps; and where it had not ended, it stays."""
    monkeypatch.setattr(recovery_module, "_REPLAYED_PER_TRANSACTION", at_once)
    log.write(1, 1, 4, Marks(5, [gone(1)]), rotten(6, of=1), 7, rotten(8, of=4), 9)
    log.replay()
    assert set(log.known()) == {4, 6, 7, 9}
    assert damaged(log) == {6}
    assert [one.sequence for one in log.index.doomed()] == [1]


def test_marks_behind_a_damaged_one_end_it_and_those_before_do_not(log: Log) -> None:
    log.write(1, Marks(1, [gone(2)]), rotten(2), rotten(3), Marks(4, [gone(3)]), 5)
    log.replay()
    assert set(log.known()) == {2, 5}
    assert [one.sequence for one in log.index.doomed()] == [3]


def test_a_newer_one_takes_the_place_of_a_damaged_one(log: Log) -> None:
    log.write(1, rotten(2), again(3, of=2))
    log.replay()
    assert log.known() == {3: Place(1, 2 * PAGE)}
    assert [one.sequence for one in log.index.doomed()] == [2]


def test_a_damaged_copy_is_gone_before_the_index_goes_on(log: Log) -> None:
    log.write(1, 1, rotten(2, of=1), 3)
    log.files.fault = Fault(
        0, errno.EIO, lambda call: call.name == "sync_data" and "punch" in log.files.names()
    )
    with pytest.raises(OSError, match="Input/output"):
        log.replay()
    assert log.index.position() == Position(0, 0, 1)
    log.files.fault = None
    log.replay()
    assert set(log.known()) == {1, 3}


def test_on_a_volume_that_takes_no_writes_a_damaged_copy_is_given_up(log: Log) -> None:
    log.files.can_punch = False
    log.files.fault = Always(errno.EROFS, lambda call: call.name == "pwritev")
    log.write(1, 1, rotten(2, of=1), 3)
    log.replay()
    assert set(log.known()) == {1, 3}
    assert [one.sequence for one in log.index.doomed()] == [2]


def test_damage_without_a_sound_header_is_told(log: Log) -> None:
    log.write(1, 1, BAD, 2, BAD, 3)
    recovered = log.replay()
    assert recovered.damaged == [f"00000001.seg at {at * PAGE}" for at in (2, 4)]
    assert not recovered.uuid, "a header in there may claim what would be appended"
    assert set(log.known()) == {1, 2, 3}
    assert page(log, 2) == BAD


# Lost headers.


def lose_header(log: Log, number: int, raw: bytes = b"x" * SEGMENT_HEADER_BYTES) -> None:
    with log.paths.segment(number).open("r+b") as file:
        file.write(raw)


def test_a_segment_without_its_header_is_read_and_neither_cut_nor_gone_on_with(
    log: Log,
) -> None:
    log.write(1, 1, 2, BAD)
    lose_header(log, 1)
    recovered = log.rebuild()
    assert set(log.known()) == {1, 2}
    assert (recovered.uuid, recovered.headless) == (b"", {1})
    assert recovered.damaged == ["00000001.seg at 0"]
    assert recovered.end == Position(1, 3 * PAGE, 3)
    assert log.size(1) == 4 * PAGE


def test_behind_a_segment_without_its_header_the_log_goes_on(log: Log) -> None:
    log.write(1, 1)
    log.write(2, 2, previous_end=2 * PAGE)
    lose_header(log, 1)
    recovered = log.rebuild()
    assert set(log.known()) == {1, 2}
    assert (recovered.uuid, recovered.headless) == (segment_uuid(VOLUME, 2), {1})


def test_a_lost_header_does_not_say_where_the_segment_before_it_ends(log: Log) -> None:
    log.write(1, 1, 2)
    log.write(2, 3, previous_end=3 * PAGE)
    lose_header(log, 2)
    log.rebuild()
    assert set(log.known()) == {1, 2, 3}


@pytest.mark.parametrize("stranger", ["number", "volume"])
def test_a_header_of_another_place_is_a_lost_one(log: Log, stranger: str) -> None:
    log.write(1, 1)
    other = SegmentHeader(
        volume=b"w" * 16 if stranger == "volume" else VOLUME,
        segment=b"o" * 16,
        number=2 if stranger == "number" else 1,
        first_sequence=0,
        previous_end=0,
        created_at_ms=0,
    )
    lose_header(log, 1, other.encode())
    assert log.rebuild().headless == {1}
    assert set(log.known()) == {1}


def test_a_segment_that_was_only_begun_is_removed(log: Log) -> None:
    log.write(1, 1)
    log.paths.segment(2).write_bytes(b"x" * SEGMENT_HEADER_BYTES)
    recovered = log.rebuild()
    assert not log.paths.segment(2).exists()
    assert (recovered.end, recovered.damaged) == (Position(1, 2 * PAGE, 2), [])
    assert recovered.uuid == segment_uuid(VOLUME, 1)


def test_a_segment_of_nothing_but_a_lost_header_is_passed_over(log: Log) -> None:
    log.write(1, 1)
    log.paths.segment(2).write_bytes(b"x" * 100)
    log.write(3, 3)
    recovered = log.rebuild()
    assert log.paths.segment(2).exists()
    assert recovered.damaged == ["00000002.seg at 0"]
    assert (recovered.end, recovered.records) == (Position(3, 2 * PAGE, 4), 2)
    assert log.told == [(1, 3), (3, 3)]


def test_behind_a_segment_that_was_passed_over_another_one_is_begun(log: Log) -> None:
    log.write(1, 1)
    log.paths.segment(2).write_bytes(b"x" * 100)
    log.paths.segment(3).write_bytes(b"x" * 100)
    recovered = log.rebuild()
    assert not log.paths.segment(3).exists()
    assert (recovered.end, recovered.uuid) == (Position(2, 100, 2), b"")


# What was given back.


def test_holes_count_as_given_back(log: Log) -> None:
    log.write(1, 1, HOLE, 2, HOLE, HOLE, 3)
    log.rebuild()
    (segment,) = log.index.segments()
    assert (segment.size_bytes, segment.punched_bytes) == (7 * PAGE, 3 * PAGE)
    assert segment.live_bytes == 3 * PAGE


def test_holes_count_before_the_end_and_not_behind_it(log: Log) -> None:
    log.write(1, 1, HOLE)
    log.write(2, 2, HOLE, previous_end=3 * PAGE)
    log.punch(1)
    log.rebuild()
    assert [one.punched_bytes for one in log.index.segments()] == [PAGE, 0]
    assert log.size(2) == 2 * PAGE


def test_zeros_that_take_space_are_given_back(log: Log) -> None:
    log.write(1, 1, HOLE, 2)
    log.files.forget()
    log.rebuild()
    assert [call.length for call in log.files.calls if call.name == "punch"] == [PAGE]
    at = log.files.names().index("punch")
    assert log.files.names()[at + 1] == "sync_data"
    log.files.forget()
    log.lose_index()
    log.rebuild()
    assert log.files.names("punch") == [], "there is a hole already"
    assert log.index.segments()[0].punched_bytes == PAGE


@pytest.mark.parametrize("whole", [True, False])
def test_zeros_in_a_segment_that_was_synced_are_told_and_stay(log: Log, whole: bool) -> None:
    """No crash tore a batch there: a header is lost, and what stands behind it is all there is."""
    log.write(1, 1, HOLE, HOLE + BAD, 2)
    log.write(2, 3, previous_end=6 * PAGE)
    recovered = log.rebuild() if whole else log.replay()
    assert recovered.damaged == [f"{log.paths.segment(1).name} at {2 * PAGE}"]
    assert log.files.names("punch") == []
    assert [one.punched_bytes for one in log.index.segments()] == [0, 0]
    assert set(log.known()) == {1, 2, 3}


def test_zeros_that_cannot_be_given_back_still_take_space(log: Log) -> None:
    log.files.can_punch = False
    log.write(1, 1, HOLE, 2)
    log.rebuild()
    assert log.index.segments()[0].punched_bytes == 0


# Marks.


def test_a_mark_counts_whatever_stands_behind_it(log: Log) -> None:
    log.write(1, 1, 2, Marks(3, [gone(1), gone(2, Action.TRASH, 5)]), 4)
    log.rebuild()
    assert set(log.known()) == {2, 4}
    found = log.index.find(ALICE, row(2).shard)
    assert found is not None
    assert (found.state, found.observed_ms) == (ShardState.TRASH, 5)
    assert [one.sequence for one in log.index.doomed()] == [1]
    (marks,) = log.index.marks()
    assert (marks.sequence, marks.place, marks.length) == (3, Place(1, 3 * PAGE), PAGE)


def test_a_shard_that_was_stored_again_outlives_the_mark_of_the_one_before(log: Log) -> None:
    log.write(1, 1, Marks(2, [gone(1)]))
    with log.paths.segment(1).open("ab") as file:
        again = replace(header_of(SIZE, 1, segment_uuid(VOLUME, 1)), sequence=3)
        file.write(again.encode() + record(SIZE, 1)[RECORD_HEADER_BYTES:])
    log.rebuild()
    assert set(log.known()) == {3}


@pytest.mark.parametrize(("met", "stands"), [(0, True), (3, True), (4, False), (9, False)])
def test_a_tombstone_stands_until_all_volumes_have_met(log: Log, met: int, stands: bool) -> None:
    note_met(log.files, log.paths.root, met)
    log.write(1, 1, 2, Marks(3, [gone(1, Action.TOMBSTONE, 5), gone(2)]))
    log.rebuild()
    assert log.known() == {}
    assert (log.index.tombstone(ALICE, row(1).shard) is not None) is stands
    assert log.index.tombstone(ALICE, row(2).shard) is None


def test_a_shard_that_is_known_to_be_damaged_is_still_its_renters(log: Log) -> None:
    log.write(1, 1, 2, Marks(3, [gone(1, Action.QUARANTINE)]))
    log.rebuild()
    assert log.known() == {1: Place(1, PAGE), 2: Place(1, 2 * PAGE)}
    assert damaged(log) == {1}


def test_a_mark_about_a_record_that_was_refused_says_nothing_of_the_older_one(log: Log) -> None:
    """That is sound; but what ends the newer one ends it, too."""
    about = replace(gone(2, Action.QUARANTINE), shard=row(1).shard)
    log.write(1, 1, rotten(2, of=1, flags=MOVED), Marks(3, [about]), 4)
    log.replay()
    assert (set(log.known()), damaged(log)) == ({1, 4}, set())
    log.write(1, 1, rotten(2, of=1, flags=MOVED), Marks(3, [replace(about, action=Action.GONE)]))
    log.lose_index()
    log.replay()
    assert log.known() == {}


@pytest.mark.parametrize("action", [Action.GONE, Action.TOMBSTONE])
def test_what_a_crash_tore_of_a_punching_is_given_back(log: Log, action: Action) -> None:
    log.write(1, rotten(1), Marks(3, [gone(1, action)]))
    log.rebuild()
    assert log.known() == {}
    assert [(one.sequence, one.place) for one in log.index.doomed()] == [(1, Place(1, PAGE))]


def test_other_marks_of_a_damaged_shard_leave_it_damaged(log: Log) -> None:
    log.write(1, rotten(1), Marks(3, [gone(1, Action.TRASH), gone(1, Action.UNDELETE)]))
    log.rebuild()
    assert damaged(log) == {1}


def test_a_mark_of_another_shard_under_this_sequence_means_another_one(log: Log) -> None:
    other = replace(gone(1, Action.QUARANTINE), shard=row(2).shard)
    log.write(1, rotten(1), Marks(3, [other, replace(other, action=Action.GONE)]))
    log.rebuild()
    assert (set(log.known()), log.index.doomed()) == ({1}, [])


# In how many steps.


@pytest.mark.parametrize("at_once", [1, 2, 3, 100])
@pytest.mark.parametrize("whole", [True, False])
def test_in_however_many_steps_it_is_the_same(
    log: Log, monkeypatch: pytest.MonkeyPatch, at_once: int, whole: bool
) -> None:
    name = "_REBUILT_PER_TRANSACTION" if whole else "_REPLAYED_PER_TRANSACTION"
    monkeypatch.setattr(recovery_module, name, at_once)
    log.write(1, 1, 2, HOLE, 3, Marks(4, [gone(1), gone(2)]), 5, BAD, 6, HOLE, 7)
    log.write(2, 8, 9, Marks(10, [gone(8)]), previous_end=12 * PAGE)
    log.punch(1)
    recovered = log.rebuild() if whole else log.replay()
    assert set(log.known()) == {3, 5, 6, 7, 9}
    assert [one.sequence for one in log.index.doomed()] == [1, 2, 8]
    sizes = [(one.size_bytes, one.punched_bytes) for one in log.index.segments()]
    assert sizes[0][1] == 2 * PAGE
    assert sizes[1] == (4 * PAGE, 0)
    assert recovered.end == Position(2, 4 * PAGE, 11)
    assert recovered.records == 10


@pytest.mark.parametrize("at_once", [1, 2, 3, 4, 100])
def test_a_damaged_one_is_compared_with_what_an_earlier_segment_holds(
    log: Log, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """In the order of the log, over all segments that are entered together."""
    monkeypatch.setattr(recovery_module, "_REBUILT_PER_TRANSACTION", at_once)
    log.write(1, 1, 2, 3)
    late = [rotten(5, of=1, segment=2), rotten(6, of=7, segment=2)]
    log.write(2, 4, *late, 7, Marks(8, [gone(3)]), previous_end=4 * PAGE)
    log.rebuild()
    assert set(log.known()) == {1, 2, 4, 7}
    assert damaged(log) == set()
    assert [one.sequence for one in log.index.doomed()] == [3, 6]
    assert [one.punched_bytes for one in log.index.segments()] == [0, PAGE]


def test_no_sequence_is_given_twice_whatever_the_last_segment_has_lost(log: Log) -> None:
    """A header says which ones the segments before it have."""
    log.write(1, 1, 2)
    log.write(2, HOLE, first_sequence=1000, previous_end=3 * PAGE)
    log.paths.segment(3).write_bytes(BAD + HOLE)
    assert log.rebuild().end.next_sequence == 1000


def test_what_has_gathered_is_entered_before_it_takes_much_memory(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write(1, 1, 2, Marks(4, [gone(1)]), 5)
    monkeypatch.setattr(recovery_module, "_GATHERED_BYTES_MAX", 400)
    said = list[str]()
    log.index._writer.set_trace_callback(said.append)
    log.rebuild()
    log.index._writer.set_trace_callback(None)
    # The segment is opened; two shards are little, with marks it is much; and what is left.
    assert said.count("COMMIT") == 3
    assert set(log.known()) == {2, 5}


def more_commits(log: Log, monkeypatch: pytest.MonkeyPatch, at_once: int) -> int:
    """Return how many transactions a replay takes more than if all could be in one."""
    commits = list[int]()
    for number in (1000, at_once):
        monkeypatch.setattr(recovery_module, "_REPLAYED_PER_TRANSACTION", number)
        said = list[str]()
        log.lose_index()
        log.index._writer.set_trace_callback(said.append)
        log.replay()
        log.index._writer.set_trace_callback(None)
        commits.append(said.count("COMMIT"))
    return commits[1] - commits[0]


def test_many_records_are_entered_in_steps(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    many = Marks(3, [gone(2, Action.QUARANTINE), gone(2, Action.UNDELETE)])
    log.write(1, BAD, 1, BAD, many, BAD, 4, BAD, 5, BAD, 6)
    # One shard and marks that count as three; and three more shards.
    assert more_commits(log, monkeypatch, at_once=3) == 2


def test_records_that_follow_each_other_count_too(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write(1, 1, 2, BAD, 3, 4, 5)
    # Two shards; and three more.
    assert more_commits(log, monkeypatch, at_once=2) == 2


def test_the_write_ahead_log_is_kept_short_meanwhile(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "WAL_BYTES_MAX", 0)
    wal = log.paths.index.with_name("index.sqlite-wal")
    part_of(log, 4, log.paths.shard(bytes([4]) * 16))
    log.rebuild()
    assert (set(log.known()), wal.stat().st_size) == ({4}, 0)
    log.write(1, 1)
    log.replay()
    assert (set(log.known()), wal.stat().st_size) == ({1, 4}, 0)


# Large shards.


def recovery_of(log: Log) -> Recovery:
    return Recovery(log.files, log.paths, VOLUME, log.index)


def test_stored_large_shards_are_entered_once(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery_module, "_PARTS_PER_TRANSACTION", 2)
    parts = [part_of(log, sequence) for sequence in (4, 9, 2, 3, 1)]
    assert recovery_of(log).adopt(parts, staged=True) == 9
    assert log.known() == {n: Place(0, 0, bytes([n]) * 16) for n in (1, 2, 3, 4, 9)}
    assert sorted(log.index.staged()) == [bytes([n]) * 16 for n in (1, 2, 3, 4, 9)]
    assert log.index.position().next_sequence == 10
    assert recovery_of(log).adopt(parts, staged=True) == 9
    assert recovery_of(log).adopt([], staged=True) == 0


def test_what_lies_on_its_shelf_is_not_staged_and_was_synced(log: Log) -> None:
    log.files.forget()
    assert recovery_of(log).adopt([part_of(log, 4)], staged=False) == 4
    assert (log.index.staged(), log.files.names("sync_data")) == ([], [])
    assert set(log.known()) == {4}


def test_a_large_shard_that_is_to_be_removed_is_not_entered_again(log: Log) -> None:
    part = part_of(log, 4)
    recovery_of(log).adopt([part], staged=False)
    with log.index.transaction() as transaction:
        transaction.apply(mark_of(row_of(part.header, Place(0, 0)), Action.GONE, 0, 0))
    recovery_of(log).adopt([part], staged=True)
    assert (log.known(), log.index.staged()) == ({}, [])


def test_a_rebuild_enters_what_lies_on_the_shelves_and_tells_what_is_damaged(log: Log) -> None:
    for sequence in (4, 5):
        part_of(log, sequence, log.paths.shard(bytes([sequence]) * 16))
    staging = part_of(log, 6, log.paths.shard(bytes([6]) * 16), kind=Kind.STAGING)
    broken = log.paths.shard(bytes([7]) * 16)
    broken.parent.mkdir()
    broken.write_bytes(BAD)
    log.write(1, 1, BAD, 2)
    recovered = log.rebuild()
    assert (set(log.known()), log.index.staged()) == ({1, 2, 4, 5}, [])
    assert recovered.damaged == [
        str(staging.path),
        str(broken),
        f"00000001.seg at {2 * PAGE}",
    ]
    assert recovered.records == 2
    assert recovered.end.next_sequence == 6


def test_a_file_is_what_its_header_says(log: Log) -> None:
    stored = part_of(log, 4)
    assert read_part(log.files, stored.path) == stored
    lease = part_of(log, 5, kind=Kind.STAGING, synced_bytes=100)
    assert read_part(log.files, lease.path) == lease


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": Kind.MARKS},
        {"trailer_bytes": 35},
        {"payload_bytes": 70_000},
        {"synced_bytes": 101},
        {"segment": b"o" * 16},
    ],
)
def test_a_file_whose_header_does_not_fit_is_none(log: Log, fields: dict[str, Any]) -> None:
    assert read_part(log.files, part_of(log, 4, **fields).path) is None


def test_a_file_that_is_cut_off_is_none(log: Log) -> None:
    part = part_of(log, 4)
    raw = part.path.read_bytes()
    assert len(raw) == part.header.record_bytes
    part.path.write_bytes(raw[:-1])
    assert read_part(log.files, part.path) is None


@pytest.mark.parametrize("name", ["nonsense.part", f"{'ab' * 15}.part", f"{'ab' * 17}.part"])
def test_a_file_of_another_name_is_none_and_is_not_read(log: Log, name: str) -> None:
    path = log.paths.staging / name
    path.write_bytes(record(SIZE, 4))
    assert read_part(log.files, path) is None
    assert log.files.names("open_read") == []


def test_a_file_that_cannot_be_read_is_not_called_damaged(log: Log) -> None:
    part = part_of(log, 4)
    log.files.fault = Fault(0, errno.EIO, lambda call: call.name == "pread")
    with pytest.raises(OSError, match="Input/output"):
        read_part(log.files, part.path)


def test_a_segment_has_gone_only_once_that_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forgotten before, it would be back after a crash, and its space be nobody's."""
    paths, files = Paths(tmp_path), OsFiles()
    paths.log.mkdir()
    paths.segment(2).touch()

    def fails(_files: OsFiles, _path: Path) -> None:
        raise OSError(errno.EIO, "sync_directory")

    monkeypatch.setattr(OsFiles, "sync_directory", fails)
    assert gone_segments(files, paths, [2]) == []
    with pytest.raises(OSError, match="sync_directory"):
        gone_segments(files, paths, [1, 2])
    monkeypatch.undo()
    assert gone_segments(files, paths, [1, 2]) == [1]
