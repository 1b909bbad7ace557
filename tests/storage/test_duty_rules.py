"""The note of what a volume is to do: its form, and that it is durable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from farmer.storage.directory import Paths
from farmer.storage.duty import Duty, Leaving, clear_duty, read_duty, write_duty
from tests.storage import bench
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
    assert json.loads(Paths(root).duty.read_text()) == {
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
    Paths(root).duty.write_text('{"format": 1, "verb": "drain", "since_ms": 5}')
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
            Paths(root).duty.write_text(text)
        read_duty(files, root)
        assert not files.is_open


def test_it_is_forgotten_durably(root: Path) -> None:
    files = RecordingFiles()
    write_duty(files, root, DUTY)
    files.forget()
    clear_duty(files, root)
    assert files.names() == ["unlink", "sync_directory"]
    assert read_duty(files, root) is None


@pytest.mark.parametrize("text", ['"drain"', "1", "null", "[" * 40_000, "{" * 9], ids=len)
def test_a_volume_is_opened_whatever_stands_in_the_note(tmp_path: Path, text: str) -> None:
    """A file that was damaged is no reason to leave the shards of a volume unserved."""
    farm = bench.Farm(tmp_path)
    farm.engine.close()
    Paths(farm.path).duty.write_text(text)
    (volume,) = farm.open().opened()
    assert not volume.draining
    farm.engine.close()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("since_ms", value) for value in ("5", 1.5, True, None, -1, 1 << 62)),
        *(("rate_bytes", value) for value in ("", [], -1, 1 << 70)),
        *(("force", value) for value in (0, "yes", None)),
        *(("remove", value) for value in (1, [], {})),
        *(("to", value) for value in (None, 7, [])),
        *(("to_path", value) for value in (None, 7, "/srv\0", "/\ud800")),
    ],
)
def test_a_value_that_no_command_writes_makes_it_none(
    root: Path, field: str, value: object
) -> None:
    """Whoever reads it later, to show it or to reckon with it, may rely on what stands there."""
    write_duty(RecordingFiles(), root, DUTY)
    fields = json.loads(Paths(root).duty.read_text())
    Paths(root).duty.write_text(json.dumps(fields | {field: value}))
    assert read_duty(RecordingFiles(), root) is None


def test_a_path_that_is_no_text_is_kept(root: Path) -> None:
    """A directory's name may have any bytes."""
    strange = Duty(verb=Leaving.MOVE, since_ms=5, to_path="/srv/\udcff")
    write_duty(RecordingFiles(), root, strange)
    assert read_duty(RecordingFiles(), root) == strange
