"""Disks that fail, fill up or go away while a volume is emptied: nothing is lost or doubled."""

from __future__ import annotations

import errno
from contextlib import closing
from pathlib import Path
from threading import Event, Thread

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import ShardState
from farmer.storage import moving
from farmer.storage.directory import Paths
from farmer.storage.doubts import InDoubtError
from farmer.storage.duty import Duty, Leaving, clear_duty, read_duty, write_duty
from farmer.storage.errors import ShardNotFoundError, VolumeUnavailableError
from farmer.storage.files import OsFiles
from farmer.storage.journal import Crossers
from farmer.storage.log import Batch
from farmer.storage.operations import Adopt
from tests.storage.bench import ALICE, MIB, Farm, contract_of, crash_copy, finished, noise
from tests.storage.forgetful import LOST_BYTES, LosingFiles
from tests.storage.recording import Call, Fault, RecordingFiles
from tests.storage.test_doubts import Failing
from tests.storage.test_moving import DRAIN, Street

KINDS = ("pwritev", "sync_data", "sync_directory", "preallocate", "open", "open_read", "pread")


def faulty(root: Path) -> tuple[Street, RecordingFiles]:
    files = RecordingFiles()
    return Street(root, files=files), files


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_each_call_may_fail_once(tmp_path: Path, kind: str, error: int) -> None:
    """Whatever failed, every shard is there once, and the rest of the work is done later."""
    number = 0
    while True:
        root = tmp_path / str(number)
        street, files = faulty(root)
        with closing(street.farm.engine):
            before = {row.shard for row in street.page()}
            street.begin()
            files.fault = Fault(number, error, lambda call: call.name == kind)
            for _ in range(3):
                street.steps()
            struck, files.fault = files.fault.struck, None
            assert {row.shard for row in street.page()} == before
            street.farm.reopen()
            street.steps()
            found = street.page()
            assert {row.shard for row in found} == before
            assert sum(one.shards for one in street.farm.engine.volumes()) == len(before)
            left = street.farm.engine.volumes()[0]
            assert left.shards == left.quarantined, "what was read well has moved"
            for row in found:
                if row.state is ShardState.LIVE:
                    assert street.farm.read(row.shard) == street.data[row.shard]
        if not struck:
            assert number
            return
        number += 3


def test_what_cannot_go_is_given_up_if_the_owner_says_so(tmp_path: Path) -> None:
    """Damaged shards and unfinished uploads, when nothing else is left; not before."""
    street = Street(tmp_path)
    engine = street.farm.engine
    with closing(engine):
        street.hold(1)
        half = street.farm.begin(noise(3 * MIB, "half"))
        half.write(noise(3 * MIB, "half")[:MIB])
        half.abandon()
        street.release(1)
        shard = list(street.data)[3]
        row = street.source.find(ALICE, shard)
        assert row is not None
        with street.source.ground.paths.segment(row.place.segment).open("r+b") as file:
            file.seek(row.place.offset + 300)
            file.write(b"rot")
        street.begin()
        street.steps()
        assert finished(engine.mover) == []
        assert not engine.mover.is_idle
        work = engine.volumes()[0].work
        assert work is not None
        assert (work.left_shards, work.damaged) == (1, 1)
        assert work.unfinished_bytes > 3 * MIB
        engine.mover.begin(street.source, Duty(verb=Leaving.RETIRE, since_ms=1, force=True))
        assert [one is street.source for one in finished(engine.mover)] == [True]
        assert street.usage().shards == len(street.data) - 1
        engine.remove_volume(street.source.settings.path)
        assert len(engine.volumes()) == 1
        assert engine.mover.is_idle


def test_who_reads_from_a_volume_keeps_it_from_being_taken_away(tmp_path: Path) -> None:
    """An empty volume has still to serve what was opened before."""
    street = Street(tmp_path)
    with closing(street.farm.engine) as engine:
        shard = list(street.data)[2]
        reader = engine.open(ALICE, shard)
        street.begin()
        street.steps()
        assert street.source.status().shards == 0
        assert finished(engine.mover) == []
        assert reader.read(0, 5000) == street.data[shard]
        reader.close()
        assert finished(engine.mover) == [street.source]


def test_a_journal_about_a_volume_that_is_not_ours_any_more_is_closed(tmp_path: Path) -> None:
    """Only while the other volume may come back is a shard kept from being deleted."""
    street = Street(tmp_path)
    shard = list(street.data)[1]
    street.source.journal.write(
        Crossers(street.source.ground.volume, b"x" * 16, frozenset({(ALICE, shard)}))
    )
    with pytest.raises(VolumeUnavailableError):
        street.farm.delete(shard)
    with pytest.raises(VolumeUnavailableError):
        street.farm.engine.undelete(ALICE, shard)
    street.farm.engine.look_after_disks()
    street.farm.delete(shard, erase=True)
    street.farm.engine.close()


def test_a_purge_that_left_shards_that_are_on_their_way_is_not_called_done(
    tmp_path: Path,
) -> None:
    """All else goes, on the other volume too; these go when it is known where they are."""
    street = Street(tmp_path)
    with closing(street.farm.engine) as engine:
        street.hold(0)
        street.farm.store(noise(6000, "at the target"))
        street.release(0)
        key = (ALICE, list(street.data)[2])
        volumes = (street.source, street.target)
        crossers = Crossers(*(one.ground.volume for one in volumes), frozenset({key}))
        for volume in volumes:
            volume.journal.write(crossers)
        with pytest.raises(VolumeUnavailableError):
            engine.purge(ALICE, contract_of(ALICE).contract)
        assert [one.shard for one in street.page()] == [key[1]]
        engine.look_after_disks()
        assert engine.purge(ALICE, contract_of(ALICE).contract) == 1
        assert street.page() == []


def test_what_a_volume_is_to_do_survives_and_is_whole_or_not_there(tmp_path: Path) -> None:
    """A file that says something else, or nothing, is as none."""
    files, path = OsFiles(), Paths(tmp_path).duty
    duty = Duty(verb=Leaving.MOVE, since_ms=5, to="ab", to_path="/new", rate_bytes=7, remove=True)
    (tmp_path / "staging").mkdir()
    assert read_duty(files, tmp_path) is None
    write_duty(files, tmp_path, DRAIN)
    write_duty(files, tmp_path, duty)
    assert read_duty(files, tmp_path) == duty
    for text in ("", "{}", "[]", '{"format": 2}', '{"format": 1, "verb": "dance"}', "\0"):
        path.write_text(text)
        assert read_duty(files, tmp_path) is None
    clear_duty(files, tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["staging"]
    with pytest.raises(OSError, match="Not a directory"):
        read_duty(files, Path("/dev/null"))


def test_a_shard_on_two_volumes_is_brought_to_one(tmp_path: Path) -> None:
    """One that was stored again while its first volume was away: the later one counts."""
    street = Street(tmp_path)
    engine = street.farm.engine
    data = noise(5000)
    hidden = street.farm.settings[0].path.with_name("hidden")
    engine.close()
    street.farm.settings[0].path.rename(hidden)
    street.farm.open()
    street.farm.clocks.pass_days(1)
    again = street.farm.store(data)
    street.farm.engine.close()
    hidden.rename(street.farm.settings[0].path)
    street.farm.open()
    with closing(street.farm.engine):
        street.begin()
        street.steps()
        assert street.farm.engine.stat(ALICE, again.shard).stored_at_ms == again.stored_at_ms
        assert [one.shards for one in street.farm.engine.volumes()] == [0, len(street.data)]
        street.check_bytes()


def test_a_large_shard_that_changes_under_the_copy_is_not_entered(tmp_path: Path) -> None:
    """What is read back from the target must be what was read at the source."""
    street, files = faulty(tmp_path)
    with closing(street.farm.engine):
        street.begin()
        large = [shard for shard, data in street.data.items() if len(data) > MIB]
        real = files.pwritev

        def twisted(fd, buffers, offset):  # type: ignore[no-untyped-def]  # as what it stands for
            real(fd, buffers, offset)
            if files._names[fd].endswith(".part") and offset == 256:
                real(fd, [b"twisted"], 300)

        files.pwritev = twisted  # type: ignore[method-assign]  # a test's fault
        street.steps()
        files.pwritev = real  # type: ignore[method-assign]  # see above
        assert street.source.status().shards == len(large)
        assert not list(street.target.ground.paths.staging.iterdir())
        assert dict(street.target.ground.health.errors()) == {"corrupt": len(large)}
        street.check_bytes()
        files.forget()
        street.steps()
        assert street.source.status().shards == len(large)
        assert "pwritev" not in files.names(), "not there again so soon"
        street.farm.reopen()
        street.steps()
        assert street.source.status().shards == 0
        street.check_bytes()


def test_what_the_new_disk_loses_of_synced_copies_stays_where_it_was(tmp_path: Path) -> None:
    """It says that it has them, and so does memory; the copies are read back from the disk."""
    files = LosingFiles(tmp_path / "volume1")
    street = Street(tmp_path, files=files)
    doomed = [shard for shard, data in street.data.items() if len(data) > LOST_BYTES]
    with closing(street.farm.engine):
        for shard in doomed:
            files.lose(street.data[shard])
        street.begin()
        street.steps()
        assert files.lost == len(doomed)
        assert {one for one in doomed if street.source.find(ALICE, one)} == {*doomed}
        assert street.source.status().shards == len(doomed), "all others went"
    street.farm.files = OsFiles()
    street.farm.open()
    with closing(street.farm.engine):
        street.check_bytes()
        street.steps()
        street.check_bytes()
        assert street.source.status().shards == 0


def test_a_large_copy_whose_last_header_the_new_disk_loses_is_none(tmp_path: Path) -> None:
    """An index that is made again would not have it, and the source would have given it up."""
    files = LosingFiles(tmp_path / "volume1")
    street = Street(tmp_path, files=files)
    large = [shard for shard, data in street.data.items() if len(data) > MIB]
    with closing(street.farm.engine):
        for shard in large:
            files.lose(shard.raw, times=2)
        street.begin()
        street.steps()
        assert files.lost == 2 * len(large), "the first header and the last one"
        assert street.source.status().shards == len(large)
        street.check_bytes()


class Undoing(Failing):
    """The removal of a large copy fails, or its sync does, which is the second one there."""

    has_begun = False

    def strikes(self, call: Call) -> bool:
        is_made, self.has_begun = self.has_begun, self.has_begun or call.path == "staging"
        return super().strikes(call) and (is_made or call.path != "staging")


def refuse_large(street: Street, calls: dict[str, str]) -> ShardId:
    """Begin to move; the target's index has no room for a large shard, and *calls* fail."""
    assert isinstance(street.farm.files, RecordingFiles)
    street.farm.files.fault = Undoing(
        error=errno.ENOSPC, calls={"preallocate": "reserve", **calls}
    )
    writer = street.target.ground.index._writer
    writer.execute(
        "CREATE TRIGGER full BEFORE INSERT ON staged BEGIN SELECT RAISE(ABORT, ''); END"
    )
    street.begin()
    street.steps()
    writer.execute("DROP TRIGGER full")
    return min(shard for shard, data in street.data.items() if len(data) > MIB)


@pytest.mark.parametrize("calls", [{"unlink": ".part"}, {"sync_directory": "staging"}])
def test_a_refused_copy_whose_file_stays_is_in_doubt_until_it_is_gone(
    tmp_path: Path, calls: dict[str, str]
) -> None:
    """Its space stays taken, and nothing goes the same way meanwhile."""
    street, files = faulty(tmp_path)
    with closing(street.farm.engine):
        before = len(street.data)
        shard = refuse_large(street, calls)
        account = street.target.ground.account
        assert account.reserved_bytes > MIB
        with pytest.raises(InDoubtError):
            street.target.find(ALICE, shard)
        street.check_bytes()
        street.steps()
        assert street.source.status().shards == before
        files.fault = None
        street.farm.engine.look_after_disks()
        assert account.reserved_bytes == 0
        assert not list(street.target.ground.paths.staging.iterdir())
        street.steps()
        assert street.source.status().shards == 0
        street.check_bytes()


def test_a_shard_does_not_come_back_by_a_refused_copy_whose_file_stays(tmp_path: Path) -> None:
    """It was deleted where it still was, and the next start takes the file for stored."""
    street, _ = faulty(tmp_path / "here")
    with closing(street.farm.engine):
        shard = refuse_large(street, {"unlink": ".part"})
        street.farm.engine.mover.resolve()
        street.farm.delete(shard, erase=True)
        for settings in street.farm.settings:
            crash_copy(settings.path, tmp_path / "killed" / settings.path.name)
        killed = Farm(tmp_path / "killed", volumes=2)
        with closing(killed.engine), pytest.raises(ShardNotFoundError):
            killed.engine.stat(ALICE, shard)


def test_a_copy_that_the_target_may_have_entered_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken promise says nothing: what the writer does when the disk answers counts."""
    street, real, reached, answer = Street(tmp_path), Adopt.apply, Event(), Event()

    def hanging(self: Adopt, batch: Batch) -> None:
        reached.set()
        answer.wait(20)
        real(self, batch)

    monkeypatch.setattr(Adopt, "apply", hanging)
    with closing(street.farm.engine):
        street.begin()
        stuck = Thread(target=street.steps)
        stuck.start()
        try:
            assert reached.wait(20)
            street.target.writer.promises.break_all("it sleeps")
        finally:
            answer.set()
            stuck.join()
        street.steps()
        assert street.source.status().shards == 0
        street.check_bytes()


def test_a_disk_that_does_not_answer_holds_up_neither_the_next_turn_nor_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who hangs in a step keeps nobody else waiting."""
    monkeypatch.setattr(moving, "STOP_S", 0.05)
    street, files = faulty(tmp_path)
    engine, real, hung, answer = street.farm.engine, files.sync_data, Event(), Event()

    def hanging(fd: int) -> None:
        if files._names[fd] == "moving":
            hung.set()
            answer.wait(20)
        real(fd)

    files.sync_data = hanging  # type: ignore[method-assign]  # a test's fault
    street.begin()
    stuck = Thread(target=street.steps)
    stuck.start()
    try:
        assert hung.wait(20)
        assert engine.mover.step() is None
        engine.mover.resolve()
        engine.mover.stop()
    finally:
        answer.set()
        stuck.join()
    assert street.source.status().shards == 0
    street.check_bytes()
    engine.close()
