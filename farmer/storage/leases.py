"""The unfinished large uploads of one volume to which nobody is sending right now."""

from __future__ import annotations

import sqlite3
from threading import Lock

from farmer.model.ids import ContractId, NodeId
from farmer.storage.doubts import Leftover
from farmer.storage.errors import VolumeClosedError, VolumeUnavailableError
from farmer.storage.ground import Ground
from farmer.storage.places import Key
from farmer.storage.staging import Lease


class Leases:
    """One volume's; each belongs either here or to the one upload that took it."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._files = ground.files
        self._paths = ground.paths
        self._health = ground.health
        self._doubts = ground.doubts
        self._tenure = ground.tenure
        self._lock = Lock()
        self._kept: dict[Key, Lease] = {}

    @property
    def are_over(self) -> bool:
        """Whether the volume was given up."""
        return self._tenure.is_over

    def __contains__(self, key: Key) -> bool:
        return key in self._kept

    def begun_bytes(self, key: Key) -> int:
        """Return how much of an unfinished upload is there; 0 if there is none."""
        with self._lock:
            lease = self._kept.get(key)
            return 0 if lease is None else lease.header.synced_bytes

    def keep(self, lease: Lease) -> None:
        """
        Let it wait for whoever begins the same store again.

        If there is one already, the one with fewer bytes is removed.
        """
        key = (lease.header.renter, lease.header.shard)
        with self._lock:
            are_over, other = self.are_over, self._kept.get(key)
            if other is not None and other.header.synced_bytes > lease.header.synced_bytes:
                lease, other = other, lease
            if not are_over:
                self._kept[key] = lease
        if are_over:
            # The volume was opened anew meanwhile, and has found the file itself.
            lease.reservation.release()
        elif other is not None:
            self.drop(other)

    def let_go(self) -> None:
        """Give back what is promised to them: the volume's next opening finds their files."""
        self._tenure.end()
        with self._lock:
            kept = list(self._kept.values())
            self._kept.clear()
        for lease in kept:
            lease.reservation.release()

    def take(self, key: Key) -> Lease | None:
        """Hand it over, if there is one."""
        with self._lock:
            return self._kept.pop(key, None)

    def of(self, renter: NodeId | None = None, contract: ContractId | None = None) -> list[Lease]:
        """Return those of a renter, or of one of its contracts, or all."""
        with self._lock:
            return [
                lease
                for lease in self._kept.values()
                if renter in {None, lease.header.renter}
                and contract in {None, lease.header.contract}
            ]

    def end(self, lease: Lease) -> None:
        """End one unless somebody has just taken it."""
        key = (lease.header.renter, lease.header.shard)
        with self._lock:
            if self._kept.get(key) is not lease:
                return
            del self._kept[key]
        self.drop(lease)

    def drop(self, lease: Lease) -> None:
        """
        Remove one that was taken; the file of one that is over is the next opening's.

        What the index has as a stored shard stays, whatever its header says: the disk may have
        lost the write of the last one.
        """
        path = self._paths.part(lease.file)
        is_stored = self._is_stored(lease)
        try:
            with self._tenure.lasting() as is_ours:
                if is_ours and not is_stored:
                    self._files.unlink(path)
        except OSError:
            self._health.count("unlink")
            self._doubts.leave(Leftover(path, lease.reservation))
        else:
            lease.reservation.release()

    def erase(self, key: Key) -> bool:
        """Remove one durably; say whether there was one.  Raises `VolumeUnavailableError`."""
        lease = self.take(key)
        if lease is None:
            return False
        if self._is_stored(lease):
            lease.reservation.release()
            return False
        try:
            with self._tenure.lasting() as is_ours:
                if is_ours:
                    self._files.unlink(self._paths.part(lease.file))
                    self._files.sync_directory(self._paths.staging)
        except OSError as error:
            self.keep(lease)
            self._health.count("unlink")
            raise VolumeUnavailableError(f"the disk failed: {error}") from error
        lease.reservation.release()
        if not is_ours:
            raise VolumeClosedError("the volume was closed")
        return True

    def _is_stored(self, lease: Lease) -> bool:
        """Say whether a shard is known to be in its file; also where nobody can say."""
        try:
            row = self._ground.index.find(lease.header.renter, lease.header.shard)
        except sqlite3.Error:
            self._health.count("index")
            return True
        return row is not None and row.place.file == lease.file
