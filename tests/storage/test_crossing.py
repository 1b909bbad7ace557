"""Who waits for whom while a shard goes from one volume to another."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from farmer.model.ids import ContractId, ShardId
from farmer.model.shard import ShardState, Usage
from farmer.storage import crossing, ferry
from farmer.storage.crossing import LOOKS, Crossing
from farmer.storage.directory import MARKER_NAME
from farmer.storage.errors import ShardNotFoundError, VolumeUnavailableError
from farmer.storage.journal import Crossers, Journal
from farmer.storage.places import Place, Row
from farmer.storage.reunion import Outlived
from farmer.storage.twins import Keep, which_counts
from farmer.storage.volume import Volume
from tests.storage.bench import ALICE, BOB, MIB, Farm, noise, shard_of
from tests.storage.recording import RecordingFiles
from tests.storage.test_moving import DRAIN, Street
from tests.storage.test_stored_twice import go_away, place_of_the_only_shard

ROW = Row(
    renter=ALICE,
    shard=ShardId(bytes(32)),
    place=Place(1, 4096),
    size_bytes=1,
    contract=ContractId(bytes(16)),
    stored_at_ms=1000,
    sequence=7,
)
DAMAGED = replace(ROW, is_damaged=True, state=ShardState.QUARANTINED)
LATER = replace(ROW, stored_at_ms=1001)
AGAIN = replace(ROW, alone_ms=5)
"""Stored again since; so was what was given up since."""
GIVEN_UP = replace(AGAIN, state=ShardState.TRASH)


@pytest.mark.parametrize(
    ("source", "target", "keep"),
    [
        (None, None, Keep.TARGET),
        (ROW, None, Keep.SOURCE),
        (None, ROW, Keep.TARGET),
        (ROW, ROW, Keep.TARGET),
        (replace(ROW, sequence=99), ROW, Keep.TARGET),
        (LATER, ROW, Keep.SOURCE),
        (ROW, LATER, Keep.TARGET),
        (ROW, DAMAGED, Keep.SOURCE),
        (DAMAGED, ROW, Keep.TARGET),
        (DAMAGED, DAMAGED, Keep.TARGET),
        (replace(DAMAGED, stored_at_ms=2000), ROW, Keep.TARGET),
        (AGAIN, LATER, Keep.SOURCE),
        (LATER, AGAIN, Keep.TARGET),
        (replace(DAMAGED, alone_ms=5), DAMAGED, Keep.SOURCE),
        (GIVEN_UP, ROW, Keep.SOURCE),
        (replace(GIVEN_UP, is_damaged=True), ROW, Keep.SOURCE),
        (ROW, replace(GIVEN_UP, is_damaged=True), Keep.TARGET),
        (replace(DAMAGED, alone_ms=5), ROW, Keep.BOTH),
        (replace(DAMAGED, alone_ms=5), replace(GIVEN_UP, alone_ms=0), Keep.BOTH),
        (ROW, replace(DAMAGED, alone_ms=5), Keep.BOTH),
    ],
)
def test_of_two_the_sound_and_then_the_later_one_counts(
    source: Row | None, target: Row | None, keep: Keep
) -> None:
    """Sequences are not compared: each volume has its own."""
    assert which_counts(source, target) is keep


def test_a_journal_is_what_was_synced_or_nothing(tmp_path: Path) -> None:
    """Keys come back as they were; any damaged byte makes it name nothing."""
    files = RecordingFiles()
    keys = frozenset({(ALICE, shard_of(b"1")), (BOB, shard_of(b"2"))})
    crossers = Crossers(b"s" * 16, b"t" * 16, keys)
    (tmp_path / "staging").mkdir()
    journal = Journal(files, tmp_path)
    assert not journal.open.keys
    journal.write(crossers)
    assert files.names("pwritev", "sync_data", "sync_directory") == [
        *("pwritev", "sync_data", "sync_directory"),
    ]
    assert Journal(files, tmp_path).open == crossers
    whole = (tmp_path / "moving").read_bytes()
    for at in range(len(whole)):
        (tmp_path / "moving").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert not Journal(files, tmp_path).open.keys
        (tmp_path / "moving").write_bytes(whole[:at])
        assert not Journal(files, tmp_path).open.keys


def test_a_copy_that_others_remove_while_a_crossing_is_unsettled_counts_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the meeting of all volumes does: what stays counted as the one that it had been with."""
    street = Street(tmp_path)
    engine, usage = street.farm.engine, street.usage()

    def hangs(_self: Crossing) -> None:
        raise VolumeUnavailableError("the disk does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(Crossing, "leaves", hangs)
        street.begin()
        street.steps()
    source, target = street.volumes
    rows = [row for shard in street.data if (row := source.find(ALICE, shard)) is not None]
    twins = [row for row in rows if target.find(ALICE, row.shard) is not None]
    assert twins
    source.writer.submit(Outlived(twins, 0)).result(20)
    street.steps()
    assert street.usage() == usage
    for shard in street.data:
        street.farm.delete(shard, erase=True)
    assert street.usage() == Usage()
    engine.close()


def test_a_delete_waits_for_a_crossing_of_its_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for when the target has the shard and the source has it, too."""
    street = Street(tmp_path)
    engine, settled = street.farm.engine, ferry.settle
    shard = list(street.data)[1]
    with ThreadPoolExecutor(1) as pool:
        deletions = []

        def slow(*arguments):  # type: ignore[no-untyped-def]  # as the function it stands for
            if (ALICE, shard) in arguments[2]:
                deletions.append(pool.submit(street.farm.delete, shard, erase=True))
                wait(deletions, 0.3)
            return settled(*arguments)

        monkeypatch.setattr(ferry, "settle", slow)
        street.begin()
        street.steps()
        deletions[0].result()
    with pytest.raises(ShardNotFoundError):
        engine.stat(ALICE, shard)
    assert sum(volume.shards for volume in engine.volumes()) == len(street.data) - 1
    engine.close()


def test_who_looks_while_it_crosses_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a look at the target and one at the source all shards cross; none is missed."""
    street = Street(tmp_path)
    engine = street.farm.engine
    # The target is asked first, so that a shard can slip past whoever looks.
    monkeypatch.setattr(engine._slots, "_slots", list(reversed(list(engine._slots))))
    source = street.volumes[1]
    assert source.status().shards == len(street.data)
    before, find, page = street.page(), source.find, source.page
    engine.mover.begin(source, DRAIN)
    large = next(shard for shard, data in street.data.items() if len(data) > MIB)
    asked: list[ShardId] = []

    def slipping(renter, shard):  # type: ignore[no-untyped-def]  # as the method it stands for
        if shard == large and not asked:
            asked.append(shard)
            street.steps()
        return find(renter, shard)

    monkeypatch.setattr(source, "find", slipping)
    street.farm.read(large)
    assert asked
    assert page(ALICE, ShardId(bytes(32)), 100) == []
    assert street.page() == before
    engine.close()


def test_a_list_taken_while_all_shards_cross_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page is read again when something went from one volume to another meanwhile."""
    street = Street(tmp_path)
    engine = street.farm.engine
    monkeypatch.setattr(engine._slots, "_slots", list(reversed(list(engine._slots))))
    source = street.volumes[1]
    before, page, asked = street.page(), source.page, []
    engine.mover.begin(source, DRAIN)

    def slipping(*arguments):  # type: ignore[no-untyped-def]  # as the method it stands for
        if not asked:
            asked.append(True)
            street.steps()
        return page(*arguments)

    monkeypatch.setattr(source, "page", slipping)
    assert street.page() == before
    assert asked
    engine.close()


def test_who_always_finds_something_moved_has_it_stopped_for_a_moment() -> None:
    """A look is repeated a few times, then nothing crosses during the last one."""
    way, looks = Crossing(), []

    def look() -> int:
        looks.append(True)
        if len(looks) <= LOOKS:
            way.leaves()
        return len(looks)

    assert way.steadily(look) == LOOKS + 1


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crossing that hangs on a sick disk is told of, on both sides."""
    monkeypatch.setattr(crossing, "PATIENCE_S", 0.05)
    way, key = Crossing(), (ALICE, shard_of(b""))
    with way.crossing([key]):
        with way.passing((BOB, key[1])):
            pass
        for waiting in (way.passing(key), way.none(), way.crossing([key])):
            with pytest.raises(VolumeUnavailableError), waiting:
                pass
    with way.passing(key), pytest.raises(VolumeUnavailableError), way.crossing([key]):
        pass
    with way.none(), way.passing(key):
        pass
    with way.crossing([key]):
        pass


def test_one_renters_shards_can_be_kept_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of others go on crossing; one that hangs half way is told."""
    monkeypatch.setattr(crossing, "PATIENCE_S", 0.05)
    way, key, other = Crossing(), (ALICE, shard_of(b"")), (BOB, shard_of(b""))
    with way.staying(ALICE) as is_still:
        assert is_still
        with way.crossing([other], is_patient=False):
            pass
        with pytest.raises(VolumeUnavailableError), way.crossing([key, other], is_patient=False):
            pass
    with way.crossing([key]), way.staying(ALICE) as is_still:
        assert not is_still
    with way.crossing([other]), way.staying(ALICE) as is_still:
        assert is_still


def test_only_those_that_are_free_cross_where_nobody_waits() -> None:
    way = Crossing()
    passing, going, free = ((ALICE, shard_of(bytes([n]))) for n in range(3))
    keys = [passing, going, free, (BOB, shard_of(b""))]
    with way.passing(passing), way.crossing([going]), way.staying(BOB):
        with way.crossing_if_free(keys) as crossers:
            assert crossers == {free}
            with way.crossing_if_free(keys) as more:
                assert more == frozenset()
        with way.crossing_if_free([free]) as crossers:
            assert crossers == {free}
    with way.crossing_if_free(keys) as crossers:
        assert crossers == set(keys)


def test_a_purge_removes_also_what_slips_past_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards may cross while it works, however long that is; none crosses back out of sight."""
    street = Street(tmp_path)
    with closing(street.farm.engine) as engine:
        monkeypatch.setattr(engine._slots, "_slots", list(reversed(list(engine._slots))))
        source, target = street.volumes[1], street.volumes[0]
        engine.mover.begin(source, DRAIN)
        purge, passes = Volume.purge, list[Volume]()

        def slipping(volume: Volume, *what: object) -> int:
            passes.append(volume)
            removed = purge(volume, *what)  # type: ignore[arg-type]  # as the method it stands for
            if len(passes) == 1:
                street.steps()
            return removed

        monkeypatch.setattr(Volume, "purge", slipping)
        assert engine.purge(ALICE) == len(street.data)
        assert street.page() == []
        assert passes == [target, source] * 2
        passes.clear()
        assert engine.purge(ALICE) == 0
        assert passes == [target, source], "nothing crossed"


def test_a_purge_leaves_only_what_hangs_half_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crossing, "PATIENCE_S", 0.05)
    street = Street(tmp_path)
    with closing(street.farm.engine) as engine:
        with engine._crossing.crossing([(BOB, shard_of(b""))]):
            street.farm.store(noise(77), renter=BOB)
            assert engine.purge(ALICE, ContractId(bytes(16))) == 0
        key = (ALICE, next(iter(street.data)))
        with engine._crossing.crossing([key]), pytest.raises(VolumeUnavailableError):
            engine.purge(ALICE)
        assert street.page() == []
        assert engine.purge(BOB) == 1


def test_a_look_at_the_disks_waits_for_no_crossing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever holds them all, as a purge does, holds up the next look for nothing."""
    farm = Farm(tmp_path, volumes=2)
    with closing(farm.engine) as engine:
        shard = farm.store(noise(5000)).shard
        place = place_of_the_only_shard(farm)
        go_away(farm, place)
        farm.store(noise(5000))
        (place / "aside").rename(place / MARKER_NAME)
        changed, waits = engine._crossing._changed, list[float | None]()
        wait_for = changed.wait_for

        def noting(truth: Callable[[], bool], timeout: float | None = None) -> bool:
            waits.append(timeout)
            return wait_for(truth, 0.0)

        with engine._crossing.none():
            monkeypatch.setattr(changed, "wait_for", noting)
            for _ in range(3):
                engine.look_after_disks()
        assert not any(waits)
        monkeypatch.undo()
        assert sum(one.shards for one in engine.volumes()) == 2
        engine.look_after_disks()
        assert [one.shards for one in engine.volumes() if one.shards] == [1]
        assert farm.read(shard) == noise(5000)
