"""The file beside the target: one program writes it, and under its own name only."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from farmer.cli import renter_retrieving
from farmer.cli.exits import CommandError
from farmer.cli.renter_retrieving import Draft
from farmer.model.ids import ShardId

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

    monkeypatch.setattr(renter_retrieving.fcntl, "flock", lock_late)
    second = draft(tmp_path)
    if ends is Draft.publish:
        assert (tmp_path / "file").read_bytes() == b"whole"
    second.file.write(b"again")
    second.publish()
    assert (tmp_path / "file").read_bytes() == b"again"
