"""What stands on a volume: headers, a segment, marks, a file in staging, the marker."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from zlib import crc32

from farmer.model.ids import ContractId, NodeId, ShardId
from farmer.model.shard import BLOCK_BYTES
from farmer.storage import directory
from farmer.storage.directory import VolumeSetupError
from farmer.storage.errors import FormatTooNewError
from farmer.storage.files import Access
from farmer.storage.marks import MARK_BYTES, Action, Mark, are_marks, decode_marks, encode_marks
from farmer.storage.records import (
    DAMAGED,
    BlockChecksums,
    DamagedError,
    Kind,
    RecordHeader,
    SegmentHeader,
    decode_record,
    decode_segment,
    padding,
    trailer_length,
)
from farmer.storage.recovery import read_part
from farmer.storage.scan import Found, Hole, Source, scan
from tests.fuzz.mutate import Picker, havoc
from tests.fuzz.target import Target
from tests.vectors.cast import stream, tree_of

VOLUME: Final = stream("volume", 16)
SEGMENT: Final = stream("segment", 16)
RENTER: Final = NodeId(stream("renter", 32))
NODE: Final = NodeId(stream("node", 32))
CONTRACT: Final = ContractId(stream("contract", 16))
MAGICS: Final = (b"FARMREC\0", b"FARMSEG\0")
PAGE: Final = 4096
SIZES: Final = (0, 1, 3804, 3805, 100, 9000)


def record(
    content: bytes, sequence: int, segment: bytes = SEGMENT, kind: Kind = Kind.SHARD
) -> bytes:
    """Return a whole record of a shard, padding included."""
    checksums = BlockChecksums()
    checksums.update(content)
    tree = tree_of(content)
    trailer = tree.block_hashes + checksums.finish()
    header = RecordHeader(
        kind=kind,
        segment=segment,
        sequence=sequence,
        payload_bytes=len(content),
        trailer_bytes=len(trailer),
        trailer_crc=crc32(trailer),
        renter=RENTER,
        shard=tree.shard_id(),
        contract=CONTRACT,
        stored_at_ms=1_790_000_000_000 + sequence,
        synced_bytes=0 if kind is Kind.SHARD else len(content),
        until_ms=1_800_000_000_000,
    )
    whole = header.encode() + content + trailer
    return whole + padding(len(whole))


def marks(sequence: int, means: Sequence[tuple[Action, int]], segment: bytes = SEGMENT) -> bytes:
    """Return a whole record of marks: what, and the sequence that is meant."""
    entries = [
        Mark(
            action=action,
            at_ms=1_790_000_001_000,
            observed_ms=5000,
            renter=RENTER,
            shard=ShardId(stream(f"marked {meant}", 32)),
            sequence=meant,
        )
        for action, meant in means
    ]
    header, parts = encode_marks(entries, segment, sequence)
    whole = header.encode() + b"".join(map(bytes, parts))
    return whole + padding(len(whole))


def segment_header(number: int = 1, segment: bytes = SEGMENT, previous_end: int = 0) -> bytes:
    return SegmentHeader(
        volume=VOLUME,
        segment=segment,
        number=number,
        first_sequence=1 + 100 * (number - 1),
        previous_end=previous_end,
        created_at_ms=1_790_000_000_000,
    ).encode()


def mend_header(raw: bytearray, at: int) -> None:
    """Make the checksum of the header at an offset right again."""
    if at + 256 <= len(raw):
        raw[at + 252 : at + 256] = crc32(raw[at : at + 252]).to_bytes(4, "big")


def mend_record(pick: Picker, raw: bytearray, at: int) -> None:
    """Make the checksums of a record right again: of its blocks or marks, trailer, header."""
    length = int.from_bytes(raw[at + 40 : at + 48], "big")
    trailer_bytes = int.from_bytes(raw[at + 48 : at + 52], "big")
    begins = at + 256 + length
    if begins + trailer_bytes <= len(raw) and pick.chance() < 0.8:
        payload = bytes(raw[at + 256 : begins])
        if raw[at + 10] == Kind.MARKS and trailer_bytes == 4:
            raw[begins : begins + 4] = crc32(payload).to_bytes(4, "big")
        elif trailer_bytes == trailer_length(length):
            checksums = BlockChecksums()
            checksums.update(payload)
            found = checksums.finish()
            end = begins + trailer_bytes
            raw[end - len(found) : end] = found
        trailer = crc32(raw[begins : begins + trailer_bytes])
        raw[at + 52 : at + 56] = trailer.to_bytes(4, "big")
    mend_header(raw, at)


def mend_pages(pick: Picker, data: bytes, seed: bytes) -> bytes:
    """Mend all that begins like a header, at every multiple of 4096."""
    raw = bytearray(data)
    for at in range(0, len(raw) - 255, PAGE):
        if seed[at : at + 8] in MAGICS and pick.chance() < 0.7:
            raw[at : at + 8] = seed[at : at + 8]
            raw[at + 16 : at + 32] = seed[at + 16 : at + 32]
        if raw[at : at + 8] == MAGICS[0]:
            mend_record(pick, raw, at)
        elif raw[at : at + 8] == MAGICS[1]:
            mend_header(raw, at)
    return bytes(raw)


def change_pages(pick: Picker, seed: bytes, other: bytes) -> bytes:
    """Change headers more often than the long rows of bytes between them."""
    data = seed
    if pick.chance() < 0.7:
        at = PAGE * pick.below(-(-len(data) // PAGE) or 1)
        changed = havoc(pick, data[at : at + 256], other[:256], grow=False)
        data = data[:at] + changed + data[at + 256 :]
    if pick.chance() < 0.5:
        return data[: len(seed)]
    return havoc(pick, data, other, grow=pick.chance() < 0.2)


class Image:
    """One file in memory, as `Files`: all that a scan and `read_part` ask for."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def open(self, _path: Path, _access: Access) -> int:
        return 3

    def close(self, fd: int) -> None:
        assert fd == 3

    def pread(self, _fd: int, length: int, offset: int) -> bytes:
        assert offset >= 0 and 0 <= length <= 1 << 34, (offset, length)
        return self.content[offset : offset + length]

    def size(self, _fd: int) -> int:
        return len(self.content)


class RecordHeaders(Target):
    name = "record-header"
    executions = 60_000

    def seeds(self) -> list[bytes]:
        return [record(bytes(size), 7)[:256] for size in SIZES] + [
            marks(9, [(Action.GONE, 3)])[:256],
            record(bytes(5), 8, kind=Kind.STAGING)[:256],
        ]

    def mend(self, pick: Picker, data: bytes, seed: bytes) -> bytes:
        raw = bytearray(data[:256] + seed[len(data) :])
        raw[:8], raw[16:32] = seed[:8], seed[16:32]
        mend_header(raw, 0)
        return bytes(raw)

    def run(self, data: bytes) -> bool:
        try:
            header = decode_record(data, SEGMENT, "here")
        except DamagedError:
            return False
        except FormatTooNewError:
            assert int.from_bytes(data[8:10], "big") > 1
            return True
        assert data[:8] == MAGICS[0] and data[8:10] == b"\0\1" and data[16:32] == SEGMENT
        assert crc32(data[:252]).to_bytes(4, "big") == data[252:256], "a wrong checksum accepted"
        assert header.encode()[:184] == data[:184], "two encodings of one header"
        for number in (header.sequence, header.stored_at_ms, header.record_bytes):
            assert number < 1 << 63, "a number that the index cannot hold"
        return True


class SegmentHeaders(Target):
    name = "segment-header"
    executions = 60_000

    def seeds(self) -> list[bytes]:
        return [segment_header()[:300], segment_header(77, previous_end=1 << 20)[:300]]

    def mend(self, pick: Picker, data: bytes, seed: bytes) -> bytes:
        raw = bytearray(data[:300] + seed[len(data) :])
        raw[:8] = seed[:8]
        mend_header(raw, 0)
        return bytes(raw)

    def run(self, data: bytes) -> bool:
        try:
            header = decode_segment(data, "here")
        except DamagedError:
            return False
        except FormatTooNewError:
            assert int.from_bytes(data[8:10], "big") > 1
            return True
        assert crc32(data[:252]).to_bytes(4, "big") == data[252:256], "a wrong checksum accepted"
        front = header.encode()
        assert (front[:10], front[16:80]) == (data[:10], data[16:80]), "two encodings"
        for number in (header.number, header.first_sequence, header.previous_end):
            assert number < 1 << 63, "a number that the index cannot hold"
        return True


class Marks(Target):
    """The payload of a record of marks, whose checksum was right."""

    name = "marks"
    executions = 60_000

    def seeds(self) -> list[bytes]:
        row = [(action, 3 + action) for action in Action]
        return [marks(9, row[:many])[256 : 256 + many * MARK_BYTES] for many in (1, 2, 4)]

    def mend(self, pick: Picker, data: bytes, seed: bytes) -> bytes:
        raw = bytearray(data[: len(data) // MARK_BYTES * MARK_BYTES] or seed)
        for at in range(0, len(raw), MARK_BYTES):
            raw[at + 1 : at + 8] = bytes(7)
            raw[at] = raw[at] if pick.chance() < 0.2 else 1 + raw[at] % 4
        return bytes(raw)

    def run(self, data: bytes) -> bool:
        if not are_marks(data):
            return False
        found = list(decode_marks(data))
        whole = b"".join(bytes(part) for part in encode_marks(found, SEGMENT, 1)[1][:1])
        blank = bytearray(data)
        for at in range(0, len(blank), MARK_BYTES):
            blank[at + 1 : at + 8] = bytes(7)
        assert whole == blank, "two encodings of the same marks"
        assert all(mark.sequence < 1 << 62 and mark.at_ms < 1 << 62 for mark in found)
        return True


def segment_image() -> bytes:
    """Return a segment: shards around every edge, marks, and a hole."""
    records = [record(stream(f"payload {size}", size), 1 + at) for at, size in enumerate(SIZES)]
    told = marks(20, [(Action.TRASH, 2), (Action.GONE, 1)])
    return b"".join([segment_header(), *records[:3], told, bytes(PAGE), *records[3:]])


class Scan(Target):
    """A segment of the log, walked over as a recovery does."""

    name = "segment-scan"
    executions = 40_000
    cost = 2

    def __init__(self) -> None:
        self._image = segment_image()
        self._sound = [one for one in self._walk(self._image) if isinstance(one, Found)]
        assert len(self._sound) == len(SIZES) + 1

    def seeds(self) -> list[bytes]:
        return [self._image]

    def mutate(self, pick: Picker, seed: bytes, other: bytes) -> bytes:
        return change_pages(pick, seed, other)

    def mend(self, pick: Picker, data: bytes, seed: bytes) -> bytes:
        return mend_pages(pick, data, seed)

    def _walk(self, data: bytes) -> list[object]:
        source = Source(Image(data), 3, SEGMENT, "here")  # type: ignore[arg-type]
        return list(scan(source, PAGE, len(data), verify=True))

    def run(self, data: bytes) -> bool:
        try:
            walked = self._walk(data)
        except FormatTooNewError:
            assert b"FARMREC" in data
            return True
        found = [one for one in walked if isinstance(one, Found)]
        at = PAGE
        for one in found:
            assert at <= one.offset and one.offset % PAGE == 0 and one.end <= len(data)
            at = one.end
            check_found(data, one.offset, SEGMENT)
        assert all(one.length > 0 for one in walked if isinstance(one, Hole))
        self._untouched_are_found(data, {one.offset for one in found})
        return len(found) > len(self._sound) // 2

    def _untouched_are_found(self, data: bytes, found: set[int]) -> None:
        """What was damaged takes nothing else with it, unless it lies about its length."""
        hidden = 0
        for one in self._sound:
            same = data[one.offset : one.end] == self._image[one.offset : one.end]
            if same and one.offset >= hidden:
                assert one.offset in found, f"the sound record at {one.offset} was lost"
            # A changed record with right checksums may reach over its neighbours.
            elif not same:
                hidden = max(hidden, self._reach(data, one.offset))

    def _reach(self, data: bytes, at: int) -> int:
        for page in range(at, len(data), PAGE):
            try:
                header = decode_record(data[page : page + 256], SEGMENT, "here")
            except (DamagedError, FormatTooNewError):
                continue
            if page == at or data[page : page + 256] != self._image[page : page + 256]:
                return page + header.record_bytes
        return at


def check_found(data: bytes, at: int, segment: bytes) -> None:
    """Compare a reported record with the drawing in docs/storage-format.md, byte by byte."""
    raw = data[at : at + 256]
    assert raw[:8] == b"FARMREC\0" and raw[8:10] == b"\0\1" and raw[16:32] == segment
    assert crc32(raw[:252]) == int.from_bytes(raw[252:256], "big"), "a wrong header checksum"
    length, trailer_bytes = int.from_bytes(raw[40:48], "big"), int.from_bytes(raw[48:52], "big")
    payload = data[at + 256 : at + 256 + length]
    trailer = data[at + 256 + length : at + 256 + length + trailer_bytes]
    assert len(payload) == length and crc32(trailer) == int.from_bytes(raw[52:56], "big")
    if raw[10] == Kind.MARKS:
        assert trailer == crc32(payload).to_bytes(4, "big"), "marks with a wrong checksum"
        return
    assert raw[10] == Kind.SHARD
    if int.from_bytes(raw[12:16], "big") & DAMAGED:
        return
    blocks = max(1, -(-length // BLOCK_BYTES))
    assert trailer_bytes == 36 * blocks, "a trailer of the wrong length"
    for block in range(blocks):
        sum_at = 32 * blocks + 4 * block
        part = payload[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
        assert crc32(part).to_bytes(4, "big") == trailer[sum_at : sum_at + 4], "a damaged block"


class StagingFile(Target):
    """A file of one large shard, under the name that its header must have."""

    name = "staging-file"
    executions = 60_000

    def seeds(self) -> list[bytes]:
        return [record(stream("big", 5000), 4, kind=kind) for kind in (Kind.SHARD, Kind.STAGING)]

    def mutate(self, pick: Picker, seed: bytes, other: bytes) -> bytes:
        return change_pages(pick, seed, other)

    def mend(self, pick: Picker, data: bytes, seed: bytes) -> bytes:
        raw = bytearray(data[:256].ljust(256, b"\0") + data[256:])
        raw[:8], raw[16:32] = seed[:8], seed[16:32]
        mend_header(raw, 0)
        return bytes(raw)

    def run(self, data: bytes) -> bool:
        path = Path("/volume/staging") / f"{SEGMENT.hex()}.part"
        try:
            part = read_part(Image(data), path)  # type: ignore[arg-type]
        except FormatTooNewError:
            assert int.from_bytes(data[8:10], "big") > 1
            return True
        if part is None:
            return False
        header = part.header
        assert header.encode()[:184] == data[:184] and header.kind in (Kind.SHARD, Kind.STAGING)
        assert header.record_bytes <= len(data), "a file that is not whole"
        assert header.synced_bytes <= header.payload_bytes, "more durable than there is"
        assert header.trailer_bytes == trailer_length(header.payload_bytes), "a wrong trailer"
        return True


class MarkerFile(Target):
    """The file that says whose volume it is."""

    name = "volume-marker"
    executions = 60_000
    _OTHERS = (b"[" * 2000, b"1e999", b"-1", b'""', b"null", b"{}", b"true", b"9" * 5000)

    def seeds(self) -> list[bytes]:
        fields = {"format": 1, "volume": VOLUME.hex(), "node": str(NODE), "created_ms": 1790}
        return [json.dumps(fields, indent=2).encode(), json.dumps(fields).encode()]

    def mutate(self, pick: Picker, seed: bytes, other: bytes) -> bytes:
        if pick.chance() < 0.3:
            at = pick.below(len(seed))
            return seed[:at] + pick.one(self._OTHERS) + seed[at + pick.below(9) :]
        return havoc(pick, seed, other)

    def mend(self, pick: Picker, data: bytes, seed: bytes) -> bytes:
        """Write sound JSON with another value somewhere."""
        fields = json.loads(seed)
        name = pick.one(sorted(fields))
        values = (0, 1, 2, -1, 1 << 70, 1.5, None, "", "00" * 15, "zz", [], {}, VOLUME.hex())
        fields[name] = pick.one(values) if pick.chance() < 0.5 else fields[name]
        fields["comment"] = pick.one(values)
        return json.dumps(fields).encode()

    def run(self, data: bytes) -> bool:
        try:
            marker = directory._parse(data, Path("/volume/farmer-volume.json"))
        except (VolumeSetupError, FormatTooNewError) as error:
            assert str(error)
            return False
        assert len(marker.volume) == 16 and 0 <= marker.created_at_ms < 1 << 63
        return True


TARGETS: Final = (RecordHeaders, SegmentHeaders, Marks, Scan, StagingFile, MarkerFile)
