"""A volume's index, brought up to date with the log, or made again if need be."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from farmer.storage.bad_spots import check_disk
from farmer.storage.directory import Marker, Paths
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.files import Access, Files, sync_what_a_kill_left
from farmer.storage.ground import lacks_room
from farmer.storage.index import INDEX_DESCRIPTORS, Index, create_index
from farmer.storage.index_errors import (
    CommitInDoubtError,
    IndexDamagedError,
    IndexOutdatedError,
    LogCutError,
    is_for_memory,
    is_for_room,
)
from farmer.storage.index_file import INDEX_FILES, INDEX_NAME, Connect
from farmer.storage.quota import RESERVE_BYTES
from farmer.storage.records import Kind, RecordHeader
from farmer.storage.recovery import Part, Progress, Recovered, Recovery, read_part
from farmer.storage.reserve import Reserve
from farmer.storage.rights import NOT_LET

_PASSING: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What keeps an index from being opened and says nothing of it."""


@dataclass(frozen=True, slots=True)
class Ready:
    """An index that is up to date, and what bringing it there has shown."""

    index: Index
    recovered: Recovered
    parts: list[Part]
    rebuilt: str = ""
    """Why the index had to be made again, if it was the index; or empty."""


_ASIDE: Final = ".before"
"""Behind the names of an index that is kept until another one is made."""


@contextmanager
def set_aside(files: Files, paths: Paths) -> Iterator[None]:
    """
    Keep what there is of an index while another one is made; it comes back if that fails.

    The database goes last, and comes back first, each time durably: SQLite would take the
    write-ahead log of the one for that of the other.
    """
    with ExitStack() as undo:
        for name in reversed(INDEX_FILES):
            path = paths.index.with_name(name)
            if files.exists(path):
                aside = path.with_name(name + _ASIDE)
                files.rename(path, aside)
                undo.callback(_rename_durably, files, aside, path)
                files.sync_directory(path.parent)
        undo.callback(_drop_durably, files, paths)
        yield
        undo.pop_all()
    _drop(files, paths, _ASIDE)


def _rename_durably(files: Files, source: Path, target: Path) -> None:
    files.rename(source, target)
    files.sync_directory(target.parent)


def _drop_durably(files: Files, paths: Paths) -> None:
    _drop(files, paths)
    files.sync_directory(paths.index.parent)


def _drop(files: Files, paths: Paths, ending: str = "") -> None:
    for name in INDEX_FILES:
        files.unlink(paths.index.with_name(name + ending))


class Readying:
    """Makes one volume's index ready; the volume's lock is held."""

    def __init__(
        self,
        paths: Paths,
        marker: Marker,
        files: Files,
        reserve: Reserve,
        progress: Progress,
        connect: Connect,
    ) -> None:
        self._paths = paths
        self._volume = marker.volume
        self._files = files
        self._reserve = reserve
        self._progress = progress
        self._connect = connect

    def open(self) -> Ready:
        """
        Return the index, which says from now on that it is in use.

        Raises:
            FormatTooNewError: written by a newer release.
            VolumeUnavailableError, OSError, sqlite3.Error: the disk failed, or is full.

        """
        try:
            return self._opened()
        except (sqlite3.Error, OSError) as error:
            self._check_rights()
            is_full = isinstance(error, sqlite3.Error) and is_for_room(error)
            if not (is_full or lacks_room(self._reserve)):
                raise
            if not self._reserve.spend(RESERVE_BYTES):
                raise
        return self._opened()

    def rebuild(self) -> Ready:
        """Throw away what is left of it, a cache after all, and make it; raises as `open`."""
        _drop(self._files, self._paths)
        try:
            return self._made_again()
        except IndexDamagedError as error:
            raise VolumeUnavailableError(f"no index can be made there: {error}") from error

    def _opened(self) -> Ready:
        ready = self._up_to_date()
        try:
            if self._files.exists(self._aside):
                # Another one was made in its place, by an owner's rebuild or a new release.
                _drop(self._files, self._paths, _ASIDE)
            ready.index.opened()
        except BaseException:
            ready.index.close(clean=False)
            raise
        return ready

    def _up_to_date(self) -> Ready:
        is_cut = False
        try:
            index = Index(self._paths.index, self._volume, connect=self._connect)
        except (IndexDamagedError, sqlite3.Error) as error:
            reason = self._damage(error)
            if isinstance(error, IndexOutdatedError):
                self._leave_word()
        else:
            try:
                return self._replayed(index)
            except (IndexDamagedError, sqlite3.DatabaseError) as error:
                index.close(clean=False)
                reason = self._damage(error)
                is_cut = isinstance(error, LogCutError)
            except BaseException:
                index.close(clean=False)
                raise
        made = self.rebuild()
        if is_cut:
            made.recovered.damaged.insert(0, reason)
        elif made.recovered.records and not self._files.exists(self._aside):
            return replace(made, rebuilt=reason)
        return made

    @property
    def _aside(self) -> Path:
        return self._paths.index.with_name(INDEX_NAME + _ASIDE)

    def _leave_word(self) -> None:
        """
        Keep the name of an index that another one is made for, and not its bytes: it was whole.

        What a crash leaves of the making would count as a lost or damaged one otherwise.
        """
        self._files.rename(self._paths.index, self._aside)
        self._files.sync_directory(self._aside.parent)
        fd = self._files.open(self._aside, Access.WRITE)
        try:
            self._files.truncate(fd, 0)
        finally:
            self._files.close(fd)

    def _damage(self, error: IndexDamagedError | sqlite3.Error) -> str:
        """Return why the index must be made again; raises what says nothing against it."""
        cause = error if isinstance(error, sqlite3.Error) else error.__cause__
        if isinstance(cause, CommitInDoubtError):
            # Memory ran out; whether it was committed, the next opening sees.
            cause = cause.__cause__
        if isinstance(cause, sqlite3.Error):
            if is_for_memory(cause) or is_for_room(cause) or lacks_room(self._reserve):
                raise cause
            self._check_rights()
            self._check_descriptors()
        return str(error)

    def _check_rights(self) -> None:
        """Raise `OSError` if the system does not let us use what there is: that is no damage."""
        for name in INDEX_FILES:
            path = self._paths.index.with_name(name)
            try:
                if self._files.exists(path):
                    self._files.close(self._files.open(path, Access.WRITE))
            except OSError as error:
                if error.errno in NOT_LET:
                    raise

    def _check_descriptors(self) -> None:
        """Raise `OSError` if the system does not give us as many as an index takes."""
        try:
            with ExitStack() as held:
                for _ in range(INDEX_DESCRIPTORS):
                    fd = self._files.open(self._paths.marker, Access.READ)
                    held.callback(self._files.close, fd)
        except OSError as error:
            if error.errno in _PASSING:
                raise

    def _replayed(self, index: Index) -> Ready:
        # What the ledger begins with: where that makes no sense, the index is made again.
        index.totals()
        found = self._staging_parts(index.staged())
        # The disk may have lost the last header of a stored one: what is left of it is no lease.
        parts = [one for one in found if not _is_stored_all_the_same(index, one.header)]
        recovery = Recovery(self._files, self._paths, self._volume, index)
        recovery.adopt(_stored(parts), staged=True)
        return Ready(index, recovery.replay(), parts)

    def _made_again(self) -> Ready:
        # Its owner's alone; SQLite gives the files beside it the same mode.
        self._files.close(self._files.open(self._paths.index, Access.ENSURE))
        index = create_index(self._paths.index, self._volume, self._connect)
        try:
            parts = self._staging_parts()
            recovery = Recovery(self._files, self._paths, self._volume, index)
            recovery.adopt(_stored(parts), staged=True)
            recovered = recovery.rebuild(self._progress)
            index.finish()
            self._files.sync_directory(self._paths.index.parent)
        except BaseException:
            index.close(clean=False)
            raise
        return Ready(index, recovered, parts)

    def _staging_parts(self, known: Iterable[bytes] = ()) -> list[Part]:
        """
        Return the sound files in staging; whatever else lies there is removed.

        Not what the index has as a shard: all that is damaged of it may be its header.
        """
        kept = {self._paths.part(file).name for file in known}
        parts = []
        for name in self._files.list(self._paths.staging):
            try:
                part = self._part(self._paths.staging / name, is_known=name in kept)
            except OSError as error:
                # Of what the index knows nothing, nobody could say what was lost with it.
                if error.errno != errno.EIO or name not in kept:
                    raise
                check_disk(self._files, self._paths)
                continue
            if part is not None and not _is_worthless(part.header):
                parts.append(part)
            elif name not in kept:
                # Some systems put directories of their own into each, as for thumbnails.
                with suppress(IsADirectoryError):
                    self._files.unlink(self._paths.staging / name)
        return parts

    def _part(self, path: Path, *, is_known: bool) -> Part | None:
        """
        Return what a file in staging is, or None.

        One that the index does not know is a shard only if the disk says so: memory may hold
        what a kill has left there, and no sync could write.
        """
        part = read_part(self._files, path)
        if is_known or part is None or part.header.kind is not Kind.SHARD:
            return part
        sync_what_a_kill_left(self._files, path)
        return read_part(self._files, path)


def _is_worthless(header: RecordHeader) -> bool:
    """Say whether this is an upload of which no byte is known to be durable."""
    return header.kind is Kind.STAGING and not header.synced_bytes


def _is_stored_all_the_same(index: Index, header: RecordHeader) -> bool:
    """Say whether the index has this file as a shard's, though it says that it is none yet."""
    return header.kind is Kind.STAGING and index.knows_file(
        header.segment, header.renter, header.shard
    )


def _stored(parts: list[Part]) -> list[Part]:
    return [part for part in parts if part.header.kind is Kind.SHARD]
