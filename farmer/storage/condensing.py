"""
Writing again what marks must still say: condensing.

A mark is needed as long as a record, or an older mark, would say otherwise after a rebuild of
the index.  Those that are needed no more go with the records that carry them.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from farmer.model.ids import NodeId, ShardId
from farmer.model.shard import RECORD_HEADER_BYTES
from farmer.storage.ground import Ground
from farmer.storage.handles import Handles
from farmer.storage.marks import Action, Mark, decode_marks
from farmer.storage.operations import Restate, Upkeep, new_mark, state_marks
from farmer.storage.places import Doomed
from farmer.storage.records import DamagedError
from farmer.storage.rights import NOT_LET, file_of
from farmer.storage.scan import Source, read_marks
from farmer.storage.steps import Steps
from farmer.storage.transaction import Transaction
from farmer.storage.writer import Writer

_MARKS_PER_STEP: Final = 64

Release = Callable[[Sequence[Doomed]], Sequence[Doomed]]
"""Gives the space of records back, durably, and returns those whose space it was."""


class Condenser:
    """One volume's."""

    def __init__(self, ground: Ground, handles: Handles, writer: Writer, steps: Steps) -> None:
        self._ground = ground
        self._handles = handles
        self._writer = writer
        self._steps = steps

    def condense(self, records: Sequence[Doomed], release: Release | None) -> Iterator[int]:
        """
        Write the marks of these records again, as far as they are needed.

        It goes on as long as it is asked, a step each time, and yields how many those were.
        Without *release* the records stay where they are, and one that cannot be read is an
        error; with it, that one is left for the next time.  Raises as `Reclaimer.run`.
        """
        for start in range(0, len(records), _MARKS_PER_STEP):
            some = deque(records[start : start + _MARKS_PER_STEP])
            while some:
                with self._steps.one():
                    restated = self._condense_some(some, release)
                yield restated

    def _condense_some(self, records: deque[Doomed], release: Release | None) -> int:
        step, mentioned = self._mentioned(records, is_lenient=release is not None)
        choose = partial(_needed, mentioned)
        restated = self._writer.submit(Restate(choose, max(1, len(mentioned)))).result()
        if release is not None:
            released = release(step)
            self._writer.submit(Upkeep(partial(_drop_marks, released))).result()
        return restated

    def _mentioned(
        self, records: deque[Doomed], *, is_lenient: bool
    ) -> tuple[list[Doomed], dict[tuple[NodeId, ShardId], int]]:
        """
        Take the first records that fit one step; return them, and whom they speak of.

        If *is_lenient*, one that cannot be read is taken too, and not returned: it must stay.
        """
        step: list[Doomed] = []
        mentioned: dict[tuple[NodeId, ShardId], int] = {}
        while records and len(mentioned) < _MARKS_PER_STEP:
            record = records.popleft()
            try:
                marks = self._read_marks(record)
            except OSError as error:
                path = self._handles.usual_path(record.place)
                if not is_lenient or not pass_over(error, self._ground, path):
                    raise
                continue
            for mark in marks:
                key = (mark.renter, mark.shard)
                mentioned[key] = max(mark.sequence, mentioned.get(key, 0))
            step.append(record)
        return step, mentioned

    def _read_marks(self, record: Doomed) -> list[Mark]:
        with self._handles.borrow(record.place) as fd:
            raw = self._ground.files.pread(fd, RECORD_HEADER_BYTES, record.place.offset)
            source = Source(self._ground.files, fd, raw[16:32], str(record.place))
            try:
                header = source.header(record.place.offset)
                return list(decode_marks(read_marks(source, record.place.offset, header)))
            except DamagedError:
                # What they said is in the index; only a rebuild would have needed them.
                self._ground.health.count("corrupt")
                return []


def pass_over(error: OSError, ground: Ground, path: Path) -> bool:
    """
    Count or tell what could not be read, if a run can go on without it, and say whether.

    One sector may be lost, or one file refused by the system, and all others sound.  Any other
    failure to read is the whole disk's, or the system's, and ends a run.
    """
    path = file_of(error, path)
    if error.errno in NOT_LET and ground.unopened.is_known(path):
        return True
    if error.errno != errno.EIO and not ground.not_let(error, path):
        return False
    ground.health.count("reclaim")
    return True


def _drop_marks(records: Sequence[Doomed], transaction: Transaction) -> None:
    for record in records:
        transaction.drop_marks(record)


def _needed(mentioned: dict[tuple[NodeId, ShardId], int], transaction: Transaction) -> list[Mark]:
    """Return what must still be said of these shards, at this very moment."""
    needed = []
    for (renter, shard), sequence in mentioned.items():
        row = transaction.find(renter, shard)
        if row is not None and row.sequence <= sequence:
            needed += state_marks(row)
        elif stone := transaction.tombstones.find(renter, shard):
            needed.append(stone.mark(Action.TOMBSTONE))
        elif row is None and transaction.has_doomed(renter, shard):
            needed.append(new_mark(renter, shard, Action.GONE, 0, 0, sequence))
    return needed
