"""Where the stores of one volume begin: with a promise of space, or where a lease left off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from farmer.storage.doubts import Leftover
from farmer.storage.errors import VolumeClosedError, VolumeUnavailableError
from farmer.storage.ground import NOT_THE_DISK, Ground
from farmer.storage.leases import Leases
from farmer.storage.quota import SMALL_BYTES_MAX, Reservation
from farmer.storage.records import RecordHeader
from farmer.storage.staging import Lease, Staged, reopen, stage, staging_header
from farmer.storage.upload import LargeUpload, SmallUpload, Submit, Wanted

AnyUpload = SmallUpload | LargeUpload


class Uploads:
    """One volume's.  Every call may block; every call is safe from any thread."""

    def __init__(self, ground: Ground, leases: Leases, submit: Submit) -> None:
        self._ground = ground
        self._leases = leases
        self._submit = submit

    def begin(self, wanted: Wanted) -> AnyUpload:
        """Reserve and begin, or go on; raises as `farmer.node.ports.ShardStore.begin`."""
        self._ground.health.check_writable()
        with self._ground.watch.visit("store"):
            return self._begin(wanted)

    def begin_anew(self, wanted: Wanted) -> AnyUpload:
        """Do what `begin` does, at the first byte: a lease is given up."""
        self._ground.health.check_writable()
        lease = self._leases.take((wanted.contract.renter, wanted.shard))
        if lease is not None:
            self._leases.drop(lease)
        return self._begin_first(wanted)

    def _begin(self, wanted: Wanted) -> AnyUpload:
        lease = self._leases.take((wanted.contract.renter, wanted.shard))
        if lease is not None and lease.header.payload_bytes == wanted.size_bytes:
            return self._resume(lease, wanted.alone_ms)
        if lease is not None:
            self._leases.drop(lease)
        return self._begin_first(wanted)

    def _begin_first(self, wanted: Wanted) -> AnyUpload:
        self._ground.refresh_filesystem()
        ground = self._ground
        with ground.ledger.reserve(
            ground.account, wanted.contract, wanted.size_bytes
        ) as reservation:
            upload = self._upload(wanted, reservation)
            reservation.hold()
        return upload

    def _upload(self, wanted: Wanted, reservation: Reservation) -> AnyUpload:
        ground, submit = self._ground, self._submit
        if wanted.size_bytes <= SMALL_BYTES_MAX:
            return SmallUpload(ground, wanted, reservation, submit)
        header = staging_header(
            wanted.contract,
            wanted.shard,
            wanted.size_bytes,
            ground.facts.clock_ms(),
            wanted.alone_ms,
        )
        try:
            staged = self._stage(header, reservation)
        except OSError as error:
            raise ground.understand(error, reservation.charge_bytes) from error
        reservation.allocated()
        return LargeUpload(ground, staged, reservation, submit, self._leases, wanted.instead_of)

    def _stage(self, header: RecordHeader, reservation: Reservation) -> Staged:
        """Make the file; raises `OSError`, and keeps the promise of one that cannot be removed."""
        ground = self._ground

        def stays(path: Path) -> None:
            reservation.hold()
            reservation.allocated()
            ground.doubts.leave(Leftover(path, reservation))

        with ground.tenure.lasting() as is_ours:
            if not is_ours:
                # The next opening would not know of it: it has looked already.
                raise VolumeClosedError("the volume was closed")
            return stage(ground.files, ground.paths, header, stays)

    def _resume(self, lease: Lease, alone_ms: int) -> LargeUpload:
        ground = self._ground
        header = replace(lease.header, alone_ms=max(alone_ms, lease.header.alone_ms))
        try:
            staged = reopen(ground.files, ground.paths, header)
        except OSError as error:
            if error.errno in NOT_THE_DISK:
                self._leases.keep(lease)
                raise ground.understand(error, 0) from error
            self._leases.drop(lease)
            ground.health.count("read")
            raise VolumeUnavailableError(f"the disk could not be read: {error}") from error
        except BaseException:
            self._leases.keep(lease)
            raise
        return LargeUpload(ground, staged, lease.reservation, self._submit, self._leases)
