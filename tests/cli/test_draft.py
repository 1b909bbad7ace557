"""The file beside the target: one program writes it, and under its own name only."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from farmer.cli.exits import CommandError
from farmer.cli.renter_draft import Draft
from farmer.cli.renter_retrieving import Target
from farmer.model.ids import ShardId
from tests.needs import as_root

SHARD = ShardId(bytes(32))


def draft(folder: Path) -> Draft:
    return Draft(folder / "file", SHARD, 0)


def test_two_programs_do_not_write_one_file(tmp_path: Path) -> None:
    first = draft(tmp_path)
    with pytest.raises(CommandError, match="by another program"):
        draft(tmp_path)
    first.discard()
    draft(tmp_path).discard()


@pytest.mark.parametrize("ends", [Draft.publish, Draft.discard])
def test_a_file_that_was_opened_just_before_it_got_its_name_is_let_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: object
) -> None:
    """The other program ends between our opening and our locking."""
    first = draft(tmp_path)
    first.file.write(b"whole")
    lock, left = fcntl.flock, [first]

    def lock_late(file: object, how: int) -> None:
        if left:
            ends(left.pop())  # type: ignore[operator]
        lock(file, how)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", lock_late)
    second = draft(tmp_path)
    if ends is Draft.publish:
        assert (tmp_path / "file").read_bytes() == b"whole"
    second.file.write(b"again")
    second.publish()
    assert (tmp_path / "file").read_bytes() == b"again"


@pytest.mark.parametrize("letter", ["\u4e2d", "\u00e9", "x", "\U0001f4f7"])
def test_a_name_as_long_as_any_has_a_draft_beside_it(tmp_path: Path, letter: str) -> None:
    """In bytes, not in letters; and no letter is cut in two."""
    name = letter * (255 // len(letter.encode()))
    written = Draft(tmp_path / name, SHARD, 0)
    (beside,) = tmp_path.iterdir()
    assert beside.name.isprintable()
    written.file.write(b"whole")
    written.publish()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_name_that_is_no_text_has_a_draft_too(tmp_path: Path) -> None:
    """The bytes of a name from elsewhere, and a letter that begins where it is cut."""
    name = os.fsdecode(b"\xff" * 99 + "\u00e9".encode() + b"\xff" * 100)
    Draft(tmp_path / name, SHARD, 0).publish()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_has_its_name_stays_though_its_directory_is_sick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so does the draft that another program has begun under the same name since."""
    written, sync = draft(tmp_path), os.fsync

    def fail(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            draft_path(tmp_path).touch()
            raise OSError(errno.EIO, "sick")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="sick"):
        written.publish()
    written.discard()
    assert sorted(tmp_path.iterdir()) == [draft_path(tmp_path), tmp_path / "file"]


@pytest.fixture
def umask() -> Iterator[None]:
    """What most people have."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444, 0o755])
def test_what_replaces_a_file_may_be_read_by_the_same_people(tmp_path: Path, mode: int) -> None:
    """But not before it is written, when its group is not yet the other's: then we alone may."""
    target = tmp_path / "file"
    target.touch()
    target.chmod(mode)
    written = draft(tmp_path)
    assert stat.S_IMODE(os.fstat(written.file.fileno()).st_mode) == 0o600
    written.publish()
    assert stat.S_IMODE(target.stat().st_mode) == mode


def test_who_may_not_write_to_its_target_can_go_on_with_a_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not get the name; the mode of the target would shut us out."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    target = tmp_path / "file"
    target.touch()
    target.chmod(0o444)
    written = Draft(target, SHARD, 99)
    written.file.write(b"whole")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="full"):
            written.publish()
    written.file.close()
    again = Draft(target, SHARD, 99)
    assert stat.S_IMODE(os.fstat(again.file.fileno()).st_mode) == 0o600
    again.publish()
    assert target.read_bytes() == b"whole"
    assert stat.S_IMODE(target.stat().st_mode) == 0o444


@pytest.mark.usefixtures("umask")
def test_a_new_file_follows_the_umask(tmp_path: Path) -> None:
    """Like any other that is made."""
    draft(tmp_path).publish()
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


@pytest.mark.usefixtures("umask")
def test_what_was_forbidden_meanwhile_stays_so(tmp_path: Path) -> None:
    """A chmod between the begin and the end of a retrieve, or of one that goes on later."""
    target = tmp_path / "file"
    Draft(target, SHARD, 0).file.close()
    target.touch()
    written = draft(tmp_path)
    target.chmod(0o600)
    written.publish()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


@pytest.mark.usefixtures("umask")
def test_bits_that_give_rights_to_a_program_are_not_given_to_other_bytes(tmp_path: Path) -> None:
    """As the system has it when a file is written to."""
    target = tmp_path / "file"
    target.touch()
    target.chmod(0o6755)
    draft(tmp_path).publish()
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


@as_root
def test_root_keeps_the_owner_of_what_is_replaced(tmp_path: Path) -> None:
    """A renter that runs as root does not lock others out of their own files."""
    target = tmp_path / "file"
    target.touch()
    os.chown(target, 12345, 23456)
    draft(tmp_path).publish()
    assert (target.stat().st_uid, target.stat().st_gid) == (12345, 23456)


def draft_path(folder: Path) -> Path:
    return folder / f".file.{SHARD.short}.part"


@as_root
def test_a_draft_that_somebody_else_put_there_is_not_written_to(tmp_path: Path) -> None:
    """They have it open, and would read what comes; and the target would be theirs."""
    theirs = draft_path(tmp_path)
    theirs.touch()
    os.chown(theirs, 1234, -1)
    with theirs.open("rb") as seen:
        written = draft(tmp_path)
        written.file.write(b"private")
        written.publish()
        assert seen.read() == b""
    assert (tmp_path / "file").stat().st_uid == 0
    assert (tmp_path / "file").read_bytes() == b"private"


def test_another_file_of_ours_that_has_the_name_of_a_draft_is_let_alone(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    draft_path(tmp_path).hardlink_to(precious)
    written = draft(tmp_path)
    written.file.write(b"other")
    written.publish()
    assert precious.read_bytes() == b"precious"
    assert (tmp_path / "file").read_bytes() == b"other"


def test_a_pipe_that_has_the_name_of_a_draft_is_not_written_to(tmp_path: Path) -> None:
    os.mkfifo(draft_path(tmp_path))
    draft(tmp_path).publish()
    assert (tmp_path / "file").is_file()


def test_a_draft_that_another_program_writes_is_not_taken_from_it(tmp_path: Path) -> None:
    """Whoever it is: its end gives the name of the target to what has the draft's then."""
    first = draft(tmp_path)
    (tmp_path / "link").hardlink_to(draft_path(tmp_path))
    with pytest.raises(CommandError, match="by another program"):
        draft(tmp_path)
    first.discard()


def test_where_all_files_are_somebody_elses_what_we_made_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk without owners, or one of another machine that takes root for nobody."""
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    Draft(tmp_path / "file", SHARD, 99).file.close()
    draft(tmp_path).publish()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_came_in_the_same_moment_under_a_name_that_nobody_typed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another retrieve into the directory ends while our bytes are made durable."""
    target, sync = tmp_path / "file", os.fsync

    def sync_late(descriptor: int) -> None:
        target.write_bytes(b"theirs")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync_late)
    ours = draft(tmp_path)
    ours.file.write(b"ours")
    with pytest.raises(CommandError, match="is left as it is"):
        Target(target, is_typed=False).take(ours)
    ours.discard()
    assert target.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("there", [None, b"ours", b"theirs"])
@pytest.mark.parametrize("number", [0, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_a_file_has_one_name_only_other_bytes_stay_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, there: bytes | None
) -> None:
    """Those that are there before; and the same bytes are no reason to refuse."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    if number:
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    target = tmp_path / "file"
    if there is not None:
        target.write_bytes(there)
    ours = draft(tmp_path)
    ours.file.write(b"ours")
    if there == b"theirs":
        with pytest.raises(CommandError, match="is left as it is"):
            Target(target, is_typed=False).take(ours)
        ours.discard()
    else:
        assert Target(target, is_typed=False).take(ours) == len(b"ours")
    assert target.read_bytes() == (there or b"ours")
    assert list(tmp_path.iterdir()) == [target]
