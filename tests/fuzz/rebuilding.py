"""A whole small volume without its index, and the index that a rebuild makes of it."""

from __future__ import annotations

import errno
import itertools
import json
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from farmer.storage.directory import VolumeSettings
from farmer.storage.errors import FormatTooNewError
from farmer.storage.files import Access, Buffer
from farmer.storage.index_file import INDEX_FILES
from farmer.storage.marks import Action
from farmer.storage.opening import rebuild_index
from farmer.storage.records import Kind, trailer_length
from tests.fuzz.disk import (
    NODE,
    PAGE,
    VOLUME,
    change_pages,
    check_found,
    marks,
    mend_pages,
    record,
    segment_header,
)
from tests.fuzz.mutate import Picker
from tests.fuzz.target import Target
from tests.vectors.cast import stream

SECOND: Final = stream("segment 2", 16)
LARGE: Final = stream("large", 16)
STAGED: Final = stream("staged", 16)
ROOT: Final = Path("/volume")
NAMES: Final = (
    "log/00000001.seg",
    "log/00000002.seg",
    f"shards/{LARGE[0]:02x}/{LARGE.hex()}.seg",
    f"staging/{STAGED.hex()}.part",
)
"""What an input has, in this order, each file filled up to whole pages of 4096 bytes."""


def volume_image() -> tuple[bytes, tuple[int, ...]]:
    """Return the files one after the other, and how many pages each has."""
    first = [segment_header(), record(b"a" * 100, 1), record(b"b" * 9000, 2), record(b"c", 3)]
    first += [marks(4, [(Action.TRASH, 2), (Action.GONE, 1)]), record(b"d" * 3804, 5)]
    whole = b"".join(first)
    second = [segment_header(2, SECOND, len(whole)), record(b"e" * 10, 6, SECOND)]
    second += [marks(7, [(Action.QUARANTINE, 3)], SECOND), record(b"f" * 5000, 8, SECOND)]
    files = [
        *(whole, b"".join(second), record(b"l" * 5000, 9, LARGE)),
        record(b"s" * 3000, 0, STAGED, kind=Kind.STAGING),
    ]
    return b"".join(files), tuple(len(file) // PAGE for file in files)


class Rebuild(Target):
    """The volume's files one after the other; the rebuild's index is compared with the bytes."""

    name = "rebuild"
    executions = 3_000
    cost = 20
    memory_bytes = 8 << 20

    def __init__(self) -> None:
        self._image, self._pages = volume_image()
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def seeds(self) -> list[bytes]:
        return [self._image]

    def mutate(self, pick: Picker, seed: bytes, other: bytes) -> bytes:
        return change_pages(pick, seed, other)

    def mend(self, pick: Picker, data: bytes, seed: bytes) -> bytes:
        return mend_pages(pick, data, seed)

    def run(self, data: bytes) -> bool:
        if self._folder is None:
            memory = Path("/dev/shm")
            self._folder = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
        root = Path(self._folder.name)
        disk = Disk(root, self._files(data))
        settings = VolumeSettings(root, 64 << 20)
        try:
            recovered = rebuild_index(settings, NODE, disk, lambda _number, _last: None)
        except FormatTooNewError:
            return True
        finally:
            assert not disk.open_files, "a file was left open"
        rows = self._rows(root / INDEX_FILES[0])
        for segment, offset, file, size, sequence in rows:
            name = (
                f"log/{segment:08d}.seg" if segment else f"shards/{file[0]:02x}/{file.hex()}.seg"
            )
            if name not in disk.files:
                name = f"staging/{file.hex()}.part"
            self._check_row(disk.files[name], offset, file, size, sequence, name)
        assert recovered.records >= 0
        return len(rows) >= 2

    def _check_row(
        self, raw: bytes, offset: int, file: bytes | None, size: int, sequence: int, name: str
    ) -> None:
        header = raw[offset : offset + 256]
        assert int.from_bytes(header[32:40], "big") == sequence, "another record's sequence"
        assert int.from_bytes(header[40:48], "big") == size, "another record's size"
        assert int.from_bytes(header[48:52], "big") == trailer_length(size)
        assert offset + 256 + size <= len(raw), "a record that is not whole"
        # Only the last segment is read whole by a rebuild; reads and the scrub do the others.
        if name == NAMES[1] and not header[15] & 2:
            uuid = header[16:32] if file is None else file
            try:
                check_found(raw, offset, uuid)
            except AssertionError:
                quarantined = self._state(sequence) == 2
                assert quarantined, "a damaged record was entered as a sound one"

    def _rows(self, path: Path) -> list[tuple[int, int, bytes, int, int]]:
        index = sqlite3.connect(path)
        try:
            rows = index.execute(
                "SELECT segment, offset, file, size, sequence, state FROM shards"
            ).fetchall()
        finally:
            index.close()
        self._states = {row[4]: row[5] for row in rows}
        return [row[:5] for row in rows]

    def _state(self, sequence: int) -> int:
        return self._states[sequence]

    def _files(self, data: bytes) -> dict[str, bytes]:
        ends = list(itertools.accumulate(pages * PAGE for pages in self._pages))
        parts = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        return {name: part for name, part in zip(NAMES, parts, strict=True) if part}

    def close(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


class Disk:
    """`Files` in memory below one directory; SQLite's own files are real."""

    def __init__(self, root: Path, files: dict[str, bytes]) -> None:
        self._root = root
        self.files = files
        fields = {"format": 1, "volume": VOLUME.hex(), "node": str(NODE), "created_ms": 1}
        files["farmer-volume.json"] = json.dumps(fields).encode()
        files["lock"] = b""
        self.open_files: dict[int, str] = {}
        self._numbers = itertools.count(100)

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._root))

    def open(self, path: Path, access: Access) -> int:
        name = self._name(path)
        if name in INDEX_FILES and access is Access.ENSURE:
            path.touch()
        elif name not in self.files:
            raise FileNotFoundError(errno.ENOENT, "no such file", name)
        number = next(self._numbers)
        self.open_files[number] = name
        return number

    def close(self, fd: int) -> None:
        del self.open_files[fd]

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        assert offset >= 0 and 0 <= length <= 1 << 34, (offset, length)
        return self.files[self.open_files[fd]][offset : offset + length]

    def pwritev(self, _fd: int, _buffers: Sequence[Buffer], _offset: int) -> None:
        raise AssertionError("a rebuild writes nothing but the index")

    def size(self, fd: int) -> int:
        return len(self.files[self.open_files[fd]])

    def truncate(self, fd: int, length: int) -> None:
        name = self.open_files[fd]
        self.files[name] = self.files[name][:length]

    def sync_data(self, fd: int) -> None:
        assert fd in self.open_files

    def uncache(self, fd: int, offset: int, length: int) -> None:
        assert fd in self.open_files

    def sync_directory(self, path: Path) -> None:
        pass

    def exists(self, path: Path) -> bool:
        name = self._name(path)
        return name in self.files or any(one.startswith(f"{name}/") for one in self.files)

    def list(self, path: Path) -> list[str]:
        below = f"{self._name(path)}/"
        return sorted(
            {one[len(below) :].split("/")[0] for one in self.files if one.startswith(below)}
        )

    def unlink(self, path: Path) -> None:
        name = self._name(path)
        if name in INDEX_FILES:
            path.unlink(missing_ok=True)
        self.files.pop(name, None)

    def lock(self, _fd: int) -> bool:
        return True


TARGETS: Final = (Rebuild,)
