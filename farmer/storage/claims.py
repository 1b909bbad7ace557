"""Who is storing what: one upload at a time of one renter's shard, over all volumes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from threading import Lock

from farmer.model.shard import StoredShard
from farmer.storage.errors import BusyError, StorageError
from farmer.storage.files import Buffer
from farmer.storage.places import Key
from farmer.storage.undertaking import Undertaking
from farmer.storage.upload import LargeUpload
from farmer.storage.uploads import AnyUpload
from farmer.storage.watch import Noted, Watch


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
    """One upload of one renter's shard; nobody else may store the same until it has ended."""

    def __init__(
        self,
        upload: AnyUpload,
        watch: Watch,
        ended: Callable[[], None],
        stored: Callable[[], None] = lambda: None,
    ) -> None:
        """*ended* is called once, at its end; *stored* before anybody hears that it is there."""
        self._upload = upload
        self._watch = watch
        is_on_disk = isinstance(upload, LargeUpload)
        self._steps = Undertaking(
            watch, upload.abandon, ended, is_on_disk=is_on_disk, stored=stored
        )

    @property
    def offset(self) -> int:
        """See `farmer.node.ports.Upload`."""
        return self._upload.offset

    def write(self, data: Buffer) -> None:
        """See `farmer.node.ports.Upload`."""
        try:
            visit = self._watch.visit("store")
            with self._steps, visit:
                self._upload.write(data)
        except StorageError:
            # Most have ended the upload; where it was only turned away, a lease is left.
            self.abandon()
            raise

    def commit(self) -> Future[StoredShard]:
        """See `farmer.node.ports.Upload`."""
        try:
            visit = self._watch.visit("store")
            return self._steps.commit(partial(self._commit, visit))
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """See `farmer.node.ports.Upload`."""
        self._steps.give_up()

    def _commit(self, visit: Noted, ended: Callable[[], None]) -> Future[StoredShard]:
        with visit:
            return self._upload.commit(ended)
