"""A volume's directory: what its marker says, when it is believed, and how it is written."""

from __future__ import annotations

import errno
import json
import re
import stat
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pytest

from farmer.storage import directory
from farmer.storage.directory import (
    Marker,
    Paths,
    VolumeSettings,
    VolumeSetupError,
    create_volume,
    lock_volume,
    read_marker,
    remove_volume,
    replace_small,
    retire_marker,
)
from farmer.storage.errors import FormatTooNewError
from farmer.storage.files import Access
from farmer.storage.quota import QUOTA_BYTES_MIN
from tests.storage.bench import ALICE, NODE
from tests.storage.recording import Fault, RecordingFiles

FILE = bytes(range(0xA0, 0xB0))
NAMES: Final = (property, cached_property)


@pytest.fixture
def files() -> Iterator[RecordingFiles]:
    files = RecordingFiles()
    yield files
    assert not files.is_open


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "far" / "above" / "volume"


def marked(root: Path, **fields: object) -> None:
    """Let the marker say something else; None takes a field away."""
    path = Paths(root).marker
    said = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({name: value for name, value in said.items() if value is not None}))


def test_a_directory_that_anybody_could_write_is_left_to_its_owner_alone(
    files: RecordingFiles, root: Path
) -> None:
    """Nobody else may put another index in the place of ours; a disk is often mounted so."""
    root.mkdir(parents=True)
    root.chmod(0o2777)
    create_volume(root, NODE, files, 1234)
    assert stat.S_IMODE(root.stat().st_mode) == 0o2700


def test_a_directory_that_is_no_volume_keeps_its_mode(files: RecordingFiles, root: Path) -> None:
    """Others may use what is in it."""
    root.mkdir(parents=True)
    root.chmod(0o777)
    (root / "photo").touch()
    with pytest.raises(VolumeSetupError, match="is not empty"):
        create_volume(root, NODE, files, 1234)
    assert stat.S_IMODE(root.stat().st_mode) == 0o777


def test_a_new_volume_is_read_back(files: RecordingFiles, root: Path) -> None:
    marker = create_volume(root, NODE, files, 1234)
    assert (marker.node, marker.created_at_ms, marker.retired) == (NODE, 1234, "")
    assert len(marker.volume) == 16
    assert read_marker(root, NODE, files) == marker
    paths = Paths(root)
    assert all(path.is_dir() for path in (paths.log, paths.shards, paths.staging))
    assert create_volume(root.with_name("other"), NODE, files, 1234).volume != marker.volume


def test_a_new_volume_is_durable_and_its_marker_comes_last(
    files: RecordingFiles, root: Path
) -> None:
    create_volume(root, NODE, files, 1234)
    done = [(call.name, call.path) for call in files.calls]
    marker = done.index(("rename", "farmer-volume.new"))
    assert max(at for at, call in enumerate(done) if call[0] == "make_directory") < marker
    assert done.index(("sync_data", "farmer-volume.new")) < marker
    assert done[marker + 1 :] == [("sync_directory", "volume"), ("sync_directory", "above")]


def test_a_volume_is_made_where_nothing_is(files: RecordingFiles, root: Path) -> None:
    (root / "lost+found").mkdir(parents=True)
    create_volume(root, NODE, files, 1)
    with pytest.raises(VolumeSetupError, match="is a volume already"):
        create_volume(root, NODE, files, 1)
    other = root.with_name("other")
    other.mkdir()
    (other / "photo").touch()
    with pytest.raises(VolumeSetupError, match=r"not empty \(photo is in it\)"):
        create_volume(other, NODE, files, 1)
    assert [one.name for one in other.iterdir()] == ["photo"]


@pytest.mark.parametrize("name", ["make_directory", "open", "pwritev", "sync_data", "rename"])
def test_a_making_that_was_cut_short_is_made_again(
    files: RecordingFiles, root: Path, name: str
) -> None:
    """Wherever that was: a full disk, a power cut, an owner who lost patience."""
    create_volume(root.with_name("whole"), NODE, files, 1)
    steps = files.names().count(name)
    for step in range(steps):
        cut = root.with_name(f"{name}{step}")
        files.fault = Fault(step, errno.ENOSPC, lambda one: one.name == name)
        with pytest.raises(OSError, match="No space left"):
            create_volume(cut, NODE, files, 1)
        files.fault = None
        assert create_volume(cut, NODE, files, 2) == read_marker(cut, NODE, files)
        assert {one.name for one in cut.iterdir()} == {
            *("farmer-volume.json", "log", "shards", "staging")
        }


@pytest.mark.parametrize(
    ("inside", "shown"),
    [
        ("log/00000001.seg", "log"),
        ("shards/ab/shard.seg", "shards"),
        ("staging/one.part", "staging"),
        ("index.sqlite", "index.sqlite"),
        ("shards", "shards"),
    ],
)
def test_where_a_shard_may_be_no_volume_is_made(
    files: RecordingFiles, root: Path, inside: str, shown: str
) -> None:
    """A volume that has lost its marker, or a file of somebody else's that is called so."""
    (root / "log").mkdir(parents=True)
    (root / inside).parent.mkdir(parents=True, exist_ok=True)
    (root / inside).write_bytes(b"bytes")
    before = sorted(root.rglob("*"))
    with pytest.raises(VolumeSetupError, match=rf"not empty \({shown} is in it\)"):
        create_volume(root, NODE, files, 1)
    assert sorted(root.rglob("*")) == before


def test_a_link_in_the_place_of_a_directory_is_not_taken(
    files: RecordingFiles, root: Path, tmp_path: Path
) -> None:
    root.mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (root / "log").symlink_to(tmp_path / "empty")
    with pytest.raises(VolumeSetupError, match=r"not empty \(log is in it\)"):
        create_volume(root, NODE, files, 1)


def test_files_have_the_names_that_the_format_says() -> None:
    paths = Paths(Path("/v"))
    assert {
        name: str(getattr(paths, name))
        for name in ("marker", "lock", "probe", "index", "reserve", "book", "log", "shards")
    } == {
        "marker": "/v/farmer-volume.json",
        "lock": "/v/lock",
        "probe": "/v/probe",
        "index": "/v/index.sqlite",
        "reserve": "/v/reserve",
        "book": "/v/book",
        "log": "/v/log",
        "shards": "/v/shards",
    }
    assert str(paths.segment(7)) == "/v/log/00000007.seg"
    assert str(paths.shard(FILE)) == f"/v/shards/a0/{FILE.hex()}.seg"
    assert str(paths.part(FILE)) == f"/v/staging/{FILE.hex()}.part"
    apart = Paths(Path("/v"), Path("/annex"))
    assert (str(apart.index), str(apart.log)) == ("/annex/index.sqlite", "/v/log")


@pytest.mark.parametrize(
    ("name", "path", "label"),
    [("tank", "/mnt/disk", "tank"), ("", "/mnt/disk", "disk"), ("", "/", "volume")],
)
def test_a_volume_is_shown_by_its_name_or_its_directorys(name: str, path: str, label: str) -> None:
    assert VolumeSettings(Path(path), QUOTA_BYTES_MIN, name=name).label == label


def test_a_quota_has_a_least_size() -> None:
    settings = VolumeSettings(Path("/v"), QUOTA_BYTES_MIN)
    assert (settings.keep_free_bytes, settings.left_shut) == (0, None)
    with pytest.raises(VolumeSetupError, match="too small"):
        VolumeSettings(Path("/v"), QUOTA_BYTES_MIN - 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"format": "1"},
        {"format": None},
        {"format": True},
        {"format": 1.0},
        {"format": -1},
        {"volume": None},
        {"volume": "zz" * 16},
        {"volume": "aa" * 15},
        {"volume": "aa" * 17},
        {"volume": 7},
        {"node": "nobody"},
        {"node": None},
        {"created_ms": -1},
        {"created_ms": 1 << 62},
        {"created_ms": "yesterday"},
        {"created_ms": None},
    ],
)
def test_a_marker_that_makes_no_sense_is_damaged(
    files: RecordingFiles, root: Path, fields: dict[str, Any]
) -> None:
    create_volume(root, NODE, files, 1)
    marked(root, **fields)
    with pytest.raises(VolumeSetupError, match="is damaged"):
        read_marker(root, NODE, files)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b"[" * 50_000])
def test_what_is_no_marker_at_all_is_damaged(
    files: RecordingFiles, root: Path, raw: bytes
) -> None:
    create_volume(root, NODE, files, 1)
    Paths(root).marker.write_bytes(raw)
    with pytest.raises(VolumeSetupError, match="is damaged"):
        read_marker(root, NODE, files)


def test_the_largest_and_the_smallest_number_are_read(files: RecordingFiles, root: Path) -> None:
    create_volume(root, NODE, files, 1)
    for number in (0, (1 << 62) - 1):
        marked(root, created_ms=number)
        assert read_marker(root, NODE, files).created_at_ms == number
    marked(root, format=0)
    read_marker(root, NODE, files)


def test_a_newer_format_needs_a_newer_release(files: RecordingFiles, root: Path) -> None:
    """Whatever else stands in it by then."""
    create_volume(root, NODE, files, 1)
    marked(root, format=2, volume="another form")
    with pytest.raises(FormatTooNewError, match="has format 2; this release reads up to 1"):
        read_marker(root, NODE, files)


def test_a_directory_without_a_marker_may_be_a_disk_that_is_not_mounted(
    files: RecordingFiles, root: Path
) -> None:
    root.mkdir(parents=True)
    with pytest.raises(VolumeSetupError, match="may not be mounted"):
        read_marker(root, NODE, files)


def test_another_farmers_volume_is_refused(files: RecordingFiles, root: Path) -> None:
    create_volume(root, NODE, files, 1)
    with pytest.raises(VolumeSetupError, match="belongs to the farmer"):
        read_marker(root, ALICE, files)


def test_a_retired_volume_says_why_and_keeps_all_else(files: RecordingFiles, root: Path) -> None:
    marker = create_volume(root, NODE, files, 77)
    files.forget()
    retire_marker(root, files, "its shards are on tank")
    with pytest.raises(VolumeSetupError, match=r"its shards are on tank\. Name another directory"):
        read_marker(root, NODE, files)
    said = json.loads(Paths(root).marker.read_text())
    assert said == {
        "format": 1,
        "volume": marker.volume.hex(),
        "node": str(NODE),
        "created_ms": 77,
        "retired": "its shards are on tank",
    }
    assert list(Paths(root).staging.iterdir()) == []


def named(paths: Paths) -> list[Path]:
    """Return all that has a name of its own in a volume, whatever a release adds to it."""
    kinds = vars(Paths).items()
    return [getattr(paths, one) for one, kind in kinds if isinstance(kind, NAMES)]


def test_of_a_volume_that_is_removed_nothing_is_left(files: RecordingFiles, root: Path) -> None:
    create_volume(root, NODE, files, 1)
    paths = Paths(root)
    for place in (paths.log, paths.shards, paths.staging):
        (place / "ab").mkdir()
        (place / "ab" / "file").touch()
    for path in (*named(paths), root / "index.sqlite-wal", root / "moving.new"):
        path.touch()
    remove_volume(root)
    assert not root.exists()


def test_what_is_the_owners_stays_where_a_volume_is_removed(
    files: RecordingFiles, root: Path
) -> None:
    create_volume(root, NODE, files, 1)
    (root / "photo").touch()
    remove_volume(root)
    assert [one.name for one in root.iterdir()] == ["photo"]


def test_each_file_of_a_volume_is_drawn(root: Path) -> None:
    """Where it is named, and on the page of the format."""
    page = Path(__file__).parents[2] / "docs" / "storage-format.md"
    for path in named(Paths(root)):
        line = re.compile(rf"^ *{re.escape(path.name)}[ ,/]", re.MULTILINE)
        assert line.search(str(directory.__doc__)), path.name
        assert line.search(page.read_text()), path.name


@pytest.mark.parametrize("call", ["open", "pwritev", "sync_data", "rename"])
def test_a_small_file_is_the_old_one_until_the_new_one_is_whole(
    files: RecordingFiles, tmp_path: Path, call: str
) -> None:
    path = tmp_path / "it.json"
    replace_small(files, path, b"old")
    files.fault = Fault(0, errno.EIO, lambda one: one.name == call)
    with pytest.raises(OSError, match="Input/output"):
        replace_small(files, path, b"new")
    assert path.read_bytes() == b"old"
    files.fault = None
    files.forget()
    replace_small(files, path, b"new")
    assert path.read_bytes() == b"new"
    assert [one.name for one in tmp_path.iterdir()] == ["it.json"], "a draft that was left is gone"
    steps = ["unlink", "open", "pwritev", "sync_data", "rename", "sync_directory"]
    assert files.names() == steps


def test_a_draft_stands_where_it_is_told(files: RecordingFiles, tmp_path: Path) -> None:
    drafts = tmp_path / "drafts"
    with pytest.raises(FileNotFoundError):
        replace_small(files, tmp_path / "it.json", b"new", drafts=drafts)
    assert list(tmp_path.iterdir()) == [], "nothing is written where there is no such directory"
    drafts.mkdir()
    replace_small(files, tmp_path / "it.json", b"new", drafts=drafts)
    assert (tmp_path / "it.json").read_bytes() == b"new"


def test_a_volume_is_locked_by_one(files: RecordingFiles, root: Path) -> None:
    create_volume(root, NODE, files, 1)
    first = lock_volume(root, files)
    with pytest.raises(VolumeSetupError, match="in use by another process"):
        lock_volume(root, files)
    assert list(files.is_open) == [first]
    files.close(first)
    files.close(lock_volume(root, files, Access.READ))


def test_a_lock_that_fails_leaves_nothing_open(
    files: RecordingFiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_volume(root, NODE, files, 1)

    def fails(_fd: int) -> bool:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(files, "lock", fails)
    with pytest.raises(OSError, match="no locks"):
        lock_volume(root, files)


@pytest.mark.parametrize(
    "use",
    [
        lambda root, files: read_marker(root, NODE, files),
        lambda root, files: retire_marker(root, files, "gone"),
    ],
)
def test_a_marker_that_cannot_be_read_leaves_nothing_open(
    files: RecordingFiles, root: Path, use: Callable[[Path, RecordingFiles], object]
) -> None:
    create_volume(root, NODE, files, 1)
    files.fault = Fault(0, errno.EIO, lambda call: call.name == "pread")
    with pytest.raises(OSError, match="Input/output"):
        use(root, files)


def test_a_marker_as_a_person_may_have_left_it_is_read(files: RecordingFiles, root: Path) -> None:
    """With more in it, and longer than ours."""
    marker: Marker = create_volume(root, NODE, files, 1)
    marked(root, note="x" * 60_000)
    assert read_marker(root, NODE, files) == marker
