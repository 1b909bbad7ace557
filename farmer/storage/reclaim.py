"""
Giving space back to the filesystem: what is worth doing, and doing it.

Given-up records are punched out of their segments, or unlinked where they have a file of
their own.  Where the filesystem cannot punch, or where hardly anything is alive in a segment,
its live records are written again at the end of the log and it is unlinked (`compaction`).
Marks that speak of nothing any more go with the records that carry them (`condensing`).

Nothing of the log goes before the index that no longer needs it is durable: after a power
loss an older index would replay what is not there.

It works in steps and rests after each, so that those who are served feel little of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from threading import Lock
from typing import Final

from farmer.model.shard import RECORD_ALIGNMENT_BYTES
from farmer.storage.compaction import Compactor
from farmer.storage.condensing import Condenser
from farmer.storage.files import Access
from farmer.storage.ground import Ground
from farmer.storage.handles import Handles
from farmer.storage.marks import MARK_BYTES
from farmer.storage.places import Doomed, Segment
from farmer.storage.quota import segment_bytes
from farmer.storage.records import SEGMENT_HEADER_BYTES
from farmer.storage.recovery import gone_segments
from farmer.storage.steps import Steps
from farmer.storage.transaction import Transaction
from farmer.storage.vouching import astray, is_index_wrong, mistaken
from farmer.storage.writer import Writer

MARKS_SLACK_BYTES: Final = 1024 * 1024
"""Marks that may gather before they are condensed: 256 lone deletes."""

SPARSE_SHARE: Final = 4
"""A segment of which a quarter is idle is worth writing again."""

LIVE_SHARE: Final = 5
"""So is one of which less than a fifth is alive, however much of the rest was given back: what
its map of extents takes goes by what was written (`farmer.storage.quota.EXTENTS_PER_QUOTA`)."""

RELEASED_AT_ONCE: Final = 4096
"""Records looked up to be given back: bounds memory, 2 MiB."""

_ENTERED_PER_STEP: Final = 32
"""What the writer enters at once: a store behind it waits for little."""

_RELEASED_PER_STEP: Final = 512
"""Records whose space is given back without a rest: many lie side by side, and are one hole."""


HURRIED_RECORDS: Final = 512
"""Records of each kind that a hurried run looks at: what everybody else has left is not to be
paid for by the one who waits."""

HURRIED_STEPS: Final = 16
"""Steps in which it condenses; each has syncs of its own."""

HURRIED_LIVE_BYTES: Final = 1024 * 1024
"""What it may copy, out of one segment: of the smallest records 256, with 32 syncs."""

HURRIED_MARKS: Final = 2 * HURRIED_STEPS
"""Lone marks records that may stand in that segment: each speaks of 40 shards at most, so that
a step takes two of them or more."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is worth doing."""

    condense: bool
    compact: tuple[int, ...]
    """Sealed segments, the emptiest first; without live records there is nothing to copy."""


def plan(
    segments: Iterable[Segment], active: int, marks: Sequence[Doomed], marks_needed: int | None
) -> Plan:
    """
    Decide; *marks_needed* is how many marks were needed when last counted; None: never counted.

    Unless many are known not to be, those that were written together count as alive: of millions
    there are segments full, which would be written again and again.
    """
    enough = 2 * (marks_needed or 0) * MARK_BYTES + MARKS_SLACK_BYTES // 2
    condense = sum(one.length for one in marks) > enough
    kept: Counter[int] = Counter()
    for one in () if condense and marks_needed is not None else marks:
        if not _is_lone(one):
            kept[one.place.segment] += one.length
    sparse = [one for one in segments if one.number != active and _is_sparse(one, kept)]
    sparse.sort(key=lambda one: one.live_bytes)
    return Plan(condense, tuple(one.number for one in sparse))


def _is_sparse(segment: Segment, kept: Mapping[int, int]) -> bool:
    alive_bytes = segment.live_bytes + kept.get(segment.number, 0)
    idle_bytes = segment.idle_bytes - kept.get(segment.number, 0) - SEGMENT_HEADER_BYTES
    return (
        alive_bytes * LIVE_SHARE <= segment.size_bytes
        or idle_bytes > segment.size_bytes // SPARSE_SHARE
    )


class Reclaimer:
    """One volume's.  `release` from any thread, `run` one at a time."""

    def __init__(self, ground: Ground, handles: Handles, writer: Writer) -> None:
        self._ground = ground
        self._handles = handles
        self._writer = writer
        self._running = Lock()
        self._settled_bytes = ground.account.log_bytes
        self._restated: int | None = None
        """Marks that the last condensing found needed; None before the first."""
        self._makes_holes = True
        """Whether no hole was refused yet: where one is, all are, and the log is compacted."""
        self._steps = Steps(ground, writer)
        self._condenser = Condenser(ground, handles, writer, self._steps)
        self._compactor = Compactor(ground, handles, writer, self._steps)

    @property
    def is_due(self) -> bool:
        """Whether so much has gathered since the last run that it should not wait."""
        return self._ground.account.log_bytes - self._settled_bytes > MARKS_SLACK_BYTES

    @property
    def is_running(self) -> bool:
        """Whether a run is under way."""
        return self._running.locked()

    def release(self, doomed: Sequence[Doomed]) -> list[Doomed]:
        """Give back what nobody reads, durably; return what was given back."""
        released: list[Doomed] = []
        free = [one for one in doomed if not self._handles.is_pinned(one.place)]
        free.sort(key=_where)
        for number, group in groupby(free, key=lambda one: one.place.segment):
            if number and not self._makes_holes:
                continue
            records = list(group)
            try:
                released += self._punch(number, records) if number else self._unlink(records)
            except OSError:
                self._ground.health.count("reclaim")
        return released

    def run(self, *, hurried: bool = False) -> int:
        """
        Give back all that is worth it now; return the bytes that came free.

        What stands at a spot that cannot be read is left for the next run.  Returns 0 at once if
        another run is under way.  It rests between its steps unless somebody waits for it, and
        it is *hurried*: then it does a bounded part of it only.

        Raises:
            StorageError, OSError, sqlite3.Error: the volume failed; all that is done is done.

        """
        if not self._begin(hurried=hurried):
            return 0
        try:
            before = self._ground.account.log_bytes
            self._run(hurried=hurried)
            return max(0, before - self._ground.account.log_bytes)
        finally:
            self._settled_bytes = self._ground.account.log_bytes
            self._running.release()

    def rewrite(self, number: int) -> bool:
        """
        Write what is alive in a segment again; say whether nothing is left in it.

        Its file goes as soon as nobody reads it.  Not the segment that is appended to, and not
        while another run is under way.  Without rests: a scrub has its own.  Raises as `run`.
        """
        if number == self._writer.active_number or not self._begin(hurried=True):
            return False
        try:
            self._compactor.compact(number)
        finally:
            self._running.release()
        return not self._compactor.live_bytes(number)

    def _begin(self, *, hurried: bool) -> bool:
        """Begin a run, if none is under way."""
        if not self._running.acquire(blocking=False):
            return False
        self._steps.is_hurried = hurried
        return True

    def _run(self, *, hurried: bool) -> None:
        index = self._ground.index
        self._drop_missing()
        self._release_all(HURRIED_RECORDS if hurried else None)
        marks = index.marks()
        segments = index.segments()
        if not hurried and (self._restated is None or not self._makes_holes):
            # Else each start would write all marks again, though all are needed.
            marks_bytes = sum(one.length for one in marks)
            self._restated = index.needed_marks(marks_bytes // (2 * MARK_BYTES) + 1)
        active = self._writer.active_number
        chosen = plan(segments, active, marks, self._restated)
        # Where no holes are made, marks go when their segment is written again.
        condense = chosen.condense and self._makes_holes
        if condense and hurried:
            # How many are needed of all of them is not known by that.
            lone = [one for one in marks if _is_lone(one)]
            self._condense(lone[-HURRIED_RECORDS:], HURRIED_STEPS)
        elif condense:
            self._restated = self._condense(marks)
        by_number = {one.number: one for one in segments}
        sparse = [by_number[number] for number in chosen.compact]
        self._compact(sparse, marks if hurried else None)

    def _compact(self, sparse: Sequence[Segment], hurried_marks: Sequence[Doomed] | None) -> None:
        """
        Write these again, but not what is being read: it would be there twice until that ends.

        The allowance has room for one that is there twice: readers who began meanwhile, or while
        an earlier run went on, keep what was emptied.  For a hurried run, which takes one that
        costs little, *hurried_marks* are all that there are.
        """
        read = [one for one in sparse if self._handles.is_segment_pinned(one.number)]
        left_bytes = segment_bytes(self._ground.account.quota_bytes)
        left_bytes -= sum(one.idle_bytes for one in read if not one.live_bytes)
        free = [one for one in sparse if one not in read]
        for one in free if hurried_marks is None else _cheap(free, hurried_marks)[:1]:
            if left_bytes <= 0 and one.live_bytes:
                return
            if self._handles.is_segment_pinned(one.number):
                continue
            if self._compactor.compact(one.number):
                left_bytes -= one.size_bytes

    def _condense(self, marks: Sequence[Doomed], steps: int | None = None) -> int:
        """Write marks again that are needed; return how many; no more once a hole was refused."""
        restated = 0
        for count in self._condenser.condense(marks, self.release):
            restated += count
            steps = None if steps is None else steps - 1
            if steps == 0 or not self._makes_holes:
                break
        return restated

    def _drop_missing(self) -> None:
        """
        Forget segments that an earlier run has unlinked, if the index came back from before.

        After a power loss it may list what a compaction has emptied and removed.  Nothing of
        such a segment can be read any more, and nothing of it is needed.
        """
        active = self._writer.active_number
        idle = [
            one.number
            for one in self._ground.index.segments()
            if not (one.live_bytes or one.number == active)
        ]
        try:
            gone = gone_segments(self._ground.files, self._ground.paths, idle)
        except FileNotFoundError:
            return
        for number in gone:
            self._steps.forget_segment(number)

    def _release_all(self, limit: int | None) -> None:
        # Step by step: after an expired contract there may be as many as there were shards.
        after, at_once = 0, limit or RELEASED_AT_ONCE
        while doomed := self._doomed(after, at_once):
            after = doomed[-1].sequence
            doomed.sort(key=_where)
            for some in _portions(doomed, _RELEASED_PER_STEP):
                with self._steps.one():
                    released = self.release(some)
                for entered in _portions(released, _ENTERED_PER_STEP):
                    self._steps.enter(partial(_release, entered))
            if limit is not None:
                return

    def _doomed(self, after: int, limit: int) -> list[Doomed]:
        """Return some of what can be given back here, behind a sequence."""
        index = self._ground.index
        look = index.doomed if self._makes_holes else index.doomed_files
        return look(after, limit)

    def _punch(self, number: int, records: Sequence[Doomed]) -> list[Doomed]:
        files = self._ground.files
        fd = files.open(self._ground.paths.segment(number), Access.WRITE)
        try:
            done = []
            for stretch in _stretches(self._vouched_for(number, fd, records)):
                length = sum(one.length for one in stretch)
                if not files.punch(fd, stretch[0].place.offset, length):
                    self._makes_holes = False
                    break
                done += stretch
            if done:
                files.sync_data(fd)
        finally:
            files.close(fd)
        return done

    def _vouched_for(self, number: int, fd: int, records: Sequence[Doomed]) -> list[Doomed]:
        """Return what the log has where the index says; one that errs about the rest must go."""
        ground = self._ground
        log = ground.files, fd, ground.volume, number
        wrong = astray(*log, records)
        if wrong and is_index_wrong(*log, wrong, ground.index):
            ground.index_is_wrong(mistaken(number))
        there = [one.record for one in wrong]
        return [one for one in records if one not in there]

    def _unlink(self, records: Iterable[Doomed]) -> list[Doomed]:
        files, paths, done = self._ground.files, self._ground.paths, []
        touched = set()
        for one in records:
            self._handles.forget(one.place)
            # Both names, and in this order: the writer may move it out of staging meanwhile, and
            # an earlier try may have removed the one or the other without making that durable.
            for path in (paths.part(one.place.file), paths.shard(one.place.file)):
                files.unlink(path)
                if files.exists(path.parent):
                    touched.add(path.parent)
            done.append(one)
        for directory in sorted(touched):
            files.sync_directory(directory)
        return done


def _where(record: Doomed) -> tuple[int, int]:
    return record.place.segment, record.place.offset


def _is_lone(marks: Doomed) -> bool:
    """Say whether a marks record takes the least space; what was condensed takes more."""
    return marks.length <= RECORD_ALIGNMENT_BYTES


def _cheap(segments: Iterable[Segment], marks: Iterable[Doomed]) -> list[Segment]:
    """Return those in which so little is left, marks included, that somebody may wait for it."""
    lone: Counter[int] = Counter()
    dense = set()
    for one in marks:
        if _is_lone(one):
            lone[one.place.segment] += 1
        else:
            dense.add(one.place.segment)
    return [
        one
        for one in segments
        if one.live_bytes <= HURRIED_LIVE_BYTES
        and lone[one.number] <= HURRIED_MARKS
        and one.number not in dense
    ]


def _portions(records: Sequence[Doomed], length: int) -> Iterator[Sequence[Doomed]]:
    for start in range(0, len(records), length):
        yield records[start : start + length]


def _stretches(records: Iterable[Doomed]) -> Iterator[list[Doomed]]:
    """Yield records of one segment, in order, by what stands without a gap: one hole, not many."""
    stretch: list[Doomed] = []
    end = 0
    for record in records:
        if stretch and record.place.offset != end:
            yield stretch
            stretch = []
        stretch.append(record)
        end = record.place.offset + record.length
    if stretch:
        yield stretch


def _release(records: Sequence[Doomed], transaction: Transaction) -> None:
    for record in records:
        transaction.release(record)
