"""The files of a volume and of its annex as those of one directory, name by name."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farmer.storage import annex as annex_module
from farmer.storage.annex import (
    AnnexFiles,
    annex_of,
    beside,
    bring_home,
    forget_index,
    make_annex,
    remove_annex,
    with_annex,
)
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.files import Access
from farmer.storage.records import SegmentHeader
from tests.storage.recording import Fault, ReadOnlyFiles

READ, WRITE, CREATE, ENSURE = Access.READ, Access.WRITE, Access.CREATE, Access.ENSURE


class Place:
    """A volume's directory, its annex, and a third place."""

    def __init__(self, folder: Path) -> None:
        self.root, self.annex, self.other = folder / "disk", folder / "annex", folder / "other"
        for path in (self.root / "log", self.root / "staging", self.annex, self.other):
            path.mkdir(parents=True)
        self.real = ReadOnlyFiles()
        self.real.read_only = "disk"
        self.files = AnnexFiles(self.real, self.root, self.annex)

    def put(self, name: str, data: bytes) -> Path:
        path = self.root / name
        path.write_bytes(data)
        return path

    def write(self, path: Path, data: bytes, access: Access = ENSURE) -> None:
        fd = self.files.open(path, access)
        try:
            self.files.pwritev(fd, [data], 0)
            self.files.sync_data(fd)
        finally:
            self.files.close(fd)

    def read(self, path: Path) -> bytes:
        fd = self.files.open(path, READ)
        try:
            return self.files.pread(fd, 100, 0)
        finally:
            self.files.close(fd)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    assert not place.real.is_open


def refused(number: int, call: Callable[[], object]) -> None:
    with pytest.raises(OSError, match=r".") as caught:
        call()
    assert caught.value.errno == number


def test_what_is_on_the_disk_alone_is_read_there(place: Place) -> None:
    path = place.put("book", b"disk")
    assert place.files.exists(path)
    assert place.read(path) == b"disk"
    assert place.files.inode(path) == (path.stat().st_dev, path.stat().st_ino)
    assert not place.files.exists(place.root / "nothing")
    refused(errno.ENOENT, lambda: place.read(place.root / "nothing"))


def test_what_is_changed_is_copied_first_and_read_in_the_annex(place: Place) -> None:
    path = place.put("book", b"on the disk")
    place.write(path, b"IN")
    assert (path.read_bytes(), place.read(path)) == (b"on the disk", b"IN the disk")
    there = place.annex / "book"
    assert place.files.inode(path)[1] == there.stat().st_ino
    place.write(path, b"AT", WRITE)
    assert place.read(path) == b"AT the disk"
    assert place.files.allocated(path) == there.stat().st_blocks * 512


def test_a_file_in_a_directory_of_its_own_gets_one_in_the_annex(place: Place) -> None:
    path = place.root / "log" / "00000002.seg"
    place.write(path, b"new", CREATE)
    assert (place.annex / "log" / "00000002.seg").read_bytes() == b"new"
    assert (place.files.exists(path), path.exists()) == (True, False)


def test_what_is_there_is_not_made_once_more(place: Place) -> None:
    path = place.put("book", b"disk")
    refused(errno.EEXIST, lambda: place.files.open(path, CREATE))
    assert list(place.annex.iterdir()) == []
    place.write(place.root / "new", b"x")
    refused(errno.EEXIST, lambda: place.files.open(place.root / "new", CREATE))


def test_of_a_large_file_no_copy_is_made(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annex_module, "_COPIED_UP_BYTES_MAX", 10)
    place.write(place.put("small", b"0123456789"), b"x")
    refused(errno.EROFS, lambda: place.files.open(place.put("large", b"01234567890"), ENSURE))
    assert [one.name for one in place.annex.iterdir()] == ["small"]


def test_a_copy_is_whole_whatever_its_size(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annex_module, "_STEP_BYTES", 4)
    path = place.put("book", b"0123456789")
    place.write(path, b"X")
    assert place.read(path) == b"X123456789"
    copied = [call for call in place.real.calls if call.name in {"pwritev", "sync_data"}]
    assert [call.name for call in copied[:4]] == ["pwritev"] * 3 + ["sync_data"]


def test_the_disks_own_files_are_read_only_by_whoever_would_write(place: Place) -> None:
    path = place.put("log/00000001.seg", b"segment")
    fd = place.files.open(path, WRITE)
    place.real.forget()
    place.files.sync_data(fd)
    place.files.truncate(fd, 1)
    assert not place.files.punch(fd, 0, 4096)
    assert place.real.calls == [], "nothing of that is asked of the disk"
    assert (place.files.size(fd), place.files.pread(fd, 9, 0)) == (7, b"segment")
    assert not place.files.is_hole(fd, 0, 7)
    refused(errno.EROFS, lambda: place.files.pwritev(fd, [b"x"], 0))
    refused(errno.EROFS, lambda: place.files.preallocate(fd, 10))
    place.files.close(fd)
    assert path.read_bytes() == b"segment"
    # The same number may be another file by now.
    held = [os.open(os.devnull, os.O_RDONLY)]
    while held[-1] != fd:
        held.append(os.open(os.devnull, os.O_RDONLY))
    os.close(held.pop())
    new = place.files.open(place.root / "new", CREATE)
    for one in held:
        os.close(one)
    assert new == fd
    place.files.preallocate(new, 8192)
    place.files.truncate(new, 5000)
    place.files.sync_data(new)
    assert place.files.size(new) == 5000
    assert place.files.punch(new, 0, 4096)
    assert place.files.is_hole(new, 0, 4096)
    assert place.files.inode(new)[1] == (place.annex / "new").stat().st_ino
    place.files.close(new)
    assert place.real.names("sync_data") == ["sync_data"]


def test_what_only_makes_it_faster_is_passed_on(place: Place) -> None:
    fd = place.files.open(place.put("log/00000001.seg", b"segment"), READ)
    place.real.forget()
    place.files.uncache(fd, 0, 7)
    place.files.begin_write_back(fd, 0, 7)
    asked = [(call.name, call.length) for call in place.real.calls]
    assert asked == [("uncache", 7), ("begin_write_back", 7)]
    place.files.close(fd)


def test_who_only_reads_takes_nothing_from_a_file_that_is_written(place: Place) -> None:
    fd = place.files.open(place.put("book", b"disk"), READ)
    place.real.forget()
    place.files.sync_data(fd)
    assert place.real.names("sync_data") == ["sync_data"]
    place.files.close(fd)


def test_what_is_removed_is_noted_as_gone_and_can_be_made_anew(place: Place) -> None:
    path = place.put("duty", b"disk")
    place.files.unlink(path)
    assert not place.files.exists(path)
    assert place.files.list(place.root) == ["log", "staging"]
    for access in (READ, WRITE):
        with pytest.raises(FileNotFoundError):
            place.files.open(path, access)
    place.files.unlink(path)
    assert not place.files.exists(path)
    assert path.read_bytes() == b"disk"
    place.write(path, b"new", CREATE)
    assert place.read(path) == b"new", "nothing of the old one is in it"
    place.files.unlink(path)
    assert not place.files.exists(path)
    place.write(path, b"again", ENSURE)
    assert place.read(path) == b"again"


def test_what_was_in_the_annex_alone_goes_without_a_note(place: Place) -> None:
    path = place.root / "new"
    place.write(path, b"new", CREATE)
    place.files.unlink(path)
    assert list(place.annex.iterdir()) == []
    place.files.unlink(path)
    assert list(place.annex.iterdir()) == []


def test_a_directory_lists_what_is_in_either(place: Place) -> None:
    for name in ("log/1", "log/2", "log/3"):
        place.put(name, b"disk")
    assert place.files.list(place.root / "log") == ["1", "2", "3"]
    place.files.unlink(place.root / "log" / "1")
    place.write(place.root / "log" / "2", b"annex")
    place.write(place.root / "log" / "0", b"annex")
    assert place.files.list(place.root / "log") == ["0", "2", "3"]


def test_a_file_that_was_written_is_renamed_in_the_annex(place: Place) -> None:
    draft, path = place.root / "staging" / "duty.new", place.put("duty", b"disk")
    place.write(draft, b"new", CREATE)
    place.files.rename(draft, path)
    assert (place.read(path), path.read_bytes()) == (b"new", b"disk")
    assert not place.files.exists(draft)
    place.files.unlink(path)
    place.write(draft, b"newer", CREATE)
    place.files.rename(draft, path)
    assert place.read(path) == b"newer"
    moved = place.root / "shards" / "ab" / "x.seg"
    place.files.rename(path, moved)
    assert place.read(moved) == b"newer"


def test_what_is_on_the_disk_stays_where_it_is(place: Place) -> None:
    path = place.put("book", b"disk")
    refused(errno.EROFS, lambda: place.files.rename(path, place.root / "other"))
    assert place.read(path) == b"disk"


def test_names_are_made_durable_where_they_are(place: Place) -> None:
    place.files.sync_directory(place.root / "log")
    assert place.real.names("sync_directory") == [], "nothing was changed in it"
    place.files.make_directory(place.root / "log")
    assert (place.annex / "log").is_dir()
    place.files.sync_directory(place.root / "log")
    place.files.sync_directory(place.other)
    done = [call.path for call in place.real.calls if call.name == "sync_directory"]
    assert done == ["log", "other"]


def test_other_places_are_none_of_its_business(place: Place) -> None:
    path = place.other / "file"
    assert not place.files.exists(path)
    place.write(path, b"other", CREATE)
    assert (place.files.exists(path), place.read(path)) == (True, b"other")
    place.files.unlink(path)
    assert not path.exists()
    assert list(place.annex.iterdir()) == []


def test_a_directory_of_the_annex_hides_none_of_the_disk(place: Place) -> None:
    """Whatever size the filesystem says it has: an empty file would."""
    (place.annex / "log").mkdir()
    assert place.files.exists(place.root / "log")
    assert "log" in place.files.list(place.root)


# Made, and brought home.


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Place]:
    """A place that has no annex yet."""
    place = Place(tmp_path)
    place.annex = tmp_path / "annexes" / "ab"
    yield place
    assert not place.real.is_open


def test_each_volume_has_an_annex_of_its_own(tmp_path: Path) -> None:
    assert annex_of(tmp_path, b"\xab" * 16) == tmp_path / ("ab" * 16)


def test_an_annex_begins_with_a_copy_of_the_index(made: Place) -> None:
    for name in ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm", "book"):
        made.put(name, name.encode())
    draft = made.annex.with_suffix(".new")
    (draft / "log").mkdir(parents=True)
    (draft / "index.sqlite").write_bytes(b"what a crash has left")
    make_annex(made.real, made.root, made.annex)
    assert sorted(one.name for one in made.annex.iterdir()) == [
        *("index.sqlite", "index.sqlite-wal", "log")
    ]
    assert (made.annex / "index.sqlite").read_bytes() == b"index.sqlite"
    assert not draft.exists()
    done = [(call.name, call.path) for call in made.real.calls]
    renamed = done.index(("rename", "ab.new"))
    assert done.index(("sync_directory", "ab.new")) < renamed
    assert done[renamed + 1 :] == [("sync_directory", "annexes")]


def test_an_annex_is_made_once(made: Place) -> None:
    make_annex(made.real, made.root, made.annex)
    (made.annex / "book").write_bytes(b"noted")
    made.put("index.sqlite", b"disk")
    make_annex(made.real, made.root, made.annex)
    assert sorted(one.name for one in made.annex.iterdir()) == ["book", "log"]


def test_files_are_those_of_both_where_there_is_an_annex(made: Place) -> None:
    assert beside(made.real, made.root, made.annex) is made.real
    make_annex(made.real, made.root, made.annex)
    assert isinstance(beside(made.real, made.root, made.annex), AnnexFiles)


def test_a_volume_that_can_be_written_needs_no_annex(made: Place) -> None:
    made.real.read_only = ""
    assert with_annex(made.real, made.root, made.annex, is_read_only=False) is None
    assert with_annex(made.real, made.root, None, is_read_only=True) is None
    assert not made.annex.exists()


def test_one_that_can_only_be_read_gets_one(made: Place) -> None:
    files = with_annex(made.real, made.root, made.annex, is_read_only=True)
    assert isinstance(files, AnnexFiles)
    assert made.annex.is_dir()
    again = with_annex(made.real, made.root, made.annex, is_read_only=True)
    assert isinstance(again, AnnexFiles)


def test_one_that_can_be_written_again_has_it_brought_home_if_it_is_trusted(made: Place) -> None:
    make_annex(made.real, made.root, made.annex)
    (made.annex / "book").write_bytes(b"noted")

    def files() -> AnnexFiles | None:
        return with_annex(made.real, made.root, made.annex, is_read_only=False)

    def files_untrusted() -> AnnexFiles | None:
        return with_annex(
            made.real, made.root, made.annex, is_read_only=False, may_come_home=False
        )

    assert isinstance(files(), AnnexFiles), "a probe says that it cannot be written"
    made.real.read_only = ""
    assert isinstance(files_untrusted(), AnnexFiles)
    made.real.fault = Fault(0, errno.EIO, lambda call: call.name == "rename")
    assert isinstance(files(), AnnexFiles), "it goes on apart, and is tried the next time"
    assert made.annex.exists()
    made.real.fault = None
    made.real.forget()
    assert files() is None
    assert not made.annex.exists()
    synced = [call.path for call in made.real.calls if call.name == "sync_directory"]
    assert synced[-1] == "annexes", "nor does a power cut bring it back"
    assert (made.root / "book").read_bytes() == b"noted"


def segment(number: int, *, first: int = 1, previous_end: int = 0) -> bytes:
    return SegmentHeader(
        volume=b"v" * 16,
        segment=b"s" * 16,
        number=number,
        first_sequence=first,
        previous_end=previous_end,
        created_at_ms=0,
    ).encode()


def home(place: Place) -> None:
    place.real.read_only = ""
    bring_home(place.real, place.root, place.annex)


def test_all_that_is_noted_comes_home_and_the_annex_goes(place: Place) -> None:
    place.put("book", b"disk")
    place.put("duty", b"disk")
    place.put("index.sqlite", b"disk")
    place.write(place.root / "book", b"note")
    place.files.unlink(place.root / "duty")
    place.write(place.root / "log" / "00000002.seg", segment(2), CREATE)
    (place.annex / "index.sqlite").write_bytes(b"annex")
    (place.root / "book.new").write_bytes(b"a draft that a crash has left")
    place.real.forget()
    home(place)
    assert (place.root / "book").read_bytes() == b"note"
    assert not (place.root / "duty").exists()
    assert (place.root / "log" / "00000002.seg").read_bytes() == segment(2)
    assert (place.root / "index.sqlite").read_bytes() == b"disk", "it follows the log by itself"
    assert not place.annex.exists()
    assert sorted(one.name for one in place.root.iterdir()) == [
        *("book", "index.sqlite", "log", "staging")
    ]
    synced = [call.path for call in place.real.calls if call.name == "sync_directory"]
    assert synced == ["disk", "log"]


def test_a_segment_that_is_home_already_is_kept(place: Place) -> None:
    """It may have grown there meanwhile, after a crash on the way."""
    place.put("log/00000002.seg", segment(2) + b"more")
    (place.annex / "log").mkdir()
    (place.annex / "log" / "00000002.seg").write_bytes(segment(2))
    home(place)
    assert (place.root / "log" / "00000002.seg").read_bytes() == segment(2) + b"more"
    assert not place.annex.exists()


def note(place: Place, number: int, data: bytes) -> Path:
    (place.annex / "log").mkdir(exist_ok=True)
    path = place.annex / "log" / f"{number:08d}.seg"
    path.write_bytes(data)
    return path


def test_another_segment_of_that_number_is_not_mixed_with_it(place: Place) -> None:
    """Nor is anything else brought home then."""
    other = segment(2, first=9) + b"a record"
    path = place.put("log/00000002.seg", other)
    note(place, 2, segment(2) + b"records")
    (place.annex / "book").write_bytes(b"noted")
    with pytest.raises(VolumeUnavailableError, match="was used without it"):
        home(place)
    assert place.annex.exists()
    assert path.read_bytes() == other
    assert not (place.root / "book").exists()


def test_one_without_records_that_tells_of_another_past_is_not_mixed_with_it_either(
    place: Place,
) -> None:
    """The segment before it had grown until it was begun."""
    path = place.put("log/00000002.seg", segment(2, previous_end=9000))
    note(place, 2, segment(2, previous_end=8192) + b"records")
    with pytest.raises(VolumeUnavailableError, match="was used without it"):
        home(place)
    assert path.read_bytes() == segment(2, previous_end=9000)


@pytest.mark.parametrize(
    "left",
    [b"", segment(2)[:100], b"x" * 4096, segment(2, first=9)],
    ids=["empty", "torn", "unsound", "sound"],
)
def test_what_a_failed_try_has_left_of_a_segment_is_replaced(place: Place, left: bytes) -> None:
    path = place.put("log/00000002.seg", left)
    note(place, 2, segment(2) + b"records")
    home(place)
    assert path.read_bytes() == segment(2) + b"records"
    assert not place.annex.exists()


def test_a_segment_that_is_noted_as_gone_goes_if_it_holds_nothing(place: Place) -> None:
    path = place.put("log/00000002.seg", segment(2))
    note(place, 2, b"")
    home(place)
    assert not path.exists()


def test_one_that_is_noted_as_gone_and_has_records_was_used_without_the_annex(
    place: Place,
) -> None:
    """Unless a later one is noted: then they were written again behind it."""
    path = place.put("log/00000002.seg", segment(2) + b"a record")
    note(place, 2, b"")
    note(place, 1, segment(1))
    with pytest.raises(VolumeUnavailableError, match="was used without it"):
        home(place)
    assert path.exists()
    note(place, 3, segment(3))
    home(place)
    assert not path.exists()


def test_a_draft_that_a_crash_has_left_does_not_come_home(place: Place) -> None:
    note(place, 2, segment(2)).rename(place.annex / "log" / "00000002.new")
    home(place)
    assert list((place.root / "log").iterdir()) == []
    assert not place.annex.exists()


def begun(place: Place) -> list[str]:
    """Open it apart; return what of the log the annex has then."""
    with_annex(place.real, place.root, place.annex, is_read_only=True)
    return sorted(path.name for path in (place.annex / "log").iterdir())


def test_a_last_segment_without_records_is_copied_into_the_annex(place: Place) -> None:
    """Durably: the disk may have it in the memory of the system alone."""
    place.put("log/00000001.seg", segment(1) + b"records")
    path = place.put("log/00000002.seg", segment(2))
    (place.annex / "log").mkdir()
    (place.annex / "log" / "00000002.new").write_bytes(b"a draft that a crash has left")
    place.real.forget()
    assert begun(place) == ["00000002.seg"]
    done = [call.name for call in place.real.calls if call.name != "make_directory"]
    assert done[-3:] == ["sync_data", "rename", "sync_directory"]
    path.unlink()
    assert place.read(path) == segment(2)[:100]
    place.put("log/00000002.seg", segment(2))
    place.real.forget()
    begun(place)
    assert "pwritev" not in place.real.names(), "it is copied once"


def test_one_with_records_is_not_copied(place: Place) -> None:
    (place.annex / "log").mkdir()
    assert begun(place) == []
    place.put("log/00000001.seg", segment(1))
    place.put("log/00000002.seg", segment(2) + b"records")
    assert begun(place) == []


def test_an_annex_goes_in_one_step(tmp_path: Path) -> None:
    annex, old = tmp_path / "ab", tmp_path / "ab.old"
    for path in (annex, old):
        path.mkdir()
        (path / "file").touch()
    remove_annex(annex)
    assert list(tmp_path.iterdir()) == []
    refused(errno.ENOENT, lambda: remove_annex(annex))


def test_of_a_disk_that_is_put_away_only_the_index_goes(tmp_path: Path) -> None:
    for name in ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm", "book"):
        (tmp_path / name).touch()
    forget_index(tmp_path)
    forget_index(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["book"]
