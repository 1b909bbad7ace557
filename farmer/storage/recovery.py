"""
Bringing an index up to date with the disk: a little after a crash, everything after its loss.

Both are one walk over the log from a position on, by the same rules; a rebuild only starts
at the very beginning and has looked at all files of large shards first.  What a later mark
removed is not resurrected, because marks are applied in the order of the log.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Final

from farmer.model.shard import RECORD_HEADER_BYTES, ShardState
from farmer.storage.directory import Paths
from farmer.storage.entering import Gathered
from farmer.storage.files import Access, Files, sync_what_a_kill_left
from farmer.storage.index import Index
from farmer.storage.index_errors import LogCutError
from farmer.storage.operations import row_of
from farmer.storage.places import Place, Position
from farmer.storage.plain import Plain, walk
from farmer.storage.records import (
    DAMAGED,
    SEGMENT_HEADER_BYTES,
    UUID_BYTES,
    DamagedError,
    Kind,
    RecordHeader,
    SegmentHeader,
    decode_record,
    decode_segment,
    segment_uuid,
    trailer_length,
)
from farmer.storage.scan import Damaged, Found, Hole, Source
from farmer.storage.wiping import give_back

_SHELF: Final = re.compile("[0-9a-f]{2}")

_PARTS_PER_TRANSACTION: Final = 512

_REPLAYED_PER_TRANSACTION: Final = 16 * 1024
"""Shards and marks.  The ids come in no order, so each entry of a small group changes a page
of the index of its own; those of a large one share them.  16 MiB of memory, and 64 MiB of
write-ahead log: within what the allowance keeps for a compaction, which does not run now."""

_REBUILT_PER_TRANSACTION: Final = 384 * 1024
"""The same for an index that has no write-ahead log yet."""

_GATHERED_BYTES_MAX: Final = 64 * 1024**2
"""What they may take in memory, whatever they are; to enter them takes up to as much again."""

Progress = Callable[[int, int], None]
"""Told the number of the segment that is read, and of the last one."""


@dataclass(slots=True)
class Recovered:
    """What a recovery found besides rows."""

    end: Position
    uuid: bytes = b""
    """Of the last segment, if it may be appended to."""
    damaged: list[str] = field(default_factory=list)
    """Places, for a person: where it is not known whose the record was; and, of a rebuild, where
    the end of the log with a sound header was cut off."""
    records: int = 0
    headless: set[int] = field(default_factory=set)
    """Segments whose headers are lost: they are read, but neither cut off nor appended to."""
    patchy: set[int] = field(default_factory=set)
    """Segments with damage of unknown length before something sound: they are not appended to, for
    a header amid that may claim what would be."""


@dataclass(slots=True)
class _Reached:
    """How far a segment is read whose records are not all entered."""

    header: SegmentHeader
    end: int = 0
    """Of the last record that is gathered."""
    holes_bytes: int = 0
    """Bytes given back between the gathered records."""


@dataclass(frozen=True, slots=True)
class Part:
    """A file of one large shard: stored, or unfinished."""

    header: RecordHeader
    path: Path


class Recovery:
    """One recovery of one volume's index."""

    def __init__(self, files: Files, paths: Paths, volume: bytes, index: Index) -> None:
        self._files = files
        self._paths = paths
        self._volume = volume
        self._index = index
        self._gathered = Gathered(files, paths)
        self._entries_max = _REPLAYED_PER_TRANSACTION
        self._reached: dict[int, _Reached] = {}
        """By segment, in the order of the log."""
        self._is_whole = False
        """Whether all of the log is read, not only what the index has not seen."""

    def replay(self) -> Recovered:
        """
        Walk from the index's position to the end of the log and cut a torn tail off.

        Raises:
            LogCutError: the index speaks of records that are not there.
            FormatTooNewError, OSError.

        """
        position = self._index.position()
        path = self._paths.segment(position.segment)
        if position.segment and not self._files.exists(path):
            raise LogCutError(f"{path.name} is missing")
        if position.segment and self._size(path) < position.offset:
            raise LogCutError(f"{path.name} is shorter than it was")
        first = max(1, position.segment)
        numbers = [one for one in segment_numbers(self._files, self._paths) if one >= first]
        recovered = self._walk(numbers, position, progress=_silent)
        recovered.damaged[:0] = self._missing([first - 1, *numbers])
        return recovered

    def rebuild(self, progress: Progress) -> Recovered:
        """Walk over everything; raises `FormatTooNewError`, `OSError`."""
        self._entries_max, self._is_whole = _REBUILT_PER_TRANSACTION, True
        unreadable = self._adopt_shelves()
        numbers = segment_numbers(self._files, self._paths)
        recovered = self._walk(numbers, Position(0, 0, 1), progress=progress)
        recovered.damaged[:0] = unreadable
        return recovered

    def adopt(self, parts: Sequence[Part], *, staged: bool) -> int:
        """Enter stored large shards that the index does not know; return the last sequence."""
        last = 0
        for start in range(0, len(parts), _PARTS_PER_TRANSACTION):
            some = parts[start : start + _PARTS_PER_TRANSACTION]
            with self._index.transaction() as transaction:
                for part in some:
                    header = part.header
                    last = max(last, header.sequence)
                    if not self._index.knows_file(header.segment, header.renter, header.shard):
                        transaction.put(row_of(header, Place(0, 0, header.segment)))
                        if staged:
                            transaction.stage(header.segment)
                transaction.raise_sequence(last + 1)
        return last

    def _adopt_shelves(self) -> list[str]:
        unreadable = []
        for shelf in shelves(self._files, self._paths):
            parts = []
            for name in self._files.list(shelf):
                path = shelf / name
                part = read_part(self._files, path)
                if part is not None and part.header.kind is Kind.SHARD:
                    parts.append(part)
                elif part_uuid(path) is not None:
                    unreadable.append(str(path))
            self.adopt(parts, staged=False)
            self._index.checkpoint_if_long()
        return unreadable

    def _walk(self, numbers: list[int], start: Position, *, progress: Progress) -> Recovered:
        recovered = Recovered(start)
        if numbers:
            # Segments before the last were synced before the next one was begun.
            last = numbers[-1]
            unseen = start.offset if last == start.segment else 0
            sync_what_a_kill_left(self._files, self._paths.segment(last), unseen)
            self._files.sync_directory(self._paths.log)
        headers = {number: self._segment_header(number, recovered) for number in numbers[:1]}
        for at, number in enumerate(numbers):
            following = numbers[at + 1] if at + 1 < len(numbers) else 0
            if following:
                headers[following] = self._segment_header(following, recovered)
            header, after = headers.pop(number), headers.get(following)
            if header is None:
                self._pass_over(number, recovered, is_last=not following)
                continue
            progress(number, numbers[-1])
            offset = start.offset if number == start.segment else SEGMENT_HEADER_BYTES
            limit = after.previous_end or None if after and following == number + 1 else None
            end = self._segment(header, offset, limit, recovered, is_last=not following)
            is_headless = number in recovered.headless
            if not following and not is_headless:
                self._cut(number, end)
            self._reach(header, end)
            if not self._is_whole or not following:
                self._settle(recovered)
            is_sealed = is_headless or number in recovered.patchy
            recovered.uuid = b"" if is_sealed else header.segment
        return recovered

    def _pass_over(self, number: int, recovered: Recovered, *, is_last: bool) -> None:
        """Go on without a segment that holds nothing but a damaged header."""
        self._settle(recovered)
        path = self._paths.segment(number)
        if is_last:
            # A crash while it was made: nothing was ever written behind the header.
            self._files.unlink(path)
            return
        recovered.damaged.append(f"{path.name} at 0")
        recovered.end = Position(number, self._size(path), self._index.position().next_sequence)
        recovered.uuid = b""

    def _segment(
        self,
        header: SegmentHeader,
        offset: int,
        limit: int | None,
        recovered: Recovered,
        *,
        is_last: bool,
    ) -> int:
        """Apply one segment's records; return the end of its last one."""
        path = self._paths.segment(header.number)
        fd = self._files.open(path, Access.READ)
        end = offset
        holes: list[tuple[int, int]] = []
        doubtful: list[Damaged] = []
        try:
            size = self._files.size(fd)
            source = Source(self._files, fd, header.segment, path.name)
            self._open_segment(header)
            verify = not (self._is_whole and limit)
            until = min(size, limit or size)
            for one in walk(source, header.number, offset, until, verify=verify):
                match one:
                    case Damaged():
                        doubtful.append(one)
                    case Hole(at, length) if limit and not self._files.is_hole(fd, at, length):
                        # All of this was synced before the next segment was begun: no batch was
                        # torn here.  The disk has lost a header, or a crash tore a punching.
                        recovered.damaged.append(f"{path.name} at {at}")
                    case Hole(at, length):
                        # A crash may have torn a batch there, or the punching of it.
                        holes.append((at, give_back(self._files, path, fd, at, length)))
                    case _:
                        # What stands before something sound may have been sound once, too.
                        self._take_damaged(header.number, doubtful, recovered)
                        recovered.records += self._gather(
                            header.number, one, may_be_torn=not limit
                        )
                        self._reach(header, one.end, holes)
                        doubtful, holes, end = [], [], one.end
                if self._has_gathered_much():
                    self._reach(header, end)
                    self._settle(recovered)
        finally:
            self._files.close(fd)
        if is_last:
            self._tell_torn(path, doubtful, recovered)
            return end
        # When another segment was begun, all of this one had been synced that counts.
        taken = self._take_damaged(header.number, doubtful, recovered)
        end = max(end, taken, min(size, limit or 0))
        self._reach(header, end, [hole for hole in holes if hole[0] < end])
        return end

    def _tell_torn(self, path: Path, records: list[Damaged], recovered: Recovered) -> None:
        """Name what a rebuild cuts off: most likely a crash tore it; but there need be none."""
        if self._is_whole:
            known = [one.offset for one in records if one.header is not None]
            recovered.damaged += [f"{path.name} at {at}" for at in known]

    def _take_damaged(self, number: int, records: list[Damaged], recovered: Recovered) -> int:
        """Keep what is damaged if it is known whose it is; return the end of the last of these."""
        end, path = 0, self._paths.segment(number)
        for one in records:
            if one.header is None:
                recovered.damaged.append(f"{path.name} at {one.offset}")
                recovered.patchy.add(number)
            else:
                end = one.offset + one.header.record_bytes
                found = Found(one.offset, end, _spoilt(one.header))
                self._gathered.add(number, found, is_doubted=True)
                recovered.records += 1
        return end

    def _gather(self, number: int, one: Plain | Found, *, may_be_torn: bool) -> int:
        """Keep records that passed for sound until they are entered; return how many they are."""
        if isinstance(one, Plain):
            self._gathered.add_plain(number, one.rows)
            return len(one.rows)
        # The bytes of such a copy are not verified.
        is_doubted = may_be_torn and bool(one.header.flags & DAMAGED)
        self._gathered.add(number, one, is_doubted=is_doubted)
        return 1

    def _open_segment(self, header: SegmentHeader) -> None:
        with self._index.transaction() as transaction:
            transaction.open_segment(header.number, header.segment)

    def _has_gathered_much(self) -> bool:
        entries, memory_bytes = self._gathered.entries, self._gathered.memory_bytes
        return entries >= self._entries_max or memory_bytes >= _GATHERED_BYTES_MAX

    def _reach(
        self, header: SegmentHeader, end: int, holes: Sequence[tuple[int, int]] = ()
    ) -> None:
        """Note how far a segment is read, and what was given back since this was last noted."""
        reached = self._reached.setdefault(header.number, _Reached(header))
        reached.end = end
        reached.holes_bytes += sum(length for _, length in holes)

    def _settle(self, recovered: Recovered) -> None:
        """Commit what has gathered."""
        if not self._reached:
            return
        last = [*self._reached.values()][-1]
        first = max(one.header.first_sequence for one in self._reached.values())
        following = max(self._gathered.last_sequence + 1, first)
        with self._index.transaction() as transaction:
            given_back = self._gathered.enter(transaction)
            for number, reached in self._reached.items():
                holes_bytes = reached.holes_bytes + given_back[number]
                transaction.grow_segment(number, reached.end, holes_bytes)
            transaction.set_position(Position(last.header.number, last.end, following))
        self._gathered.clear()
        self._reached.clear()
        self._index.checkpoint_if_long()
        recovered.end = self._index.position()

    def _cut(self, number: int, end: int) -> None:
        fd = self._files.open(self._paths.segment(number), Access.WRITE)
        try:
            if self._files.size(fd) > end:
                self._files.truncate(fd, end)
                self._files.sync_data(fd)
        finally:
            self._files.close(fd)

    def _segment_header(self, number: int, recovered: Recovered) -> SegmentHeader | None:
        """Return a segment's header, made again if it is lost; None if nothing else is there."""
        path = self._paths.segment(number)
        fd = self._files.open(path, Access.READ)
        try:
            raw = self._files.pread(fd, SEGMENT_HEADER_BYTES, 0)
            size = self._files.size(fd)
        finally:
            self._files.close(fd)
        try:
            header = decode_segment(raw, str(path))
            if (header.volume, header.number) == (self._volume, number):
                return header
        except DamagedError:
            pass
        if size <= SEGMENT_HEADER_BYTES:
            return None
        recovered.headless.add(number)
        recovered.damaged.append(f"{path.name} at 0")
        return SegmentHeader(
            volume=self._volume,
            segment=segment_uuid(self._volume, number),
            number=number,
            first_sequence=0,
            previous_end=0,
            created_at_ms=0,
        )

    def _missing(self, numbers: Iterable[int]) -> list[str]:
        """Name the first segment of each gap: a replay begins behind all that may be removed."""
        return [
            f"{self._paths.segment(before + 1).name} is missing"
            for before, number in pairwise(numbers)
            if number > before + 1
        ]

    def _size(self, path: Path) -> int:
        fd = self._files.open(path, Access.READ)
        try:
            return self._files.size(fd)
        finally:
            self._files.close(fd)


def segment_numbers(files: Files, paths: Paths) -> list[int]:
    """Return the numbers of the segments that are there, ascending."""
    numbers = [
        (int(name[:-4]), name)
        for name in files.list(paths.log)
        if name.endswith(".seg") and name[:-4].isdigit()
    ]
    return sorted(number for number, name in numbers if paths.segment(number).name == name)


def gone_segments(files: Files, paths: Paths, numbers: Iterable[int]) -> list[int]:
    """
    Return those of some segments that have no file, durably, though the disk is there.

    Who removed one may have failed to make that durable: forgotten before, it would come back
    with the next crash, and nobody would know of it.

    Raises:
        OSError: the log cannot be listed or synced; FileNotFoundError if the whole disk is away.

    """
    missing = [number for number in numbers if not files.exists(paths.segment(number))]
    # All at once: the whole disk may have been away when one was asked for, and be back.
    there = set(segment_numbers(files, paths)) if missing else set()
    gone = [number for number in missing if number not in there]
    if gone:
        files.sync_directory(paths.log)
    return gone


def shelves(files: Files, paths: Paths) -> list[Path]:
    """Return the directories of large shards; what else lies beside them is not ours."""
    return [paths.shards / name for name in files.list(paths.shards) if _SHELF.fullmatch(name)]


def part_uuid(path: Path) -> bytes | None:
    """Return which large shard a file would be by its name; None if it is something else."""
    try:
        uuid = bytes.fromhex(path.stem)
    except ValueError:
        return None
    return uuid if len(uuid) == UUID_BYTES else None


def read_part(files: Files, path: Path) -> Part | None:
    """Return what a file of one large shard is, or None if it is not sound."""
    uuid = part_uuid(path)
    if uuid is None:
        return None
    fd = files.open(path, Access.READ)
    try:
        header = decode_record(files.pread(fd, RECORD_HEADER_BYTES, 0), uuid, str(path))
        whole = files.size(fd) >= header.record_bytes
    except DamagedError:
        return None
    finally:
        files.close(fd)
    return Part(header, path) if whole and _is_large_shard(header) else None


def _spoilt(header: RecordHeader) -> RecordHeader:
    """Return what a header says of a record whose bytes turned out to be damaged."""
    is_live = header.state is ShardState.LIVE
    state = ShardState.QUARANTINED if is_live else header.state
    return replace(header, flags=header.flags | DAMAGED, state=state)


def _is_large_shard(header: RecordHeader) -> bool:
    """Say whether the lengths in a header fit each other as those of a large shard do."""
    return (
        header.kind is not Kind.MARKS
        and header.trailer_bytes == trailer_length(header.payload_bytes)
        and header.synced_bytes <= header.payload_bytes
    )


def _silent(_number: int, _last: int) -> None:
    """Tell nobody."""
