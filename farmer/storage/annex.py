"""
What is noted of a volume that can only be read, in a directory on another disk: its annex.

    <uuid of the volume>/           made as <uuid>.new, removed as <uuid>.old
        index.sqlite, index.sqlite-wal     instead of the volume's own, begun as a copy of them
        log/00000007.seg ...               goes on where the log of the volume ends: marks
        leaving.json, moving, book ...     what stands in the volume's directory otherwise

A disk that takes no writes can be emptied all the same: where a shard was given up, the mark
that says so stands in the annex.  Both together are one volume with one log, so that nothing
else has to know.  When the disk can be written again, the annex is brought home and goes.  An
empty file in the annex says that what has its name on the disk is gone.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from farmer.storage.directory import Paths
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.files import Access, Buffer, Files, Filesystem, read_head
from farmer.storage.index_file import INDEX_FILES, INDEX_NAME
from farmer.storage.log import has_records
from farmer.storage.probing import probe
from farmer.storage.records import SEGMENT_HEADER_BYTES, DamagedError, decode_segment
from farmer.storage.recovery import segment_numbers

_COPIED: Final = (INDEX_NAME, f"{INDEX_NAME}-wal")
_DRAFT: Final = ".new"
_STEP_BYTES: Final = 1024 * 1024
_SYNCED_BYTES: Final = 4 * _STEP_BYTES
HOME_KEEPS_BYTES: Final = 64 * 1024 * 1024
"""Left free where annexes lie: the contract database has to be written there, too."""

_COPIED_UP_BYTES_MAX: Final = 4 * 1024 * 1024
"""What is changed in place on a volume is no larger; segments and shards never are."""


class NoAnnexError(OSError):
    """The annex of a volume could not be made; nothing of it is left."""


class AnnexFiles:
    """The files of a volume and its annex as those of one directory; see `Files`."""

    def __init__(self, files: Files, root: Path, annex: Path) -> None:
        self.real = files
        self._root = root
        self._annex = annex
        self._only_read: set[int] = set()
        """Descriptors of the volume's own files that somebody meant to write."""

    def open(self, path: Path, access: Access) -> int:
        """See `Files.open`; what lies on the volume itself is opened to be read only."""
        if not path.is_relative_to(self._root):
            return self.real.open(path, access)
        there = self._there(path)
        if self._is_noted(there):
            return self.real.open(there, access)
        is_gone = self._is_mask(there)
        if access in {Access.CREATE, Access.ENSURE}:
            is_on_disk = not is_gone and self.real.exists(path)
            if is_on_disk and access is Access.CREATE:
                raise _error(errno.EEXIST, path)
            self._make_way(there)
            if is_on_disk:
                _copy(self.real, path, there, bytes_max=_COPIED_UP_BYTES_MAX)
            return self.real.open(there, access)
        if is_gone:
            raise _error(errno.ENOENT, path)
        fd = self.real.open(path, Access.READ)
        if access is Access.WRITE:
            self._only_read.add(fd)
        return fd

    def close(self, fd: int) -> None:
        """See `Files.close`."""
        self._only_read.discard(fd)
        self.real.close(fd)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """See `Files.pread`."""
        return self.real.pread(fd, length, offset)

    def pread_cached(self, fd: int, length: int, offset: int) -> Buffer | None:
        """See `Files.pread_cached`."""
        return self.real.pread_cached(fd, length, offset)

    def pread_apart(self, fd: int, length: int, offset: int) -> bytes:
        """See `Files.pread_apart`."""
        return self.real.pread_apart(fd, length, offset)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        """See `Files.pwritev`; on the volume itself raises `OSError` with `EROFS`."""
        if fd in self._only_read:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        self.real.pwritev(fd, buffers, offset)

    def sync_data(self, fd: int) -> None:
        """See `Files.sync_data`; on the volume nothing of ours waits for that."""
        if fd not in self._only_read:
            self.real.sync_data(fd)

    def sync_directory(self, path: Path) -> None:
        """See `Files.sync_directory`."""
        there = self._there(path) if path.is_relative_to(self._root) else path
        if self.real.exists(there):
            self.real.sync_directory(there)

    def begin_write_back(self, fd: int, offset: int, length: int) -> None:
        """See `Files.begin_write_back`."""
        self.real.begin_write_back(fd, offset, length)

    def uncache(self, fd: int, offset: int, length: int) -> None:
        """See `Files.uncache`."""
        self.real.uncache(fd, offset, length)

    def preallocate(self, fd: int, length: int) -> None:
        """See `Files.preallocate`."""
        self.real.preallocate(fd, length)

    def punch(self, fd: int, offset: int, length: int) -> bool:
        """See `Files.punch`; of the volume itself nothing can be given back."""
        return fd not in self._only_read and self.real.punch(fd, offset, length)

    def is_hole(self, fd: int, offset: int, length: int) -> bool:
        """See `Files.is_hole`."""
        return self.real.is_hole(fd, offset, length)

    def truncate(self, fd: int, length: int) -> None:
        """See `Files.truncate`; a segment of the volume is cut off by the header of the next."""
        if fd not in self._only_read:
            self.real.truncate(fd, length)

    def size(self, fd: int) -> int:
        """See `Files.size`."""
        return self.real.size(fd)

    def allocated(self, path: Path) -> int:
        """See `Files.allocated`."""
        return self.real.allocated(self._now(path))

    def exists(self, path: Path) -> bool:
        """See `Files.exists`."""
        if not path.is_relative_to(self._root):
            return self.real.exists(path)
        there = self._there(path)
        return self._is_noted(there) or (not self._is_mask(there) and self.real.exists(path))

    def inode(self, place: Path | int) -> tuple[int, int]:
        """See `Files.inode`."""
        return self.real.inode(place if isinstance(place, int) else self._now(place))

    def list(self, path: Path) -> list[str]:
        """See `Files.list`."""
        there = self._there(path)
        noted = self.real.list(there) if self.real.exists(there) else []
        gone = {name for name in noted if self._is_mask(there / name)}
        return sorted({*self.real.list(path), *noted} - gone)

    def make_directory(self, path: Path) -> None:
        """See `Files.make_directory`."""
        self._make_way(self._there(path) / "x")

    def rename(self, source: Path, target: Path) -> None:
        """See `Files.rename`; what lies on the volume itself stays there."""
        if not self._is_noted(self._there(source)):
            raise _error(errno.EROFS, source)
        self._make_way(self._there(target))
        self.real.rename(self._there(source), self._there(target))

    def unlink(self, path: Path) -> None:
        """See `Files.unlink`; what lies on the volume itself is noted as gone."""
        if not path.is_relative_to(self._root):
            self.real.unlink(path)
            return
        there = self._there(path)
        self.real.unlink(there)
        if self.real.exists(path):
            self._make_way(there)
            self.real.close(self.real.open(there, Access.CREATE))

    def filesystem(self, path: Path) -> Filesystem:
        """See `Files.filesystem`."""
        return self.real.filesystem(path)

    def lock(self, fd: int) -> bool:
        """See `Files.lock`."""
        return self.real.lock(fd)

    def _there(self, path: Path) -> Path:
        return self._annex / path.relative_to(self._root)

    def _now(self, path: Path) -> Path:
        """Return where it is to be found."""
        there = self._there(path)
        return there if self._is_noted(there) else path

    def _is_noted(self, there: Path) -> bool:
        return self.real.exists(there) and not self._is_mask(there)

    def _is_mask(self, there: Path) -> bool:
        with suppress(OSError):
            return there.is_file() and not there.stat().st_size
        return False

    def _make_way(self, there: Path) -> None:
        """Make the directory that it is to lie in, and remove the note that it is gone."""
        above = [one for one in there.parents if one.is_relative_to(self._annex)]
        for directory in reversed(above):
            self.real.make_directory(directory)
        if self._is_mask(there):
            self.real.unlink(there)


def annex_of(annexes: Path, volume: bytes) -> Path:
    """Return where, among all annexes, a volume's is or would be."""
    return annexes / volume.hex()


def beside(files: Files, root: Path, annex: Path) -> Files:
    """Return the files of a volume together with its annex, if it has one."""
    return AnnexFiles(files, root, annex) if annex.exists() else files


def make_annex(files: Files, root: Path, annex: Path, home: Files | None = None) -> None:
    """
    Make the annex of a volume, durably, with a copy of its index; fine if there is one.

    It is written by *home*, if there is that: how fast the disk of the farmer's home is says
    nothing of the volume.  Meanwhile the index may be read, and its log appended to.

    The index may be a cache, but to make it again all of a dying disk would have to be read.
    Raises `NoAnnexError`.
    """
    home = home or files
    if home.exists(annex):
        return
    draft = annex.with_suffix(_DRAFT)
    shutil.rmtree(draft, ignore_errors=True)
    try:
        home.make_directory(annex.parent)
        _check_room(files, root, home.filesystem(annex.parent).free_bytes)
        for directory in (draft, draft / "log"):
            home.make_directory(directory)
        for name in _COPIED:
            if files.exists(root / name):
                _copy(files, root / name, draft / name, home=home)
        home.sync_directory(draft)
        home.rename(draft, annex)
        home.sync_directory(annex.parent)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise NoAnnexError(error.errno, error.strerror, error.filename) from error


def _check_room(files: Files, root: Path, free_bytes: int) -> None:
    """Raise `OSError` if a copy of the index would fill the disk that it goes to."""
    wanted = sum((root / name).stat().st_size for name in _COPIED if files.exists(root / name))
    if free_bytes < wanted + HOME_KEEPS_BYTES:
        why = (
            f"no room for {wanted} bytes of its index: {free_bytes} are free, of which"
            f" {HOME_KEEPS_BYTES} are kept for the farmer itself"
        )
        raise OSError(errno.ENOSPC, why)


def with_annex(
    files: Files,
    root: Path,
    annex: Path | None,
    *,
    is_read_only: bool,
    may_come_home: bool = True,
) -> AnnexFiles | None:
    """
    Return the files of a volume with its annex; None if it needs none, or not any more.

    A volume with an annex that can be written again has it brought home, if it is trusted so
    far (*may_come_home*).  Raises as `bring_home` and `make_annex`.
    """
    if annex is None or not (is_read_only or files.exists(annex)):
        return None
    if is_read_only:
        make_annex(files, root, annex)
    elif may_come_home and probe(files, Paths(root).probe) and _came_home(files, root, annex):
        # With a power cut it would be there again, over what is written from now on.
        files.sync_directory(annex.parent)
        return None
    _copy_begun_segment(files, root, annex)
    return AnnexFiles(files, root, annex)


def bring_home(files: Files, root: Path, annex: Path) -> None:
    """
    Put into a volume, durably, what its annex notes, and remove that; safe to be repeated.

    The volume's own index is behind then, and follows the log when it is opened.

    Raises:
        OSError: the volume cannot be written.
        VolumeUnavailableError: it was written meanwhile by somebody who did not know the annex.
        FormatTooNewError: it was written by a newer release.

    """
    noted = [path for path in sorted(annex.rglob("*")) if _counts(path)]
    _check_log(files, root, annex, [path for path in noted if path.suffix == ".seg"])
    touched = set()
    for source in noted:
        path = root / source.relative_to(annex)
        if not source.stat().st_size:
            files.unlink(path)
        elif path.suffix != ".seg" or not (files.exists(path) and has_records(files, path)):
            _replace(files, source, path)
        touched.add(path.parent)
    for directory in sorted(touched):
        files.sync_directory(directory)
    remove_annex(annex)


def forget_index(annex: Path) -> None:
    """Keep of an annex what cannot be made again: of a disk that is put away, for good."""
    for name in INDEX_FILES:
        (annex / name).unlink(missing_ok=True)


def remove_annex(annex: Path) -> None:
    """Remove it in one step; raises `OSError`."""
    old = annex.with_suffix(".old")
    shutil.rmtree(old, ignore_errors=True)
    annex.rename(old)
    shutil.rmtree(old, ignore_errors=True)


def _came_home(files: Files, root: Path, annex: Path) -> bool:
    """Bring it home and say whether the disk took all of it; raises as `bring_home` otherwise."""
    with suppress(OSError):
        bring_home(files, root, annex)
        return True
    return False


def _copy_begun_segment(files: Files, root: Path, annex: Path) -> None:
    """
    Copy into the annex, durably, a last segment of the volume in which no record stands.

    It may be in the memory of the system alone, if the disk failed while it was begun: after a
    restart there would be none of this number, and nothing would say where the one before ended.
    Raises `OSError`.
    """
    paths, there = Paths(root), Paths(annex)
    last = max(segment_numbers(files, paths), default=0)
    if not last or files.exists(there.segment(last)) or has_records(files, paths.segment(last)):
        return
    files.make_directory(there.log)
    _replace(files, paths.segment(last), there.segment(last))
    files.sync_directory(there.log)


def _counts(noted: Path) -> bool:
    """Say whether this is a file that comes home: no draft that a crash has left, say."""
    return noted.is_file() and noted.name not in INDEX_FILES and noted.suffix != _DRAFT


def _check_log(files: Files, root: Path, annex: Path, noted: Sequence[Path]) -> None:
    """Raise `VolumeUnavailableError` if segments of a volume do not go with those noted of it."""
    end = max((one.name for one in noted if one.stat().st_size), default="")
    for one in noted:
        path = root / one.relative_to(annex)
        if one.stat().st_size:
            is_right = not files.exists(path) or _begin_alike(files, one, path)
        else:
            # What is noted as gone has no records, or its own were written again behind it.
            is_right = one.name < end or not files.exists(path) or not has_records(files, path)
        if not is_right:
            raise VolumeUnavailableError(
                f"{path} is not what {annex} notes: the volume was used without it"
            )


def _replace(files: Files, source: Path, target: Path) -> None:
    draft = target.with_suffix(_DRAFT)
    files.unlink(draft)
    _copy(files, source, draft)
    files.rename(draft, target)


def _copy(
    files: Files,
    source: Path,
    target: Path,
    bytes_max: int | None = None,
    home: Files | None = None,
) -> None:
    """
    Copy a file, durably, to where *home* writes; synced piece by piece, so that no call is long.

    Raises `OSError`, of one that is larger than it may be, too.
    """
    home = home or files
    reading = files.open(source, Access.READ)
    try:
        size = files.size(reading)
        if bytes_max is not None and size > bytes_max:
            raise _error(errno.EROFS, source)
        writing = home.open(target, Access.CREATE)
        try:
            for offset in range(0, size, _STEP_BYTES):
                length = min(_STEP_BYTES, size - offset)
                home.pwritev(writing, [files.pread(reading, length, offset)], offset)
                if not (offset + length) % _SYNCED_BYTES:
                    home.sync_data(writing)
            home.sync_data(writing)
        finally:
            home.close(writing)
    finally:
        files.close(reading)


def _begin_alike(files: Files, noted: Path, path: Path) -> bool:
    """
    Compare the headers of two segments.

    One without records may be what is left of a failed try, of which the system said that there
    is none, or no sound one; then only the end of the segment before has to be the same.
    """
    head, other = (read_head(files, one, SEGMENT_HEADER_BYTES) for one in (noted, path))
    if has_records(files, path):
        return head == other
    try:
        end = decode_segment(other, str(path)).previous_end
    except DamagedError:
        return True
    return end == decode_segment(head, str(noted)).previous_end


def _error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))
