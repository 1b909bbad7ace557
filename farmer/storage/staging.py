"""
Large shards on their way in: one file each, laid out from the start as the record it becomes.

The space is taken and the header (kind staging) is durable, with its name, before the first
byte is asked for; so a crash leaves a lease that says who may go on, and from where.  Every
8 MiB the bytes are synced and the header then says so.  The last header written, of kind
shard, is the commit point: a file with a sound one *is* a stored shard.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from zlib import crc32

from farmer.audit.tree import TreeHasher
from farmer.model.contract import Contract
from farmer.model.ids import ShardId
from farmer.model.shard import RECORD_ALIGNMENT_BYTES, RECORD_HEADER_BYTES
from farmer.storage.directory import Paths
from farmer.storage.files import Access, Buffer, Files
from farmer.storage.quota import Reservation
from farmer.storage.records import (
    UUID_BYTES,
    BlockChecksums,
    Kind,
    RecordHeader,
    trailer_length,
    tree_offset,
)

SYNC_EVERY_BYTES: Final = 8 * 1024 * 1024
"""What a lost connection costs at most of a large upload, and how often the disk must flush."""

WRITE_BACK_EVERY_BYTES: Final = 1024 * 1024
"""The disk is told to begin that often, so that the sync has little left to wait for."""

LEASE_MS: Final = 24 * 3_600_000
"""An unfinished upload keeps its space this long after its last activity."""

_READ_BYTES: Final = 1024 * 1024


@dataclass(slots=True)
class Lease:
    """An unfinished large upload that nobody is sending to right now."""

    header: RecordHeader
    reservation: Reservation

    @property
    def file(self) -> bytes:
        """The name of its file."""
        return self.header.segment

    def not_after(self, now_ms: int) -> None:
        """Let a last activity in the future, by a clock that was wrong, count as of now."""
        if self.header.active_at_ms > now_ms:
            self.header = replace(self.header, active_at_ms=now_ms)

    @property
    def gone_at_ms(self) -> int:
        """When it may be swept."""
        return self.header.active_at_ms + LEASE_MS


class Staged:
    """One staging file, open for writing.  Blocking; one thread at a time."""

    def __init__(self, files: Files, paths: Paths, header: RecordHeader, fd: int) -> None:
        self._files = files
        self.path = paths.part(header.segment)
        """Where it is, unless it was removed."""
        self._fd = fd
        self._tree = TreeHasher()
        self._checksums = BlockChecksums()
        self._is_open = True
        self.header = header
        self.offset = 0
        self.may_be_stored = False
        """Whether the disk may have a header that says so."""
        self._resumed_bytes = 0
        self._begun_bytes = 0
        """Up to here, from the start of the file, the disk has been told to write."""

    def write(self, data: Buffer, now_ms: int) -> None:
        """Take the next bytes."""
        self._files.pwritev(self._fd, [data], self._end)
        self._take(data)
        if self.offset - self.header.synced_bytes >= SYNC_EVERY_BYTES:
            self.sync(now_ms)
        elif self._is_to_be_begun:
            self._begin_write_back()

    def sync(self, now_ms: int) -> None:
        """Make the bytes so far durable, then let the header say so."""
        self._files.sync_data(self._fd)
        self._begun_bytes = self._end
        self._set_header(replace(self.header, synced_bytes=self.offset, active_at_ms=now_ms))

    def lease(self, now_ms: int) -> None:
        """
        Make the bytes so far durable, and the header too, before the file is left alone.

        Going on without a byte is no activity: it does not make a lease last longer.
        """
        if self.offset == self._resumed_bytes:
            return
        self.sync(now_ms)
        self._files.sync_data(self._fd)

    def shard_id(self) -> ShardId:
        """Return the id of the bytes so far."""
        return self._tree.finish().shard_id()

    def finish(self, sequence: int, now_ms: int) -> RecordHeader:
        """Write the trailer, sync, write the shard's header, sync: now it is stored."""
        trailer = self._tree.finish().block_hashes + self._checksums.finish()
        self.may_be_stored = True
        self._files.pwritev(self._fd, [trailer], tree_offset(self.header.payload_bytes))
        self._files.sync_data(self._fd)
        self._set_header(
            replace(
                self.header,
                kind=Kind.SHARD,
                sequence=sequence,
                trailer_crc=crc32(trailer),
                stored_at_ms=now_ms,
                synced_bytes=self.offset,
                active_at_ms=now_ms,
            )
        )
        self._files.sync_data(self._fd)
        return self.header

    def resume(self) -> None:
        """Read the durable bytes again, to go on behind them."""
        while self.offset < self.header.synced_bytes:
            length = min(_READ_BYTES, self.header.synced_bytes - self.offset)
            data = self._files.pread(self._fd, length, RECORD_HEADER_BYTES + self.offset)
            if len(data) != length:
                raise OSError(f"{self.path.name} is shorter than its header says")
            self._take(data)
        self._resumed_bytes = self.offset
        self._begun_bytes = self._end

    def close(self) -> None:
        """Close the file; safe twice, and it never fails."""
        if self._is_open:
            self._is_open = False
            # What counts was synced, or is thrown away: what a close says means nothing any more.
            with suppress(OSError):
                self._files.close(self._fd)

    def remove(self) -> None:
        """Close and unlink the file; durably, if a start might take it for a stored shard."""
        self.close()
        self._files.unlink(self.path)
        if self.may_be_stored:
            self._files.sync_directory(self.path.parent)

    @property
    def _end(self) -> int:
        """Where the next byte goes in the file."""
        return RECORD_HEADER_BYTES + self.offset

    @property
    def _is_to_be_begun(self) -> bool:
        """Whether the disk should be told to write; at the end a sync tells it anyway."""
        is_much = self._end - self._begun_bytes >= WRITE_BACK_EVERY_BYTES
        return is_much and self.offset < self.header.payload_bytes

    def _begin_write_back(self) -> None:
        # Not the last, unfinished page: it would be written twice.
        end = self._end - self._end % RECORD_ALIGNMENT_BYTES
        start, self._begun_bytes = self._begun_bytes, end
        self._files.begin_write_back(self._fd, start, end - start)

    def _take(self, data: Buffer) -> None:
        self._tree.update(data)
        self._checksums.update(data)
        self.offset += len(data)

    def _set_header(self, header: RecordHeader) -> None:
        self._files.pwritev(self._fd, [header.encode()], 0)
        self.header = header


def staging_header(
    contract: Contract, shard: ShardId, size_bytes: int, now_ms: int, alone_ms: int
) -> RecordHeader:
    """Return the first header of a large shard that is to come; *alone_ms* as in `places.Row`."""
    return RecordHeader(
        kind=Kind.STAGING,
        segment=secrets.token_bytes(UUID_BYTES),
        sequence=0,
        payload_bytes=size_bytes,
        trailer_bytes=trailer_length(size_bytes),
        trailer_crc=0,
        renter=contract.renter,
        shard=shard,
        contract=contract.contract,
        active_at_ms=now_ms,
        until_ms=contract.until_ms,
        alone_ms=alone_ms,
    )


def stage(
    files: Files, paths: Paths, header: RecordHeader, stays: Callable[[Path], None]
) -> Staged:
    """
    Make a staging file: space taken, header and name durable.

    Raises `OSError`; *stays* is told before if the file could not be removed then.
    """
    path = paths.part(header.segment)
    fd = files.open(path, Access.CREATE)
    try:
        files.preallocate(fd, header.record_bytes)
        files.pwritev(fd, [header.encode()], 0)
        files.sync_data(fd)
        files.sync_directory(paths.staging)
    except BaseException:
        # Whatever they say: what counts is why it could not be made.
        with suppress(OSError):
            files.close(fd)
        try:
            files.unlink(path)
        except OSError:
            stays(path)
        raise
    return Staged(files, paths, header, fd)


def reopen(files: Files, paths: Paths, header: RecordHeader) -> Staged:
    """Open the file of a lease and read what it has.  Raises `OSError`."""
    staged = Staged(files, paths, header, files.open(paths.part(header.segment), Access.WRITE))
    try:
        staged.resume()
    except BaseException:
        staged.close()
        raise
    return staged
