"""
The directory of a volume: where its files are, whose it is, and that only one farmer uses it.

    farmer-volume.json   the marker; a directory without it is never written to
    lock                 locked (flock) by the process that has the volume open
    index.sqlite         the index, with its -wal beside it
    book                 how far the contract database was (see `farmer.storage.generation`)
    scrub.json           how far it was read again (see `farmer.storage.scrub_notes`)
    leaving.json         what its owner wants done with it (see `farmer.storage.duty`)
    moving               which shards may be on two volumes (see `farmer.storage.journal`)
    met                  up to where tombstones are over (see `farmer.storage.met`)
    probe                is there while it is tried whether the disk takes writes
    reserve              nothing but its size (see `farmer.storage.reserve`)
    log/00000001.seg     segments of the log, numbered without gaps as they are made
    shards/ab/<32 hex>.seg     one large shard each
    staging/<32 hex>.part      large shards on their way in, and their leases
"""

from __future__ import annotations

import json
import secrets
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from farmer.model.ids import NodeId
from farmer.model.status import Alert
from farmer.storage.errors import FormatTooNewError
from farmer.storage.files import Access, Files, read_head
from farmer.storage.index_file import INDEX_NAME
from farmer.storage.quota import QUOTA_BYTES_MIN
from farmer.storage.records import NUMBER_BITS, UUID_BYTES

MARKER_NAME: Final = "farmer-volume.json"
MARKER_VERSION: Final = 1
_MARKER_BYTES_MAX: Final = 64 * 1024
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class VolumeSetupError(Exception):
    """This directory cannot be used as a volume; the message is for its owner."""


@dataclass(frozen=True, slots=True)
class VolumeSettings:
    """One volume as its owner wants it."""

    path: Path
    quota_bytes: int
    keep_free_bytes: int = 0
    name: str = ""
    """Short and unique; the directory's name if empty."""
    left_shut: Alert | None = None
    """Why it is never opened; its shards are then unavailable, not absent."""

    def __post_init__(self) -> None:
        if self.quota_bytes < QUOTA_BYTES_MIN:
            raise VolumeSetupError(
                f"{self.path}: a quota of {self.quota_bytes} bytes is too small;"
                f" a volume needs at least {QUOTA_BYTES_MIN} bytes (64 MiB)"
            )

    @property
    def label(self) -> str:
        """The name that is shown."""
        return self.name or self.path.name or "volume"


@dataclass(frozen=True, slots=True)
class Marker:
    """What the marker file says."""

    volume: bytes
    node: NodeId
    created_at_ms: int
    retired: str = ""
    """Why it is never to be opened again, and where its shards went; usually empty."""


@dataclass(frozen=True)
class Paths:
    """Where everything is, below one directory; the index of a read-only one in its annex."""

    root: Path
    annex: Path | None = None

    @cached_property
    def marker(self) -> Path:
        """The marker file."""
        return self.root / MARKER_NAME

    @property
    def lock(self) -> Path:
        """The file that is locked while the volume is open."""
        return self.root / "lock"

    @property
    def probe(self) -> Path:
        """A small file by which a failing disk is tried."""
        return self.root / "probe"

    @property
    def index(self) -> Path:
        """The index."""
        return (self.annex or self.root) / INDEX_NAME

    @property
    def reserve(self) -> Path:
        """Space kept back for the day when the disk is full."""
        return self.root / "reserve"

    @property
    def book(self) -> Path:
        """What this volume remembers of the contract database."""
        return self.root / "book"

    @property
    def scrub_notes(self) -> Path:
        """How far it was read again, and what was found."""
        return self.root / "scrub.json"

    @property
    def duty(self) -> Path:
        """What its owner wants done with it besides serving."""
        return self.root / "leaving.json"

    @property
    def journal(self) -> Path:
        """Which shards may be on this volume and on another."""
        return self.root / "moving"

    @property
    def met(self) -> Path:
        """Up to where in the log tombstones mean nothing any more."""
        return self.root / "met"

    @cached_property
    def log(self) -> Path:
        """The directory of the log's segments."""
        return self.root / "log"

    @property
    def shards(self) -> Path:
        """The directory of large shards."""
        return self.root / "shards"

    @property
    def staging(self) -> Path:
        """The directory of unfinished large shards."""
        return self.root / "staging"

    def segment(self, number: int) -> Path:
        """One segment of the log."""
        return self.log / f"{number:08d}.seg"

    def shard(self, file: bytes) -> Path:
        """One large shard."""
        return self.shards / f"{file[0]:02x}" / f"{file.hex()}.seg"

    def part(self, file: bytes) -> Path:
        """One large shard on its way in."""
        return self.staging / f"{file.hex()}.part"


def create_volume(root: Path, node: NodeId, files: Files, now_ms: int) -> Marker:
    """
    Make a new, empty volume of this farmer's; the directory may exist if it is empty.

    What an attempt that was cut short has left there, which holds nothing, is taken over.

    Raises:
        VolumeSetupError: something is there already.
        OSError: the directory cannot be written.

    """
    paths = Paths(root)
    root.parent.mkdir(parents=True, exist_ok=True)
    files.make_directory(root)
    if files.exists(paths.marker):
        raise VolumeSetupError(f"{root} is a volume already")
    there = [name for name in files.list(root) if not _is_nothing(paths, name, files)]
    if there:
        raise VolumeSetupError(
            f"{root} is not empty ({there[0]} is in it); give a volume a directory of its own"
        )
    _shut(root)
    for directory in (paths.log, paths.shards, paths.staging):
        files.make_directory(directory)
    marker = Marker(secrets.token_bytes(UUID_BYTES), node, now_ms)
    _write_marker(paths, marker, files)
    files.sync_directory(root.parent)
    return marker


def _shut(root: Path) -> None:
    """
    Leave a directory that was there before to its owner alone, where it can be.

    Who may write there can put another index, or no shards at all, in the place of ours.
    """
    # What is another user's, or on a filesystem without modes, stays as that has it.
    with suppress(OSError):
        mode = stat.S_IMODE(root.stat().st_mode)
        if mode & _OTHERS:
            root.chmod(mode & ~_OTHERS)


def _is_nothing(paths: Paths, name: str, files: Files) -> bool:
    """Say whether what is in the way of a new volume holds nothing, and never did."""
    path = paths.root / name
    if path in (paths.log, paths.shards, paths.staging) and not path.is_symlink():
        try:
            return not files.list(path)
        except NotADirectoryError:
            return False
    return name == "lost+found" or path == _draft_of(paths.marker)


def read_marker(root: Path, node: NodeId, files: Files) -> Marker:
    """
    Return the marker of a volume that is this farmer's.

    Raises:
        VolumeSetupError: no volume, or another farmer's; the message says what to do.
        FormatTooNewError: made by a newer release.

    """
    marker = marker_of(root, files)
    if marker.node != node:
        raise VolumeSetupError(
            f"{root} belongs to the farmer {marker.node.short}..., this one is {node.short}...;"
            " use that farmer's home, or another directory"
        )
    if marker.retired:
        raise VolumeSetupError(
            f"{root} is no volume any more: {marker.retired}. Name another directory, or remove"
            " this one first: no shard is in it"
        )
    return marker


def marker_of(root: Path, files: Files) -> Marker:
    """
    Return the marker of a volume, whosever it is and whatever became of it.

    Raises:
        VolumeSetupError: no volume, or one whose marker is damaged.
        FormatTooNewError: made by a newer release.

    """
    path = Paths(root).marker
    if not files.exists(path):
        raise VolumeSetupError(
            f"{root} has no {MARKER_NAME}: the disk may not be mounted; nothing was written"
        )
    return _parse(read_head(files, path, _MARKER_BYTES_MAX), path)


def retire_marker(root: Path, files: Files, why: str) -> None:
    """
    Let a volume's marker say, durably, that it is never to be opened again.  `OSError`.

    Where it says so already, nothing is drafted: a removal that failed has taken the place.
    """
    paths = Paths(root)
    fields = json.loads(read_head(files, paths.marker, _MARKER_BYTES_MAX))
    if fields.get("retired") == why:
        files.sync_directory(root)
        return
    text = json.dumps(fields | {"retired": why}, indent=2)
    replace_small(files, paths.marker, text.encode() + b"\n", drafts=paths.staging)


def remove_volume(root: Path) -> None:
    """
    Remove the files of a retired volume, the marker last, and the directory if it is empty then.

    What cannot be removed of the directories stays.  Raises `OSError` for any other file.
    """
    paths = Paths(root)
    for directory in (paths.log, paths.shards, paths.staging):
        shutil.rmtree(directory, ignore_errors=True)
    notes = (paths.book, paths.scrub_notes, paths.duty, paths.journal, paths.met)
    drafts_and_index = (*root.glob("*.new"), *root.glob(f"{INDEX_NAME}*"))
    for path in (*notes, *drafts_and_index, paths.reserve, paths.probe, paths.lock, paths.marker):
        path.unlink(missing_ok=True)
    # A mount point, or something of the owner's in it: it stays.
    with suppress(OSError):
        root.rmdir()


def replace_small(files: Files, path: Path, raw: bytes, *, drafts: Path | None = None) -> None:
    """
    Write a small file, durably: the old content or the new one.

    A volume's are drafted in its *staging* directory: where the disk has gone, and its mount
    point is empty, there is none, and nothing is written.  What a crash leaves there is removed
    at the next start.  Raises `OSError`.
    """
    draft = _draft_of(path, drafts)
    files.unlink(draft)
    fd = files.open(draft, Access.CREATE)
    try:
        files.pwritev(fd, [raw], 0)
        files.sync_data(fd)
    finally:
        files.close(fd)
    files.rename(draft, path)
    files.sync_directory(path.parent)


def _draft_of(path: Path, drafts: Path | None = None) -> Path:
    return (drafts or path.parent) / f"{path.stem}.new"


def lock_volume(root: Path, files: Files, access: Access = Access.ENSURE) -> int:
    """Return the descriptor of the held lock; raises `VolumeSetupError` if it is taken."""
    fd = files.open(Paths(root).lock, access)
    try:
        if files.lock(fd):
            return fd
    except BaseException:
        files.close(fd)
        raise
    files.close(fd)
    raise VolumeSetupError(f"{root} is in use by another process; stop that one first")


def _write_marker(paths: Paths, marker: Marker, files: Files) -> None:
    text = json.dumps(
        {
            "format": MARKER_VERSION,
            "volume": marker.volume.hex(),
            "node": str(marker.node),
            "created_ms": marker.created_at_ms,
        },
        indent=2,
    )
    replace_small(files, paths.marker, text.encode() + b"\n")


def _parse(raw: bytes, path: Path) -> Marker:
    try:
        fields: dict[str, Any] = json.loads(raw)
        version = _number(fields["format"])
        if version <= MARKER_VERSION:
            volume, node = _uuid(fields["volume"]), NodeId.parse(fields["node"])
            retired = str(fields.get("retired", ""))
            return Marker(volume, node, _number(fields["created_ms"]), retired)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise VolumeSetupError(f"{path} is damaged ({error}); restore it from a backup") from error
    raise FormatTooNewError(
        f"{path} has format {version}; this release reads up to {MARKER_VERSION}: use a newer one"
    )


def _uuid(text: str) -> bytes:
    raw = bytes.fromhex(text)
    if len(raw) != UUID_BYTES:
        raise ValueError(f"a volume's id has {UUID_BYTES} bytes, not {len(raw)}")
    return raw


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << NUMBER_BITS:
        raise ValueError(f"{value!r} is no number that a marker can have")
    return value
