"""Letting go of shards: one that its renter gives up, wherever its copies lie, and all of one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from farmer.model.ids import ContractId, NodeId, ShardId
from farmer.model.shard import Deletion, DeletionOutcome, StoredShard
from farmer.storage.buried import Buried
from farmer.storage.crossing import Crossing
from farmer.storage.errors import StorageError, VolumeUnavailableError
from farmer.storage.places import Key
from farmer.storage.slots import Slots
from farmer.storage.stamps import Stamps
from farmer.storage.volume import Volume
from farmer.storage.whereabouts import Copies, Copy, Whereabouts


class Deleting:
    """What takes shards from all volumes of one engine.  Safe from any thread."""

    def __init__(
        self,
        slots: Slots,
        where: Whereabouts,
        crossing: Crossing,
        *,
        is_moving: Callable[[], bool],
        stamps: Stamps,
        buried: Buried,
    ) -> None:
        self._slots = slots
        self._where = where
        self._crossing = crossing
        self._is_moving = is_moving
        self._stamps = stamps
        self._buried = buried

    def delete(self, renter: NodeId, shard: ShardId, *, erase: bool) -> Future[Deletion]:
        """See `farmer.node.ports.ShardStore`."""
        key = (renter, shard)
        was_begun, failure = self._erase_leases(key)
        with self._crossing.passing(key):
            copies = self._where.look_up(key)
            if copies.best is None and copies.is_certain and was_begun:
                if failure is not None:
                    raise failure
                return _settled(Deletion(DeletionOutcome.ERASED, 0))
            there = copies.best or self._where.find(renter, shard)
            is_one_left = _remove_others(copies, there)
            # Never 0: a tombstone, or a shard in the trash, would speak since never.  Nor before
            # a newer copy that was removed just now: what it left would speak against this one.
            newest_ms = max(copy.row.alone_ms for copy in (*copies.every, there))
            # One that is left is outlived by what is later only.
            least_ms = newest_ms + 1 if is_one_left else newest_ms
            is_newest = there.row.alone_ms == newest_ms
            is_alone = is_one_left or not copies.is_certain or not is_newest
            now_ms = self._stamps.later_ms() if is_alone else self._stamps.observed_ms()
            observed_ms = max(1, now_ms, least_ms)
            deletion = there.volume.delete(
                renter, shard, observed_ms, erase=erase, is_alone=is_alone
            )
            if is_alone:
                # Before whoever asked hears of it.
                deletion.add_done_callback(partial(self._bury, key, observed_ms))
            is_left = erase and (
                is_one_left or failure is not None or self._may_be_left(key, there.volume)
            )
        return _with_bytes_left(deletion) if is_left else deletion

    def _bury(self, key: Key, observed_ms: int, done: Future[Deletion]) -> None:
        """Remember a deletion, but one that failed."""
        if done.exception() is None:
            self._buried.note(key, observed_ms)

    def undelete(self, renter: NodeId, shard: ShardId) -> Future[StoredShard]:
        """See `farmer.node.ports.ShardStore`."""
        with self._crossing.passing((renter, shard)):
            there = self._where.find(renter, shard)
            self._where.check_heard_of_all((renter, shard))
            return there.volume.undelete(renter, shard)

    def purge(self, renter: NodeId, contract: ContractId | None = None) -> int:
        """
        Remove all shards of a renter, or of one of its contracts, for good.

        Returns how many; safe to repeat after a crash.

        Raises:
            VolumeUnavailableError: a volume is missing or failed, or some shards were changing;
                what could be removed is, and the rest waits until it is repeated.

        """
        before = self._crossing.crossed
        volumes, removed, failure = self._purge(renter, contract)
        with self._crossing.staying(renter) as is_still:
            if self._crossing.crossed != before:
                # What crossed meanwhile may have been passed over.  Only now does nothing cross:
                # little is left to remove, and the first time it may have taken hours.
                volumes, more, failure = self._purge(renter, contract)
                removed += more
        for volume in volumes:
            # One that takes no stores has failed, or hangs: a sweep tidies it when it is back.
            if volume.takes_stores:
                volume.tidy()
        if failure is not None:
            raise failure
        self._slots.check_complete()
        if set(self._slots.opened()) - set(volumes):
            raise VolumeUnavailableError("a volume came back meanwhile")
        if not is_still:
            raise VolumeUnavailableError("some shards are being moved by a disk that hangs")
        return removed

    def _may_be_left(self, key: Key, there: Volume) -> bool:
        """
        Say whether a disk that is not asked to erase a shard may have bytes of it all the same.

        What moved away, or was removed as an older copy, waits there for its space to be given
        back; of a volume that is away nobody knows.
        """
        for volume in self._slots.every():
            if volume is there:
                continue
            if volume is None or volume.ground.watch.is_stalled:
                return True
            try:
                if volume.has_rest_of(*key):
                    return True
            except StorageError:
                return True
        return False

    def _erase_leases(self, key: Key) -> tuple[bool, StorageError | None]:
        """
        Remove what is there of an unfinished store, where that works; say whether there was any.

        A disk that does not let go of it keeps no other one from giving up the shard itself.
        """
        was_begun, failure = False, None
        for volume in self._slots.readable():
            try:
                was_begun |= volume.leases.erase(key)
            except StorageError as error:
                was_begun, failure = True, error
        return was_begun, failure

    def _purge(
        self, renter: NodeId, contract: ContractId | None
    ) -> tuple[list[Volume], int, StorageError | None]:
        """Go through all volumes once; return which, how many shards went, and what failed."""
        removed = 0
        failure: StorageError | None = None
        volumes = self._slots.readable()
        for volume in volumes:
            try:
                removed += volume.purge(renter, contract, self._is_moving)
            except StorageError as error:
                failure = error
        return volumes, removed, failure


def _remove_others(copies: Copies, there: Copy) -> bool:
    """
    Remove all copies but one; say whether one is left: it was written anew since the look.

    Raises:
        VolumeUnavailableError: nothing was removed, for the shard may lie elsewhere, too; or a
            volume failed.

    """
    for copy in (*copies.every, there):
        copy.volume.check_single((there.row.renter, there.row.shard))
    others = [other for other in copies.every if other != there]
    removed = [other.volume.remove([other.row], hurried=True) for other in others]
    return not all(removed)


def _with_bytes_left(deletion: Future[Deletion]) -> Future[Deletion]:
    """Return it as one after which some bytes are still on a disk."""
    told: Future[Deletion] = Future()

    def tell(done: Future[Deletion]) -> None:
        if (error := done.exception()) is not None:
            told.set_exception(error)
        elif done.result().outcome is DeletionOutcome.ERASED:
            told.set_result(Deletion(DeletionOutcome.ERASED_AT_COMPACTION, 0))
        else:
            told.set_result(done.result())

    deletion.add_done_callback(tell)
    return told


def _settled(deletion: Deletion) -> Future[Deletion]:
    future: Future[Deletion] = Future()
    future.set_result(deletion)
    return future
