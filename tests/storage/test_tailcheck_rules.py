"""A doubtful stretch of the log that is read again, one step after the other."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from farmer.model.shard import RECORD_HEADER_BYTES, ShardState
from farmer.storage import tailcheck
from farmer.storage.log import Tail, marks_bytes
from farmer.storage.records import SEGMENT_HEADER_BYTES, segment_uuid
from farmer.storage.tailcheck import Doubt, TailCheck
from farmer.storage.volume import Volume
from tests.storage.bench import ALICE, Farm, noise
from tests.storage.recording import Always, Fault, RecordingFiles

PAGE = 4096
COUNT = 8
"""Records of one page each, from the segment's header on."""


class Street:
    """One segment with some records, and the steps that were asked for."""

    def __init__(self, folder: Path) -> None:
        self.files = RecordingFiles()
        self.farm = Farm(folder, files=self.files)
        self.shards = [self.farm.store(noise(2000, number)).shard for number in range(COUNT)]
        self.volume: Volume = self.farm.engine.opened()[0]
        self.path = self.volume.ground.paths.segment(1)
        self.asked: list[TailCheck] = []
        uuid = segment_uuid(self.volume.ground.volume, 1)
        self.doubt = Doubt.of(Tail(1, uuid, -1, PAGE * (1 + COUNT)))

    def harm(self, *numbers: int, at: int = RECORD_HEADER_BYTES + 5) -> None:
        with self.path.open("r+b") as file:
            for number in numbers:
                file.seek(PAGE * (1 + number) + at)
                byte = file.read(1)[0]
                file.seek(-1, 1)
                file.write(bytes([byte ^ 1]))

    def step(self, doubt: Doubt | None = None) -> list[int]:
        """Do one step; return which shards are damaged by now."""
        check = TailCheck(self.volume.ground, doubt or self.doubt, self.asked.append)
        self.volume.writer.submit(check).result(20)
        return self.damaged()

    def go_on(self) -> list[int]:
        """Do the step that was asked for."""
        (check,) = self.asked
        self.asked.clear()
        self.volume.writer.submit(check).result(20)
        return self.damaged()

    def damaged(self) -> list[int]:
        rows = (self.volume.find(ALICE, shard) for shard in self.shards)
        return [number for number, row in enumerate(rows) if row is not None and row.is_damaged]

    def counted(self, kind: str) -> int:
        return dict(self.volume.ground.health.errors()).get(kind, 0)

    def rest(self) -> int:
        """Return the number of the record at which the next step begins."""
        (check,) = self.asked
        return check._doubt.start // PAGE - 1


@pytest.fixture
def street(tmp_path: Path) -> Iterator[Street]:
    street = Street(tmp_path)
    yield street
    street.farm.engine.close()


def test_all_that_was_acknowledged_of_a_segment_is_in_doubt(street: Street) -> None:
    assert (street.doubt.number, street.doubt.start) == (1, SEGMENT_HEADER_BYTES)
    assert street.doubt.end == street.path.stat().st_size


def test_what_is_sound_stays_and_is_read_from_the_disk_itself(street: Street) -> None:
    street.files.forget()
    before = dict(street.files.is_open)
    assert street.step() == []
    assert (street.asked, street.files.is_open) == ([], before)
    uncached = [call.length for call in street.files.calls if call.name == "uncache"]
    assert uncached == [COUNT * PAGE]
    assert street.counted("corrupt") == street.counted("read") == 0


def test_what_is_damaged_is_put_into_quarantine_durably(street: Street) -> None:
    street.harm(0, 3, 4, COUNT - 1)
    assert street.step() == [0, 3, 4, COUNT - 1]
    assert street.asked == []
    assert street.counted("corrupt") == 4
    row = street.volume.find(ALICE, street.shards[3])
    assert row is not None and row.state is ShardState.QUARANTINED
    street.farm.engine.close()
    for path in street.farm.path.glob("index.sqlite*"):
        path.unlink()
    street.farm.open()
    street.volume = street.farm.engine.opened()[0]
    assert street.damaged() == [0, 3, 4, COUNT - 1]


def test_what_was_known_to_be_damaged_is_no_news(street: Street) -> None:
    street.harm(2)
    for _ in range(2):
        street.step()
    assert (street.damaged(), street.counted("corrupt")) == ([2], 1)


def test_what_is_in_the_trash_stays_there(street: Street) -> None:
    street.farm.delete(street.shards[2])
    street.harm(2)
    assert street.step() == [2]
    row = street.volume.find(ALICE, street.shards[2])
    assert row is not None and row.state is ShardState.TRASH


def test_what_is_in_the_stretch_alone_is_looked_at(street: Street) -> None:
    street.harm(0, 2, 4)
    middle = replace(street.doubt, start=PAGE * 2, end=PAGE * 4)
    street.files.forget()
    assert street.step(middle) == [2]
    uncached = [call.length for call in street.files.calls if call.name == "uncache"]
    assert uncached == [2 * PAGE]


def test_a_lost_header_is_found_by_where_the_index_says_that_a_record_is(street: Street) -> None:
    street.harm(3, 4, at=40)
    assert street.step() == [3, 4]


def test_a_step_ends_with_the_record_that_fills_it(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tailcheck, "STEP_BYTES", 3 * PAGE)
    street.harm(1, 3, 6)
    assert (street.step(), street.rest()) == ([1], 3)
    assert (street.go_on(), street.rest()) == ([1, 3], 6)
    assert street.go_on() == [1, 3, 6]
    assert street.asked == []


def test_a_step_that_is_not_full_goes_on(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailcheck, "STEP_BYTES", 3 * PAGE + 1)
    street.step()
    assert street.rest() == 4


def test_a_step_may_damage_only_so_many_and_the_next_goes_on(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tailcheck, "_DAMAGED_MAX", 2)
    street.harm(1, 2, 3, 5, 6, 7)
    seen = [street.step()]
    while street.asked:
        assert len(seen) < COUNT
        seen.append(street.go_on())
    assert seen[:3] == [[1, 2], [1, 2, 3, 5], [1, 2, 3, 5, 6, 7]]
    assert street.counted("corrupt") == 6


def test_what_was_given_back_behind_damage_is_no_place_to_go_on_from(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tailcheck, "_DAMAGED_MAX", 1)
    street.farm.delete(street.shards[2], erase=True)
    street.harm(1, 5)
    assert street.step() == [1]
    while street.asked:
        street.go_on()
    assert street.damaged() == [1, 5]
    assert street.counted("corrupt") == 2


def test_a_step_says_how_much_it_may_touch(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each shard by two marks at most."""
    monkeypatch.setattr(tailcheck, "_DAMAGED_MAX", 1000)
    check = TailCheck(street.volume.ground, street.doubt, street.asked.append)
    assert (check.rows, check.log_bytes) == (1000, marks_bytes(2000))


def test_rows_are_asked_for_a_stretch_at_a_time(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damage that is longer than that is found to its end, and each shard once."""
    monkeypatch.setattr(tailcheck, "STEP_BYTES", 3 * PAGE)
    street.harm(*range(1, 8), at=40)
    assert street.step() == list(range(1, 8))
    assert street.counted("corrupt") == 7


def test_what_cannot_be_read_is_left_to_the_scrub_and_the_rest_is_looked_at(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tailcheck, "STEP_BYTES", 3 * PAGE)
    street.harm(1, 4)
    street.files.fault = Fault(
        0, errno.EIO, lambda call: (call.name, call.path) == ("open_read", street.path.name)
    )
    assert street.step() == []
    assert street.counted("read") == 1
    assert street.rest() == 3
    assert street.go_on() == [4]


def test_a_failing_read_never_leads_back(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    """To where it was, for ever: the last step ends at the end, or behind it."""
    monkeypatch.setattr(tailcheck, "STEP_BYTES", 100 * PAGE)

    street.files.fault = Always(errno.EIO, lambda call: call.name == "open_read")
    assert street.step() == []
    street.files.fault = None
    assert (street.asked, street.counted("read")) == ([], 1)


def test_a_segment_that_was_compacted_away_holds_nothing_any_more(street: Street) -> None:
    assert street.step(replace(street.doubt, number=77)) == []
    assert street.asked == []
    assert street.counted("read") == 0
