"""Reading what memory holds: never waiting, never wrong, and silent about all that fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import BLOCK_BYTES, RECORD_HEADER_BYTES, block_count
from farmer.storage import files, syscalls
from farmer.storage.errors import CorruptShardError
from farmer.storage.files import Access, Buffer, OsFiles
from farmer.storage.reader import VolumeReader
from farmer.storage.syscalls import is_cached
from tests.needs import lack
from tests.storage.bench import ALICE, MIB, Farm, noise
from tests.storage.recording import RecordingFiles
from tests.storage.rot import rot

DATA = noise(MIB + 5)
STEP = 4 * BLOCK_BYTES


class Memory(RecordingFiles):
    """Memory holds all, or nothing, or what `answer` says."""

    answer: bytes | None = b""

    def pread_cached(self, fd: int, length: int, offset: int) -> Buffer | None:
        self._do(self._named("pread_cached", fd, length), lambda: None)
        return self.answer if self.answer != b"" else self._os.pread(fd, length, offset)


class Shelf:
    """A farmer with one shard, and a reader of it."""

    def __init__(self, root: Path) -> None:
        self.files = Memory()
        self.farm = Farm(root, files=self.files)
        self.shard = self.farm.store(DATA).shard
        self.reader = self.opened(self.shard)

    def opened(self, shard: ShardId) -> VolumeReader:
        reader = self.farm.engine.open(ALICE, shard)
        assert isinstance(reader, VolumeReader)
        return reader

    @property
    def asked(self) -> int:
        return len(self.files.names("pread_cached"))


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path)
    yield shelf
    shelf.reader.close()
    shelf.farm.engine.close()


def test_it_is_what_would_be_read(shelf: Shelf) -> None:
    shelf.reader.prepare()
    shelf.files.forget()
    for at in range(0, len(DATA), STEP):
        length = min(STEP, len(DATA) - at)
        assert shelf.reader.read_cached(at, length) == DATA[at : at + length]
    assert not shelf.files.names("pread")


def test_nothing_is_read_without_what_it_is_compared_with(shelf: Shelf) -> None:
    assert shelf.reader.read_cached(0, STEP) is None
    assert not shelf.asked


def test_only_what_blocks_are_compared_with_is_kept(shelf: Shelf) -> None:
    """Four bytes a block, not 36; where a range is to be proved, hashes are read again."""
    blocks = block_count(len(DATA))
    shelf.reader.prepare()
    assert shelf.reader.kept_bytes == 4 * blocks
    with_hashes = shelf.opened(shelf.shard)
    assert with_hashes.kept_bytes == 0
    nodes = with_hashes.prove_range(0, STEP)
    assert with_hashes.kept_bytes == 36 * blocks
    with_hashes.close()
    assert shelf.reader.prove_range(0, STEP) == nodes
    shelf.reader.prepare()
    assert shelf.reader.kept_bytes == 4 * blocks
    assert shelf.reader.read(0, STEP) == DATA[:STEP]


@pytest.mark.parametrize(("offset", "length"), [(1, STEP - 1), (0, STEP - 1), (5, BLOCK_BYTES)])
def test_parts_of_blocks_are_not_read(shelf: Shelf, offset: int, length: int) -> None:
    shelf.reader.prepare()
    assert shelf.reader.read_cached(offset, length) is None
    assert shelf.reader.read_cached(0, STEP) == DATA[:STEP]


def test_where_the_disk_was_needed_once_memory_is_not_asked_again(shelf: Shelf) -> None:
    """It would be in vain for each step of a large shard."""
    shelf.reader.prepare()
    shelf.files.answer = None
    assert shelf.reader.read_cached(0, STEP) is None
    shelf.files.answer = b""
    assert shelf.reader.read_cached(STEP, STEP) is None
    assert shelf.asked == 1


def test_wrong_bytes_are_not_returned_and_reading_tells_of_them(shelf: Shelf) -> None:
    shelf.reader.prepare()
    row = shelf.reader.row
    path = shelf.farm.engine.opened()[0].handles.path_of(row.place)
    with path.open("r+b") as file:
        file.seek(row.place.offset + RECORD_HEADER_BYTES + 2 * BLOCK_BYTES)
        file.write(b"rot")
    assert shelf.reader.read_cached(0, STEP) is None
    assert shelf.farm.engine.volumes()[0].quarantined == 0
    with pytest.raises(CorruptShardError) as error:
        shelf.reader.read(0, STEP)
    assert error.value.offset == 2 * BLOCK_BYTES


def test_a_file_that_is_not_open_is_not_opened_for_it(shelf: Shelf) -> None:
    shelf.reader.prepare()
    shelf.farm.engine.opened()[0].handles.forget(shelf.reader.row.place)
    shelf.files.forget()
    assert shelf.reader.read_cached(0, STEP) is None
    assert not shelf.files.calls


def test_a_file_is_lent_only_as_long_as_it_is_read(shelf: Shelf) -> None:
    """What is forgotten later is closed."""
    shelf.reader.prepare()
    assert shelf.reader.read_cached(0, STEP) is not None
    handles = shelf.farm.engine.opened()[0].handles
    handle = handles.take_open(shelf.reader.row.place)
    assert handle is not None and handle.users == 1
    handles.give_back(handle)


def test_where_only_hashes_could_tell_it_is_left_to_a_thread(shelf: Shelf) -> None:
    """The checksums are damaged: hashing would hold up all others."""
    shelf.reader.close()
    rot(shelf.farm, shelf.reader.row, "checksums")
    reader = shelf.opened(shelf.shard)
    reader.prepare()
    shelf.files.forget()
    assert reader.kept_bytes == 32 * block_count(len(DATA))
    assert reader.read_cached(0, STEP) is None
    assert not shelf.asked
    assert reader.read(0, STEP) == DATA[:STEP]
    reader.close()


class TestOsFiles:
    """The calls of the system, which some systems and filesystems do not have."""

    @pytest.fixture
    def fd(self, tmp_path: Path) -> Iterator[int]:
        path = tmp_path / "file"
        path.write_bytes(DATA)
        fd = OsFiles().open(path, Access.READ)
        yield fd
        os.close(fd)

    def answer(
        self, monkeypatch: pytest.MonkeyPatch, have: int | BaseException, *, cached: bool = True
    ) -> None:
        def preadv(_fd: int, buffers: Sequence[bytearray], at: int, flags: int) -> int:
            assert flags == files._NOWAIT
            assert cached, "it would begin to read"
            if isinstance(have, BaseException):
                raise have
            buffers[0][:have] = DATA[at : at + have]
            return have

        monkeypatch.setattr(os, "preadv", preadv)
        monkeypatch.setattr(files, "is_cached", lambda _fd, _at, _length: cached)

    def test_what_memory_holds_is_returned(self, fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer(monkeypatch, 50)
        assert OsFiles().pread_cached(fd, 50, 7) == DATA[7:57]

    @pytest.mark.parametrize(
        "have",
        [
            49,
            0,
            BlockingIOError(errno.EAGAIN, "would wait"),
            OSError(errno.EOPNOTSUPP, "not here"),
            OSError(errno.EIO, "broken"),
            MemoryError(),
        ],
        ids=repr,
    )
    def test_what_it_does_not_hold_is_not(
        self, fd: int, monkeypatch: pytest.MonkeyPatch, have: int | BaseException
    ) -> None:
        self.answer(monkeypatch, have)
        assert OsFiles().pread_cached(fd, 50, 7) is None

    def test_nothing_is_begun_where_a_page_is_missing(
        self, fd: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.answer(monkeypatch, 50, cached=False)
        assert OsFiles().pread_cached(fd, 50, 7) is None

    def test_a_system_without_it_is_asked_nothing(
        self, fd: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.answer(monkeypatch, 50)
        monkeypatch.setattr(files, "_NOWAIT", None)
        assert OsFiles().pread_cached(fd, 50, 7) is None

    def test_the_real_ones_return_all_or_nothing(self, fd: int) -> None:
        found = OsFiles().pread_cached(fd, len(DATA), 0)
        assert found == DATA if knows_the_cache(fd) else found is None
        assert OsFiles().pread_cached(fd, len(DATA) + 1, 0) is None

    def test_what_memory_has_forgotten_is_not_read(self, fd: int) -> None:
        """Not even begun: the pages are still missing afterwards."""
        os.fsync(fd)
        OsFiles().uncache(fd, 0, 0)
        if is_cached(fd, 0, len(DATA)):
            lack("a filesystem that does not lie in memory")
        assert OsFiles().pread_cached(fd, STEP, 0) is None
        assert not is_cached(fd, 0, 1)

    def test_a_system_that_cannot_say_says_no(
        self, fd: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(syscalls, "_syscall", None)
        assert not is_cached(fd, 0, 1)
        monkeypatch.setattr(syscalls, "_syscall", lambda *_: -1)
        assert not is_cached(fd, 0, 1)
        assert not is_cached(-1, 0, 1)


def knows_the_cache(fd: int) -> bool:
    """Say whether the system counts cached pages, and reads them without waiting, here."""
    try:
        os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT)
    except OSError:
        return False
    return is_cached(fd, 0, 1)
