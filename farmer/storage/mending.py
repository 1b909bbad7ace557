"""
A damaged shard written again: intact blocks from its old record, the others from its renter.

The result is a store like any other: a new record, checked against the shard id, durable
before the answer; the old record is given up in the same commit.  A crash leaves one or the
other, never a mixture.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Final

from farmer.audit.tree import ShardTree, hash_block
from farmer.model.contract import Contract
from farmer.model.shard import BLOCK_BYTES, BadBlocks, StoredShard, block_count
from farmer.storage.damage import STEP_BLOCKS, Examination, span_of
from farmer.storage.errors import StorageError, WrongHashError, WrongSizeError
from farmer.storage.files import Buffer
from farmer.storage.places import Row
from farmer.storage.reader import VolumeReader
from farmer.storage.undertaking import Undertaking
from farmer.storage.upload import LargeUpload, SmallUpload, Wanted
from farmer.storage.volume import Volume
from farmer.storage.watch import Watch

FOR_EVER_MS: Final = (1 << 62) - 1
NO_LIMIT_BYTES: Final = 1 << 62


class Mending:
    """
    One shard being mended: `write` takes the bad blocks, one after the other, in any slices.

    The old record stays pinned until the end, unless the shard is erased.  Blocking; one call at
    a time, but `abandon`.
    """

    def __init__(
        self,
        reader: VolumeReader,
        found: Examination,
        upload: SmallUpload | LargeUpload,
        watch: Watch,
        ended: Callable[[], None] = lambda: None,
        stored: Callable[[], None] = lambda: None,
    ) -> None:
        """Take over reader and upload, which begins at its first byte; `open` comes next."""
        assert upload.offset == 0, upload.offset
        self._reader = reader
        self._found = found
        self._upload = upload
        give_back = partial(_give_back, upload, reader)
        self._steps = Undertaking(watch, give_back, ended, stored=stored)
        self._wanted = iter(found.bad_blocks)
        self._next = next(self._wanted, None)
        self._done = 0
        self._buffer = bytearray()
        self._left = self.wanted_bytes
        self._tree = None if found.hashes is None else ShardTree(found.size_bytes, found.hashes)

    @property
    def found(self) -> Examination:
        """What is wrong with the old record."""
        return self._found

    @property
    def bad(self) -> BadBlocks:
        """The blocks whose bytes are wanted."""
        return self._found.named

    @property
    def wanted_bytes(self) -> int:
        """How many bytes the bad blocks have together."""
        return self.bad.wanted_bytes

    def start(self) -> None:
        """Copy what stands before the first bad block; raises as `write`."""
        try:
            with self._steps:
                self._copy_intact()
        except BaseException:
            self.abandon()
            raise

    def write(self, data: Buffer) -> None:
        """
        Take the next bytes of the bad blocks.

        Raises:
            WrongHashError: not the bytes of that block; nothing is kept.
            WrongSizeError: more than was asked for; nothing is kept.
            CorruptShardError: a block that was intact is not any more; the renter asks again.
            ShardWentError: the shard was erased meanwhile.
            NoSpaceError, VolumeUnavailableError: the disk failed us.

        """
        try:
            with self._steps:
                self._left -= len(data)
                self._check_left(is_over=self._left < 0)
                self._buffer += data
                self._take_whole_blocks()
        except BaseException:
            self.abandon()
            raise

    def commit(self) -> Future[StoredShard]:
        """
        Check the whole, then make it durable; see `Upload.commit` of the ports.

        Raises:
            WrongSizeError, WrongHashError: nothing is kept.

        """
        try:
            # The claim ends with the commit: a store of the same shard meanwhile is busy.
            return self._steps.commit(self._commit)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Leave all as it was, unless it was committed; safe twice."""
        self._steps.give_up()

    def _commit(self, ended: Callable[[], None]) -> Future[StoredShard]:
        self._check_left(is_over=self._left != 0)
        return self._upload.commit(ended)

    def _check_left(self, *, is_over: bool) -> None:
        if is_over:
            raise WrongSizeError(self.wanted_bytes, self.wanted_bytes - self._left)

    def _take_whole_blocks(self) -> None:
        while self._next is not None:
            length = span_of(self._next, self._found.size_bytes)[1]
            if len(self._buffer) < length:
                return
            data = bytes(self._buffer[:length])
            del self._buffer[:length]
            if self._tree is not None and hash_block(data) != self._tree.block_hash(self._next):
                raise WrongHashError
            self._upload.write(data)
            self._done, self._next = self._next + 1, next(self._wanted, None)
            self._copy_intact()

    def _copy_intact(self) -> None:
        """Copy blocks of the old record up to the next bad one."""
        size = self._found.size_bytes
        end = block_count(size) if self._next is None else self._next
        for first in range(self._done, end, STEP_BLOCKS):
            stop = min(end, first + STEP_BLOCKS)
            start, length = (
                first * BLOCK_BYTES,
                min(stop * BLOCK_BYTES, size) - first * BLOCK_BYTES,
            )
            self._upload.write(self._reader.read(start, length))
        self._done = end


def _give_back(upload: SmallUpload | LargeUpload, reader: VolumeReader) -> None:
    # After a commit the upload holds nothing any more.
    upload.drop()
    reader.close()


def begin_mending(
    volume: Volume,
    row: Row,
    contract: Contract,
    ended: Callable[[], None] = lambda: None,
    *,
    stored: Callable[[], None] = lambda: None,
    is_asked_for: bool = True,
) -> Mending | None:
    """
    Examine a shard and reserve the space for it; None if nothing is wrong with it.

    *ended* is called once when the mending is over, however; not if this raises.  *stored* is
    called when the shard is whole and durable, before whoever asked hears of it.

    Raises:
        ShardNotFoundError, NoSpaceError, ContractFullError, TooManyError,
        VolumeUnavailableError: nothing was begun.

    """
    reader = volume.open(row, salvage=False)
    try:
        found = reader.examine()
        if found.is_sound and not reader.row.is_damaged:
            reader.close()
            return None
        wanted = Wanted(
            roomier(contract, row),
            row.shard,
            row.size_bytes,
            row.alone_ms,
            None if is_asked_for else row.sequence,
        )
        upload = volume.uploads.begin_anew(wanted)
    except BaseException:
        reader.close()
        raise
    return Mending(reader, found, upload, volume.ground.watch, ended, stored)


def roomier(contract: Contract, row: Row) -> Contract:
    """Return a contract in which the damaged record does not count: it goes when this ends."""
    return replace(contract, space_bytes=contract.space_bytes + row.charge_bytes)


def house_contract(row: Row) -> Contract:
    """Return what the house mends by of its own accord: no contract's limits, the quota's all."""
    return Contract(
        contract=row.contract,
        farmer_key=bytes(32),
        renter=row.renter,
        revision=1,
        space_bytes=NO_LIMIT_BYTES,
        from_ms=0,
        until_ms=FOR_EVER_MS,
        issued_at_ms=0,
    )


def mend_alone(mending: Mending) -> bool:
    """Mend a record whose blocks are all intact; say whether that worked."""
    try:
        mending.start()
        mending.commit().result()
    except StorageError:
        return False
    return True
