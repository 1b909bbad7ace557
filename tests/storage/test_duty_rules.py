"""The note of what a volume is to do: its form, and that it is durable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from farmer.storage.duty import DUTY_NAME, Duty, Leaving, clear_duty, read_duty, write_duty
from tests.storage.recording import RecordingFiles

DUTY = Duty(
    verb=Leaving.MOVE,
    since_ms=5,
    to="ab" * 16,
    to_path="/srv/new",
    rate_bytes=7,
    force=True,
    remove=True,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "staging").mkdir()
    return tmp_path


def test_it_is_written_in_the_form_that_is_documented(root: Path) -> None:
    write_duty(RecordingFiles(), root, DUTY)
    assert json.loads((root / DUTY_NAME).read_text()) == {
        "format": 1,
        "verb": "move",
        "to": "ab" * 16,
        "to_path": "/srv/new",
        "rate_bytes": 7,
        "force": True,
        "remove": True,
        "since_ms": 5,
    }


def test_what_is_not_said_is_not_wanted(root: Path) -> None:
    """Neither a bound of the rate, nor that anything is given up or removed."""
    (root / DUTY_NAME).write_text('{"format": 1, "verb": "drain", "since_ms": 5}')
    assert read_duty(RecordingFiles(), root) == Duty(
        verb=Leaving.DRAIN,
        since_ms=5,
        to="",
        to_path="",
        rate_bytes=0,
        force=False,
        remove=False,
    )


def test_a_long_path_is_read_whole(root: Path) -> None:
    long = Duty(verb=Leaving.MOVE, since_ms=5, to_path="/a" * 2000)
    write_duty(RecordingFiles(), root, long)
    assert read_duty(RecordingFiles(), root) == long


def test_reading_it_leaves_no_file_open(root: Path) -> None:
    files = RecordingFiles()
    write_duty(files, root, DUTY)
    for text in (None, "no duty"):
        if text is not None:
            (root / DUTY_NAME).write_text(text)
        read_duty(files, root)
        assert not files.is_open


def test_it_is_forgotten_durably(root: Path) -> None:
    files = RecordingFiles()
    write_duty(files, root, DUTY)
    files.forget()
    clear_duty(files, root)
    assert files.names() == ["unlink", "sync_directory"]
    assert read_duty(files, root) is None
