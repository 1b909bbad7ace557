"""
Emptying volumes while they serve: shard by shard to the others, at the pace that it is told.

Draining, moving and retiring are this one thing; what comes after it is somebody else's
affair.  What a volume is to do is kept in the volume (`farmer.storage.duty`), so a restart
goes on with it.  A pass walks over what there is, passes begin again until nothing is left;
so a shard that could not cross, because it was being changed, gets another turn, and so does
an upload that was under way.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from threading import Lock
from typing import Final

from farmer.model.status import VolumeWork
from farmer.storage.arriving import LargeCopy, SmallCopy
from farmer.storage.crossing import Crossing
from farmer.storage.duty import Duty, clear_duty, write_duty
from farmer.storage.errors import (
    CorruptShardError,
    NoSpaceError,
    StorageError,
    VolumeUnavailableError,
)
from farmer.storage.ferry import cross, settle
from farmer.storage.journal import CROSSING_MAX
from farmer.storage.places import Key, Row
from farmer.storage.quota import (
    FILE_OVERHEAD_BYTES,
    SHARD_OVERHEAD_BYTES,
    SMALL_BYTES_MAX,
)
from farmer.storage.volume import Volume

CROSSING_BYTES: Final = 4 * 1024 * 1024
"""Small shards that cross together: memory, and how long a delete of one of them may wait."""

RECLAIM_BYTES: Final = 64 * 1024 * 1024
"""Given up at the source before its space is given back."""

_ROWS: Final = 256


@dataclass(frozen=True, slots=True)
class Room:
    """Whether the shards of a volume fit elsewhere, in bytes."""

    wanted_bytes: int
    available_bytes: int

    @property
    def is_enough(self) -> bool:
        """Whether they do."""
        return self.wanted_bytes <= self.available_bytes


class Emptying:
    """One volume that is being emptied, since it was opened.  One thread at a time."""

    def __init__(
        self, source: Volume, others: Callable[[], list[Volume]], crossing: Crossing
    ) -> None:
        """*others* are the volumes that shards may go to, the best first."""
        self.source = source
        self._others = others
        self._crossing = crossing
        self._steps: Iterator[int] | None = None
        self._unreclaimed_bytes = 0
        self._has_moved = True
        self.moved_shards = 0
        self.moved_bytes = 0
        self.problem = ""
        """Why the last step did nothing, or empty."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left that could go."""
        total, account = self.source.ground.account.total, self.source.ground.account
        return not (total.shards or account.reserved_bytes)

    def step(self) -> int:
        """
        Do a bounded piece of work; return the bytes that were copied, -1 at the end of a pass.

        A failing disk or a lack of room is told by `problem`, and tried again.
        """
        if self._steps is None:
            self.problem = ""
            self._steps = self._pass()
        try:
            return next(self._steps)
        except StopIteration:
            self._steps = None
        except (StorageError, OSError, sqlite3.Error) as error:
            self._steps = None
            self.problem = str(error) or type(error).__name__
        return -1

    def stop(self) -> None:
        """Break off; a large copy under way is thrown away."""
        if self._steps is not None:
            self._steps.close()  # type: ignore[attr-defined]  # a generator
            self._steps = None

    def _pass(self) -> Iterator[int]:
        after: Key | None = None
        while rows := self.source.ground.index.some(after, _ROWS):
            after = (rows[-1].renter, rows[-1].shard)
            # In the order of the disk: it reads on rather than to and fro.
            rows.sort(key=lambda row: (row.place.segment, row.place.offset))
            yield from self._move([row for row in rows if not row.is_damaged])
        self._reclaim()

    def _move(self, rows: Sequence[Row]) -> Iterator[int]:
        group: list[SmallCopy] = []
        for row in rows:
            if row.size_bytes > SMALL_BYTES_MAX:
                yield from self._move_large(row)
                continue
            copy = self._copy_small(row)
            if copy is not None:
                group.append(copy)
            size = sum(one.size_bytes for one in group)
            if size >= CROSSING_BYTES or len(group) == CROSSING_MAX:
                self._cross(group)
                yield size
                group = []
        if group:
            self._cross(group)
            yield sum(one.size_bytes for one in group)

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

    def _move_large(self, row: Row) -> Iterator[int]:
        target = self._target(row.charge_bytes)
        try:
            reader, _now = self.source.open_as_is(row)
            if reader is None:
                return
            with closing(reader), closing(LargeCopy(target, reader)) as copy:
                yield from copy.copy()
                self._note(cross(self.source, target, [copy], self._crossing))
        except CorruptShardError:
            return

    def _cross(self, group: Sequence[SmallCopy]) -> None:
        size = sum(one.size_bytes for one in group)
        gone = cross(self.source, self._target(size), group, self._crossing)
        self._note(gone)

    def _note(self, gone: Sequence[Row]) -> None:
        size = sum(row.charge_bytes for row in gone)
        self.moved_shards += len(gone)
        self.moved_bytes += size
        self._unreclaimed_bytes += size
        if self._unreclaimed_bytes >= RECLAIM_BYTES:
            self._reclaim()

    def _reclaim(self) -> None:
        self._unreclaimed_bytes = 0
        self.source.reclaim()

    def _target(self, size_bytes: int) -> Volume:
        """Return where to; raises `NoSpaceError`, `VolumeUnavailableError`."""
        others = self._others()
        if not others:
            raise VolumeUnavailableError("no other volume can take shards now")
        best = max(others, key=lambda volume: volume.ground.account.free_bytes)
        if best.ground.account.free_bytes < size_bytes:
            raise NoSpaceError(size_bytes, best.ground.account.free_bytes)
        return best


class Mover:
    """All volumes that are being emptied.  `step` by one thread at a time, the rest by any."""

    def __init__(
        self,
        volumes: Callable[[], list[Volume]],
        is_complete: Callable[[], bool],
        crossing: Crossing,
    ) -> None:
        """*volumes* are the open ones, *is_complete* says whether these are all."""
        self._volumes = volumes
        self._is_complete = is_complete
        self._crossing = crossing
        self._emptying: dict[bytes, Emptying] = {}
        self._working = Lock()

    # What the owner wants.

    def room(self, source: Volume, only: str = "") -> Room:
        """Compare what a volume holds with what the others, or *only* one of them, can take."""
        total = source.ground.account.total
        overhead = total.shards * SHARD_OVERHEAD_BYTES + total.files * FILE_OVERHEAD_BYTES
        others = self.targets(source, only)
        return Room(
            total.live_bytes + total.trash_bytes + overhead,
            sum(volume.ground.account.free_bytes for volume in others),
        )

    def begin(self, source: Volume, duty: Duty) -> None:
        """Let a volume be emptied from now on, durably; raises `OSError`."""
        write_duty(source.ground.files, source.ground.paths.root, duty)
        source.duty = duty

    def cancel(self, source: Volume) -> None:
        """Let it take shards again, durably; what has left stays away.  Raises `OSError`."""
        clear_duty(source.ground.files, source.ground.paths.root)
        source.duty = None

    def targets(self, source: Volume, only: str = "") -> list[Volume]:
        """Return the volumes that may take shards of this one."""
        return [
            volume
            for volume in self._volumes()
            if volume is not source
            and volume.takes_new
            and not volume.journal.open.keys
            and only in {"", volume.ground.volume.hex()}
        ]

    # What is done.

    def step(self) -> tuple[int, Duty] | None:
        """
        Do a bounded piece of work for one volume; return the bytes copied, and for what.

        None if there is nothing to do, for now or at all.
        """
        with self._working:
            self._resolve()
            return self._step()

    def _step(self) -> tuple[int, Duty] | None:
        leaving = {volume.ground.volume: volume for volume in self._volumes() if volume.duty}
        for uuid in [uuid for uuid in self._emptying if uuid not in leaving]:
            self._emptying.pop(uuid).stop()
        for uuid, volume in leaving.items():
            emptying = self._emptying_of(uuid, volume)
            if volume.duty is None or emptying.is_empty or volume.journal.open.keys:
                continue
            copied_bytes = emptying.step()
            if copied_bytes >= 0:
                return copied_bytes, volume.duty
        return None

    def resolve(self) -> None:
        """Bring shards that a crash or a failing disk left on two volumes to one."""
        if self._working.acquire(blocking=False):
            try:
                self._resolve()
            finally:
                self._working.release()

    def _resolve(self) -> None:
        volumes = {volume.ground.volume: volume for volume in self._volumes()}
        for volume in volumes.values():
            crossers = volume.journal.open
            if not crossers.keys:
                continue
            source, target = volumes.get(crossers.source), volumes.get(crossers.target)
            if source is not None and target is not None:
                with suppress(StorageError, OSError), self._crossing.crossing(crossers.keys):
                    settle(source, target, crossers.keys, self._crossing)
                    volume.journal.settle()
            elif self._is_complete():
                # The other one is no volume of this farmer's any more.
                volume.journal.settle()

    def stop(self) -> None:
        """Break off what is under way; it is begun again after the next start."""
        with self._working:
            for emptying in self._emptying.values():
                emptying.stop()
            self._emptying.clear()

    # What is shown.

    def work(self, volume: Volume) -> VolumeWork | None:
        """Return how far a volume's emptying is; None if it is not being emptied."""
        duty = volume.duty
        if duty is None:
            return None
        account = volume.ground.account
        emptying = self._emptying.get(volume.ground.volume)
        left = account.total
        damaged = min(left.shards, left.quarantined)
        return VolumeWork(
            verb=duty.verb.value,
            to_path=duty.to_path,
            since_ms=duty.since_ms,
            rate_bytes=duty.rate_bytes,
            moved_shards=emptying.moved_shards if emptying else 0,
            moved_bytes=emptying.moved_bytes if emptying else 0,
            left_shards=left.shards,
            left_bytes=left.live_bytes + left.trash_bytes,
            damaged=damaged,
            unfinished_bytes=account.reserved_bytes,
            problem=emptying.problem if emptying else "",
        )

    def _emptying_of(self, uuid: bytes, volume: Volume) -> Emptying:
        found = self._emptying.get(uuid)
        if found is None or found.source is not volume:
            if found is not None:
                found.stop()
            found = Emptying(volume, lambda: self._targets_of(volume), self._crossing)
            self._emptying[uuid] = found
        return found

    def _targets_of(self, source: Volume) -> list[Volume]:
        return self.targets(source, source.duty.to if source.duty is not None else "")
