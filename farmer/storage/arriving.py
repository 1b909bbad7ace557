"""
Copies of shards on their way into a volume: read at the source, checked against the shard id.

A small one waits in memory, a large one in a file in the target's staging directory, which a
start throws away until its last header, of kind shard, is written.  Tree and checksums are
made again from the bytes: what was damaged is found here, and never copied as if it were sound.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Final
from zlib import crc32

from farmer.audit.tree import TreeHasher
from farmer.model.shard import RECORD_HEADER_BYTES, StoredShard
from farmer.storage.doubts import Leftover
from farmer.storage.errors import (
    CorruptShardError,
    StorageError,
    VolumeClosedError,
    VolumeUnavailableError,
)
from farmer.storage.files import Access, Buffer
from farmer.storage.operations import Adopt, StoreRecord, row_of
from farmer.storage.places import Key, Place, Row
from farmer.storage.quota import Reservation, Tally
from farmer.storage.reader import VolumeReader
from farmer.storage.records import (
    MOVED,
    UUID_BYTES,
    BlockChecksums,
    Kind,
    RecordHeader,
    trailer_length,
    tree_offset,
)
from farmer.storage.volume import Volume

STEP_BYTES: Final = 4 * 1024 * 1024
"""Copied of a large shard between two looks at rate and foreground."""


def nobody_told(_what: object) -> None:
    """Nobody wants to know."""


class SpoiledCopyError(VolumeUnavailableError):
    """A copy is not what was written: of its disk nothing better is to be expected soon."""

    def __init__(self, label: str) -> None:
        super().__init__(
            f"a shard was copied to {label} and not read back as it was written: its disk may be"
            " failing"
        )


class SmallCopy:
    """A shard of at most 1 MiB, in memory."""

    def __init__(self, reader: VolumeReader) -> None:
        """Read and check it; raises `CorruptShardError`, and others as a read does."""
        row = reader.row
        self.key: Key = (row.renter, row.shard)
        self.size_bytes = row.size_bytes
        self._account = reader.account
        data = reader.read(0, row.size_bytes)
        digest = _Digest()
        digest.update(data)
        trailer = digest.trailer(row)
        self._parts: list[Buffer] = [data, trailer]
        self._header = replace(_header(reader), trailer_crc=crc32(trailer))

    def reserve(self, target: Volume) -> Reservation:
        """Promise its space there; raises `NoSpaceError`."""
        ground = target.ground
        both = (ground.account, self._account)
        return ground.ledger.reserve_copy(*both, *self.key, self.size_bytes)

    def send(self, target: Volume, row: Row, held: Reservation) -> Future[StoredShard]:
        """Enter it at the target in the state that *row* has at the source."""
        _counts_as(held, row)
        header = partial(replace, _as_now(self._header, row))
        store = StoreRecord(self.key, header, self._parts, held, only_new=True)
        return target.writer.submit(store)

    def discard(self, target: Volume) -> None:
        """Nothing of it is on the disk."""


class LargeCopy:
    """A larger shard, in a staging file of the target."""

    def __init__(self, target: Volume, reader: VolumeReader) -> None:
        """
        Take its space there.

        Raises:
            InDoubtError, NoSpaceError.
            VolumeUnavailableError: the target's disk refused it, and is known for that.

        """
        row = reader.row
        self.key: Key = (row.renter, row.shard)
        # What the target says of it would be in doubt, and the source would have given it up.
        target.ground.doubts.check(self.key)
        self.size_bytes = row.size_bytes
        self._target = target
        self._reader = reader
        self._row = row
        uuid = secrets.token_bytes(UUID_BYTES)
        self._path = target.ground.paths.part(uuid)
        self._header = replace(_header(reader), segment=uuid, kind=Kind.STAGING)
        ground = target.ground
        both = (ground.account, reader.account)
        self._held = ground.ledger.reserve_copy(*both, *self.key, row.size_bytes)
        self._fd = -1
        self._is_made = False
        self._sent = False
        """Whether the disk may have a header that says that it is stored."""
        self._is_asked = False
        """Whether the target's writer was asked to enter it."""
        self._is_dropped = False
        self._stays: OSError | StorageError | None = None
        """Why its file could not be removed."""
        try:
            with self._understood(), self._ours():
                self._make()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """Note what the target's disk refuses: the next try may choose another one."""
        try:
            yield
        except OSError as error:
            raise self._target.ground.understand(error, self.size_bytes) from error

    @contextmanager
    def _ours(self) -> Iterator[None]:
        """Raise `VolumeClosedError` if the target was opened anew; it is not meanwhile."""
        with self._target.ground.tenure.lasting() as is_ours:
            if not is_ours:
                raise VolumeClosedError("the volume was closed")
            yield

    def _make(self) -> None:
        files, paths = self._target.ground.files, self._target.ground.paths
        self._fd = files.open(self._path, Access.CREATE)
        self._is_made = True
        files.preallocate(self._fd, self._header.record_bytes)
        self._held.allocated()
        files.pwritev(self._fd, [self._header.encode()], 0)
        files.sync_data(self._fd)
        files.sync_directory(paths.staging)

    def copy(self, was_read: Callable[[int], object] = nobody_told) -> Iterator[int]:
        """
        Write all of it, then read it back; yields bytes that were written.

        *was_read* hears of those that were read.

        Raises:
            CorruptShardError: what the source has is not what it should be.
            SpoiledCopyError: what the target has is not what was written; it is counted there.
            VolumeUnavailableError, OSError: one of the two disks failed.

        """
        digest = _Digest()
        for offset, length in _steps(self.size_bytes):
            data = self._reader.read(offset, length)
            digest.update(data)
            self._write(data, RECORD_HEADER_BYTES + offset)
            yield length
        trailer = digest.trailer(self._row)
        self._write(trailer, tree_offset(self.size_bytes))
        self._header = replace(self._header, trailer_crc=crc32(trailer))
        yield from self._read_back(was_read)

    def _read_back(self, was_read: Callable[[int], object]) -> Iterator[int]:
        """Read all of it from the disk: what memory has would hide what that has lost."""
        again, ground = _Digest(), self._target.ground
        files, health = ground.files, ground.health
        try:
            files.uncache(self._fd, 0, 0)
            for offset, length in _steps(self.size_bytes):
                again.update(files.pread(self._fd, length, RECORD_HEADER_BYTES + offset))
                was_read(length)
                yield 0
            trailer = again.trailer(self._row)
            found = files.pread(self._fd, len(trailer), tree_offset(self.size_bytes))
        except OSError as error:
            health.count("read")
            if error.errno != errno.EIO:
                raise
            raise SpoiledCopyError(health.label) from error
        except CorruptShardError as error:
            health.count("corrupt")
            raise SpoiledCopyError(health.label) from error
        if found != trailer:
            health.count("corrupt")
            raise SpoiledCopyError(health.label)

    def _write(self, data: bytes, offset: int) -> None:
        files = self._target.ground.files
        with self._understood():
            files.pwritev(self._fd, [data], offset)
            files.sync_data(self._fd)

    def reserve(self, target: Volume) -> Reservation:
        """Return what was promised at its birth."""
        assert target is self._target
        return self._held

    def send(self, target: Volume, row: Row, held: Reservation) -> Future[StoredShard]:
        """
        Write its last header, synced: now it is there; then enter it.

        Raises `OSError`, `VolumeClosedError`.
        """
        ground = target.ground
        _counts_as(held, row)
        header = _as_now(self._header, row)
        header = replace(header, kind=Kind.SHARD, sequence=ground.facts.sequencer.take())
        with self._ours():
            self._sent = True
            ground.files.pwritev(self._fd, [header.encode()], 0)
            ground.files.sync_data(self._fd)
        stored = row_of(header, Place(0, 0, header.segment))
        operation = Adopt(stored, held, self._drop, only_new=True)
        self._is_asked = True
        return target.writer.submit(operation)

    def discard(self, target: Volume) -> None:
        """
        Make sure, durably, that no start takes it for a stored shard.

        Raises:
            OSError: it is there still; until its file is gone the shard is in doubt there.
            VolumeUnavailableError: the target has not said yet whether it was entered, or was
                opened anew, and has it as it was then.

        """
        assert target is self._target
        if self._is_asked and not self._is_dropped:
            # A promise was broken, or a commit is in doubt: the index may have it all the same,
            # and the file that it speaks of must not go.
            raise VolumeUnavailableError("whether a copy was entered is not known yet")
        self._drop()
        if self._stays is not None:
            raise self._stays

    def close(self) -> None:
        """Let the file go; what the target was not asked to enter is removed."""
        files = self._target.ground.files
        if self._fd >= 0:
            # Every byte that counts was synced: what a close says means nothing any more.
            with suppress(OSError):
                files.close(self._fd)
            self._fd = -1
        if not self._is_asked:
            self._drop()

    def _drop(self) -> None:
        """Remove its file, once; one that stays keeps its space, and is in doubt if sent."""
        if self._is_dropped:
            return
        ground = self._target.ground
        try:
            with self._ours():
                if self._is_made:
                    ground.files.unlink(self._path)
                if self._sent:
                    ground.files.sync_directory(ground.paths.staging)
        except VolumeClosedError as error:
            self._stays = error
            self._held.release()
        except OSError as error:
            self._stays = error
            ground.health.count("unlink")
            key = self.key if self._sent else None
            ground.doubts.leave(Leftover(self._path, self._held, key))
        else:
            self._held.release()
        # Last: until then, another thread does not know what became of it.
        self._is_dropped = True


AnyCopy = SmallCopy | LargeCopy


class _Digest:
    """The hash tree and the checksums of some bytes."""

    def __init__(self) -> None:
        self._tree = TreeHasher()
        self._checksums = BlockChecksums()

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        self._tree.update(data)
        self._checksums.update(data)

    def trailer(self, row: Row) -> bytes:
        """Return a record's trailer; raises `CorruptShardError` if the bytes are others."""
        tree = self._tree.finish()
        if tree.shard_id() != row.shard:
            raise CorruptShardError(0, row.size_bytes)
        return tree.block_hashes + self._checksums.finish()


def _header(reader: VolumeReader) -> RecordHeader:
    """Return the header of a copy: who, what, when, as it was stored."""
    row = reader.row
    return RecordHeader(
        kind=Kind.SHARD,
        segment=bytes(UUID_BYTES),
        sequence=0,
        payload_bytes=row.size_bytes,
        trailer_bytes=trailer_length(row.size_bytes),
        trailer_crc=0,
        renter=row.renter,
        shard=row.shard,
        contract=row.contract,
        flags=MOVED,
        until_ms=reader.until_ms,
    )


def _as_now(header: RecordHeader, row: Row) -> RecordHeader:
    """Return it in the state that the shard has now."""
    return replace(
        header,
        contract=row.contract,
        stored_at_ms=row.stored_at_ms,
        state=row.state,
        gone_at_ms=row.gone_at_ms,
        observed_ms=row.observed_ms,
        alone_ms=row.alone_ms,
    )


def _counts_as(held: Reservation, row: Row) -> None:
    """Let the renter's usage count the shard once, as what it is."""
    held.crosses = (row.shard, Tally.of(row.charge_bytes, row.state))


def _steps(size_bytes: int) -> Iterator[tuple[int, int]]:
    for offset in range(0, size_bytes, STEP_BYTES):
        yield offset, min(STEP_BYTES, size_bytes - offset)
