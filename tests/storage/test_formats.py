"""Layouts: what is written is read back, and what is not ours is not taken for it."""

from __future__ import annotations

import ctypes
import errno
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmer.model.ids import ContractId, NodeId, ShardId
from farmer.model.shard import ShardState, charge_bytes
from farmer.storage import syscalls
from farmer.storage.files import Access, OsFiles
from farmer.storage.marks import Action, Mark, decode_marks, encode_marks
from farmer.storage.records import (
    BlockChecksums,
    DamagedError,
    Kind,
    RecordHeader,
    SegmentHeader,
    decode_record,
    decode_segment,
    trailer_length,
)

U62 = st.integers(0, 2**62 - 1)
U32 = st.integers(0, 2**32 - 1)
ID = st.binary(min_size=32, max_size=32)
UUID = st.binary(min_size=16, max_size=16)

HEADERS = st.builds(
    RecordHeader,
    kind=st.sampled_from(Kind),
    segment=UUID,
    sequence=U62,
    payload_bytes=U62,
    trailer_bytes=U32,
    trailer_crc=U32,
    renter=ID.map(NodeId),
    shard=ID.map(ShardId),
    contract=UUID.map(ContractId),
    state=st.sampled_from(ShardState),
    flags=U32,
    stored_at_ms=U62,
    gone_at_ms=U62,
    observed_ms=U62,
    synced_bytes=U62,
    active_at_ms=U62,
    until_ms=U62,
)
MARKS = st.builds(
    Mark,
    action=st.sampled_from(Action),
    at_ms=U62,
    observed_ms=U62,
    renter=ID.map(NodeId),
    shard=ID.map(ShardId),
    sequence=U62,
)


@given(HEADERS, st.integers(0, 255 * 8))
def test_a_header_is_read_back_and_any_flipped_bit_is_noticed(
    header: RecordHeader, bit: int
) -> None:
    raw = header.encode()
    assert len(raw) == 256
    assert decode_record(raw, header.segment, "here") == header
    damaged = bytearray(raw)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DamagedError):
        decode_record(bytes(damaged), header.segment, "here")
    with pytest.raises(DamagedError):
        decode_record(raw, bytes(15) + b"x", "here")
    with pytest.raises(DamagedError):
        decode_record(raw[:255], header.segment, "here")


@given(st.builds(SegmentHeader, volume=UUID, segment=UUID, number=U62, first_sequence=U62,
                 previous_end=U62, created_at_ms=U62))  # fmt: skip
def test_a_segment_header_is_read_back(header: SegmentHeader) -> None:
    raw = header.encode()
    assert (len(raw), decode_segment(raw, "here")) == (4096, header)


def test_a_kind_from_nowhere_is_damage() -> None:
    header = RecordHeader(
        kind=Kind.SHARD, segment=bytes(16), sequence=1, payload_bytes=0, trailer_bytes=0,
        trailer_crc=0,
    )  # fmt: skip
    raw = bytearray(header.encode()[:252])
    raw[10] = 9
    from zlib import crc32

    with pytest.raises(DamagedError):
        decode_record(bytes(raw) + crc32(raw).to_bytes(4, "big"), bytes(16), "here")


@given(st.lists(MARKS, max_size=50))
def test_marks_are_read_back(marks: list[Mark]) -> None:
    header, parts = encode_marks(marks, bytes(16), 7)
    assert list(decode_marks(bytes(parts[0]))) == marks
    assert header.payload_bytes == len(marks) * 96


@given(st.lists(st.integers(0, 150_000), max_size=6))
def test_checksums_do_not_depend_on_the_slices(lengths: list[int]) -> None:
    data = os.urandom(sum(lengths))
    whole, sliced, at = BlockChecksums(), BlockChecksums(), 0
    whole.update(data)
    for length in lengths:
        sliced.update(data[at : at + length])
        at += length
    assert whole.finish() == sliced.finish()


def test_the_charges_in_the_page_are_those_of_the_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "storage-format.md").read_text()
    rows = re.findall(r"^\| ([\d,]+) \| ([\d,]+) \|$", page, re.MULTILINE)
    assert len(rows) == 10
    for size, charge in rows:
        assert charge_bytes(int(size.replace(",", ""))) == int(charge.replace(",", ""))


@given(st.integers(0, 2**32))
def test_a_charge_is_header_bytes_and_trailer_in_whole_blocks(size: int) -> None:
    assert 0 <= charge_bytes(size) - (256 + size + trailer_length(size)) < 4096


class FakeCall:
    """Stands in for fallocate(2): answers with one errno after the other."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)

    def __call__(self, *_arguments: object) -> int:
        number = self.answers.pop(0)
        ctypes.set_errno(number)
        return -1 if number else 0


def test_a_hole_is_reported_as_impossible_failed_or_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "_fallocate", FakeCall(errno.EINTR, 0))
    assert syscalls.punch_hole(0, 0, 4096)
    monkeypatch.setattr(syscalls, "_fallocate", FakeCall(errno.EOPNOTSUPP))
    assert not syscalls.punch_hole(0, 0, 4096)
    monkeypatch.setattr(syscalls, "_fallocate", FakeCall(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        syscalls.punch_hole(0, 0, 4096)
    monkeypatch.setattr(syscalls, "_fallocate", None)
    assert not syscalls.punch_hole(0, 0, 4096)


def test_files_write_everything_also_in_many_buffers_and_are_private(tmp_path: Path) -> None:
    files = OsFiles()
    path = tmp_path / "file"
    fd = files.open(path, Access.CREATE)
    buffers = [bytes([n % 256]) * (n % 7) for n in range(3000)]
    files.pwritev(fd, buffers, 3)
    whole = b"\0\0\0" + b"".join(buffers)
    assert files.pread(fd, len(whole) + 100, 0) == whole
    assert files.pread(fd, 10, len(whole)) == b""
    assert path.stat().st_mode & 0o777 == 0o600
    files.close(fd)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="symbolic links"):
        files.open(tmp_path / "link", Access.READ)
    assert not files.exists(path / "below")
    files.unlink(tmp_path / "nothing")
