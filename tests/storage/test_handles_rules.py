"""The open files of a volume alone: who has which, when each is closed, what is pinned."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from farmer.storage import handles as handles_module
from farmer.storage.directory import Paths
from farmer.storage.files import Access
from farmer.storage.handles import Handles
from farmer.storage.places import Place
from tests.storage.recording import RecordingFiles

OWN = Place(0, 0, b"f" * 16)


@pytest.fixture
def files() -> Iterator[RecordingFiles]:
    files = RecordingFiles()
    yield files
    for fd in list(files.is_open):
        os.close(fd)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    for folder in (paths.log, paths.staging, paths.shard(OWN.file).parent):
        folder.mkdir(parents=True)
    for number in range(1, 6):
        paths.segment(number).write_bytes(bytes([number]))
    return paths


@pytest.fixture
def handles(files: RecordingFiles, paths: Paths) -> Handles:
    return Handles(files, paths)


def read(handles: Handles, files: RecordingFiles, place: Place) -> bytes:
    with handles.borrow(place) as fd:
        return files.pread(fd, 10, 0)


def opened(files: RecordingFiles) -> list[str]:
    """Return which files were opened, one after the other."""
    return [call.path for call in files.calls if call.name == "open_read"]


def test_a_file_is_opened_once_for_all_of_its_records(
    handles: Handles, files: RecordingFiles
) -> None:
    for offset in (0, 4096):
        assert read(handles, files, Place(1, offset)) == b"\1"
    assert read(handles, files, Place(2, 0)) == b"\2"
    assert opened(files) == ["00000001.seg", "00000002.seg"]


def test_of_the_files_without_a_reader_those_used_last_stay_open(
    handles: Handles, files: RecordingFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles_module, "OPEN_FILES_MAX", 2)
    for number in (1, 2, 1, 3):
        read(handles, files, Place(number, 0))
    assert sorted(files.is_open.values()) == ["00000001.seg", "00000003.seg"]
    read(handles, files, Place(4, 0))
    assert sorted(files.is_open.values()) == ["00000003.seg", "00000004.seg"]


def test_a_file_that_gives_way_is_closed_by_its_last_reader(
    handles: Handles, files: RecordingFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles_module, "OPEN_FILES_MAX", 1)
    first, second = handles.take(Place(1, 0)), handles.take(Place(1, 4096))
    assert first is second
    read(handles, files, Place(2, 0))
    for handle in (first, second):
        assert files.pread(handle.fd, 10, 0) == b"\1"
        handles.give_back(handle)
    assert list(files.is_open.values()) == ["00000002.seg"]


def test_a_file_that_goes_is_closed_at_once_or_by_its_last_reader(
    handles: Handles, files: RecordingFiles
) -> None:
    read(handles, files, Place(1, 0))
    handles.forget(Place(1, 8192))
    assert not files.is_open
    handles.forget(Place(1, 0))
    with handles.borrow(Place(1, 0)) as fd:
        handles.forget(Place(1, 0))
        assert files.pread(fd, 10, 0) == b"\1"
    assert not files.is_open


def test_a_file_that_goes_takes_no_other_with_it(handles: Handles, files: RecordingFiles) -> None:
    for number in (1, 2):
        read(handles, files, Place(number, 0))
    handles.forget(Place(1, 0))
    assert list(files.is_open.values()) == ["00000002.seg"]


def test_who_reads_when_all_are_closed_reads_on_and_closes_last(
    handles: Handles, files: RecordingFiles
) -> None:
    read(handles, files, Place(2, 0))
    with handles.borrow(Place(1, 0)) as fd:
        handles.close()
        assert list(files.is_open.values()) == ["00000001.seg"]
        with handles.borrow(Place(1, 0)) as again:
            assert again != fd
            assert files.pread(again, 10, 0) == b"\1"
        assert list(files.is_open) == [fd]
        assert files.pread(fd, 10, 0) == b"\1"
    assert not files.is_open


def test_of_two_who_open_a_file_at_once_both_get_the_one_that_was_first(
    handles: Handles, files: RecordingFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = files.open

    def overtaken(path: Path, access: Access) -> int:
        monkeypatch.setattr(files, "open", really)
        handles.give_back(handles.take(Place(1, 0)))
        return really(path, access)

    monkeypatch.setattr(files, "open", overtaken)
    assert read(handles, files, Place(1, 0)) == b"\1"
    assert opened(files) == ["00000001.seg"] * 2
    assert len(files.is_open) == 1
    assert read(handles, files, Place(1, 0)) == b"\1"
    handles.close()
    assert not files.is_open


def test_who_was_overtaken_is_the_one_who_used_it_last(
    handles: Handles, files: RecordingFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles_module, "OPEN_FILES_MAX", 2)
    really = files.open

    def overtaken(path: Path, access: Access) -> int:
        monkeypatch.setattr(files, "open", really)
        for number in (1, 2):
            read(handles, files, Place(number, 0))
        return really(path, access)

    monkeypatch.setattr(files, "open", overtaken)
    for number in (1, 3):
        read(handles, files, Place(number, 0))
    assert sorted(files.is_open.values()) == ["00000001.seg", "00000003.seg"]


def test_a_large_shard_is_found_in_staging_and_where_it_stays(
    handles: Handles, files: RecordingFiles, paths: Paths
) -> None:
    paths.part(OWN.file).write_bytes(b"part")
    assert handles.path_of(OWN) == paths.part(OWN.file)
    paths.part(OWN.file).rename(paths.shard(OWN.file))
    assert handles.path_of(OWN) == paths.shard(OWN.file)
    assert read(handles, files, OWN) == b"part"
    assert handles.path_of(Place(3, 0)) == paths.segment(3)


def test_a_file_that_is_not_there_is_told(handles: Handles, files: RecordingFiles) -> None:
    for place in (OWN, Place(9, 0)):
        with pytest.raises(FileNotFoundError):
            read(handles, files, place)
    assert not files.is_open


def test_a_record_is_pinned_until_its_last_reader_lets_go(handles: Handles) -> None:
    place, other = Place(1, 4096), Place(1, 8192)
    assert not handles.is_pinned(place)
    pins = []
    for gives_way in (False, True):
        pins.append(handles.pin(place, gives_way=gives_way))
        assert (handles.is_pinned(place), handles.pinned) == (True, 1), pins
    another = handles.pin(other)
    assert handles.pinned == 2
    handles.unpin(another)
    for pin, still in zip(pins, (True, False), strict=True):
        handles.unpin(pin)
        assert handles.is_pinned(place) is still
    assert handles.pinned == 0


def test_whoever_gives_way_keeps_a_record_until_it_is_given_up_the_others_all_the_same(
    handles: Handles,
) -> None:
    place, other = Place(1, 4096), Place(1, 8192)
    giving_way = [handles.pin(place, gives_way=True) for _ in range(2)]
    staying, elsewhere = handles.pin(place), handles.pin(other, gives_way=True)
    handles.end_readers([place, Place(2, 0)])
    assert [pin.is_over for pin in (*giving_way, staying, elsewhere)] == [True, True, False, False]
    assert handles.is_pinned(place)
    handles.unpin(staying)
    assert not handles.is_pinned(place)
    for pin in giving_way:
        handles.unpin(pin)
    assert (handles.is_segment_pinned(1), handles.pinned) == (True, 1)
    handles.unpin(elsewhere)
    assert (handles.is_segment_pinned(1), handles.pinned) == (False, 0)


def test_a_file_that_was_opened_as_it_went_is_closed_by_whoever_opened_it(
    handles: Handles, files: RecordingFiles, paths: Paths
) -> None:
    paths.shard(OWN.file).write_bytes(b"part")
    pin = handles.pin(OWN, gives_way=True)
    handles.end_readers([OWN])
    read(handles, files, OWN)
    handles.unpin(pin)
    assert not files.is_open


def test_a_segment_is_pinned_by_any_of_its_records(handles: Handles) -> None:
    handles.pin(Place(2, 4096))
    handles.pin(OWN)
    assert [number for number in range(4) if handles.is_segment_pinned(number)] == [0, 2]
