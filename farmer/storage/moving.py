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
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock
from typing import Final, NamedTuple

from farmer.model.status import VolumeWork
from farmer.storage.crossing import Crossing
from farmer.storage.duty import Duty, Leaving, clear_duty, write_duty
from farmer.storage.emptying import ROWS, Emptying
from farmer.storage.errors import (
    StorageError,
)
from farmer.storage.ferry import settle
from farmer.storage.quota import (
    FILE_OVERHEAD_BYTES,
    SHARD_OVERHEAD_BYTES,
)
from farmer.storage.volume import Volume
from farmer.storage.watch import HUNG_S

STOP_S: Final = 3.0
"""How long a stop waits for pieces of work that are being done."""

_HELD_UP: Final = "what was begun waits for a disk that does not answer"
_ON_TWO: Final = (
    "some of its shards may be on a volume too that is not there now: it waits for that"
)
_BEING_READ: Final = "something there is still being read"
_KNOWS_ERASED: Final = (
    "it alone knows of shards that were erased while another volume was away: it waits until all"
    " are there, see farmer volume list"
)


@dataclass(frozen=True, slots=True)
class Room:
    """Whether the shards of a volume fit elsewhere, in bytes."""

    wanted_bytes: int
    available_bytes: int

    @property
    def is_enough(self) -> bool:
        """Whether they do."""
        return self.wanted_bytes <= self.available_bytes


class Step(NamedTuple):
    """A bounded piece of work that was done."""

    copied_bytes: int
    duty: Duty
    """What it was done for."""
    volume: bytes
    """The one that is emptied."""
    read_back_bytes: int = 0
    """Of large copies, after they were written."""


class Mover:
    """
    All volumes that are being emptied.  Safe from any thread.

    One thread at a time works at each: one that waits for a dead disk keeps from work only the
    volume that it empties.
    """

    def __init__(
        self,
        every: Callable[[], Sequence[Volume | None]],
        crossing: Crossing,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """*every* returns all volumes, and None instead of each that is not open."""
        self._every = every
        self._crossing = crossing
        self._emptying: dict[bytes, Emptying] = {}
        self._working: dict[bytes, Lock] = {}
        """By the volume that is emptied; held by who works at it."""
        self._since_s: dict[bytes, float] = {}
        """Since when each of those is held."""
        self._monotonic_s = monotonic_s
        self._waits: dict[bytes, str] = {}
        """Why the last step passed over a volume."""
        self._last = bytes(16)
        """The volume for which something was done last."""
        self.bytes_per_s: dict[bytes, float] = {}
        """The pace of each as whoever calls `step` measured it."""

    # What the owner wants.

    def room(self, source: Volume, only: str = "") -> Room:
        """Compare what a volume holds with what the others, or *only* one of them, can take."""
        total = source.ground.account.total
        overhead = total.shards * SHARD_OVERHEAD_BYTES + total.files * FILE_OVERHEAD_BYTES
        # Also those to or from which some are crossing at this moment.
        others = self._takers(source, only)
        return Room(
            total.live_bytes + total.trash_bytes + overhead,
            sum(volume.ground.account.free_bytes for volume in others),
        )

    def begin(self, source: Volume, duty: Duty) -> None:
        """Let a volume be emptied from now on, durably; raises `OSError`."""
        ground = source.ground
        ground.in_need(lambda: write_duty(ground.files, ground.paths.root, duty))
        self.bytes_per_s.pop(source.ground.volume, None)
        source.duty = duty

    def cancel(self, source: Volume) -> None:
        """Let it take shards again, durably; what has left stays away.  Raises `OSError`."""
        clear_duty(source.ground.files, source.ground.paths.root)
        source.duty = None

    def targets(self, source: Volume, only: str = "") -> list[Volume]:
        """Return the volumes that may take shards of this one now."""
        takers = self._takers(source, only)
        return [volume for volume in takers if not volume.journal.open.keys]

    def _takers(self, source: Volume, only: str) -> list[Volume]:
        return [
            volume
            for volume in self._volumes()
            if volume is not source
            and volume.takes_new
            and only in {"", volume.ground.volume.hex()}
        ]

    # What is done.

    @property
    def leaving(self) -> dict[bytes, Volume]:
        """Return the open volumes that are being emptied; from memory."""
        return {volume.ground.volume: volume for volume in self._volumes() if volume.duty}

    def step(
        self,
        may: Callable[[bytes], bool] = lambda _uuid: True,
        ended: Callable[[bytes], None] = lambda _uuid: None,
    ) -> Step | None:
        """
        Do a bounded piece of work for one volume; None if there is nothing to do now, or at all.

        Each gets its turn; *may* says for which one something may be done now, *ended* hears of
        those for which there is nothing to do, until it is tried again.  A volume at which
        somebody else works is passed over, and says so if that one waits for a disk that does
        not answer.
        """
        self.resolve()
        leaving = self.leaving
        for uuid in {*self._emptying, *self._waits, *self.bytes_per_s} - leaving.keys():
            self._give_up(uuid)
        for uuid in filter(may, _behind(self._last, list(leaving))):
            with self._alone_at(uuid) as is_alone:
                done = self._step(uuid, leaving[uuid]) if is_alone else None
            if not is_alone and self._is_waited_for(uuid):
                self._waits[uuid] = _HELD_UP
            elif done is not None:
                self._last = uuid
                return done
            ended(uuid)
        return None

    def _step(self, uuid: bytes, volume: Volume) -> Step | None:
        if volume.journal.open.keys:
            self._waits[uuid] = _ON_TWO
            return None
        self._waits.pop(uuid, None)
        duty = volume.duty
        if duty is None:
            return None
        emptying = self._emptying_of(uuid, volume, duty.to)
        if emptying.is_empty:
            return None
        before_bytes = emptying.read_back_bytes
        copied_bytes = emptying.step()
        read_back_bytes = emptying.read_back_bytes - before_bytes
        return Step(copied_bytes, duty, uuid, read_back_bytes) if copied_bytes >= 0 else None

    def _give_up(self, uuid: bytes) -> None:
        with self._alone_at(uuid) as is_alone:
            if is_alone:
                self._waits.pop(uuid, None)
                self.bytes_per_s.pop(uuid, None)
                emptying = self._emptying.pop(uuid, None)
                if emptying is not None:
                    emptying.stop()

    @contextmanager
    def _alone_at(self, uuid: bytes) -> Iterator[bool]:
        """Be the only one who works at emptying a volume; says whether that is so."""
        lock = self._working.setdefault(uuid, Lock())
        is_alone = lock.acquire(blocking=False)
        if is_alone:
            self._since_s[uuid] = self._monotonic_s()
        try:
            yield is_alone
        finally:
            if is_alone:
                del self._since_s[uuid]
                lock.release()

    def _is_waited_for(self, uuid: bytes) -> bool:
        """Say whether who works at a volume takes longer than any disk that answers."""
        now_s = self._monotonic_s()
        return now_s - self._since_s.get(uuid, now_s) > HUNG_S

    def resolve(self) -> None:
        """Bring shards that a crash or a dead disk left on two volumes to one, where it can be."""
        every = self._every()
        # By the same look as what is found: one that opens since is missing among them.
        are_all_open = None not in every
        volumes = {volume.ground.volume: volume for volume in every if volume is not None}
        for volume in volumes.values():
            if not volume.journal.open.keys:
                continue
            with self._alone_at(volume.journal.open.source) as is_alone:
                if is_alone:
                    self._resolve(volume, volumes, are_all_open=are_all_open)

    def _resolve(
        self, volume: Volume, volumes: Mapping[bytes, Volume], *, are_all_open: bool
    ) -> None:
        crossers = volume.journal.open
        source, target = volumes.get(crossers.source), volumes.get(crossers.target)
        if source is not None and target is not None:
            with (
                suppress(StorageError, OSError),
                self._crossing.crossing(crossers.keys, is_patient=False),
            ):
                tell = target.ground.health.copy_spoiled
                settle(source, target, crossers.keys, self._crossing, lambda _rows: tell())
                volume.journal.settle()
        elif are_all_open:
            # The other one is no volume of this farmer's any more.
            volume.journal.settle()

    def _volumes(self) -> list[Volume]:
        return [volume for volume in self._every() if volume is not None]

    def give_up_rest(self, source: Volume) -> int:
        """Give up, for good, what cannot go: damaged shards and unfinished uploads."""
        for lease in source.leases.of():
            source.leases.end(lease)
        removed, after = 0, None
        while rows := source.ground.index.some(after, ROWS):
            after = (rows[-1].renter, rows[-1].shard)
            removed += source.remove([row for row in rows if row.is_damaged])
        return removed

    @property
    def is_idle(self) -> bool:
        """
        Whether there is nothing to do, nor anything to break off; from memory.

        A volume that is to stay, or has gone, may have left a large copy half way: until a step
        gives it up it takes space at its target, and its source is being read.
        """
        if any(emptying.is_under_way for emptying in list(self._emptying.values())):
            return False
        volumes = self._volumes()
        return not any(volume.draining or volume.journal.open.keys for volume in volumes)

    def finish(self, volume: Volume) -> bool:
        """
        Say whether a volume that was to be emptied has nothing left that could go.

        What cannot go is given up before, if its owner has said so: whoever asks sees to it that
        he does not call it off meanwhile.
        """
        duty = volume.duty
        return (
            duty is not None
            and self._is_done(volume, duty)
            # In this order: the account of one that is being closed says that nothing is there.
            and volume in self._volumes()
        )

    def _is_done(self, volume: Volume, duty: Duty) -> bool:
        account = volume.ground.account
        if _use_of(volume):
            return False
        if duty.force and self._only_damaged_left(volume):
            with suppress(StorageError, sqlite3.Error):
                self.give_up_rest(volume)
        return not (account.total.shards or account.reserved_bytes)

    def _only_damaged_left(self, volume: Volume) -> bool:
        emptying = self._emptying.get(volume.ground.volume)
        if emptying is None or emptying.problem or not emptying.has_passed:
            return False
        after = None
        while rows := volume.ground.index.some(after, ROWS):
            if not all(row.is_damaged for row in rows):
                return False
            after = (rows[-1].renter, rows[-1].shard)
        return True

    def stop(self) -> None:
        """Break off what is under way; it is begun again after the next start."""
        until_s = time.monotonic() + STOP_S
        for uuid, lock in list(self._working.items()):
            if not lock.acquire(timeout=max(0.0, until_s - time.monotonic())):
                # It hangs in a dead disk; the next start throws away what it began.
                continue
            try:
                if uuid in self._emptying:
                    self._emptying.pop(uuid).stop()
            finally:
                lock.release()

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
        problem = self._problem(volume, duty, emptying)
        lack = emptying.lack if emptying and emptying.problem == problem else None
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
            bytes_per_s=self.bytes_per_s.get(volume.ground.volume, 0.0),
            problem=problem,
            wanted_bytes=lack.wanted_bytes if lack else 0,
            available_bytes=lack.available_bytes if lack else 0,
        )

    def _problem(self, volume: Volume, duty: Duty, emptying: Emptying | None) -> str:
        """Return why nothing goes on; nothing while it does."""
        waits = self._waits.get(volume.ground.volume, "")
        if waits or emptying is None:
            return waits
        if not emptying.is_empty:
            return emptying.problem
        return _use_of(volume) if duty.verb is not Leaving.DRAIN else ""

    @property
    def is_held_up(self) -> bool:
        """Whether a shard may be half way, for want of a disk that answers."""
        return _HELD_UP in self._waits.values()

    def _emptying_of(self, uuid: bytes, volume: Volume, to: str) -> Emptying:
        found = self._emptying.get(uuid)
        if found is None or found.source is not volume or found.to != to:
            if found is not None:
                found.stop()
            found = Emptying(volume, lambda: self.targets(volume, to), self._crossing, to)
            self._emptying[uuid] = found
        return found


def _behind(last: bytes, volumes: list[bytes]) -> list[bytes]:
    """Return them in their order, from the one behind the last on."""
    first = volumes.index(last) + 1 if last in volumes else 0
    return volumes[first:] + volumes[:first]


def _use_of(volume: Volume) -> str:
    """Return what a volume from which all shards have gone is still needed for; from memory."""
    if volume.journal.open.keys:
        return _ON_TWO
    if volume.readers:
        return _BEING_READ
    return _KNOWS_ERASED if volume.ground.index.has_tombstones else ""
