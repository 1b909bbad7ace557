"""A volume that is opened by itself: whose it is, what is let go where it fails, what is told."""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from farmer.model.ids import NodeId
from farmer.storage import opening
from farmer.storage.annex import NoAnnexError
from farmer.storage.directory import (
    Paths,
    VolumeSettings,
    VolumeSetupError,
    create_volume,
    retire_marker,
)
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.files import OsFiles
from farmer.storage.generation import Generation
from farmer.storage.health import Health
from farmer.storage.index_file import connect
from farmer.storage.met import note_met
from farmer.storage.opening import (
    Surroundings,
    at_once,
    in_a_thread,
    open_volume,
    rebuild_index,
)
from farmer.storage.quota import RESERVE_BYTES, Ledger
from farmer.storage.readying import Ready, Readying
from farmer.storage.reserve import SPEND_BYTES
from farmer.storage.uuids import Uuids
from farmer.storage.volume import Volume
from farmer.storage.watch import Watch
from tests.storage.bench import ALICE, MIB, NODE, Farm, are_closed, noise, shard_of
from tests.storage.recording import Fault, ReadOnlyFiles, RecordingFiles

QUOTA = 64 * MIB


class House:
    """What all volumes of a farmer share, and one volume."""

    def __init__(self, folder: Path) -> None:
        self.files = ReadOnlyFiles()
        self.settings = VolumeSettings(folder / "disk", QUOTA, keep_free_bytes=5)
        self.marker = create_volume(self.settings.path, NODE, self.files, 1)
        self.paths = Paths(self.settings.path)
        self.ledger = Ledger(10, 1000)
        self.annexes = folder / "annexes"
        self.told: list[tuple[int, int]] = []
        self.health = Health("disk", lambda: 1, lambda: 1.0)
        self.around = Surroundings(
            node=NODE,
            files=self.files,
            ledger=self.ledger,
            clock_ms=lambda: 1234,
            progress=lambda number, last: self.told.append((number, last)),
            monotonic_s=lambda: 1.0,
            spawn=at_once,
        )
        self.connections: list[sqlite3.Connection] = []
        self.opened: list[Volume] = []
        """What may have to be closed at the end."""

    def fill(self, count: int = 2) -> None:
        """Let a farmer store something in it: small shards, and half of a large one."""
        farm = Farm(self.settings.path.parent)
        farm.engine.close()
        farm.settings = [replace(self.settings, keep_free_bytes=0)]
        farm.open()
        for number in range(count):
            farm.store(noise(2000, number))
        upload = farm.begin(noise(2 * MIB))
        upload.write(noise(2 * MIB)[:MIB])
        upload.abandon()
        farm.engine.close()

    def open(self, *, annexes: bool = False) -> Volume:
        around = replace(self.around, annexes=self.annexes) if annexes else self.around
        self.health = Health("disk", lambda: 1, lambda: 1.0)
        self.opened.append(open_volume(self.settings, around, self.health, Watch(lambda: 1.0)))
        return self.opened[-1]

    def close(self) -> None:
        """Close what is open."""
        self.files.fault = None
        for volume in self.opened:
            if not volume._is_closed:
                volume.close()

    def alerts(self) -> dict[str, str]:
        return {alert.name: str(alert) for alert in self.health.alerts()}

    def lose_index(self) -> None:
        for path in self.settings.path.glob("index.sqlite*"):
            path.unlink()

    def closed(self) -> bool:
        """Say whether nothing is open: no file, and no connection."""
        return are_closed(self.connections) and not self.files.is_open


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    house = House(tmp_path)

    def watched(_watch: Watch) -> Callable[[Path], sqlite3.Connection]:
        def connecting(path: Path) -> sqlite3.Connection:
            house.connections.append(connect(path))
            return house.connections[-1]

        return connecting

    monkeypatch.setattr(opening, "watched_connect", watched)
    yield house
    house.close()
    assert house.closed()


def test_an_open_volume_is_entered_in_the_ledger_as_it_is(house: House) -> None:
    house.fill()
    volume = house.open()
    account = volume.ground.account
    assert (account.quota_bytes, account.keep_free_bytes) == (QUOTA, 5)
    assert account.total.shards == 2
    assert account.index_bytes == house.paths.index.stat().st_size
    assert account.filesystem_size_bytes > 0
    assert account.reserved_bytes > 2 * MIB
    assert account.unallocated_bytes == 0, "the disk has it already"
    assert house.ledger.usage(ALICE).shards == 2
    (lease,) = volume.leases.of()
    assert lease.header.synced_bytes == MIB
    assert house.alerts() == {}
    assert house.told == []
    assert volume.ground.facts.clock_ms() == 1234
    assert not volume.ground.is_apart


def test_an_open_volume_goes_on_where_its_log_ends(house: House) -> None:
    house.fill()
    volume = house.open()
    before = house.paths.segment(1).stat().st_size
    row = volume.ground.index.some(None, 1)[0]
    volume.delete(row.renter, row.shard, 5, erase=False, is_alone=False).result(20)
    assert house.paths.segment(1).stat().st_size > before
    assert not house.paths.segment(2).exists()


def test_a_log_whose_last_header_is_lost_goes_on_in_a_new_segment(house: House) -> None:
    house.fill()
    house.lose_index()
    with house.paths.segment(1).open("r+b") as file:
        file.write(b"x" * 100)
    volume = house.open()
    row = volume.ground.index.some(None, 1)[0]
    volume.delete(row.renter, row.shard, 5, erase=False, is_alone=False).result(20)
    assert house.paths.segment(2).exists()


def test_a_volume_that_is_open_is_locked(house: House) -> None:
    volume = house.open()
    with pytest.raises(VolumeSetupError, match="in use by another process"):
        house.open()
    volume.close()
    house.open().close()


def test_an_index_that_was_made_again_is_told_with_what_it_cost(house: House) -> None:
    house.fill()
    house.lose_index()
    house.open()
    assert "from the 2 records" in house.alerts()["IndexRebuilt"]
    assert list(house.alerts()) == ["IndexRebuilt"]
    assert house.told == [(1, 1)]


def test_of_damaged_places_the_first_three_are_named(house: House) -> None:
    house.fill(9)
    house.lose_index()
    with house.paths.segment(1).open("r+b") as file:
        for number in range(4):
            file.seek(4096 * (1 + 2 * number) + 60)
            file.write(b"x" * 100)
    house.open()
    told = house.alerts()["LogDamaged"]
    assert "4 damaged places" in told
    assert "00000001.seg at 4096, 00000001.seg at 12288, 00000001.seg at 20480)" in told


def test_the_reserve_is_taken_at_the_opening(house: House) -> None:
    assert not house.paths.reserve.exists()
    house.open()
    assert house.paths.reserve.stat().st_size == RESERVE_BYTES


def test_a_reserve_that_was_spent_on_the_opening_is_taken_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = Readying.open

    def spending(readying: Readying) -> Ready:
        assert readying._reserve.spend(SPEND_BYTES), "there is some when it is needed"
        return ready(readying)

    monkeypatch.setattr(Readying, "open", spending)
    house.open()
    assert house.paths.reserve.stat().st_size == RESERVE_BYTES


# Where it fails.


def test_a_copy_of_a_volume_is_refused(house: House, tmp_path: Path) -> None:
    house.around = replace(house.around, uuids=Uuids())
    house.around.uuids.claim(house.marker.volume, house.settings.path, house.files)
    copy = tmp_path / "copy"
    create_volume(copy, NODE, house.files, 1)
    Paths(copy).marker.write_bytes(house.paths.marker.read_bytes())
    settings = VolumeSettings(copy, QUOTA)
    with pytest.raises(VolumeSetupError, match="is a copy of"):
        open_volume(settings, house.around, house.health, Watch(lambda: 1.0))


def test_another_farmers_volume_is_not_locked(house: House) -> None:
    house.around = replace(house.around, node=NodeId(b"x" * 32))
    with pytest.raises(VolumeSetupError, match="belongs to the farmer"):
        house.open()
    assert not house.paths.lock.exists()


@pytest.mark.parametrize(
    "what", ["Reserve", "Readying", "VolumeAccount", "Writer", "Volume", "Handles"]
)
def test_an_opening_that_fails_lets_all_go(
    house: House, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    house.fill()

    def fails(*_args: object, **_named: object) -> None:
        raise OSError(errno.EIO, what)

    with monkeypatch.context() as patch:
        patch.setattr(opening, what, fails)
        with pytest.raises(OSError, match=what):
            house.open()
    assert house.closed()
    assert house.ledger.renters() == ()
    house.open().close()


def test_a_filesystem_that_does_not_answer_lets_all_go(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.fill()

    def fails(_path: Path) -> None:
        raise OSError(errno.EIO, "silent")

    with monkeypatch.context() as patch:
        patch.setattr(house.files, "filesystem", fails)
        with pytest.raises(VolumeUnavailableError, match="does not answer"):
            house.open()
    assert house.closed()
    assert house.ledger.renters() == ()


def test_without_room_for_a_note_of_the_contracts_a_volume_is_opened(house: House) -> None:
    house.files.fault = Fault(0, errno.ENOSPC, lambda c: (c.name, c.path) == ("open", "book"))
    volume = house.open()
    assert house.files.fault.struck
    assert volume.witness.seen == ()


def test_what_a_volume_remembers_of_the_contracts_is_known_at_once(house: House) -> None:
    volume = house.open()
    generation = Generation(b"b" * 16, 1, b"s" * 8)
    volume.witness.note(generation)
    volume.close()
    again = house.open()
    assert again.witness.seen == (generation,)


# What can only be read.


def test_a_disk_that_takes_no_writes_is_refused_where_nothing_can_be_noted(house: House) -> None:
    house.open().close()
    house.files.read_only = "disk"
    with pytest.raises(OSError, match="Read-only"):
        house.open()


def test_a_disk_that_takes_no_writes_is_opened_with_an_annex(house: House) -> None:
    house.fill()
    house.files.read_only = "disk"
    volume = house.open(annexes=True)
    assert volume.ground.is_apart
    assert volume.ground.account.total.shards == 2
    assert volume.leases.of() == []
    assert volume.ground.account.reserved_bytes == 0, "no upload goes on there"
    assert (house.annexes / house.marker.volume.hex() / "index.sqlite").exists()
    row = volume.ground.index.some(None, 1)[0]
    before = house.paths.segment(1).read_bytes()
    volume.delete(row.renter, row.shard, 5, erase=True, is_alone=False).result(20)
    assert house.paths.segment(1).read_bytes() == before
    volume.close()
    house.files.read_only = ""
    home = house.open(annexes=True)
    assert not home.ground.is_apart
    assert home.ground.account.total.shards == 1
    assert list(house.annexes.iterdir()) == []


def test_another_error_of_the_lock_makes_no_annex(house: House) -> None:
    house.files.fault = Fault(0, errno.EACCES, lambda c: (c.name, c.path) == ("open", "lock"))
    with pytest.raises(OSError, match="Permission"):
        house.open(annexes=True)
    assert not house.annexes.exists()


def test_an_annex_that_cannot_be_made_lets_the_lock_go(house: House) -> None:
    house.open().close()
    house.files.read_only = "disk"
    house.annexes.touch()
    with pytest.raises(NoAnnexError, match="exists"):
        house.open(annexes=True)
    assert house.closed()


def test_what_was_retired_where_only_its_annex_could_say_so_stays_shut(house: House) -> None:
    house.fill()
    house.files.read_only = "disk"
    volume = house.open(annexes=True)
    retire_marker(house.settings.path, volume.ground.files, "its shards have moved")
    volume.close()
    with pytest.raises(VolumeSetupError, match="its shards have moved"):
        house.open(annexes=True)
    assert house.closed()


def test_a_disk_that_is_not_trusted_yet_keeps_its_annex(house: House) -> None:
    house.fill()
    house.files.read_only = "disk"
    house.open(annexes=True).close()
    house.files.read_only = ""
    health = Health("disk", lambda: 1, lambda: 1.0)
    health.read_only("it said so")
    around = replace(house.around, annexes=house.annexes)
    with closing(open_volume(house.settings, around, health, Watch(lambda: 1.0))) as volume:
        assert volume.ground.is_apart


# By hand.


def test_a_closed_volumes_index_is_made_again_by_hand(house: House) -> None:
    house.fill()
    house.lose_index()
    found = rebuild_index(
        house.settings, NODE, house.files, lambda n, last: house.told.append((n, last))
    )
    assert (found.records, house.told) == (2, [(1, 1)])
    assert house.closed()
    with closing(sqlite3.connect(house.paths.index)) as rows:
        assert rows.execute("SELECT clean FROM state").fetchone() == (1,)
    house.open()
    assert house.alerts() == {}


def test_a_rebuild_by_hand_brings_an_annex_home(house: House) -> None:
    house.fill()
    house.files.read_only = "disk"
    house.open(annexes=True).close()
    house.files.read_only = ""
    rebuild_index(house.settings, NODE, house.files, lambda _n, _last: None, house.annexes)
    assert list(house.annexes.iterdir()) == []


def test_an_open_volumes_index_is_left_alone(house: House) -> None:
    house.open()
    with pytest.raises(VolumeSetupError, match="in use"):
        rebuild_index(house.settings, NODE, house.files, lambda _n, _last: None)


def test_a_rebuild_by_hand_that_fails_lets_the_lock_go(house: House) -> None:
    house.fill()
    house.files.fault = Fault(0, errno.EIO, lambda c: (c.name, c.path) == ("list", "log"))
    with pytest.raises(OSError, match="Input/output"):
        rebuild_index(house.settings, NODE, house.files, lambda _n, _last: None)
    assert house.closed()


def test_an_annex_is_named_after_its_volume(house: House) -> None:
    assert house.around.annex(b"\xab" * 16) is None
    around = replace(house.around, annexes=house.annexes)
    assert around.annex(b"\xab" * 16) == house.annexes / ("ab" * 16)


def test_what_is_asked_for_at_once_is_done_at_once() -> None:
    done = list[str]()
    at_once("any name", lambda: done.append("work"))
    assert done == ["work"]


def test_what_nobody_waits_for_is_done_in_a_thread_of_its_own() -> None:
    threads, done = list[threading.Thread](), threading.Event()

    def work() -> None:
        threads.append(threading.current_thread())
        done.set()

    in_a_thread("any name", work)
    assert done.wait(20)
    assert threads != [threading.current_thread()]


def test_sequences_go_on_above_what_is_noted_of_tombstones(tmp_path: Path) -> None:
    """An index made of a log that was emptied begins anew, and tombstones below mean nothing."""
    farm = Farm(tmp_path)
    farm.store(noise(100))
    farm.engine.close()
    note_met(OsFiles(), farm.path, 1000)
    farm.open()
    assert farm.store(noise(200)).shard == shard_of(noise(200))
    row = farm.engine.opened()[0].find(ALICE, shard_of(noise(200)))
    assert row is not None
    assert row.sequence == 1000
    farm.reopen()
    assert farm.engine.opened()[0].ground.facts.sequencer.peek() == 1001
    farm.engine.close()


def test_a_note_above_which_no_record_fits_is_none(tmp_path: Path) -> None:
    """Else what is confirmed from then on could not be read when an index is made again."""
    farm = Farm(tmp_path)
    farm.engine.close()
    note_met(OsFiles(), farm.path, (1 << 62) - 1)
    farm.open()
    for number in range(2):
        farm.store(noise(100, number))
    farm.engine.close()
    for path in farm.path.glob("index.sqlite*"):
        path.unlink()
    (volume,) = farm.open().opened()
    assert volume.ground.account.total.shards == 2
    farm.engine.close()


@pytest.mark.parametrize("error", [errno.EIO, errno.EMFILE])
def test_a_bad_sector_under_that_note_keeps_no_volume_shut_and_anything_else_for_a_moment(
    tmp_path: Path, error: int
) -> None:
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    note_met(OsFiles(), farm.path, 3)
    farm.engine.close()
    files.fault = Fault(0, error, lambda call: call.path == Paths(farm.path).met.name)
    farm.open()
    assert files.fault.struck
    assert bool(farm.engine.opened()) is (error == errno.EIO)
    farm.engine.look_after_disks()
    farm.store(noise(100))
    farm.engine.close()
