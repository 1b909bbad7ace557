"""
Giving space back to the filesystem: doing what is worth it (`worthwhile`).

Given-up records are punched out of their segments, or unlinked where they have a file of
their own (`releasing`).  Where the filesystem cannot punch, or where hardly anything is alive
in a segment, its live records are written again at the end of the log and it is unlinked
(`compaction`).  Marks that speak of nothing any more go with the records that carry them
(`condensing`).

Nothing of the log goes before the index that no longer needs it is durable: after a power
loss an older index would replay what is not there.

It works in steps and rests after each, so that those who are served feel little of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from threading import Lock
from typing import Final

from farmer.storage.compaction import Compactor
from farmer.storage.condensing import Condenser
from farmer.storage.ground import Ground
from farmer.storage.handles import Handles
from farmer.storage.marks import MARK_BYTES
from farmer.storage.places import Doomed, Segment
from farmer.storage.quota import segment_bytes
from farmer.storage.recovery import gone_segments
from farmer.storage.releasing import Releaser, where
from farmer.storage.steps import Steps
from farmer.storage.transaction import Transaction
from farmer.storage.worthwhile import (
    HURRIED_RECORDS,
    HURRIED_STEPS,
    cheap,
    is_lone,
    is_much,
    plan,
)
from farmer.storage.writer import Writer

RELEASED_AT_ONCE: Final = 4096
"""Records looked up to be given back: bounds memory, 2 MiB."""

_ENTERED_PER_STEP: Final = 32
"""What the writer enters at once: a store behind it waits for little."""

_RELEASED_PER_STEP: Final = 512
"""Records whose space is given back without a rest: many lie side by side, and are one hole."""


class Reclaimer:
    """One volume's.  `releaser` from any thread, `run` one at a time."""

    def __init__(self, ground: Ground, handles: Handles, writer: Writer) -> None:
        self._ground = ground
        self._handles = handles
        self._writer = writer
        self._running = Lock()
        self._settled_bytes = ground.account.log_bytes
        self._restated: int | None = None
        """Marks that the last condensing found needed; None before the first."""
        self.releaser = Releaser(ground, handles)
        self._steps = Steps(ground, writer)
        self._condenser = Condenser(ground, handles, writer, self._steps)
        self._compactor = Compactor(ground, handles, writer, self._steps)

    @property
    def is_due(self) -> bool:
        """Whether so much has gathered since the last run that it should not wait."""
        return is_much(self._ground.account.log_bytes - self._settled_bytes)

    @property
    def is_running(self) -> bool:
        """Whether a run is under way."""
        return self._running.locked()

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
        if not hurried and (self._restated is None or not self.releaser.makes_holes):
            # Else each start would write all marks again, though all are needed.
            marks_bytes = sum(one.length for one in marks)
            self._restated = index.needed_marks(marks_bytes // (2 * MARK_BYTES) + 1)
        active = self._writer.active_number
        chosen = plan(segments, active, marks, self._restated)
        # Where no holes are made, marks go when their segment is written again.
        condense = chosen.condense and self.releaser.makes_holes
        if condense and hurried:
            # How many are needed of all of them is not known by that.
            lone = [one for one in marks if is_lone(one)]
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
        for one in free if hurried_marks is None else cheap(free, hurried_marks)[:1]:
            if left_bytes <= 0 and one.live_bytes:
                return
            if self._handles.is_segment_pinned(one.number):
                continue
            if self._compactor.compact(one.number):
                left_bytes -= one.size_bytes

    def _condense(self, marks: Sequence[Doomed], steps: int | None = None) -> int:
        """Write marks again that are needed; return how many; no more once a hole was refused."""
        restated = 0
        for count in self._condenser.condense(marks, self.releaser.release):
            restated += count
            steps = None if steps is None else steps - 1
            if steps == 0 or not self.releaser.makes_holes:
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
            doomed.sort(key=where)
            for some in _portions(doomed, _RELEASED_PER_STEP):
                with self._steps.one():
                    released = self.releaser.release(some)
                for entered in _portions(released, _ENTERED_PER_STEP):
                    self._steps.enter(partial(_release, entered))
            if limit is not None:
                return

    def _doomed(self, after: int, limit: int) -> list[Doomed]:
        """Return some of what can be given back here, behind a sequence."""
        index = self._ground.index
        look = index.doomed if self.releaser.makes_holes else index.doomed_files
        return look(after, limit)


def _portions(records: Sequence[Doomed], length: int) -> Iterator[Sequence[Doomed]]:
    for start in range(0, len(records), length):
        yield records[start : start + length]


def _release(records: Sequence[Doomed], transaction: Transaction) -> None:
    for record in records:
        transaction.release(record)
