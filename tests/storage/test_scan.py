"""What a walk over the log says of stretches that are no sound record."""

from __future__ import annotations

from pathlib import Path

import pytest

from farmer.storage.files import Access, OsFiles
from farmer.storage.records import SEGMENT_HEADER_BYTES, decode_segment
from farmer.storage.scan import Damaged, Found, Hole, Source, scan
from tests.storage.bench import Farm, noise

FIRST, SECOND, THIRD = 4096, 8192, 12_288
"""Where three records of one page each stand, behind the segment's header."""


@pytest.fixture
def segment(tmp_path: Path) -> Path:
    farm = Farm(tmp_path)
    for seed in range(3):
        farm.store(noise(2000, seed))
    farm.engine.close()
    return farm.path / "log" / "00000001.seg"


def found(path: Path) -> list[str]:
    files = OsFiles()
    fd = files.open(path, Access.READ)
    header = decode_segment(files.pread(fd, SEGMENT_HEADER_BYTES, 0), path.name)
    source = Source(files, fd, header.segment, path.name)
    said = []
    for one in scan(source, FIRST, files.size(fd), verify=True):
        match one:
            case Found():
                said.append(f"record at {one.offset}")
            case Damaged(at, None):
                said.append(f"damaged at {at}")
            case Damaged(at, _):
                said.append(f"damaged at {at}, known")
            case Hole(at, length):
                said.append(f"hole at {at} of {length}")
    files.close(fd)
    return said


def spoil(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def test_sound_records_are_found_where_they_stand(segment: Path) -> None:
    assert found(segment) == [f"record at {at}" for at in (FIRST, SECOND, THIRD)]


def test_what_follows_a_damaged_record_is_a_hole_only_if_it_is_empty(segment: Path) -> None:
    """Else it may be what is left of another one: its space is not free."""
    spoil(segment, FIRST + 300, b"spoilt")
    spoil(segment, SECOND, noise(4096, 9))
    assert found(segment) == [f"damaged at {FIRST}, known", f"record at {THIRD}"]
    spoil(segment, SECOND, bytes(4096))
    assert found(segment) == [
        f"damaged at {FIRST}, known",
        f"hole at {SECOND} of 4096",
        f"record at {THIRD}",
    ]


def test_a_damaged_record_right_before_a_sound_one_leaves_no_hole(segment: Path) -> None:
    spoil(segment, SECOND + 300, b"spoilt")
    assert found(segment) == [
        f"record at {FIRST}",
        f"damaged at {SECOND}, known",
        f"record at {THIRD}",
    ]


def test_without_its_header_nothing_is_known_of_a_record(segment: Path) -> None:
    spoil(segment, SECOND + 50, b"spoilt")
    assert found(segment)[1] == f"damaged at {SECOND}"


def test_where_a_record_stood_that_was_given_back_is_a_hole(segment: Path) -> None:
    spoil(segment, SECOND, bytes(4096))
    assert found(segment)[1] == f"hole at {SECOND} of 4096"
    spoil(segment, THIRD, bytes(4096))
    assert found(segment) == [f"record at {FIRST}", f"hole at {SECOND} of 8192"]
