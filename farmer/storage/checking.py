"""
Looking a volume over without changing anything: marker, segments, and log against index.

Headers are read, not the bytes of shards: that is the scrub's.  The volume may be in use
meanwhile; so whatever looks wrong is looked at twice, and what passes was a change.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from os import fsdecode, fsencode
from pathlib import Path
from typing import Final

from farmer.model.ids import NodeId
from farmer.storage.annex import annex_of, beside
from farmer.storage.bad_spots import BadSpots
from farmer.storage.directory import Paths, VolumeSetupError, read_marker
from farmer.storage.errors import FormatTooNewError
from farmer.storage.files import Access, Files
from farmer.storage.outside import index_to_read, is_untouched
from farmer.storage.places import Row
from farmer.storage.records import (
    SEGMENT_HEADER_BYTES,
    DamagedError,
    Kind,
    RecordHeader,
    decode_segment,
)
from farmer.storage.recovery import part_uuid, read_part, shelves
from farmer.storage.scan import Damaged, Found, Source, scan
from farmer.storage.transaction import ROW

LOOKS: Final = 2
FINDINGS_MAX: Final = 1000
"""More of them say nothing new."""

_NO_ROOM: Final = (
    "the temporary directory has no room for a copy of the index: let SQLITE_TMPDIR name one"
    " that has"
)
_PATIENCE_S: Final = 5.0
_KEEP: Final = f"CREATE TEMP TABLE looked_at AS {ROW} ORDER BY s.segment, s.offset"
_BY_PLACE: Final = "SELECT * FROM temp.looked_at WHERE segment > 0 ORDER BY rowid"
_IN_FILES: Final = "SELECT * FROM temp.looked_at WHERE segment = 0 ORDER BY rowid"


@dataclass(frozen=True, slots=True)
class Checked:
    """What was looked at, and what is wrong."""

    segments: int
    shards: int
    findings: tuple[str, ...]
    """One sentence each, for a person; of very many the first."""
    more: int = 0
    """How many more there are."""


def check_volume(root: Path, node: NodeId, files: Files, annexes: Path | None = None) -> Checked:
    """
    Look a volume over, with its annex; reads only, may take long on a large one.

    Meanwhile the temporary directory holds a copy of the index's rows, and what was found.
    Never raises for damage.
    """
    checked, told, more = (0, 0), tuple[str, ...](), 0
    try:
        with closing(_Findings()) as findings:
            for look in range(LOOKS):
                checked = _look(root, node, files, annexes, partial(findings.add, look))
                told, more = findings.of(look)
                if not told:
                    break
    except sqlite3.Error as error:
        is_full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        return Checked(0, 0, (_NO_ROOM if is_full else f"what is wrong is lost ({error})",))
    return Checked(*checked, told, more)


class _Findings:
    """
    What each look has found, all of it: cut, two looks might have nothing in common.

    They lie in the temporary directory, since there may be one for each shard.
    """

    def __init__(self) -> None:
        self._found = sqlite3.connect("", isolation_level=None)
        self._found.execute("PRAGMA journal_mode = OFF")
        self._found.execute("CREATE TABLE found (finding BLOB PRIMARY KEY, look) WITHOUT ROWID")

    def add(self, look: int, finding: str) -> None:
        """Note what a look has found; of a later one, what those before it have found, too."""
        # As bytes: the name of a file, which may be in it, need not be text.
        raw = fsencode(finding)
        if not look:
            self._found.execute("INSERT OR IGNORE INTO found VALUES (?, 0)", (raw,))
            return
        self._found.execute(
            "UPDATE found SET look = ?1 WHERE finding = ?2 AND look = ?1 - 1", (look, raw)
        )

    def of(self, look: int) -> tuple[tuple[str, ...], int]:
        """Return what this look and all before it have found: the first, and how many more."""
        (count,) = self._found.execute(
            "SELECT count(*) FROM found WHERE look = ?", (look,)
        ).fetchone()
        rows = self._found.execute(
            "SELECT finding FROM found WHERE look = ? ORDER BY finding LIMIT ?",
            (look, FINDINGS_MAX),
        )
        told = tuple(fsdecode(raw) for (raw,) in rows)
        return told, count - len(told)

    def close(self) -> None:
        """Forget all."""
        self._found.close()


def _look(
    root: Path, node: NodeId, files: Files, annexes: Path | None, find: Callable[[str], None]
) -> tuple[int, int]:
    """Look once; return how many segments and shards were looked at."""
    paths = Paths(root)
    try:
        marker = read_marker(root, node, files)
        if annexes is not None and (annex := annex_of(annexes, marker.volume)).exists():
            paths, files = Paths(root, annex), beside(files, root, annex)
        if is_untouched(root):
            return 0, 0
        with closing(index_to_read(paths.index, _PATIENCE_S)) as index:
            look = _Look(paths, marker.volume, files, index, find)
            look.all()
    except (VolumeSetupError, FormatTooNewError, OSError) as error:
        find(str(error))
    except (sqlite3.Error, TypeError) as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            find(_NO_ROOM)
        else:
            find(f"the index cannot be read ({error}): farmer volume rebuild")
    else:
        return look.segments, look.shards
    return 0, 0


class _Look:
    """One look at a volume, by one state of its index."""

    def __init__(
        self,
        paths: Paths,
        volume: bytes,
        files: Files,
        index: sqlite3.Connection,
        find: Callable[[str], None],
    ) -> None:
        self.segments = self.shards = 0
        self._find = find
        self._paths = paths
        self._volume = volume
        self._files = files
        self._spots = BadSpots(files, paths)
        self._index = index

    def all(self) -> None:
        """Look at everything."""
        # One state of the index, and let go of before the disk is read: for as long as it is
        # held, which would be hours, the farmer could not cut the index's write-ahead log off.
        self._index.execute("BEGIN")
        self._look_at_index()
        doomed = self._index.execute("SELECT segment, offset, file FROM doomed").fetchall()
        segments = self._index.execute("SELECT number, uuid, size FROM segments ORDER BY number")
        numbers = segments.fetchall()
        self._index.execute(_KEEP)
        self._index.execute("COMMIT")
        given_up = {(segment, offset) for segment, offset, _file in doomed}
        rows = _rows(self._index, _BY_PLACE)
        row = next(rows, None)
        for number, uuid, size in numbers:
            expected: dict[int, Row] = {}
            while row is not None and row.place.segment <= number:
                expected[row.place.offset] = row
                row = next(rows, None)
            self.segments += 1
            self.shards += len(expected)
            self._look_at_segment(number, uuid, size, expected, given_up)
        self._look_at_files({file for _segment, _offset, file in doomed if file})

    def _look_at_index(self) -> None:
        (verdict,) = self._index.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            self._find(f"the index is damaged ({verdict})")
        (rows,) = self._index.execute("SELECT count(*) FROM shards").fetchone()
        (counted,) = self._index.execute("SELECT coalesce(sum(shards), 0) FROM usage").fetchone()
        if rows != counted:
            self._find(f"the index has {rows} shards, but counts {counted}")

    def _look_at_segment(
        self,
        number: int,
        uuid: bytes,
        size: int,
        expected: dict[int, Row],
        given_up: set[tuple[int, int]],
    ) -> None:
        path = self._paths.segment(number)
        try:
            fd = self._files.open(path, Access.READ)
        except OSError as error:
            if expected or size > SEGMENT_HEADER_BYTES:
                lost = f"{len(expected)} shards of the index stand there"
                self._find(f"{path.name} cannot be opened ({error.strerror}): {lost}")
            return
        try:
            self._look_at_head(fd, path.name, number, uuid)
            source = Source(self._spots, fd, uuid, path.name)
            end = min(self._files.size(fd), size)
            self._look_at_records(source, end, number, expected, given_up)
            self._look_for(expected, path.name)
        except OSError as error:
            self._find(f"{path.name} cannot be read to its end ({error.strerror})")
        finally:
            self._files.close(fd)

    def _look_for(self, missing: dict[int, Row], name: str) -> None:
        for row in missing.values():
            if not row.is_damaged:
                self._find(f"{name} at {row.place.offset}: {row.shard} does not stand there")

    def _look_at_records(
        self,
        source: Source,
        end: int,
        number: int,
        expected: dict[int, Row],
        given_up: set[tuple[int, int]],
    ) -> None:
        """Compare what is found with what is *expected*, and take it out of there."""
        for one in scan(source, SEGMENT_HEADER_BYTES, end, verify=False):
            match one:
                case Found() if one.header.kind is Kind.SHARD:
                    known = expected.pop(one.offset, None)
                    if known is not None:
                        self._compare(known, one.header, f"{source.where} at {one.offset}")
                    elif (number, one.offset) not in given_up:
                        self._find(f"{source.where} at {one.offset}: the index does not know it")
                case Damaged() if one.offset not in expected:
                    self._find(f"{source.where} at {one.offset}: no sound record")
                case _:
                    continue

    def _look_at_head(self, fd: int, name: str, number: int, uuid: bytes) -> None:
        try:
            head = decode_segment(self._spots.pread(fd, SEGMENT_HEADER_BYTES, 0), name)
        except DamagedError:
            self._find(f"{name}: its header is damaged")
            return
        if (head.volume, head.segment, head.number) != (self._volume, uuid, number):
            self._find(f"{name} is another segment than the index says")

    def _look_at_files(self, given_up: set[bytes]) -> None:
        known = set(given_up)
        for row in _rows(self._index, _IN_FILES):
            self.shards += 1
            known.add(row.place.file)
            path = self._paths.part(row.place.file)
            if not self._files.exists(path):
                path = self._paths.shard(row.place.file)
            try:
                part = read_part(self._files, path)
            except OSError as error:
                self._find(f"{path.name} cannot be read ({error.strerror}): {row.shard}")
                continue
            if part is not None:
                self._compare(row, part.header, path.name)
            elif not row.is_damaged:
                self._find(f"{path.name}: no sound record of {row.shard}")
        names = {f"{file.hex()}.seg" for file in known}
        for shelf in shelves(self._files, self._paths):
            for name in self._files.list(shelf):
                # What is named otherwise is not ours.
                if name not in names and part_uuid(shelf / name) is not None:
                    self._find(f"shards/{shelf.name}/{name}: the index does not know it")

    def _compare(self, row: Row, header: RecordHeader, where: str) -> None:
        said = (row.sequence, row.renter, row.shard, row.size_bytes)
        if said != (header.sequence, header.renter, header.shard, header.payload_bytes):
            self._find(f"{where}: another record than {row.shard}")


def _rows(index: sqlite3.Connection, query: str) -> Iterator[Row]:
    return (Row.of(columns) for columns in index.execute(query))
