"""Small files beside a volume's log: `book`, `met`, a scrub's notes, and what it is to do."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from zlib import crc32

from farmer.storage.directory import Paths
from farmer.storage.duty import Duty, Leaving, read_duty, write_duty
from farmer.storage.files import Access, Buffer
from farmer.storage.generation import Generation, Witness
from farmer.storage.met import note_met, read_met
from farmer.storage.scrub_notes import (
    PHASES,
    SEGMENTS_MAX,
    Notes,
    read_notes,
    write_notes,
)
from tests.fuzz.disk import PAGE, RENTER, VOLUME
from tests.fuzz.mutate import Picker, havoc
from tests.fuzz.target import Target
from tests.vectors.cast import stream

ROOT: Final = Path("/volume")
COPIES_AT: Final = (0, 4096)
COPY_BYTES: Final = 256
NUMBER_MAX: Final = 1 << 62
SHARD: Final = stream("shard", 32)
LATER: Final = Generation(stream("later book", 16), 1 << 40, b"later on")
VALUES: Final = (
    *(0, 1, 2, 255, 4096, 5000, 1 << 40, NUMBER_MAX - 1, NUMBER_MAX, 1 << 63, 1 << 70, 10**400),
    *(-1, 1.5, 1e308, float("inf"), float("nan"), True, False, None, [], {}, [1], {"a": 1}),
    *("", "x", "\0", "\ud800", "\udcff", "é" * 700, "1", *PHASES, *(one.value for one in Leaving)),
    *(VOLUME.hex(), VOLUME.hex().upper(), RENTER.raw.hex(), SHARD.hex()[:-1], SHARD.hex(" ")),
    *([7, 8], [1] * SEGMENTS_MAX, [1] * (SEGMENTS_MAX + 2), [NUMBER_MAX - 1] * 65, [-1], ["1"]),
)
"""What may stand where another value was expected."""

NOISE: Final = (b"[" * 4000, b'{"a":' * 700, b"1e999", b'"\\ud800"', b"9" * 4000, b"\xff\xfe")


class Folder:
    """`Files` in memory: all that reading and writing a small file asks for."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.files: dict[Path, bytearray] = {
            path: bytearray(content),
            Paths(ROOT).marker: bytearray(),
        }
        self._open: dict[int, Path] = {}
        self._numbers = itertools.count(3)

    @property
    def is_closed(self) -> bool:
        """Whether no file was left open."""
        return not self._open

    def open(self, path: Path, access: Access) -> int:
        if access in {Access.CREATE, Access.ENSURE}:
            self.files.setdefault(path, bytearray())
        elif path not in self.files:
            raise FileNotFoundError(path)
        number = next(self._numbers)
        self._open[number] = path
        return number

    def close(self, fd: int) -> None:
        del self._open[fd]

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        return bytes(self.files[self._open[fd]][offset : offset + length])

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        file, whole = self.files[self._open[fd]], b"".join(map(bytes, buffers))
        file.extend(bytes(max(0, offset - len(file))))
        file[offset : offset + len(whole)] = whole

    def sync_data(self, fd: int) -> None:
        assert fd in self._open

    def uncache(self, fd: int, offset: int, length: int) -> None:
        assert fd in self._open

    def sync_directory(self, path: Path) -> None:
        assert path == ROOT

    def exists(self, path: Path) -> bool:
        return path in self.files

    def unlink(self, path: Path) -> None:
        self.files.pop(path, None)

    def rename(self, source: Path, target: Path) -> None:
        self.files[target] = self.files.pop(source)


class BookNote(Target):
    """What a volume remembers of the contract database: two copies, one of which may be torn."""

    name = "book-note"
    executions = 40_000

    def seeds(self) -> list[bytes]:
        pairs = [(1, 2), (8, 7), (1 << 30, 0)]
        return [self._file(*pair) for pair in pairs] + [self._file(1, 0)[:COPY_BYTES]]

    def _file(self, *counters: int) -> bytes:
        return b"".join(map(self._copy, counters)).ljust(COPIES_AT[1] + COPY_BYTES, b"\0")

    def _copy(self, counter: int) -> bytes:
        front = b"FARMBOK\0\0\1" + bytes(6) + stream("book", 16)
        front += counter.to_bytes(8, "big") + stream(f"stamp {counter}", 8)
        front = front.ljust(COPY_BYTES - 4, b"\0")
        return (front + crc32(front).to_bytes(4, "big")).ljust(PAGE, b"\0")

    def mutate(self, pick: Picker, seed: bytes, other: bytes) -> bytes:
        """Change a copy more often than the zeros behind it."""
        at = pick.one(COPIES_AT)
        if pick.chance() < 0.2:
            return havoc(pick, seed, other)
        copy, rest = seed[at : at + COPY_BYTES], seed[at + COPY_BYTES :]
        return seed[:at] + havoc(pick, copy, other[:48], grow=False) + rest

    def mend(self, pick: Picker, data: bytes, seed: bytes) -> bytes:
        raw = bytearray(data[: len(seed)] + seed[len(data) :])
        for at in COPIES_AT:
            if at + COPY_BYTES <= len(raw):
                raw[at : at + 8] = seed[at : at + 8]
                if pick.chance() < 0.9:
                    raw[at + 8 : at + 10] = seed[at + 8 : at + 10]
                end = at + COPY_BYTES
                raw[end - 4 : end] = crc32(raw[at : end - 4]).to_bytes(4, "big")
        return bytes(raw)

    def run(self, data: bytes) -> bool:
        folder = Folder(Paths(ROOT).book, data)
        seen = self._recalled(folder)
        copies = [data[at : at + COPY_BYTES] for at in COPIES_AT]
        for one in seen:
            assert 0 <= one.counter < NUMBER_MAX, "a number that the database cannot hold"
            front = b"FARMBOK\0\0\1", one.book + one.counter.to_bytes(8, "big") + one.stamp
            fitting = [copy for copy in copies if (copy[:10], copy[16:48]) == front]
            assert fitting, "what is in neither copy"
            assert any(map(self._is_whole, fitting)), "a torn copy believed"
        self._is_noted(folder, seen)
        return bool(seen)

    def _is_whole(self, copy: bytes) -> bool:
        right = crc32(copy[:-4]).to_bytes(4, "big")
        return len(copy) == COPY_BYTES and copy[-4:] == right

    def _recalled(self, folder: Folder) -> tuple[Generation, ...]:
        witness = Witness(folder, Paths(ROOT))  # type: ignore[arg-type]
        witness.recall()
        witness.close()
        assert folder.is_closed, "a file was left open"
        return witness.seen

    def _is_noted(self, folder: Folder, seen: tuple[Generation, ...]) -> None:
        """Whatever stood there, the next note is found again, and the newest before it."""
        witness = Witness(folder, Paths(ROOT))  # type: ignore[arg-type]
        witness.note(LATER)
        witness.close()
        after = self._recalled(folder)
        assert LATER in after, "what was noted is not found"
        if seen:
            newest = max(one.counter for one in seen)
            assert newest in {one.counter for one in after}, "the newest was written over"


class Text(Target):
    """A small file of JSON; the door is that it is such a file of ours, with sound values."""

    executions = 40_000
    mended = 0.75

    def mutate(self, pick: Picker, seed: bytes, other: bytes) -> bytes:
        if pick.chance() < 0.1:
            at = pick.below(len(seed) + 1) if pick.chance() < 0.5 else 0
            return seed[:at] + pick.one(NOISE) + seed[at + pick.below(9) :]
        return havoc(pick, seed, other)

    def mend(self, pick: Picker, data: bytes, seed: bytes) -> bytes:
        """Write sound JSON with another value somewhere, or some bytes of a text changed."""
        document = json.loads(seed)
        name = pick.one(sorted(document.keys() - {"format"}))
        match pick.below(16):
            case 0:
                document[pick.one(("comment", "format", "until_ms"))] = pick.one(VALUES)
            case 1:
                document.pop(name)
            case 2:
                return json.dumps(pick.one((document, [document], *VALUES))).encode()
            case 3 | 4 | 5:
                document[name] = pick.one(VALUES)
            case _:
                document[name] = self._near(pick, document[name])
        return json.dumps(document, indent=pick.one((None, 1)), allow_nan=True).encode()

    def _near(self, pick: Picker, value: Any) -> Any:
        """Return a value that may well stand there."""
        if type(value) is int:
            return pick.one((0, value + 1, pick.below(1 << 20), pick.below(NUMBER_MAX)))
        if type(value) is bool:
            return pick.chance() < 0.5
        if isinstance(value, list):
            return [pick.below(1 << 16) for _ in range(pick.below(9))]
        return value


class MetNote(Text):
    """Up to which sequence tombstones mean nothing."""

    name = "met-note"
    mended = 0.95

    def seeds(self) -> list[bytes]:
        numbers = (1, 1234, NUMBER_MAX // 2 - 1)
        return [json.dumps({"format": 1, "sequence": one}).encode() + b"\n" for one in numbers]

    def run(self, data: bytes) -> bool:
        folder: Any = Folder(Paths(ROOT).met, data)
        sequence = read_met(folder, ROOT)
        assert folder.is_closed, "a file was left open"
        assert type(sequence) is int and sequence >= 0
        assert sequence < NUMBER_MAX // 2, "above it there are too few for what is to come"
        if sequence:
            assert json.loads(data)["sequence"] == sequence, "another sequence"
        note_met(folder, ROOT, sequence)
        assert read_met(folder, ROOT) == sequence, "what is noted is not what is read"
        return sequence > 0


class ScrubNotes(Text):
    """How far a scrub is; anything that is not notes means a new pass."""

    name = "scrub-notes"

    def seeds(self) -> list[bytes]:
        place = {"renter": RENTER.raw.hex(), "shard": SHARD.hex()}
        every = (
            Notes(),
            Notes(phase="log", segment=3, offset=8192, done_bytes=77, began_ms=1_790_000_000_000),
            Notes(phase="files", shelf=255, spotted=[3, 4], doubtful=[9], is_paused=True),
            Notes(phase="rows", **place, checked=12, damaged=1, mended=2, disagreements=3),
            Notes(phase="index", spotted=list(range(SEGMENTS_MAX + 1)), ended_ms=1 << 40),
        )
        return [json.dumps({"format": 1} | asdict(one)).encode() for one in every]

    def run(self, data: bytes) -> bool:
        folder = Folder(Paths(ROOT).scrub_notes, data)
        ground: Any = SimpleNamespace(files=folder, paths=Paths(ROOT))
        notes = read_notes(ground)
        assert folder.is_closed, "a file was left open"
        self._are_sound(notes)
        write_notes(ground, notes)
        assert read_notes(ground) == notes, "what is noted is not what is read"
        return notes != Notes()

    def _are_sound(self, notes: Notes) -> None:
        blank = Notes()
        for one in fields(Notes):
            value = getattr(notes, one.name)
            assert type(value) is type(getattr(blank, one.name)), one.name
            numbers = value if isinstance(value, list) else [value]
            for number in numbers:
                fits = type(number) is not int or 0 <= number < NUMBER_MAX
                assert fits, "a number that the index cannot hold"
        assert notes.phase in {"", *PHASES} and notes.offset % PAGE == 0, "no record begins there"
        key = notes.last_key
        spelt = ("", "") if key is None else (str(key[0]), str(key[1]))
        assert (notes.renter, notes.shard) == spelt, "another spelling"


class DutyNote(Text):
    """What the owner wants done with a volume."""

    name = "duty-note"

    def seeds(self) -> list[bytes]:
        every = (
            Duty(verb=Leaving.DRAIN, since_ms=0),
            Duty(verb=Leaving.RETIRE, since_ms=1_790_000_000_000, rate_bytes=1 << 20, force=True),
            Duty(verb=Leaving.MOVE, since_ms=5, to=VOLUME.hex(), to_path="/srv/new", remove=True),
        )
        rows = [{"format": 1} | asdict(one) | {"verb": one.verb.value} for one in every]
        return [json.dumps(row).encode() for row in rows]

    def run(self, data: bytes) -> bool:
        folder: Any = Folder(Paths(ROOT).duty, data)
        duty = read_duty(folder, ROOT)
        assert folder.is_closed, "a file was left open"
        if duty is None:
            return False
        assert isinstance(duty.verb, Leaving)
        for number in (duty.since_ms, duty.rate_bytes):
            assert type(number) is int and 0 <= number < NUMBER_MAX, "no such number"
        assert {type(duty.force), type(duty.remove)} == {bool}, "neither yes nor no"
        assert isinstance(duty.to, str)
        assert b"\0" not in os.fsencode(duty.to_path), "a path that no directory has"
        write_duty(folder, ROOT, duty)
        assert read_duty(folder, ROOT) == duty, "what is written is not what is read"
        return True


TARGETS: Final = (BookNote, MetNote, ScrubNotes, DutyNote)
