"""The small file that names who is crossing: how it is written, and what it is taken for."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import pytest

from farmer.model.ids import NodeId, ShardId
from farmer.storage.directory import Paths
from farmer.storage.files import Buffer
from farmer.storage.journal import CROSSING_MAX, NOTHING, Crossers, Journal
from tests.storage.bench import ALICE, BOB
from tests.storage.recording import Fault, RecordingFiles

SOURCE, TARGET = b"s" * 16, b"t" * 16


@pytest.fixture
def root(tmp_path: Path) -> Path:
    Paths(tmp_path).staging.mkdir()
    return tmp_path


def shard(number: int) -> ShardId:
    return ShardId(number.to_bytes(32, "big"))


def crossers(*numbers: int, renter: NodeId = ALICE) -> Crossers:
    return Crossers(SOURCE, TARGET, frozenset((renter, shard(number)) for number in numbers))


def written(root: Path, what: Crossers) -> Path:
    Journal(RecordingFiles(), root).write(what)
    return root / "moving"


def reread(root: Path) -> Crossers:
    files = RecordingFiles()
    found = Journal(files, root).open
    assert not files.is_open
    return found


def test_the_file_stands_on_the_disk_as_it_is_drawn(root: Path) -> None:
    raw = written(root, Crossers(SOURCE, TARGET, frozenset({(BOB, shard(9)), (ALICE, shard(3))})))
    front = b"FARMMOV\0" + b"\0\1" + bytes(2) + b"\0\0\0\2" + SOURCE + TARGET
    front += ALICE.raw + shard(3).raw + BOB.raw + shard(9).raw
    assert raw.read_bytes() == front + crc32(front).to_bytes(4, "big")


@pytest.mark.parametrize("count", [0, 1, 2, CROSSING_MAX])
def test_what_was_written_is_read_at_the_next_start(root: Path, count: int) -> None:
    what = crossers(*range(count))
    written(root, what)
    assert reread(root) == what


def test_a_volume_that_never_took_part_knows_of_nothing(root: Path) -> None:
    assert reread(root) == NOTHING
    assert NOTHING.keys == frozenset()


def test_the_first_crossing_makes_the_file_and_the_next_ones_write_over_it(root: Path) -> None:
    """Each of them is synced before the journal says so."""
    files = RecordingFiles()
    journal = Journal(files, root)
    files.forget()
    journal.write(crossers(1, 2, 3))
    assert files.names() == [
        *("unlink", "open", "pwritev", "sync_data", "rename", "sync_directory")
    ]
    assert journal.open == crossers(1, 2, 3)
    journal.settle()
    assert journal.open == NOTHING
    assert reread(root) == crossers(1, 2, 3), "the file still names them"
    inode = (root / "moving").stat().st_ino
    files.forget()
    journal.write(crossers(4))
    assert files.names("open", "pwritev", "sync_data") == ["open", "pwritev", "sync_data"]
    assert (root / "moving").stat().st_ino == inode
    assert journal.open == reread(root) == crossers(4), "whatever is left of a longer one behind"
    assert not files.is_open


def test_a_crossing_that_could_not_be_noted_has_not_begun(root: Path) -> None:
    written(root, crossers(1))
    for name in ("pwritev", "sync_data"):
        files = RecordingFiles()
        journal = Journal(files, root)
        journal.settle()
        files.fault = Fault(0, errno.EIO, lambda call, name=name: call.name == name)  # type: ignore[misc]  # mypy does not know the type of a lambda with a default
        with pytest.raises(OSError, match="Input/output"):
            journal.write(crossers(2))
        assert journal.open == NOTHING
        assert not files.is_open


def test_one_crossing_is_noted_at_a_time(root: Path) -> None:
    """Neither is the one before it forgotten, nor are two of them written into each other."""
    errors: list[OSError] = []

    class Slow(RecordingFiles):
        """While it writes, somebody else wants to."""

        def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
            try:
                journal.write(crossers(9))
            except OSError as error:
                errors.append(error)
            super().pwritev(fd, buffers, offset)

    journal = Journal(Slow(), root)
    journal.write(crossers(1))
    with pytest.raises(OSError, match="on their way"):
        journal.write(crossers(2))
    assert (len(errors), journal.open) == (1, crossers(1))
    journal.settle()
    journal.write(crossers(3))
    assert (len(errors), journal.open, reread(root)) == (2, crossers(3), crossers(3))


def test_a_file_that_was_torn_names_a_crossing_that_never_began(root: Path) -> None:
    path = written(root, crossers(1, 2))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert reread(root) == NOTHING
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        # Also in the two bytes that say nothing: the checksum is of all that is before it.
        assert reread(root) == NOTHING
    path.write_bytes(whole + b"what is left of a longer one")
    assert reread(root) == crossers(1, 2)


@pytest.mark.parametrize(("at", "data"), [(0, b"FARMBOK"), (8, b"\0\2"), (8, b"\0\0")])
def test_another_magic_or_version_is_not_this_file(root: Path, at: int, data: bytes) -> None:
    path = written(root, crossers(1))
    raw = path.read_bytes()
    front = (raw[:at] + data + raw[at + len(data) :])[:-4]
    path.write_bytes(front + crc32(front).to_bytes(4, "big"))
    assert reread(root) == NOTHING


def test_a_file_that_cannot_be_opened_or_read_is_not_taken_for_none(root: Path) -> None:
    written(root, crossers(1))
    for name in ("open_read", "pread"):
        files = RecordingFiles()
        files.fault = Fault(0, errno.EIO, lambda call, name=name: call.name == name)  # type: ignore[misc]  # mypy does not know the type of a lambda with a default
        with pytest.raises(OSError, match="Input/output"):
            Journal(files, root)
        assert not files.is_open
