"""Reading a stored shard: every byte that leaves has just been compared with its checksum."""

from __future__ import annotations

import errno
from collections.abc import Callable
from threading import Lock
from typing import Final
from zlib import crc32

from farmer.audit.challenge import sample_leaves
from farmer.audit.full import FullDigest
from farmer.audit.proof import prove_sample
from farmer.audit.ranges import prove_range
from farmer.audit.tree import ShardTree
from farmer.model.audit import SampleProof
from farmer.model.shard import (
    BLOCK_BYTES,
    LEAF_BYTES,
    RECORD_HEADER_BYTES,
    StoredShard,
    block_count,
)
from farmer.storage.errors import BadRangeError, CorruptShardError, VolumeUnavailableError
from farmer.storage.ground import Ground
from farmer.storage.handles import Handles
from farmer.storage.places import Row
from farmer.storage.records import (
    DamagedError,
    Kind,
    RecordHeader,
    checksum_at,
    checksums_offset,
    decode_record,
    tree_offset,
)

_STEP_BYTES: Final = 16 * BLOCK_BYTES
"""Read at once when a whole shard is walked over."""

OnDamage = Callable[[Row], None]
"""Called, before the error is raised, with the shard to be put into quarantine."""


class VolumeReader:
    """
    One shard, open for reading; its record stays pinned until `close`.

    The header is read and compared at once: a misdirected write shows there.  The trailer is
    read when it is first needed, in one piece, and compared with the header's checksum of it.
    """

    def __init__(self, ground: Ground, handles: Handles, row: Row, on_damage: OnDamage) -> None:
        """Open; the caller has pinned the record, and unpins it if this raises."""
        self._ground = ground
        self._handles = handles
        self._row = row
        self._on_damage = on_damage
        self._trailer: bytes | None = None
        self._closing = Lock()
        self._is_open = True
        self.header = self._read_header()

    @property
    def stored(self) -> StoredShard:
        """See `farmer.node.ports.ShardReader`."""
        return self._row.stored()

    @property
    def row(self) -> Row:
        """The index row that was opened."""
        return self._row

    def read(self, offset: int, length: int) -> bytes:
        """See `farmer.node.ports.ShardReader`."""
        size = self._row.size_bytes
        if not 0 <= offset <= offset + length <= size:
            raise BadRangeError(offset + length, size)
        if not length:
            return b""
        first, end = offset // BLOCK_BYTES, -(-(offset + length) // BLOCK_BYTES)
        start = first * BLOCK_BYTES
        data = self._blocks(first, end)
        return data[offset - start : offset - start + length]

    def prove_range(self, offset: int, length: int) -> tuple[bytes, ...]:
        """See `farmer.node.ports.ShardReader`."""
        end = offset + length
        size = self._row.size_bytes
        if not 0 <= offset <= end <= size:
            raise BadRangeError(end, size)
        first_leaf = offset // LEAF_BYTES
        end_leaf = max(first_leaf + 1, -(-end // LEAF_BYTES))
        return prove_range(self._tree(), first_leaf, end_leaf, self._block)

    def prove_sample(self, nonce: bytes, samples: int) -> SampleProof:
        """Return the proof of sampled leaves; reads their blocks and the tree, no more."""
        row = self._row
        leaves = sample_leaves(nonce, row.shard, row.size_bytes, samples)
        return prove_sample(self._tree(), leaves, self._block)

    def prove_full(self, nonce: bytes) -> bytes:
        """Return the digest over nonce and shard; reads all of it."""
        digest = FullDigest(nonce, self._row.shard)
        for offset in range(0, self._row.size_bytes, _STEP_BYTES):
            digest.update(self.read(offset, min(_STEP_BYTES, self._row.size_bytes - offset)))
        return digest.finish()

    def trailer(self) -> bytes:
        """Return the checked trailer: tree hashes, then checksums."""
        if self._trailer is None:
            trailer = self._pread(tree_offset(self._row.size_bytes), self.header.trailer_bytes)
            if crc32(trailer) != self.header.trailer_crc:
                raise self._damage(0, self._row.size_bytes)
            self._trailer = trailer
        return self._trailer

    def close(self) -> None:
        """See `farmer.node.ports.ShardReader`."""
        with self._closing:
            if self._is_open:
                self._is_open = False
                self._handles.unpin(self._row.place)

    def _tree(self) -> ShardTree:
        size = self._row.size_bytes
        return ShardTree(size, self.trailer()[: checksums_offset(size) - tree_offset(size)])

    def _block(self, block: int) -> bytes:
        return self._blocks(block, block + 1)

    def _blocks(self, first: int, end: int) -> bytes:
        """Return the bytes of some blocks, each compared with its checksum."""
        size = self._row.size_bytes
        assert 0 <= first < end <= block_count(size), (first, end)
        start, stop = first * BLOCK_BYTES, min(end * BLOCK_BYTES, size)
        checksums = self.trailer()[checksums_offset(size) - tree_offset(size) :]
        data = self._pread(RECORD_HEADER_BYTES + start, stop - start)
        view = memoryview(data)
        for block in range(first, end):
            at = (block - first) * BLOCK_BYTES
            part = view[at : at + BLOCK_BYTES]
            if crc32(part) != checksum_at(checksums, block):
                raise self._damage(block * BLOCK_BYTES, min(BLOCK_BYTES, stop - start - at))
        return data

    def _read_header(self) -> RecordHeader:
        row = self._row
        raw = self._pread(0, RECORD_HEADER_BYTES)
        uuid = row.place.file or raw[16:32]
        try:
            header = decode_record(raw, uuid, str(row.place))
        except DamagedError:
            raise self._damage(0, row.size_bytes) from None
        expected = (Kind.SHARD, row.sequence, row.renter, row.shard, row.size_bytes)
        found = (header.kind, header.sequence, header.renter, header.shard, header.payload_bytes)
        if found != expected:
            raise self._damage(0, row.size_bytes)
        return header

    def _pread(self, offset: int, length: int) -> bytes:
        """Read within the record; a file that ends early gives fewer bytes."""
        place = self._row.place
        try:
            with self._handles.borrow(place) as fd:
                return self._ground.files.pread(fd, length, place.offset + offset)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> Exception:
        """Return what a failed read means: no volume, no file, or a bad spot on the disk."""
        health = self._ground.health
        health.count("read")
        if error.errno == errno.ENOENT:
            if self._ground.files.exists(self._ground.paths.marker):
                return self._damage(0, self._row.size_bytes)
            health.go("its marker is gone: the disk may not be mounted")
        return VolumeUnavailableError(f"the disk could not be read: {error}")

    def _damage(self, offset: int, length: int) -> CorruptShardError:
        self._ground.health.count("corrupt")
        self._on_damage(self._row)
        return CorruptShardError(offset, length)
