"""What is done about one finding, and what an owner is told of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import ShardState
from farmer.model.status import Alert
from farmer.storage.damage import Examination, examine
from farmer.storage.errors import NoSpaceError, ShardNotFoundError, VolumeUnavailableError
from farmer.storage.journal import Crossers
from farmer.storage.marks import Action, Mark
from farmer.storage.places import Row, Segment
from farmer.storage.scrub_notes import Notes
from farmer.storage.scrub_reactions import Reactions
from farmer.storage.upload import LargeUpload, SmallUpload, Wanted
from tests.storage.bench import ALICE, Farm, noise
from tests.storage.rot import file_of, flip, rot, row_of, volume_of

SIZE = 9000


class Bench:
    """One shard of a farm, and what is done about it."""

    def __init__(self, farm: Farm) -> None:
        self.farm = farm
        self.data = noise(SIZE)
        self.shard = farm.store(self.data).shard
        self.volume = volume_of(farm)
        self.notes = Notes(phase="log")
        self.reactions = Reactions(self.volume, self.notes)

    @property
    def row(self) -> Row:
        return row_of(self.farm, self.shard)

    @property
    def state(self) -> ShardState:
        return self.farm.engine.stat(ALICE, self.shard).state

    @property
    def counts(self) -> tuple[int, int, int, int]:
        notes = self.notes
        return notes.checked, notes.damaged, notes.mended, notes.disagreements

    def examined(self) -> Examination:
        raw = file_of(self.farm, self.row).read_bytes()[self.row.place.offset :]
        return examine(lambda offset, length: raw[offset : offset + length], self.row)

    def damage(self, where: str) -> None:
        """Let it rot, and be found so."""
        rot(self.farm, self.row, where)
        self.reactions.damaged(self.row, self.examined())

    def alert(self) -> Alert:
        (alert,) = self.volume.ground.health.alerts()
        return alert

    def errors(self) -> dict[str, int]:
        return dict(self.volume.ground.health.errors())


@pytest.fixture
def bench(farm: Farm) -> Iterator[Bench]:
    yield Bench(farm)


def test_a_sound_shard_is_counted_and_that_is_all(bench: Bench) -> None:
    bench.reactions.sound(bench.row)
    assert bench.counts == (1, 0, 0, 0)
    assert bench.volume.ground.health.alerts() == ()


def test_damaged_blocks_go_into_quarantine_and_are_remembered(bench: Bench) -> None:
    sequence = bench.row.sequence
    bench.damage("payload")
    assert bench.counts == (1, 1, 0, 0)
    assert bench.state is ShardState.QUARANTINED
    known = bench.volume.examined.find(sequence)
    assert known is not None
    assert known.bad_blocks == (0,)
    assert bench.errors() == {"corrupt": 1}
    alert = bench.alert()
    assert (alert.name, alert.command) == ("ScrubFoundDamage", "farmer scrub status")
    assert "of 1 shards read in this pass 1 have damaged blocks, 0 were mended" in alert.message


def test_damage_that_is_known_is_counted_in_the_pass_but_not_as_another_error(
    bench: Bench,
) -> None:
    bench.damage("payload")
    marks = len(bench.volume.ground.index.marks())
    bench.reactions.damaged(bench.row, bench.examined())
    assert bench.counts == (2, 2, 0, 0)
    assert bench.errors() == {"corrupt": 1}
    assert len(bench.volume.ground.index.marks()) == marks, "it is in quarantine already"


@pytest.mark.parametrize("where", ["header", "tree", "checksums"])
def test_damage_beside_the_bytes_is_mended_without_the_renter(bench: Bench, where: str) -> None:
    before = bench.row
    bench.damage(where)
    assert bench.counts == (1, 0, 1, 0)
    assert bench.state is ShardState.LIVE
    assert bench.row.sequence > before.sequence
    assert bench.examined().is_sound
    assert "corrupt" in bench.errors()
    assert "0 have damaged blocks, 1 were mended" in bench.alert().message


def test_one_in_the_trash_is_not_mended_there(bench: Bench) -> None:
    bench.farm.delete(bench.shard)
    before = bench.row
    bench.damage("tree")
    assert bench.counts == (1, 1, 0, 0)
    assert (bench.row.state, bench.row.sequence) == (ShardState.TRASH, before.sequence)
    assert bench.row.is_damaged


def test_one_that_is_crossing_to_another_volume_is_not_mended_here(bench: Bench) -> None:
    bench.volume.journal.open = Crossers(bytes(16), bytes(16), frozenset({(ALICE, bench.shard)}))
    before = bench.row
    bench.damage("tree")
    assert bench.counts == (1, 1, 0, 0)
    assert bench.row.sequence == before.sequence
    bench.volume.journal.settle()


def test_one_that_is_sound_by_now_counts_as_mended(bench: Bench) -> None:
    before = bench.row
    found = replace(bench.examined(), is_record_sound=False)
    bench.reactions.damaged(before, found)
    assert bench.counts == (1, 0, 1, 0)
    assert bench.row == before


def test_one_whose_bytes_were_struck_meanwhile_goes_into_quarantine(bench: Bench) -> None:
    rot(bench.farm, bench.row, "tree")
    found = bench.examined()
    assert found.bad_blocks == ()
    rot(bench.farm, bench.row, "payload")
    bench.reactions.damaged(bench.row, found)
    assert bench.counts == (1, 1, 0, 0)
    assert bench.state is ShardState.QUARANTINED
    assert bench.farm.engine.usage(ALICE).reserved_bytes == 0


def test_one_that_cannot_be_written_now_goes_into_quarantine(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: Any) -> Any:
        raise NoSpaceError(1, 0)

    monkeypatch.setattr(bench.volume.uploads, "begin_anew", full)
    bench.damage("tree")
    assert bench.counts == (1, 1, 0, 0)
    assert bench.state is ShardState.QUARANTINED
    assert bench.farm.read(bench.shard) == bench.data


def test_one_that_its_renter_deletes_meanwhile_stays_deleted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_anew = bench.volume.uploads.begin_anew

    def deleting(wanted: Wanted) -> SmallUpload | LargeUpload:
        upload = begin_anew(wanted)
        bench.farm.delete(bench.shard, erase=True)
        return upload

    monkeypatch.setattr(bench.volume.uploads, "begin_anew", deleting)
    bench.damage("tree")
    with pytest.raises(ShardNotFoundError):
        bench.farm.engine.stat(ALICE, bench.shard)


def mark_of(bench: Bench, action: Action, sequence: int) -> Mark:
    return Mark(
        action=action,
        at_ms=bench.farm.clocks.now_ms + 1000,
        observed_ms=5,
        renter=ALICE,
        shard=bench.shard,
        sequence=sequence,
    )


def test_what_the_index_forgot_is_entered_with_what_became_of_it(bench: Bench) -> None:
    row = bench.row
    with bench.volume.ground.index.transaction() as transaction:
        transaction.apply(mark_of(bench, Action.GONE, row.sequence))
    with pytest.raises(ShardNotFoundError):
        bench.farm.engine.stat(ALICE, bench.shard)
    marks = [mark_of(bench, Action.TRASH, row.sequence)]
    bench.reactions.disagree("a shard is not in the index", row, marks)
    assert bench.counts == (0, 0, 0, 1)
    assert bench.state is ShardState.TRASH
    alert = bench.alert()
    assert (alert.name, alert.command) == (
        "IndexDisagrees",
        f"farmer volume rebuild {bench.farm.path}",
    )
    assert "a shard is not in the index. It was entered again." in alert.message


def test_what_is_damaged_too_is_told_and_not_entered(bench: Bench) -> None:
    before = bench.row
    bench.reactions.disagree("a shard is not in the index", None, [])
    assert bench.counts == (0, 0, 0, 1)
    assert "It is damaged, too." in bench.alert().message
    assert bench.row == before


@pytest.mark.parametrize(("newer", "is_entered"), [(-1, False), (0, True), (1, True)])
def test_only_a_record_that_is_no_older_than_what_is_known_is_entered(
    bench: Bench, newer: int, is_entered: bool
) -> None:
    row = bench.row
    said = replace(row, sequence=row.sequence + newer, stored_at_ms=1)
    bench.reactions.disagree("a shard", said, [mark_of(bench, Action.TRASH, said.sequence)])
    assert bench.row.stored_at_ms == (1 if is_entered else row.stored_at_ms)
    assert bench.state is (ShardState.TRASH if is_entered else ShardState.LIVE)


def test_damaged_marks_are_told(bench: Bench) -> None:
    bench.reactions.marks_damaged("a record of marks at 4096 of segment 1")
    assert bench.counts == (0, 0, 0, 1)
    alert = bench.alert()
    assert (alert.name, alert.command) == ("LogDamaged", "dmesg | tail")
    assert f"On {bench.farm.path} a record of marks at 4096 of segment 1" in alert.message


def segment(bench: Bench) -> Segment:
    found = bench.volume.ground.index.segment(bench.row.place.segment)
    assert found is not None
    return found


def test_what_a_damaged_segment_holds_is_written_again_elsewhere(farm: Farm) -> None:
    one = Bench(farm)
    for number in range(6):
        farm.store(noise(900_000, number))
    assert segment(one).number == 1
    flip(farm.path / "log/00000001.seg", 20)
    one.reactions.segment_damaged(segment(one))
    assert one.counts == (0, 0, 0, 1)
    assert one.row.place.segment != 1
    assert farm.read(one.shard) == one.data
    alert = one.alert()
    assert (alert.name, alert.command) == ("LogDamaged", "dmesg | tail")
    assert "segment 1 is damaged; what it held was written again elsewhere" in alert.message


@pytest.mark.parametrize("error", [None, VolumeUnavailableError("full"), OSError("no")])
def test_a_damaged_segment_that_cannot_be_emptied_is_told_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    def rewrite(_number: int) -> bool:
        if error is not None:
            raise error
        return False

    monkeypatch.setattr(bench.volume.reclaimer, "rewrite", rewrite)
    bench.reactions.segment_damaged(segment(bench))
    assert bench.counts == (0, 0, 0, 1)
    assert "segment 1 is damaged; its shards are readable" in bench.alert().message


def test_a_damaged_index_is_made_again_at_the_next_start(bench: Bench, farm: Farm) -> None:
    bench.reactions.index_damaged("a page is lost")
    assert bench.counts == (0, 0, 0, 1)
    alert = bench.alert()
    assert (alert.name, alert.command) == ("IndexDamaged", "")
    # By what, depends on how it is run: as one of several units, or by hand.
    assert "so restart the farmer" in alert.message
    assert f"The index of {farm.path} is damaged (a page is lost)" in alert.message
    farm.engine.close()
    with closing(sqlite3.connect(farm.path / "index.sqlite", isolation_level=None)) as sql:
        assert sql.execute("DELETE FROM shards").rowcount == 1
    farm.open()
    assert farm.read(bench.shard) == bench.data


def test_all_that_a_pass_found_is_told_together(bench: Bench, farm: Farm) -> None:
    others = [farm.store(noise(SIZE, number)).shard for number in range(2)]
    bench.reactions.sound(bench.row)
    for shard, where in ((others[0], "payload"), (others[1], "tree")):
        other = Bench.__new__(Bench)
        other.__dict__ |= bench.__dict__ | {"shard": ShardId(shard.raw)}
        other.damage(where)
    assert bench.counts == (3, 1, 1, 0)
    said = "of 3 shards read in this pass 1 have damaged blocks, 1 were mended"
    assert said in bench.alert().message
