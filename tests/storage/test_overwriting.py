"""What a disk cannot read keeps its volume shut without an index, until it is written over."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from farmer.model.ids import ShardId
from farmer.storage.bad_spots import MET_MAX
from farmer.storage.directory import Paths, VolumeSettings
from farmer.storage.files import Access, Buffer, OsFiles
from farmer.storage.met import note_met
from farmer.storage.opening import rebuild_index
from farmer.storage.quota import SMALL_BYTES_MAX
from farmer.storage.readying import set_aside
from farmer.storage.recovery import Recovered
from tests.storage.bench import ALICE, MIB, NODE, Farm, noise, shard_of
from tests.storage.recording import RecordingFiles
from tests.storage.rot import row_of

BLOCK = 4096
GROUP = 16 * BLOCK
SIZES = [100, 70_000, SMALL_BYTES_MAX, SMALL_BYTES_MAX + 1, 10, 5000]


class Scratched(OsFiles):
    """Blocks that cannot be read until they are written: by name without ending, and offset."""

    def __init__(self) -> None:
        self.bad: set[tuple[str, int]] = set()
        self.heals = True
        self.dies = False
        """Whether nothing can be read any more once memory is asked to forget what it has."""
        self.is_dead = False
        self.stumbles = False
        """Whether all can be read once somebody is about to write."""
        self.is_another = False
        """Whether a path stands for another file each time that it is asked for."""
        self.asked = 0
        self.written: list[tuple[str, int, int]] = []

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """Read by groups of blocks, as the kernel does."""
        start = offset // GROUP * GROUP
        self._fail_on_bad(fd, start, -(-(offset + length) // GROUP) * GROUP - start)
        return super().pread(fd, length, offset)

    def pread_apart(self, fd: int, length: int, offset: int) -> bytes:
        self._fail_on_bad(fd, offset, length)
        return super().pread(fd, length, offset)

    def open(self, path: Path, access: Access) -> int:
        if access is Access.WRITE and self.stumbles:
            self.bad.clear()
        return super().open(path, access)

    def inode(self, place: Path | int) -> tuple[int, int]:
        self.asked += 1
        device, inode = super().inode(place)
        return device, inode + (self.asked if self.is_another else 0)

    def uncache(self, fd: int, offset: int, length: int) -> None:
        self.is_dead |= self.dies
        super().uncache(fd, offset, length)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        name = Path(f"/proc/self/fd/{fd}").readlink().stem
        length = sum(map(len, buffers))
        self.written.append((name, offset, length))
        if self.heals:
            self.bad -= {(name, at) for at in self._of(fd) if offset <= at < offset + length}
        super().pwritev(fd, buffers, offset)

    def _fail_on_bad(self, fd: int, offset: int, length: int) -> None:
        is_bad = any(offset < at + BLOCK and at < offset + length for at in self._of(fd))
        if self.is_dead or is_bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def _of(self, fd: int) -> list[int]:
        name = Path(f"/proc/self/fd/{fd}").readlink().stem
        return [at for one, at in self.bad if one == name]


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    """A closed farm of some shards."""
    farm = Farm(tmp_path)
    for number, size in enumerate(SIZES):
        farm.store(noise(size, number))
    return farm


def place_of(farm: Farm, number: int) -> tuple[str, int]:
    """Return the file of a shard, and where its record begins there."""
    row = row_of(farm, shard_of(noise(SIZES[number], number)))
    (volume,) = farm.engine.opened()
    return volume.handles.path_of(row.place).stem, row.place.offset


def note(told: list[tuple[str, int, int]], path: Path, offset: int, length: int) -> None:
    told.append((path.stem, offset, length))


def rebuilt(
    farm: Farm, files: OsFiles, told: list[tuple[str, int, int]] | None = None
) -> Recovered:
    return rebuild_index(
        VolumeSettings(farm.path, 400 * MIB),
        NODE,
        files,
        lambda _at, _of: None,
        overwritten=None if told is None else partial(note, told),
    )


def bytes_of(farm: Farm) -> dict[str, bytes]:
    """Return all files but the index."""
    return {
        str(path.relative_to(farm.path)): path.read_bytes()
        for path in farm.path.rglob("*")
        if path.is_file() and not path.name.startswith("index.sqlite")
    }


def check(farm: Farm, lost: int | None = None) -> None:
    """Compare all shards but the one of which a part is lost."""
    farm.open()
    with closing(farm.engine):
        listed = {row.shard for row in farm.engine.page(ALICE, ShardId(bytes(32)), 100)}
        for number, size in enumerate(SIZES):
            data = noise(size, number)
            if number != lost:
                assert shard_of(data) in listed
                assert farm.read(shard_of(data)) == data


@pytest.mark.parametrize("number", range(len(SIZES)))
def test_an_unreadable_header_costs_its_shard_and_no_other(farm: Farm, number: int) -> None:
    files = Scratched()
    name, offset = place_of(farm, number)
    farm.engine.close()
    files.bad = {(name, offset)}
    before = bytes_of(farm)
    with pytest.raises(OSError, match="Input/output"):
        rebuilt(farm, files)
    assert bytes_of(farm) == before

    told: list[tuple[str, int, int]] = []
    rebuilt(farm, files, told)
    assert told == [(name, offset, BLOCK)]
    assert files.bad == set()
    check(farm, lost=number)


@pytest.mark.parametrize("number", [1, 2])
def test_of_a_shard_whose_bytes_cannot_be_read_the_intact_blocks_are_served(
    farm: Farm, number: int
) -> None:
    """As of any that is damaged."""
    files = Scratched()
    name, offset = place_of(farm, number)
    farm.engine.close()
    files.bad = {(name, offset + BLOCK)}
    told: list[tuple[str, int, int]] = []
    rebuilt(farm, files, told)
    assert told == [(name, offset + BLOCK, BLOCK)]
    data = noise(SIZES[number], number)
    check(farm, lost=number)
    farm.open()
    with closing(farm.engine), closing(farm.engine.open(ALICE, shard_of(data))) as reader:
        assert reader.read(65_536, 1000) == data[65_536:66_536]


def test_a_header_of_a_segment_is_made_again(farm: Farm) -> None:
    files = Scratched()
    farm.engine.close()
    files.bad = {("00000001", 0)}
    told: list[tuple[str, int, int]] = []
    rebuilt(farm, files, told)
    assert told == [("00000001", 0, BLOCK)]
    check(farm)


def test_an_unfinished_upload_whose_header_cannot_be_read_is_given_up(farm: Farm) -> None:
    files = Scratched()
    data = noise(3 * MIB, 9)
    others = {*(farm.path / "staging").iterdir()}
    upload = farm.begin(data)
    upload.write(data[:MIB])
    (path,) = {*(farm.path / "staging").iterdir()} - others
    upload.abandon()
    farm.engine.close()
    files.bad = {(path.stem, 0)}
    told: list[tuple[str, int, int]] = []
    rebuilt(farm, files, told)
    assert [name for name, *_ in told] == [path.stem]
    check(farm)


def test_however_many_there_are(farm: Farm) -> None:
    """The owner has said so, and sees how they come; what can be read is not touched."""
    files = Scratched()
    name, offset = place_of(farm, 2)
    farm.engine.close()
    files.bad = {(name, offset + BLOCK * (1 + 2 * at)) for at in range(MET_MAX + 10)}
    bad = sorted(files.bad)
    before = (farm.path / "log" / f"{name}.seg").read_bytes()
    told: list[tuple[str, int, int]] = []
    rebuilt(farm, files, told)
    assert told == [(*one, BLOCK) for one in bad]
    assert [one for one in files.written if one[0] == name] == told
    after = (farm.path / "log" / f"{name}.seg").read_bytes()
    changed = [
        at for at in range(0, len(before), BLOCK) if before[at:][:BLOCK] != after[at:][:BLOCK]
    ]
    assert changed == [at for _, at in bad]
    check(farm, lost=2)


def test_one_that_stays_bad_is_told_of_each_time(farm: Farm) -> None:
    """With its file; what the write has left in memory is not taken for what the disk has."""
    files = Scratched()
    name, offset = place_of(farm, 0)
    farm.engine.close()
    files.bad, files.heals = {(name, offset)}, False
    for tries in (1, 2):
        told: list[tuple[str, int, int]] = []
        with pytest.raises(OSError, match=rf"Input/output.*{name}\.seg"):
            rebuilt(farm, files, told)
        assert (told, len(files.written)) == ([(name, offset, BLOCK)], tries)


def test_a_disk_that_only_stumbled_keeps_all_it_has(farm: Farm) -> None:
    """Nor is anything written where another disk has come in the place of the one that failed."""
    files = Scratched()
    name, offset = place_of(farm, 0)
    farm.engine.close()
    before = bytes_of(farm)
    files.bad, files.stumbles = {(name, offset)}, True
    told: list[tuple[str, int, int]] = []
    rebuilt(farm, files, told)
    assert (told, files.written, bytes_of(farm)) == ([], [], before)
    files.bad, files.stumbles, files.is_another = {(name, offset)}, False, True
    with pytest.raises(OSError, match="Stale"):
        rebuilt(farm, files, told)
    assert (told, files.written, bytes_of(farm)) == ([], [], before)


def test_what_is_no_record_is_left_alone(farm: Farm) -> None:
    """As some systems put it into each directory."""
    files = Scratched()
    farm.engine.close()
    (farm.path / "staging" / "@eaDir").mkdir()
    (farm.path / "shards" / ".DS_Store").write_bytes(bytes(100))
    (farm.path / "log" / "elsewhere").symlink_to("/dev/null")
    (farm.path / "log" / "00000001.seg~").write_bytes(bytes(9000))
    (farm.path / "staging" / "leaving.new").write_bytes(bytes(100))
    files.bad = {("00000001", 99 * BLOCK * 1000), ("leaving", 0)}
    rebuilt(farm, files, [])
    assert files.written == []
    check(farm)


def test_an_index_stays_until_there_is_another(farm: Farm) -> None:
    """A volume that serves all but one shard would be shut by trying to mend it."""
    files = Scratched()
    name, offset = place_of(farm, 0)
    farm.engine.close()
    index = farm.path / "index.sqlite"
    before = index.read_bytes()
    files.bad = {(name, offset)}
    with pytest.raises(OSError, match="Input/output"):
        rebuilt(farm, files)
    assert index.read_bytes() == before
    assert [path.name for path in farm.path.glob("index*")] == [index.name]
    files.bad.clear()
    rebuilt(farm, files)
    assert [path.name for path in farm.path.glob("index*")] == [index.name]
    check(farm)


def test_what_a_killed_rebuild_set_aside_goes_at_the_next_start(farm: Farm) -> None:
    farm.engine.close()
    index = farm.path / "index.sqlite"
    index.rename(index.with_name("index.sqlite.before"))
    check(farm)
    assert {path.name for path in farm.path.glob("index*before")} == set()


def test_on_a_disk_that_cannot_be_read_at_all_nothing_is_written(farm: Farm) -> None:
    files = Scratched()
    name, offset = place_of(farm, 0)
    farm.engine.close()
    files.bad, files.dies = {(name, offset)}, True
    with pytest.raises(OSError, match="Input/output"):
        rebuilt(farm, files, [])
    assert files.is_dead
    assert files.written == []


class Unwilling(OsFiles):
    """One call that changes names fails; or the process is killed there, and nothing is undone."""

    def __init__(self, fails_at: int, *, kills: bool) -> None:
        self.left = fails_at
        self.kills = kills

    def rename(self, source: Path, target: Path) -> None:
        self._count()
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._count()
        super().unlink(path)

    def sync_directory(self, path: Path) -> None:
        self._count()
        super().sync_directory(path)

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0 or (self.kills and self.left < 0):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_each_file_of_an_index_is_set_aside_and_put_back_durably(farm: Farm) -> None:
    """Never may a database be found beside the write-ahead log of another one."""
    farm.engine.close()
    (farm.path / "index.sqlite-wal").touch()
    files = RecordingFiles()
    with pytest.raises(KeyError), set_aside(files, Paths(farm.path)):
        files.forget()
        raise KeyError
    calls = [
        (one.name, one.path) for one in files.calls if one.name in {"rename", "sync_directory"}
    ]
    synced = ("sync_directory", farm.path.name)
    back = [("rename", "index.sqlite.before"), ("rename", "index.sqlite-wal.before")]
    assert calls == [synced, back[0], synced, back[1], synced]
    check(farm)


@pytest.mark.parametrize("kills", [False, True])
def test_whatever_fails_meanwhile_no_shard_is_lost_and_nothing_is_left(
    farm: Farm, *, kills: bool
) -> None:
    farm.engine.close()
    for number in count(1):
        (farm.path / "index.sqlite-wal").touch()
        files = Unwilling(number, kills=kills)
        with suppress(OSError):
            rebuilt(farm, files)
        if files.left > 0:
            break
        check(farm)
        left = {path.name for path in farm.path.glob("*.before")}
        # Without its database a write-ahead log is small, and goes with the next rebuild.
        assert left <= {"index.sqlite-wal.before"}, number
    assert number > 8


def test_a_bad_sector_under_a_note_about_tombstones_concerns_nobody_without_them(
    farm: Farm,
) -> None:
    files = Scratched()
    farm.engine.close()
    note_met(OsFiles(), farm.path, 3)
    files.bad = {(Paths(farm.path).met.name, 0)}
    rebuilt(farm, files)
    check(farm)
