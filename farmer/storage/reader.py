"""
Reading a stored shard: every byte that leaves has just been compared with what it must be.

That is the CRC32 beside the tree, or the tree itself where header or trailer are damaged.
So of a damaged shard all is served but the blocks that are.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from threading import Lock
from typing import Final

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
from farmer.storage.damage import (
    Examination,
    Examined,
    Trust,
    examine,
    read_header,
    span_of,
    trust,
)
from farmer.storage.errors import (
    BadRangeError,
    CorruptShardError,
    ShardWentError,
    VolumeClosedError,
    VolumeUnavailableError,
)
from farmer.storage.files import Buffer
from farmer.storage.ground import Ground
from farmer.storage.handles import Handles, Pin
from farmer.storage.places import Row
from farmer.storage.quota import VolumeAccount
from farmer.storage.records import trailer_length, tree_offset
from farmer.storage.rights import file_of

_STEP_BYTES: Final = 16 * BLOCK_BYTES
"""Read at once when a whole shard is walked over."""

OnDamage = Callable[[Row], None]
"""Called, before the error is raised, with the shard to be put into quarantine."""


class VolumeReader:
    """
    One shard, open for reading; its record stays pinned until `close`.

    Where its pin gives way, and the shard is given up for good, it ends with a `ShardWentError`:
    what is not right from then on is no damage, either.

    The header is read and compared at once: a misdirected write shows there.  The trailer is
    read when it is first needed, in one piece.  Where one of them is damaged the tree still
    has to give the shard id; if need be it is made again from the blocks, once.

    Once its volume was closed it reads on as long as all is right.  What is not may have been
    given back, or written over, by whoever opened the volume anew: that is no damage, but a
    `VolumeClosedError`.
    """

    def __init__(
        self,
        ground: Ground,
        handles: Handles,
        pin: Pin,
        row: Row,
        on_damage: OnDamage,
        examined: Examined,
    ) -> None:
        """Open; the caller has pinned the record, and unpins it if this raises."""
        self._ground = ground
        self._handles = handles
        self._pin = pin
        self._row = row
        self._on_damage = on_damage
        self._examined = examined
        self._trust: Trust | None = None
        self._closing = Lock()
        self._is_open = True
        self._may_be_cached = True
        self._header = read_header(self._beside(0, RECORD_HEADER_BYTES), row)

    def check(self) -> None:
        """Raise `CorruptShardError` now if nothing of it can be told right from wrong."""
        if self._header is None:
            self._trusted()

    def prepare(self) -> None:
        """See `farmer.node.ports.ShardReader`."""
        self._trust = self._trusted().for_blocks()

    @property
    def kept_bytes(self) -> int:
        """See `farmer.node.ports.ShardReader`."""
        return 0 if self._trust is None else self._trust.kept_bytes

    @property
    def stored(self) -> StoredShard:
        """See `farmer.node.ports.ShardReader`."""
        return self._row.stored()

    @property
    def row(self) -> Row:
        """The index row that was opened."""
        return self._row

    @property
    def account(self) -> VolumeAccount:
        """The volume's side of the ledger."""
        return self._ground.account

    @property
    def is_header_sound(self) -> bool:
        """Whether the record begins as it was written, and is this shard's."""
        return self._header is not None

    @property
    def until_ms(self) -> int:
        """The contract's end as the record says, a hint; 0 if that is damaged."""
        return self._header.until_ms if self._header is not None else 0

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

    def read_cached(self, offset: int, length: int) -> Buffer | None:
        """See `farmer.node.ports.ShardReader`."""
        trusted = self._trust
        if trusted is None or trusted.checksums is None or self._pin.is_over:
            # Hashes take three times as long as the reading.
            return None
        if not length or not self._may_be_cached or not self._is_whole(offset, length):
            return None
        data = self._cached(RECORD_HEADER_BYTES + offset, length)
        if data is None or trusted.wrong_block(data, offset // BLOCK_BYTES) is not None:
            # Whatever it is, the disk is asked, and from now on for the rest, too.
            self._may_be_cached = False
            return None
        return data

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

    def examine(self) -> Examination:
        """Look at all of the record; damage is noted for good.  Raises as `look`."""
        found = self.look()
        self.note(found)
        return found

    def look(self) -> Examination:
        """
        Read all of the record and say what is wrong with it.

        What the disk has is read, not what memory remembers of it.

        Raises:
            VolumeUnavailableError: the disk cannot be read at all, or the volume was closed.
            ShardWentError: it was given up meanwhile.

        """
        place, files = self._row.place, self._ground.files
        try:
            with self._handles.borrow(place) as fd:
                files.uncache(fd, place.offset, self._row.charge_bytes)
            found = examine(self._raw, self._row)
        except FileNotFoundError as error:
            if not isinstance(failure := self._failed(error), CorruptShardError):
                raise failure from error
            found = Examination.of_nothing(self._row.size_bytes)
        except OSError as error:
            raise self._failed(error) from error
        return found

    def note(self, found: Examination) -> None:
        """Keep what an examination found; damage puts the shard into quarantine."""
        self._examined.keep(self._row.sequence, found)
        if not found.is_sound:
            self._damaged()

    def close(self) -> None:
        """See `farmer.node.ports.ShardReader`."""
        with self._closing:
            if self._is_open:
                self._is_open = False
                self._handles.unpin(self._pin)

    def _tree(self) -> ShardTree:
        tree = self._trusted().tree
        if tree is None:
            # `prepare` has let go of it.
            self._trust = None
            tree = self._trusted().tree
            assert tree is not None, "just read"
        return tree

    def _block(self, block: int) -> bytes:
        return self._blocks(block, block + 1)

    def _blocks(self, first: int, end: int) -> bytes:
        """Return the bytes of some blocks, each compared with what it must be."""
        size = self._row.size_bytes
        assert 0 <= first < end <= block_count(size), (first, end)
        start, stop = first * BLOCK_BYTES, min(end * BLOCK_BYTES, size)
        trusted = self._trusted()
        try:
            data = self._raw(RECORD_HEADER_BYTES + start, stop - start)
        except OSError as error:
            raise self._unread(error, first, end) from error
        wrong = trusted.wrong_block(data, first)
        if wrong is not None:
            raise self._damage(*span_of(wrong, size))
        return data

    def _trusted(self) -> Trust:
        """Return what blocks are compared with; raises `CorruptShardError` if nothing is left."""
        if self._trust is None:
            size = self._row.size_bytes
            trailer = self._beside(tree_offset(size), trailer_length(size))
            found = trust(self._header, trailer, self._row)
            if found is None or found.checksums is None:
                self._damaged()
            self._trust = found or self._salvaged()
        return self._trust

    def _salvaged(self) -> Trust:
        """Return the tree as it was made again from the blocks, if it could be."""
        found = self._examined.find(self._row.sequence) or self.examine()
        if found.hashes is None:
            raise self._damage(0, self._row.size_bytes)
        return Trust(ShardTree(self._row.size_bytes, found.hashes), None)

    def _beside(self, offset: int, length: int) -> bytes:
        """Read header or trailer; nothing at a bad spot of a record known to be damaged."""
        try:
            return self._raw(offset, length)
        except OSError as error:
            if error.errno == errno.EIO and self._row.is_damaged:
                return b""
            raise self._failed(error) from error

    def _raw(self, offset: int, length: int) -> bytes:
        self._check_is_there()
        place = self._row.place
        with self._handles.borrow(place) as fd:
            data = self._ground.files.pread(fd, length, place.offset + offset)
        self._check_is_there()
        return data

    def _check_is_there(self) -> None:
        """Raise `ShardWentError` once the shard was given up for good."""
        if self._pin.is_over:
            # A file that was opened as it went would take its space as long as it is open.
            self._handles.forget(self._pin.place)
            raise ShardWentError

    def _is_whole(self, offset: int, length: int) -> bool:
        """Whether a range consists of whole blocks."""
        end = offset + length
        return not offset % BLOCK_BYTES and (not end % BLOCK_BYTES or end == self._row.size_bytes)

    def _cached(self, offset: int, length: int) -> Buffer | None:
        place = self._row.place
        handle = self._handles.take_open(place)
        if handle is None:
            return None
        try:
            return self._ground.files.pread_cached(handle.fd, length, place.offset + offset)
        finally:
            self._handles.give_back(handle)

    def _unread(self, error: OSError, first: int, end: int) -> Exception:
        """
        Return what a failed read of blocks means.

        In a shard that is known to be damaged (the scrub read it twice) a bad spot is the block's
        damage; in another it may be the cable, and passes.
        """
        if error.errno != errno.EIO or not self._row.is_damaged:
            return self._failed(error)
        size = self._row.size_bytes
        for block in range(first, end):
            offset, length = span_of(block, size)
            try:
                self._raw(RECORD_HEADER_BYTES + offset, length)
            except OSError:
                return self._damage(offset, length)
        return self._failed(error)

    def _is_marker_there(self) -> bool:
        try:
            return self._ground.files.exists(self._ground.paths.marker)
        except OSError:
            # The disk that lost the file does not even say whether it is there itself.
            return False

    def _failed(self, error: OSError) -> Exception:
        """
        Return what a failed read means: no volume, no file, or a bad spot on the disk.

        Raises `ShardWentError`.
        """
        self._check_is_there()
        if self._handles.is_closed:
            return _closed()
        health = self._ground.health
        health.count("read")
        if error.errno == errno.ENOENT:
            if self._is_marker_there():
                return self._damage(0, self._row.size_bytes)
            health.go("its marker is gone: the disk may not be mounted")
        self._ground.not_let(error, file_of(error, self._handles.usual_path(self._row.place)))
        return VolumeUnavailableError(f"the disk could not be read: {error}")

    def _damage(self, offset: int, length: int) -> CorruptShardError:
        self._damaged()
        return CorruptShardError(offset, length)

    def _damaged(self) -> None:
        """
        Put this record into quarantine, unless it is there; count what was not known.

        Raises `VolumeClosedError` where nobody can say whether it is damaged.
        """
        if self._handles.is_closed:
            raise _closed()
        if self._row.is_damaged:
            return
        if self._examined.is_news(self._row.sequence):
            self._ground.health.count("corrupt")
        self._on_damage(self._row)


def _closed() -> VolumeClosedError:
    return VolumeClosedError("the volume was closed while the shard was read")
