"""One volume that is being emptied: pass after pass, in bounded pieces of work."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Final

from farmer.storage.arriving import AnyCopy, LargeCopy, SmallCopy, SpoiledCopyError
from farmer.storage.crossing import Crossing
from farmer.storage.errors import (
    CorruptShardError,
    NoSpaceError,
    StorageError,
    VolumeUnavailableError,
)
from farmer.storage.ferry import MeetingAwaitedError, cross, waits_for_all
from farmer.storage.index_errors import is_for_rot
from farmer.storage.journal import CROSSING_MAX
from farmer.storage.places import Key, Row
from farmer.storage.quota import SMALL_BYTES_MAX, room_bytes
from farmer.storage.second_look import quarantine_if_spotted
from farmer.storage.spoilers import Spoilers
from farmer.storage.volume import Volume

CROSSING_BYTES: Final = 4 * 1024 * 1024
"""Small shards that cross together: memory, and how long a delete of one of them may wait."""

RECLAIM_BYTES: Final = 64 * 1024 * 1024
"""Given up at the source before its space is given back."""

ROWS: Final = 256
"""Looked at in one go, and put in the order of the disk."""

_SMALLEST_BYTES: Final = room_bytes(0)


class Emptying:
    """One volume that is being emptied, since it was opened.  One thread at a time."""

    def __init__(
        self,
        source: Volume,
        others: Callable[[], list[Volume]],
        crossing: Crossing,
        to: str = "",
    ) -> None:
        """*others* are the volumes that shards may go to, the best first; *to* as in the duty."""
        self.source = source
        self.to = to
        self._others = others
        self._crossing = crossing
        self._steps: Iterator[int] | None = None
        self._spoilers = Spoilers(source.ground.watch.monotonic_s)
        self._unreclaimed_bytes = 0
        self._left: StorageError | OSError | None = None
        """Why the last shard was left of those that no other volume takes, in this pass."""
        self.has_passed = False
        """Whether a whole pass has been made without a failure."""
        self.moved_shards = 0
        self.moved_bytes = 0
        self.read_back_bytes = 0
        """Of large copies, after they were written."""
        self.problem = ""
        """Why the last step did nothing, or empty."""
        self.lack: NoSpaceError | None = None
        """That problem, if it is a lack of room."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left that could go."""
        total, account = self.source.ground.account.total, self.source.ground.account
        return not (total.shards or account.reserved_bytes)

    @property
    def is_under_way(self) -> bool:
        """Whether it is amid a pass, and a large copy may be half way."""
        return self._steps is not None

    def step(self) -> int:
        """
        Do a bounded piece of work; return the bytes that were copied, -1 at the end of a pass.

        A failing disk or a lack of room is told by `problem`, and tried again.
        """
        if self._steps is None:
            self.problem, self.lack = "", None
            self._steps = self._pass()
        try:
            return next(self._steps)
        except StopIteration:
            self._steps = None
            self.has_passed = True
        except (StorageError, OSError, sqlite3.Error) as error:
            self._steps = None
            self.problem = str(error) or type(error).__name__
            self.lack = error if isinstance(error, NoSpaceError) else None
            if isinstance(error, sqlite3.Error) and is_for_rot(error):
                self.source.index_failed(error)
        return -1

    def stop(self) -> None:
        """Break off; a large copy under way is thrown away."""
        if self._steps is not None:
            self._steps.close()  # type: ignore[attr-defined]  # a generator
            self._steps = None

    def _pass(self) -> Iterator[int]:
        after: Key | None = None
        self._left = None
        while rows := self.source.ground.index.some(after, ROWS):
            if self._left is not None:
                # There may be many more of them, and a piece of work is bounded.
                yield 0
            after = (rows[-1].renter, rows[-1].shard)
            # In the order of the disk: it reads on rather than to and fro.
            rows.sort(key=lambda row: (row.place.segment, row.place.offset))
            yield from self._move([row for row in rows if not row.is_damaged])
        self._reclaim()
        if self._left is not None:
            raise self._left

    def _move(self, rows: Sequence[Row]) -> Iterator[int]:
        group: list[SmallCopy] = []
        grouped_bytes = 0
        for row in rows:
            if row.size_bytes > SMALL_BYTES_MAX:
                yield from self._move_large(row)
                continue
            wanted_bytes = room_bytes(row.size_bytes)
            lack = self._lack_of(grouped_bytes + wanted_bytes)
            if lack and group:
                yield self._cross(group)
                group, grouped_bytes = [], 0
                lack = self._lack_of(wanted_bytes)
            if lack:
                self._leave(lack)
                continue
            copy = self._copy_small(row)
            if copy is not None:
                group.append(copy)
                grouped_bytes += wanted_bytes
            if grouped_bytes >= CROSSING_BYTES or len(group) == CROSSING_MAX:
                yield self._cross(group)
                group, grouped_bytes = [], 0
        if group:
            yield self._cross(group)

    def _copy_small(self, row: Row) -> SmallCopy | None:
        try:
            reader, _now = self.source.open_as_is(row)
            if reader is None:
                return None
            with closing(reader):
                return SmallCopy(reader)
        except CorruptShardError:
            # It has just been put into quarantine, and stays.
            return None
        except VolumeUnavailableError as error:
            self._look_closer(row, error)
            return None

    def _move_large(self, row: Row) -> Iterator[int]:
        try:
            target = self._target(room_bytes(row.size_bytes), row)
            # Asked before it is copied, pass after pass, for nothing.
            if waits_for_all(row, target.find(row.renter, row.shard), target):
                self._leave(MeetingAwaitedError())
                return
            reader, _now = self.source.open_as_is(row)
            if reader is None:
                return
            with closing(reader), closing(LargeCopy(target, reader)) as copy:
                yield from self._copied(copy, row, target)
                self._ferry(target, [copy])
        except CorruptShardError:
            # It has just been put into quarantine, and stays.
            return
        except (NoSpaceError, SpoiledCopyError) as error:
            self._leave(error)
        except VolumeUnavailableError as error:
            self._look_closer(row, error)

    def _copied(self, copy: LargeCopy, row: Row, target: Volume) -> Iterator[int]:
        try:
            yield from copy.copy(self._count_read_back)
        except SpoiledCopyError:
            self._spoilers.note(target, [row])
            raise

    def _count_read_back(self, size_bytes: int) -> None:
        self.read_back_bytes += size_bytes

    def _look_closer(self, row: Row, error: VolumeUnavailableError) -> None:
        """Go on without a shard that lies on a bad spot; raises *error* if it is another thing."""
        if not quarantine_if_spotted(self.source, row, error):
            self.problem = str(error)

    def _cross(self, group: Sequence[SmallCopy]) -> int:
        """Let them cross together; return how many bytes they have."""
        try:
            target = self._target(sum(room_bytes(one.size_bytes) for one in group))
        except NoSpaceError as error:
            self._leave(error)
        else:
            self._ferry(target, group)
        return sum(one.size_bytes for one in group)

    def _ferry(self, target: Volume, copies: Sequence[AnyCopy]) -> None:
        refusals: list[StorageError | OSError] = []

        def spoiled(rows: Sequence[Row]) -> None:
            self._spoilers.note(target, rows)
            refusals.append(SpoiledCopyError(target.settings.label))

        self._note(cross(self.source, target, copies, self._crossing, refusals.append, spoiled))
        for error in refusals:
            self._leave(error)

    def _leave(self, error: StorageError | OSError) -> None:
        """
        Go on without shards that cannot go now: smaller ones may, and the next pass tries again.

        Raises `NoSpaceError` where not even the smallest would have room.
        """
        if isinstance(error, NoSpaceError) and error.available_bytes < _SMALLEST_BYTES:
            raise error
        self._left = error

    def _note(self, gone: Sequence[Row]) -> None:
        size = sum(row.charge_bytes for row in gone)
        self.moved_shards += len(gone)
        self.moved_bytes += size
        self._unreclaimed_bytes += size
        if self._unreclaimed_bytes >= RECLAIM_BYTES:
            self._reclaim()

    def _reclaim(self) -> None:
        self._unreclaimed_bytes = 0
        self.source.tidy()

    def _lack_of(self, wanted_bytes: int) -> NoSpaceError | None:
        """Return what `_target` would raise; raises `VolumeUnavailableError`."""
        try:
            self._target(wanted_bytes)
        except NoSpaceError as error:
            return error
        return None

    def _target(self, wanted_bytes: int, row: Row | None = None) -> Volume:
        """
        Return where to: not where copies are spoiled again and again, nor where that of *row* was.

        Raises `NoSpaceError`, `VolumeUnavailableError`, `SpoiledCopyError`.
        """
        others = self._spoilers.without(self._others(), row)
        if not others:
            raise VolumeUnavailableError("no other volume can take shards now")
        free_bytes = {volume: volume.ground.account.free_bytes for volume in others}
        roomy = [volume for volume in others if free_bytes[volume] >= wanted_bytes]
        if not roomy:
            raise NoSpaceError(wanted_bytes, max(free_bytes.values()))
        return max(roomy, key=lambda one: (self._is_sound(one), free_bytes[one]))

    def _is_sound(self, volume: Volume) -> bool:
        return not (volume.ground.health.is_slow or self._spoilers.has_spoiled(volume))
