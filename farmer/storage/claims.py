"""Who is storing what: one upload at a time of one renter's shard, over all volumes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from threading import Lock
from typing import TypeVar

from farmer.model.shard import StoredShard
from farmer.storage.errors import BusyError, StorageError, VolumeUnavailableError
from farmer.storage.places import Key
from farmer.storage.uploads import AnyUpload
from farmer.storage.watch import Watch

R = TypeVar("R")


class Claims:
    """The shards that are being stored right now."""

    def __init__(self) -> None:
        self._taken: set[Key] = set()
        self._lock = Lock()

    def take(self, key: Key) -> None:
        """Claim a shard; raises `BusyError` if somebody has."""
        with self._lock:
            if key in self._taken:
                raise BusyError
            self._taken.add(key)

    def give_back(self, key: Key) -> None:
        """Let others store it."""
        with self._lock:
            self._taken.discard(key)


class EngineUpload:
    """
    One upload of one renter's shard; nobody else may store the same until it has ended.

    Where its disk hangs, it is abandoned while a thread still waits inside: then the upload
    itself is given up, and its space given back, by that thread, or when the disk answers.
    """

    def __init__(self, upload: AnyUpload, watch: Watch, ended: Callable[[], None]) -> None:
        self._upload = upload
        self._watch = watch
        self._ended = ended
        self._lock = Lock()
        self._is_inside = False
        self._is_abandoned = False
        self._is_left = False
        self._is_over = False
        self._is_committed = False

    @property
    def offset(self) -> int:
        """See `farmer.node.ports.Upload`."""
        return self._upload.offset

    def write(self, data: bytes) -> None:
        """See `farmer.node.ports.Upload`."""
        try:
            self._inside(partial(self._upload.write, data))
        except StorageError:
            # Most have ended the upload; where it was only turned away, a lease is left.
            self.abandon()
            raise

    def commit(self) -> Future[StoredShard]:
        """See `farmer.node.ports.Upload`."""
        try:
            return self._inside(self._commit)
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """See `farmer.node.ports.Upload`."""
        with self._lock:
            self._is_abandoned = True
            if self._is_inside or self._is_left:
                return
            self._is_left = True
        self._give_up()

    def _commit(self) -> Future[StoredShard]:
        durable = self._upload.commit(self._end)
        self._is_committed = True
        return durable

    def _inside(self, work: Callable[[], R]) -> R:
        """Do one step of the upload; raises `VolumeUnavailableError` if it has ended."""
        visit = self._watch.visit("store")
        with self._lock:
            if self._is_abandoned:
                raise VolumeUnavailableError("this upload has ended")
            self._is_inside = True
        try:
            with visit:
                return work()
        finally:
            with self._lock:
                self._is_inside = False
                is_abandoned = self._is_abandoned
            if is_abandoned:
                self.abandon()

    def _give_up(self) -> None:
        if self._is_committed:
            return
        if self._watch.hung_reason:
            # Nobody knows how long: meanwhile it may be stored elsewhere.
            self._end()
            self._watch.when_it_answers(self._upload.abandon)
            return
        try:
            self._upload.abandon()
        finally:
            # Not before: whoever begins it again goes on from the lease that is left.
            self._end()

    def _end(self) -> None:
        """Let others store this shard; once, since afterwards it may be somebody else's turn."""
        if not self._is_over:
            self._is_over = True
            self._ended()
