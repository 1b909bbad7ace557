"""One volume's memory of the contract database alone: what is kept, where, and when not."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest

from farmer.storage import generation as generation_module
from farmer.storage.directory import Paths
from farmer.storage.errors import VolumeClosedError
from farmer.storage.generation import Generation, Witness
from tests.storage.recording import Fault, RecordingFiles

BOOK, OTHER = b"b" * 16, b"o" * 16


def counted(counter: int, book: bytes = BOOK, stamp: bytes = b"s" * 8) -> Generation:
    return Generation(book, counter, stamp)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    paths.marker.touch()
    return paths


@pytest.fixture
def files() -> Iterator[RecordingFiles]:
    files = RecordingFiles()
    yield files
    assert not files.is_open


def remembered(files: RecordingFiles, paths: Paths) -> set[Generation]:
    """Return what the next run finds."""
    witness = Witness(files, paths)
    assert witness.seen == ()
    witness.recall()
    witness.close()
    return set(witness.seen)


def test_the_two_notes_before_a_crash_are_there(files: RecordingFiles, paths: Paths) -> None:
    witness = Witness(files, paths)
    assert remembered(files, paths) == set()
    for counter in range(1, 6):
        witness.note(counted(counter))
        kept = {counted(one) for one in (counter - 1, counter) if one}
        assert set(witness.seen) == remembered(files, paths) == kept
    witness.close()
    assert paths.book.stat().st_size == 4096 + 256


def test_a_later_run_writes_over_the_older_note(files: RecordingFiles, paths: Paths) -> None:
    for counter in range(1, 7):
        witness = Witness(files, paths)
        witness.note(counted(counter))
        witness.close()
        kept = {counted(one) for one in (counter - 1, counter) if one}
        assert remembered(files, paths) == kept


def test_a_note_is_written_and_synced_and_the_files_name_once(
    files: RecordingFiles, paths: Paths
) -> None:
    calls = ("pwritev", "sync_data", "sync_directory")

    def steps(witness: Witness, counter: int) -> tuple[str, ...]:
        files.forget()
        witness.note(counted(counter))
        return tuple(files.names(*calls))

    first = Witness(files, paths)
    assert [steps(first, counter) for counter in (1, 2)] == [calls, calls[:2]]
    first.close()
    later = Witness(files, paths)
    later.recall()
    assert steps(later, 3) == calls[:2]
    later.close()


def test_what_is_known_is_not_written_again(files: RecordingFiles, paths: Paths) -> None:
    witness = Witness(files, paths)
    for counter in (1, 2):
        witness.note(counted(counter))
    files.forget()
    for counter in (1, 2):
        witness.note(counted(counter))
    assert files.names("pwritev", "sync_data") == []
    witness.close()


def test_a_slower_thread_does_not_note_an_older_state_over_a_newer(
    files: RecordingFiles, paths: Paths
) -> None:
    witness = Witness(files, paths)
    witness.note(counted(5))
    witness.note(counted(4))
    assert witness.seen == (counted(5),)
    witness.note(counted(5, stamp=b"t" * 8))
    assert set(witness.seen) == {counted(5), counted(5, stamp=b"t" * 8)}, "another past"
    witness.note(counted(1, OTHER))
    assert counted(1, OTHER) in witness.seen, "another database"
    witness.close()


def test_an_older_database_is_noted_by_a_later_run(files: RecordingFiles, paths: Paths) -> None:
    """Whether it is the right one is for others to say: only within a run is it a late thread."""
    witness = Witness(files, paths)
    witness.note(counted(5))
    witness.close()
    later = Witness(files, paths)
    later.note(counted(4))
    assert set(later.seen) == {counted(4), counted(5)}
    later.close()


@pytest.mark.parametrize("call", ["pwritev", "sync_data", "sync_directory"])
def test_a_note_that_failed_is_not_said_to_be_kept(
    files: RecordingFiles, paths: Paths, call: str
) -> None:
    witness = Witness(files, paths)
    files.fault = Fault(0, errno.EIO, lambda one: one.name == call)
    with pytest.raises(OSError, match="Input/output"):
        witness.note(counted(1))
    assert set(witness.seen) == set()
    files.fault = None
    witness.note(counted(1))
    assert set(witness.seen) == {counted(1)}
    if call == "sync_directory":
        assert files.names("sync_directory") == ["sync_directory"] * 2
    witness.close()


def test_a_file_that_cannot_be_read_is_closed_and_tried_again(
    files: RecordingFiles, paths: Paths
) -> None:
    witness = Witness(files, paths)
    witness.note(counted(1))
    witness.close()
    files.fault = Fault(0, errno.EIO, lambda call: call.name == "pread")
    again = Witness(files, paths)
    with pytest.raises(OSError, match="Input/output"):
        again.recall()
    assert not files.is_open
    files.fault = None
    again.recall()
    assert again.seen == (counted(1),)
    again.close()
    again.close()


def test_nothing_is_written_where_no_volume_is(files: RecordingFiles, paths: Paths) -> None:
    paths.marker.unlink()
    witness = Witness(files, paths)
    for use in (witness.recall, lambda: witness.note(counted(1))):
        with pytest.raises(FileNotFoundError, match="is missing"):
            use()
    assert not paths.book.exists()


@pytest.mark.parametrize("torn", [0, 4096])
def test_of_a_torn_note_the_other_copy_is_left_and_is_not_written_over(
    files: RecordingFiles, paths: Paths, torn: int
) -> None:
    witness = Witness(files, paths)
    for counter in (1, 2):
        witness.note(counted(counter))
    witness.close()
    raw = bytearray(paths.book.read_bytes())
    raw[torn + 100] ^= 1
    paths.book.write_bytes(raw)
    (left,) = remembered(files, paths)
    again = Witness(files, paths)
    again.note(counted(9))
    again.close()
    assert remembered(files, paths) == {left, counted(9)}


@pytest.mark.parametrize(
    ("at", "field"),
    [
        (0, b"FARMBOX\0"),
        (8, (2).to_bytes(2, "big")),
        (8, (0).to_bytes(2, "big")),
        (32, (1 << 62).to_bytes(8, "big")),
        (32, b"\xff" * 8),
    ],
    ids=["magic", "later version", "no version", "counter", "largest counter"],
)
def test_a_note_of_another_kind_says_nothing(
    files: RecordingFiles, paths: Paths, at: int, field: bytes
) -> None:
    witness = Witness(files, paths)
    witness.note(counted(1))
    witness.close()
    (at_file,) = (one for one in (0, 4096) if paths.book.read_bytes()[one : one + 4] == b"FARM")
    raw = bytearray(paths.book.read_bytes())
    front = bytearray(raw[at_file : at_file + 252])
    front[at : at + len(field)] = field
    raw[at_file : at_file + 256] = bytes(front) + crc32(front).to_bytes(4, "big")
    paths.book.write_bytes(raw)
    assert remembered(files, paths) == set()


def test_the_file_is_laid_out_as_its_format_says(files: RecordingFiles, paths: Paths) -> None:
    witness = Witness(files, paths)
    numbers = (0x0102030405060708, 0x0102030405060709)
    for number in numbers:
        witness.note(counted(number))
    witness.close()
    raw = paths.book.read_bytes()
    copies = raw[:256], raw[4096:]
    assert {int.from_bytes(copy[32:40], "big") for copy in copies} == set(numbers)
    for copy in copies:
        assert copy[:16] == b"FARMBOK\0" + b"\0\1" + bytes(6)
        assert (copy[16:32], copy[40:48]) == (BOOK, b"s" * 8)
        assert copy[48:252] == bytes(204)
        assert copy[252:] == crc32(copy[:252]).to_bytes(4, "big")


def test_what_was_closed_is_the_next_openings(files: RecordingFiles, paths: Paths) -> None:
    """It does not know what that one notes, and would write over the latest."""
    for was_opened in (False, True):
        witness = Witness(files, paths)
        if was_opened:
            witness.recall()
        witness.close()
        with pytest.raises(VolumeClosedError):
            witness.note(counted(1))
    assert remembered(files, paths) == set()


def test_a_note_that_hangs_holds_up_the_next_only_for_a_moment(
    files: RecordingFiles, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation_module, "PATIENCE_S", 0.01)
    witness = Witness(files, paths)
    witness.note(counted(1))

    def meanwhile(fd: int) -> None:
        with pytest.raises(TimeoutError):
            witness.note(counted(3))
        # Not closed below whoever writes in it, and no error.
        witness.close()
        assert fd in files.is_open

    with monkeypatch.context() as patch:
        patch.setattr(files, "sync_data", meanwhile)
        witness.note(counted(2))
    assert set(witness.seen) == {counted(1), counted(2)}
    witness.note(counted(3))
    assert set(witness.seen) == {counted(2), counted(3)}
    witness.close()


def test_what_a_kill_left_is_synced_before_it_is_believed(
    files: RecordingFiles, paths: Paths
) -> None:
    """Else it would be lost in a power cut, and nobody would note it again."""
    witness = Witness(files, paths)
    witness.note(counted(1))
    witness.close()
    files.forget()
    later = Witness(files, paths)
    later.recall()
    watched = ("sync_data", "sync_directory", "pread")
    assert tuple(files.names(*watched)) == watched
    later.close()


@pytest.mark.parametrize("call", ["sync_data", "sync_directory"])
def test_what_cannot_be_synced_is_not_believed(
    files: RecordingFiles, paths: Paths, call: str
) -> None:
    witness = Witness(files, paths)
    witness.note(counted(1))
    witness.close()
    later = Witness(files, paths)
    files.fault = Fault(0, errno.EIO, lambda one: one.name == call)
    with pytest.raises(OSError, match="Input/output"):
        later.recall()
    assert later.seen == ()
    files.fault = None
    later.recall()
    assert later.seen == (counted(1),)
    later.close()
