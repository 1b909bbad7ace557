"""Many plain records at once are the same records as one by one, whatever the log looks like."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from zlib import crc32

import pytest

from farmer.storage.bulk import PlainRow, pack, row_of_plain
from farmer.storage.files import Access, OsFiles
from farmer.storage.index import Index, create_index
from farmer.storage.index_errors import IndexDamagedError
from farmer.storage.operations import row_of
from farmer.storage.places import Place, Row
from farmer.storage.plain import Plain, walk
from farmer.storage.records import SEGMENT_HEADER_BYTES, decode_segment
from farmer.storage.scan import Damaged, Found, Hole, Source, scan
from tests.storage.bench import ALICE, BOB, Farm, noise

VOLUME = bytes(16)


def read(path: Path, *, verify: bool, plainly: bool) -> list[object]:
    """Return what is found in a segment, rows as rows."""
    files = OsFiles()
    fd = files.open(path, Access.READ)
    size = files.size(fd)
    header = decode_segment(files.pread(fd, SEGMENT_HEADER_BYTES, 0), path.name)
    source = Source(files, fd, header.segment, path.name)
    found: list[object] = []
    plain = walk(source, 1, 4096, size, verify=verify)
    for one in plain if plainly else scan(source, 4096, size, verify=verify):
        match one:
            case Plain(rows, end):
                found += map(row_of_plain, rows)
                found.append(end)
            case Found() if not one.payload:
                found += [row_of(one.header, Place(1, one.offset)), one.end]
            case Found() | Damaged() | Hole():
                found.append(one)
    files.close(fd)
    return [one for one in found if not isinstance(one, int)] + found[-1:]


@pytest.fixture
def segment(tmp_path: Path) -> Path:
    """A segment with a little of everything."""
    farm, rng = Farm(tmp_path), random.Random(1)
    sizes = [0, 1, 1000, 4000, 65_536, 65_537, 200_000]
    for number in range(120):
        data = noise(rng.choice(sizes[: rng.choice((4, 7))]), number % 40)
        stored = farm.store(data, rng.choice((ALICE, BOB)))
        if rng.random() < 0.3:
            farm.delete(stored.shard, stored.renter, erase=rng.random() < 0.5)
    farm.engine.close()
    return farm.path / "log" / "00000001.seg"


@pytest.mark.parametrize("verify", [True, False])
def test_plain_reading_finds_what_the_scan_finds(segment: Path, *, verify: bool) -> None:
    """Sound, damaged anywhere, cut off anywhere: both say the same."""
    whole = segment.read_bytes()
    rng = random.Random(2)
    starts = [at for at in range(4096, len(whole), 4096) if whole[at:].startswith(b"FARMREC")]
    for round_ in range(120):
        raw = bytearray(whole)
        for _ in range(rng.randrange(4) if round_ else 0):
            at = rng.randrange(4096, len(raw))
            if rng.random() < 0.5:
                at = at // 4096 * 4096 + rng.randrange(256)
            raw[at] ^= 1 << rng.randrange(8)
            _spoil(raw, rng.choice(starts), rng)
        if rng.random() < 0.3:
            del raw[rng.randrange(4096, len(raw)) :]
        segment.write_bytes(raw)
        assert read(segment, verify=verify, plainly=True) == read(
            segment, verify=verify, plainly=False
        )


def _spoil(raw: bytearray, at: int, rng: random.Random) -> None:
    """Change a trailer; or a header, and make its checksum right again."""
    size = min(200_000, int.from_bytes(raw[at + 40 : at + 48], "big"))
    if rng.random() < 0.5:
        raw[min(len(raw) - 1, at + 256 + size + rng.randrange(36))] ^= 1
        return
    if rng.random() < 0.2:
        raw[at + 15] ^= 2  # known to be damaged
    offset = rng.choice([*range(10, 36), *range(40, 52), *range(136, 184, 8)])
    raw[at + offset] ^= 1 << rng.randrange(8)
    raw[at + 252 : at + 256] = crc32(raw[at : at + 252]).to_bytes(4, "big")


def plain(number: int, shard: int, sequence: int) -> PlainRow:
    at = number * 4096
    return pack(ALICE.raw, shard.to_bytes(32, "big"), 1, at, 10, bytes(16), 7, sequence, 4096)


def totals(index: Index) -> tuple[list[Row], object, object]:
    return index.some(None, 10_000), index.totals(), index.doomed()


@pytest.mark.parametrize("seed", range(6))
def test_plain_rows_are_entered_as_all_others(tmp_path: Path, seed: int) -> None:
    """Shards that come twice, in one batch or in two, leave the later record."""
    rng = random.Random(seed)
    rows = [plain(n, rng.randrange(400), n + 1) for n in range(600)]
    rng.shuffle(rows)
    results = []
    for how in ("at once", "one by one"):
        index = create_index(tmp_path / how, VOLUME)
        for part in (rows[:350], rows[350:]):
            with index.transaction() as transaction:
                transaction.open_segment(1, bytes(16))
                if how == "at once":
                    transaction.put_plain({1: part})
                else:
                    for row in part:
                        transaction.put(row_of_plain(row))
        results.append(totals(index))
        index.finish()
        assert totals(index) == results[-1]
        index.close(clean=True)
    assert results[0] == results[1]


@pytest.mark.parametrize("again", [1, 63, 64, 100])
def test_an_index_that_has_the_very_records_already_is_no_good(tmp_path: Path, again: int) -> None:
    """Their space would be counted twice: it is made anew."""
    index = create_index(tmp_path / "index.sqlite", VOLUME)
    rows = [plain(n, n, n + 1) for n in range(100)]
    with index.transaction() as transaction:
        transaction.open_segment(1, bytes(16))
        transaction.put_plain({1: rows[:again]})
    with pytest.raises(IndexDamagedError), index.transaction() as transaction:
        transaction.put_plain({1: rows})
    index.close(clean=False)


def test_an_index_is_complete_only_when_it_was_finished(tmp_path: Path) -> None:
    """What a crash leaves of one that is being made is no index."""
    path = tmp_path / "index.sqlite"
    index = create_index(path, VOLUME)
    with index.transaction() as transaction:
        transaction.open_segment(1, bytes(16))
        transaction.put_plain({1: [plain(n, n, n + 1) for n in range(100)]})
    with pytest.raises(IndexDamagedError):
        Index(path, VOLUME)
    index.finish()
    index.close(clean=True)
    again = Index(path, VOLUME)
    assert len(again.some(None, 1000)) == 100
    again.close(clean=True)


def test_a_new_index_is_durable_before_it_is_called_complete(tmp_path: Path) -> None:
    """The database is synced between the last row and the word that it is complete."""
    said: list[str] = []

    def connect(path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.set_trace_callback(said.append)
        return connection

    index = create_index(tmp_path / "index.sqlite", VOLUME, connect)
    index.finish()
    index.close(clean=True)
    full = said.index("PRAGMA synchronous=FULL")
    complete = said.index("UPDATE state SET complete = 1")
    written = [at for at, line in enumerate(said) if line.startswith("UPDATE") and at > full]
    assert full < written[0] < complete
    assert "PRAGMA journal_mode=WAL" in said[full:complete]
