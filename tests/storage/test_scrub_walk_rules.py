"""One pass over a volume, and every word that it says: who hears it does nothing about it."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import BLOCK_BYTES
from farmer.storage import scrub_walk
from farmer.storage.damage import Examination
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.handles import Handles, Pin
from farmer.storage.marks import Action, Mark
from farmer.storage.places import Place, Row, Segment
from farmer.storage.scrub_check import CHECK_S_MAX
from farmer.storage.scrub_notes import Notes
from farmer.storage.scrub_walk import Walk
from farmer.storage.watch import HUNG_S
from tests.storage.bench import ALICE, BOB, MIB, Farm, noise
from tests.storage.recording import RecordingFiles
from tests.storage.rot import file_of, flip, overwrite, rot, row_of, volume_of

SMALL, LARGE = 9000, MIB + 5


class Heard:
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.sound_shards: list[ShardId] = []
        self.bad: list[tuple[ShardId, tuple[int, ...], bool]] = []
        self.rest: list[str] = []
        self.rows: list[Row | None] = []
        self.marks: list[Mark] = []

    def sound(self, row: Row) -> None:
        self.sound_shards.append(row.shard)

    def damaged(self, row: Row, found: Examination) -> None:
        self.bad.append((row.shard, found.bad_blocks, found.is_record_sound))

    def disagree(self, what: str, row: Row | None, marks: list[Mark]) -> None:
        self.rest.append(f"disagree: {what}")
        self.rows.append(row)
        self.marks += marks

    def marks_damaged(self, what: str) -> None:
        self.rest.append(f"marks: {what}")

    def segment_damaged(self, segment: Segment) -> None:
        self.rest.append(f"segment {segment.number}")

    def index_damaged(self, what: str) -> None:
        self.rest.append(f"index: {what}")


class Pass:
    """A pass over a farm's one volume, step by step."""

    def __init__(self, farm: Farm, phase: str = "log", **notes: int) -> None:
        volume = volume_of(farm)
        self.volume = volume
        self.notes = Notes(phase=phase)
        for name, value in notes.items():
            setattr(self.notes, name, value)
        self.heard = Heard()
        self.is_reclaiming = False
        walk = Walk(
            volume.ground, volume.handles, self.notes, self.heard, lambda: self.is_reclaiming
        )
        self.steps = walk.steps()

    def until(self, is_there: Callable[[], bool]) -> None:
        while not is_there():
            next(self.steps)

    def finish(self) -> Heard:
        for _ in self.steps:
            pass
        return self.heard


def heard(farm: Farm) -> Heard:
    return Pass(farm).finish()


def segment_of(farm: Farm) -> Path:
    return farm.path / "log/00000001.seg"


def change(farm: Farm, statement: str, *values: object) -> int:
    """Change the index behind the engine's back; return how many rows."""
    path = farm.path / "index.sqlite"
    with closing(sqlite3.connect(path, timeout=20, isolation_level=None)) as sql:
        return sql.execute(statement, values).rowcount


def forget(farm: Farm, shard: ShardId) -> None:
    """Let the index lose a row."""
    assert change(farm, "DELETE FROM shards WHERE shard = ?", shard.raw) == 1


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Farm, RecordingFiles]]:
    """A farm, and the files that it uses."""
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    yield farm, files
    farm.engine.close()


def test_every_sound_shard_is_called_so_once(farm: Farm) -> None:
    shards = [farm.store(noise(size, size)).shard for size in (0, 1, SMALL, 300_000, LARGE)]
    trashed = farm.store(noise(SMALL, "trash")).shard
    farm.delete(trashed)
    farm.delete(farm.store(noise(SMALL, "gone")).shard, erase=True)
    walk = Pass(farm)
    found = walk.finish()
    assert sorted(found.sound_shards, key=str) == sorted([*shards, trashed], key=str)
    assert (found.bad, found.rest) == ([], [])
    assert walk.notes.phase == ""
    assert walk.volume.handles.pinned == 0
    assert dict(walk.volume.ground.health.errors()) == {}


def test_files_and_directories_of_others_on_a_shelf_are_passed_over(farm: Farm) -> None:
    """Though they be named in hexadecimal figures."""
    shard = farm.store(noise(LARGE)).shard
    shelf = farm.path / "shards" / "ab"
    (shelf / "2024").mkdir(parents=True)
    (shelf / "2024.txt").write_bytes(bytes(100))
    found = heard(farm)
    assert (found.sound_shards, found.bad, found.rest) == ([shard], [], [])


def test_a_pass_goes_through_its_phases_and_says_what_it_reads(farm: Farm) -> None:
    farm.store(noise(300_000))
    farm.store(noise(LARGE))
    farm.reopen()
    walk = Pass(farm)
    phases, read_bytes = dict[str, int](), 0
    for step_bytes in walk.steps:
        phases[walk.notes.phase] = phases.get(walk.notes.phase, 0) + step_bytes
        read_bytes += step_bytes
    assert list(phases) == ["log", "files", "rows", "index"]
    assert phases["log"] >= 300_000
    assert phases["files"] == 256
    assert phases["rows"] >= LARGE
    assert phases["index"] == 0
    assert walk.notes.phase == ""


@pytest.mark.parametrize(
    ("phase", "seen"), [("log", 3), ("files", 1), ("rows", 1), ("index", 0), ("", 0)]
)
def test_a_pass_goes_on_in_the_phase_that_was_noted(farm: Farm, phase: str, seen: int) -> None:
    """Large shards are read by the rows, small ones with the log."""
    for number in range(2):
        farm.store(noise(SMALL, number))
    farm.store(noise(LARGE))
    assert len(Pass(farm, phase).finish().sound_shards) == seen


def test_a_pass_goes_on_in_the_segment_and_at_the_record_that_were_noted(farm: Farm) -> None:
    shards = [farm.store(noise(900_000, number)).shard for number in range(6)]
    places = [row_of(farm, shard).place for shard in shards]
    assert places[-1].segment == 2
    last = [shard for shard, place in zip(shards, places, strict=True) if place.segment == 2]
    assert Pass(farm, segment=2).finish().sound_shards == last
    third = Pass(farm, segment=1, offset=places[2].offset)
    assert third.finish().sound_shards == shards[2:]
    assert Pass(farm, segment=3).finish().sound_shards == []
    walk = Pass(farm)
    walk.until(lambda: walk.heard.sound_shards == shards[:3])
    assert (walk.notes.segment, walk.notes.offset) == (1, places[3].offset)


def test_a_pass_goes_on_behind_the_row_that_was_noted(farm: Farm) -> None:
    for number in range(3):
        farm.store(noise(LARGE, number))
    walk = Pass(farm, "rows")
    walk.until(lambda: len(walk.heard.sound_shards) == 2)
    done = walk.heard.sound_shards[1]
    notes = walk.notes
    assert (notes.renter, notes.shard) == (ALICE.raw.hex(), done.raw.hex())
    walk.steps.close()
    assert walk.volume.handles.pinned == 0
    again = Pass(farm, "rows")
    again.notes.renter, again.notes.shard = notes.renter, notes.shard
    assert len(again.finish().sound_shards) == 1


@pytest.mark.parametrize("size", [SMALL, 300_000, LARGE])
@pytest.mark.parametrize("where", ["header", "payload", "tree", "checksums"])
def test_what_is_damaged_is_told_once_with_its_blocks(farm: Farm, size: int, where: str) -> None:
    shard = farm.store(noise(size)).shard
    other = farm.store(noise(SMALL, "other")).shard
    rot(farm, row_of(farm, shard), where)
    found = heard(farm)
    is_payload = where == "payload"
    assert found.bad == [(shard, (0,) if is_payload else (), is_payload)]
    assert (found.sound_shards, found.rest) == ([other], [])


def test_a_record_that_is_not_there_is_told_with_all_its_blocks(farm: Farm) -> None:
    small, large = farm.store(noise(SMALL)).shard, farm.store(noise(LARGE)).shard
    behind = farm.store(noise(SMALL, "behind")).shard
    row = row_of(farm, small)
    overwrite(segment_of(farm), row.place.offset, bytes(row.charge_bytes))
    file_of(farm, row_of(farm, large)).unlink()
    found = heard(farm)
    assert {(shard, len(bad)) for shard, bad, _ in found.bad} == {(small, 1), (large, 17)}
    assert found.sound_shards == [behind]
    assert dict(volume_of(farm).ground.health.errors())["read"] == 2


def test_a_wrong_read_that_does_not_come_again_is_not_told(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = farm.store(noise(SMALL)).shard
    pread, wrong = farm.files.pread, [True]

    def once(fd: int, length: int, offset: int) -> bytes:
        data = pread(fd, length, offset)
        return bytes(len(data)) if length == SMALL and wrong and wrong.pop() else data

    monkeypatch.setattr(farm.files, "pread", once)
    found = heard(farm)
    assert (found.bad, found.sound_shards, wrong) == ([], [shard], [])


def test_one_that_is_known_to_be_damaged_is_told_again_though_its_record_is_sound(
    farm: Farm,
) -> None:
    shard = farm.store(noise(SMALL)).shard
    volume_of(farm).quarantine(row_of(farm, shard))
    found = heard(farm)
    assert found.bad == [(shard, (), True)]
    assert found.sound_shards == []


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_record_that_goes_while_it_is_read_is_not_told(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    shard = farm.store(noise(size)).shard
    farm.reopen()
    rot(farm, row_of(farm, shard), "payload")
    pread, todo = farm.files.pread, [True]

    def deleting(fd: int, length: int, offset: int) -> bytes:
        if length in {SMALL, MIB} and todo and todo.pop():
            farm.delete(shard, erase=True)
        return pread(fd, length, offset)

    monkeypatch.setattr(farm.files, "pread", deleting)
    found = heard(farm)
    assert todo == []
    assert (found.bad, found.sound_shards, found.rest) == ([], [], [])


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("state", ["live", "trash", "undeleted"])
def test_a_record_that_the_index_forgot_is_told_with_its_marks(
    farm: Farm, size: int, state: str
) -> None:
    shard = farm.store(noise(size)).shard
    farm.store(noise(size), BOB)
    if state != "live":
        farm.delete(shard)
    if state == "undeleted":
        farm.engine.undelete(ALICE, shard).result(20)
    farm.delete(farm.store(noise(SMALL, "another")).shard)
    farm.reopen()
    row = row_of(farm, shard)
    change(farm, "DELETE FROM shards WHERE sequence = ?", row.sequence)
    found = heard(farm)
    (said,) = found.rest
    name = "00000001.seg" if size == SMALL else f"{row.place.file.hex()}.seg"
    assert said == f"disagree: shard {shard} at {row.place.offset} of {name} is not in the index"
    (entered,) = found.rows
    assert entered is not None
    assert (entered.shard, entered.place, entered.sequence) == (shard, row.place, row.sequence)
    expected = {
        "live": [],
        "trash": [Action.TRASH],
        "undeleted": [Action.TRASH, Action.UNDELETE],
    }[state]
    assert [mark.action for mark in found.marks] == expected
    assert all((mark.renter, mark.shard) == (ALICE, shard) for mark in found.marks)
    assert found.bad == []
    assert len(found.sound_shards) == 2, "the other renter's, and another one in the trash"


def test_a_forgotten_record_that_is_damaged_is_told_without_a_row(farm: Farm) -> None:
    shard = farm.store(noise(SMALL)).shard
    farm.delete(shard)
    rot(farm, row_of(farm, shard), "payload")
    forget(farm, shard)
    found = heard(farm)
    assert len(found.rest) == 1
    assert (found.rows, found.marks) == ([None], [])


def test_a_forgotten_record_that_is_stored_again_meanwhile_is_no_news(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = noise(SMALL)
    shard = farm.store(data).shard
    forget(farm, shard)
    pread, todo = farm.files.pread, [True]

    def storing(fd: int, length: int, offset: int) -> bytes:
        if length == SMALL and todo and todo.pop():
            farm.store(data)
        return pread(fd, length, offset)

    monkeypatch.setattr(farm.files, "pread", storing)
    found = heard(farm)
    assert todo == []
    assert (found.rest, found.bad) == ([], [])


def test_an_older_record_of_a_shard_that_was_stored_again_is_no_news(tmp_path: Path) -> None:
    """Where no hole can be made it stays in the log until its segment is compacted."""
    farm = Farm(tmp_path, files=RecordingFiles(can_punch=False))
    with closing(farm.engine):
        for _ in range(2):
            shard = farm.store(noise(SMALL)).shard
            farm.delete(shard, erase=True)
        shard = farm.store(noise(SMALL)).shard
        gone = farm.store(noise(SMALL, "gone")).shard
        farm.delete(gone, erase=True)
        found = heard(farm)
    assert (found.sound_shards, found.bad, found.rest) == ([shard], [], [])


def test_marks_that_cannot_be_read_are_told_at_the_end_if_they_are_still_listed(
    farm: Farm,
) -> None:
    shard = farm.store(noise(SMALL)).shard
    farm.delete(shard)
    (marks,) = volume_of(farm).ground.index.marks()
    assert heard(farm).rest == []
    for at in (0, 256 + 50):
        flip(segment_of(farm), marks.place.offset + at)
        found = heard(farm)
        assert found.rest == [f"marks: a record of marks at {marks.place.offset} of segment 1"]
        flip(segment_of(farm), marks.place.offset + at)
    assert heard(farm).rest == []


def test_marks_that_were_being_given_back_or_are_readable_again_are_not_told(farm: Farm) -> None:
    shard = farm.store(noise(SMALL)).shard
    farm.delete(shard)
    (marks,) = volume_of(farm).ground.index.marks()
    flip(segment_of(farm), marks.place.offset + 300)
    walk = Pass(farm)
    walk.is_reclaiming = True
    assert walk.finish().rest == []
    walk = Pass(farm)
    walk.until(lambda: walk.notes.phase == "rows")
    flip(segment_of(farm), marks.place.offset + 300)
    assert walk.finish().rest == []
    flip(segment_of(farm), marks.place.offset + 300)
    walk = Pass(farm)
    walk.until(lambda: walk.notes.phase == "rows")
    assert change(farm, "DELETE FROM marks") == 1
    assert walk.finish().rest == []


@pytest.mark.parametrize("at", [0, 20, 36, 50])
def test_a_segment_whose_header_is_damaged_is_told_and_read_all_the_same(
    farm: Farm, at: int
) -> None:
    shard = farm.store(noise(SMALL)).shard
    flip(segment_of(farm), at)
    found = heard(farm)
    assert found.rest == ["segment 1"]
    assert found.sound_shards == [shard]


@pytest.mark.parametrize("at", [16, 32, 48])
def test_a_sound_header_of_another_volume_segment_or_number_is_a_damaged_one(
    farm: Farm, at: int
) -> None:
    farm.store(noise(SMALL))
    raw = bytearray(segment_of(farm).read_bytes()[:256])
    raw[at + 7] ^= 1
    raw[252:] = crc32(raw[:252]).to_bytes(4, "big")
    overwrite(segment_of(farm), 0, bytes(raw))
    assert heard(farm).rest == ["segment 1"]


def test_a_segment_that_is_gone_costs_its_rows_and_nothing_else(farm: Farm) -> None:
    shards = [farm.store(noise(900_000, number)).shard for number in range(6)]
    first = [shard for shard in shards if row_of(farm, shard).place.segment == 1]
    farm.reopen()
    segment_of(farm).unlink()
    found = heard(farm)
    assert {shard for shard, _, _ in found.bad} == set(first)
    assert set(found.sound_shards) == set(shards) - set(first)


def bad_spot(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, path: Path, spot: int, number: int = errno.EIO
) -> None:
    pread, own = farm.files.pread, path.stat().st_ino

    def bad(fd: int, length: int, offset: int) -> bytes:
        if offset <= spot < offset + length and os.fstat(fd).st_ino == own:
            raise OSError(number, "a bad spot")
        return pread(fd, length, offset)

    monkeypatch.setattr(farm.files, "pread", bad)


@pytest.mark.parametrize("size", [SMALL, 300_000, LARGE])
def test_a_bad_spot_is_told_of_its_block_and_what_stands_behind_is_read(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    shard, behind = farm.store(noise(size)).shard, farm.store(noise(SMALL, "behind")).shard
    row, last = row_of(farm, shard), (size - 1) // BLOCK_BYTES
    spot = row.place.offset + 256 + last * BLOCK_BYTES + 2
    bad_spot(farm, monkeypatch, file_of(farm, row), spot)
    found = heard(farm)
    assert found.bad == [(shard, (last,), True)]
    assert behind in found.sound_shards


def test_behind_a_bad_spot_in_a_header_rows_show_what_the_log_did_not(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = [farm.store(noise(SMALL, number)).shard for number in range(3)]
    row = row_of(farm, shards[1])
    bad_spot(farm, monkeypatch, segment_of(farm), row.place.offset + 9)
    found = heard(farm)
    assert found.bad == [(shards[1], (), False)]
    assert {shards[0], shards[2]} <= set(found.sound_shards)
    assert dict(volume_of(farm).ground.health.errors())["read"] >= 1


def test_a_disk_that_fails_otherwise_ends_the_pass_and_nothing_stays_pinned(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm.store(noise(SMALL))
    bad_spot(farm, monkeypatch, segment_of(farm), 5000, errno.ENODEV)
    walk = Pass(farm)
    with pytest.raises(VolumeUnavailableError, match=r"00000001\.seg could not be read"):
        walk.finish()
    assert (walk.heard.bad, walk.volume.handles.pinned) == ([], 0)


def test_a_file_that_is_missing_with_the_whole_disk_blames_no_shard(farm: Farm) -> None:
    farm.store(noise(LARGE))
    farm.reopen()
    marker = farm.path / "farmer-volume.json"
    files = list((farm.path / "shards").rglob("*.seg"))
    for path in (*files, marker):
        path.rename(path.with_suffix(".away"))
    walk = Pass(farm, "rows")
    with pytest.raises(VolumeUnavailableError, match="the disk could not be read"):
        walk.finish()
    assert walk.heard.bad == []
    for path in (*files, marker):
        path.with_suffix(".away").rename(path)


def test_files_that_are_none_of_ours_are_passed_over(farm: Farm) -> None:
    shard = farm.store(noise(LARGE)).shard
    farm.reopen()
    own = file_of(farm, row_of(farm, shard))
    shelf = own.parent
    (shelf / "notes.txt").write_bytes(b"nobody's")
    (shelf / ("ab" * 16 + ".seg")).write_bytes(own.read_bytes())
    (shelf / ("cd" * 16 + ".seg")).write_bytes(b"")
    found = heard(farm)
    assert (found.sound_shards, found.bad, found.rest) == ([shard], [], [])


def test_shelves_are_gone_through_from_the_one_that_was_noted(farm: Farm) -> None:
    shard = farm.store(noise(LARGE)).shard
    farm.reopen()
    shelf = int(file_of(farm, row_of(farm, shard)).parent.name, 16)
    forget(farm, shard)
    assert len(Pass(farm, "files", shelf=shelf).finish().rest) == 1
    assert Pass(farm, "files", shelf=shelf + 1).finish().rest == []
    walk = Pass(farm, "files")
    walk.finish()
    assert walk.notes.shelf == 256


def test_what_is_read_again_comes_from_the_disk_and_not_from_memory(
    watched: tuple[Farm, RecordingFiles],
) -> None:
    farm, files = watched
    farm.store(noise(SMALL))
    large = farm.store(noise(LARGE)).shard
    farm.reopen()
    own = file_of(farm, row_of(farm, large)).name
    files.forget()
    assert len(heard(farm).sound_shards) == 2
    uncached = [(call.path, call.length) for call in files.calls if call.name == "uncache"]
    assert uncached == [("00000001.seg", 0), (own, row_of(farm, large).charge_bytes)]
    small = next(row for row in volume_of(farm).ground.index.some(None, 9) if not row.place.file)
    rot(farm, small, "payload")
    files.forget()
    assert len(heard(farm).bad) == 1
    uncached = [(call.path, call.length) for call in files.calls if call.name == "uncache"]
    assert (small.place.segment, ("00000001.seg", small.charge_bytes) in uncached) == (1, True)


def test_a_damaged_index_is_told(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub_walk, "check_database", lambda _path, **_other: "a page is lost")
    assert heard(farm).rest == ["index: a page is lost"]


def test_a_check_of_the_index_that_never_ends_is_noticed_like_any_call(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, noted = volume_of(farm).ground.watch, list[str]()

    def checking(_path: Path, **_other: object) -> str:
        noted.extend(call.what for call in watch.calls.values())
        return ""

    monkeypatch.setattr(scrub_walk, "check_database", checking)
    heard(farm)
    assert noted == ["check of the index"]
    assert not watch.calls
    assert CHECK_S_MAX * 2 <= HUNG_S, "one that is broken off in time hangs not"


def test_more_rows_than_are_asked_for_at_once_are_all_looked_at(farm: Farm) -> None:
    """None of their records is in the log: each is told."""
    row = row_of(farm, farm.store(noise(10)).shard)
    with volume_of(farm).ground.index.transaction() as transaction:
        for number in range(70):
            place = replace(row.place, offset=row.place.offset + 4096 * (number + 1))
            shard = ShardId(number.to_bytes(32, "big"))
            other = replace(row, shard=shard, place=place, sequence=row.sequence + number + 1)
            transaction.put(other)
    found = heard(farm)
    assert len(found.bad) == 70
    assert found.sound_shards == [row.shard]


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_file_that_is_known_or_gone_when_it_is_looked_at_again_is_no_news(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, is_gone: bool
) -> None:
    shard = farm.store(noise(LARGE)).shard
    farm.reopen()
    row = row_of(farm, shard)
    path, index, todo = file_of(farm, row), volume_of(farm).ground.index, [True]
    forget(farm, shard)
    pin = Handles.pin

    def entering(handles: Handles, place: Place) -> Pin:
        pinned = pin(handles, place)
        if place.file and todo and todo.pop():
            if is_gone:
                path.unlink()
                return pinned
            with index.transaction() as transaction:
                transaction.correct(row)
        return pinned

    monkeypatch.setattr(Handles, "pin", entering)
    found = heard(farm)
    assert todo == []
    assert (found.rest, found.bad) == ([], [])


def test_a_pass_leaves_no_file_open(tmp_path: Path) -> None:
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    with closing(farm.engine):
        farm.store(noise(SMALL))
        farm.store(noise(LARGE))
    with closing(farm.open()):
        heard(farm)
        held = len(files.is_open)
        for _ in range(3):
            heard(farm)
        assert len(files.is_open) <= held
    assert not files.is_open
