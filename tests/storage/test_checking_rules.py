"""What a look at a volume says, word by word, of what is wrong, and what it does not say."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from farmer.model.ids import NodeId, ShardId
from farmer.storage import checking as checking_module
from farmer.storage.checking import FINDINGS_MAX, Checked, check_volume
from farmer.storage.directory import MARKER_NAME, create_volume
from farmer.storage.files import Access, OsFiles
from tests.storage.bench import BOB, MIB, NODE, Farm, noise
from tests.storage.recording import Always, RecordingFiles
from tests.storage.rot import file_of, flip, overwrite, row_of, volume_of

SMALL = 5000


class Bench:
    """A volume with two small shards and a large one."""

    def __init__(self, root: Path) -> None:
        self.farm = Farm(root)
        self.shards = [self.farm.store(noise(SMALL, number)).shard for number in range(2)]
        self.large = self.farm.store(noise(MIB + 1)).shard
        self.rows = [row_of(self.farm, shard) for shard in (*self.shards, self.large)]
        self.farm.reopen()
        self.file = file_of(self.farm, row_of(self.farm, self.large))
        self.segment = self.farm.path / "log/00000001.seg"
        self.path = self.farm.path

    def close(self) -> None:
        self.farm.engine.close()

    def check(self, files: OsFiles | RecordingFiles | None = None) -> Checked:
        return check_volume(self.path, NODE, files or OsFiles())

    def said(self) -> list[str]:
        return list(self.check().findings)

    def sql(self, statement: str, *values: Any) -> int:
        """Change the index behind the engine's back; return how many rows."""
        with closing(sqlite3.connect(self.path / "index.sqlite", isolation_level=None)) as sql:
            return sql.execute(statement, values).rowcount


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    made.close()
    yield made


def test_what_is_in_order_is_counted(bench: Bench) -> None:
    assert bench.check() == Checked(1, 3, ())


def test_segments_and_the_shards_in_each_are_counted(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    with closing(farm.engine):
        for number in range(12):
            farm.store(noise(900_000, number))
    assert check_volume(farm.path, NODE, OsFiles()) == Checked(3, 12, ())


def test_a_volume_that_was_never_opened_has_nothing(tmp_path: Path) -> None:
    create_volume(tmp_path / "new", NODE, OsFiles(), 0)
    assert check_volume(tmp_path / "new", NODE, OsFiles()) == Checked(0, 0, ())


def test_one_of_another_farmer_is_not_looked_at(bench: Bench) -> None:
    checked = check_volume(bench.path, NodeId(b"x" * 32), OsFiles())
    assert (checked.segments, checked.shards, len(checked.findings)) == (0, 0, 1)


def test_a_record_whose_header_is_damaged_is_missed_by_its_row(bench: Bench) -> None:
    row = bench.rows[0]
    flip(bench.segment, row.place.offset + 60)
    assert bench.said() == [f"00000001.seg at 4096: {row.shard} does not stand there"]
    assert bench.sql("UPDATE shards SET damaged = 1 WHERE offset = 4096") == 1
    assert bench.said() == [], "that it is damaged is known"


def test_damage_where_no_row_stands_is_told(bench: Bench) -> None:
    end = bench.segment.stat().st_size
    at = bench.rows[1].place.offset
    assert bench.sql("DELETE FROM shards WHERE offset = ?", at) == 1
    assert bench.sql("UPDATE usage SET shards = shards - 1") == 1
    assert bench.said() == [f"00000001.seg at {at}: the index does not know it"]
    flip(bench.segment, at + 60)
    assert bench.said() == [f"00000001.seg at {at}: no sound record"]
    overwrite(bench.segment, at, bytes(end - at))
    assert bench.said() == [], "a hole is in order"


@pytest.mark.parametrize("what", ["sequence", "size"])
def test_a_row_of_which_the_record_says_otherwise_is_told(bench: Bench, what: str) -> None:
    assert bench.sql(f"UPDATE shards SET {what} = {what} + 1 WHERE offset = 4096") == 1
    shard = bench.rows[0].shard
    assert bench.said() == [f"00000001.seg at 4096: another record than {shard}"]


def test_a_row_of_another_shard_or_of_another_renter_is_told(tmp_path: Path) -> None:
    one = Bench(tmp_path)
    one.farm.store(noise(SMALL, 0), BOB)
    one.close()
    strange = ShardId(b"\xee" * 32)
    assert one.sql("UPDATE shards SET shard = ? WHERE offset = 4096", strange.raw) == 1
    assert one.said() == [f"00000001.seg at 4096: another record than {strange}"]
    assert one.sql("UPDATE shards SET shard = ? WHERE offset = 4096", one.shards[0].raw) == 1
    assert one.sql("UPDATE renters SET renter = ? WHERE renter = ?", b"x" * 32, BOB.raw) == 1
    (said,) = one.said()
    assert said.endswith(f"another record than {one.shards[0]}")


def test_a_file_of_which_the_row_says_otherwise_is_told(bench: Bench) -> None:
    assert bench.sql("UPDATE shards SET sequence = 99 WHERE segment = 0") == 1
    assert bench.said() == [f"{bench.file.name}: another record than {bench.large}"]


def test_a_file_that_is_gone_or_damaged_or_strange_is_told(bench: Bench) -> None:
    strange = bench.file.with_name("ab" * 16 + ".seg")
    strange.write_bytes(b"")
    stranger = f"shards/{strange.parent.name}/{strange.name}: the index does not know it"
    assert bench.said() == [stranger]
    strange.unlink()
    flip(bench.file, 60)
    assert bench.said() == [f"{bench.file.name}: no sound record of {bench.large}"]
    assert bench.sql("UPDATE shards SET damaged = 1 WHERE segment = 0") == 1
    assert bench.said() == []
    bench.file.unlink()
    (said,) = bench.said()
    assert said == (f"{bench.file.name} cannot be read (No such file or directory): {bench.large}")


def test_files_of_others_among_the_large_shards_are_no_damage(bench: Bench) -> None:
    (bench.file.parent.parent / ".DS_Store").write_bytes(b"x")
    bench.file.with_name("Thumbs.db").write_bytes(b"x")
    thumbs = bench.file.parent.parent / ".@__thumb"
    thumbs.mkdir()
    (thumbs / "a.jpg").write_bytes(b"x")
    assert bench.said() == []


def test_a_file_that_is_given_up_is_no_stranger(bench: Bench) -> None:
    assert bench.sql("DELETE FROM shards WHERE segment = 0") == 1
    assert bench.sql("UPDATE usage SET shards = shards - 1") == 1
    assert len(bench.said()) == 1
    uuid = bytes.fromhex(bench.file.stem)
    columns = "(sequence, segment, offset, length, file)"
    bench.sql(f"INSERT INTO doomed {columns} VALUES (77, 0, 0, 4096, ?)", uuid)
    assert bench.said() == []


def test_a_record_that_is_given_up_is_no_stranger(bench: Bench) -> None:
    assert bench.sql("DELETE FROM shards WHERE offset = 4096") == 1
    assert bench.sql("UPDATE usage SET shards = shards - 1") == 1
    assert bench.said() == ["00000001.seg at 4096: the index does not know it"]
    columns = "(sequence, segment, offset, length, file)"
    bench.sql(f"INSERT INTO doomed {columns} VALUES (77, 1, 4096, 8192, NULL)")
    assert bench.said() == []
    bench.sql("UPDATE doomed SET segment = 2")
    assert bench.said() == ["00000001.seg at 4096: the index does not know it"]


def test_a_large_shard_in_staging_is_looked_at_there(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    with closing(farm.engine):
        farm.store(noise(MIB + 1))
        assert len(list((farm.path / "staging").iterdir())) == 1
        assert check_volume(farm.path, NODE, OsFiles()) == Checked(1, 1, ())


def test_a_segment_that_is_gone_is_told_with_what_stood_there(bench: Bench) -> None:
    bench.segment.unlink()
    expected = (
        "00000001.seg cannot be opened (No such file or directory):"
        " 2 shards of the index stand there"
    )
    assert bench.said() == [expected]
    assert bench.sql("DELETE FROM shards WHERE segment = 1") == 2
    assert bench.sql("UPDATE usage SET shards = shards - 2") == 1
    assert bench.said() == [expected.replace("2 shards", "0 shards")], "deletions may stand there"
    assert bench.sql("UPDATE segments SET size = 4096") == 1
    assert bench.said() == [], "it was made, and nothing ever stood in it"


def forge(path: Path, at: int) -> None:
    """Change a segment's header, and make its checksum right again."""
    raw = bytearray(path.read_bytes()[:256])
    raw[at] ^= 1
    raw[252:] = crc32(raw[:252]).to_bytes(4, "big")
    overwrite(path, 0, bytes(raw))


@pytest.mark.parametrize("at", [16, 32, 55])
def test_a_segment_of_another_volume_uuid_or_number_is_told(bench: Bench, at: int) -> None:
    forge(bench.segment, at)
    assert bench.said() == ["00000001.seg is another segment than the index says"]


def test_a_segment_whose_header_is_damaged_is_told_and_its_records_are_looked_at(
    bench: Bench,
) -> None:
    flip(bench.segment, 20)
    assert bench.said() == ["00000001.seg: its header is damaged"]
    flip(bench.segment, 4096 + 60)
    assert len(bench.said()) == 2


def test_what_stands_behind_the_end_of_a_segment_was_never_acknowledged(bench: Bench) -> None:
    with bench.segment.open("ab") as file:
        file.write(noise(8192))
    assert bench.said() == []


def test_a_segment_that_is_shorter_than_the_index_says_is_told_of_what_is_missing(
    bench: Bench,
) -> None:
    last = bench.rows[1]
    with bench.segment.open("r+b") as file:
        file.truncate(last.place.offset)
    assert bench.said() == [
        f"00000001.seg at {last.place.offset}: {last.shard} does not stand there"
    ]


def test_a_segment_that_cannot_be_read_is_told(bench: Bench) -> None:
    class Unsized(RecordingFiles):
        def size(self, fd: int) -> int:
            raise OSError(errno.ENODEV, "No such device")

    checked = bench.check(Unsized())
    assert "00000001.seg cannot be read to its end (No such device)" in checked.findings
    assert checked.shards == 3, "the rest is looked at"


def test_an_index_that_counts_otherwise_than_it_has_is_told(bench: Bench) -> None:
    assert bench.sql("UPDATE usage SET shards = shards + 1") == 1
    assert bench.said() == ["the index has 3 shards, but counts 4"]
    assert bench.sql("DELETE FROM usage") == 1
    assert bench.said() == ["the index has 3 shards, but counts 0"]


def test_an_index_that_sqlite_finds_damaged_is_told(bench: Bench) -> None:
    # The file's head counts pages that are free; there are none.
    overwrite(bench.path / "index.sqlite", 36, b"\0\0\0\5")
    assert any(said.startswith("the index is damaged (") for said in bench.said())


def test_an_index_that_is_none_is_told_with_what_to_do(bench: Bench) -> None:
    (bench.path / "index.sqlite").write_bytes(b"x" * 9000)
    (said,) = bench.said()
    assert said.startswith("the index cannot be read (")
    assert said.endswith("): farmer volume rebuild")


def test_what_passes_was_a_change_and_is_not_told(bench: Bench) -> None:
    """What looks wrong is looked at twice."""
    for struck, said in ((1, 0), (2, 1)):
        files = Failing(struck)
        assert len(bench.check(files).findings) == said
        assert files.looks == 2


class Failing(RecordingFiles):
    """The log cannot be opened the first time, or the first few times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.looks = 0

    def open(self, path: Path, access: Access) -> int:
        if path.name == "00000001.seg":
            self.looks += 1
            if self.looks <= self.times:
                raise OSError(errno.EIO, "Input/output error")
        return super().open(path, access)


def test_the_index_is_not_held_while_the_disk_is_read(tmp_path: Path) -> None:
    """A large disk takes hours, and all that while its write-ahead log would grow."""
    bench = Bench(tmp_path)
    busy: list[int] = []

    class Watched(OsFiles):
        def open(self, path: Path, access: Access) -> int:
            if path.suffix == ".seg":
                number = len(busy)
                bench.sql("UPDATE state SET clean = ?", number)
                with closing(sqlite3.connect(bench.path / "index.sqlite")) as sql:
                    cut = sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                busy.append(cut[0])
            return super().open(path, access)

    try:
        assert bench.check(Watched()).findings == ()
        assert busy == [0, 0]
    finally:
        bench.close()


def test_a_full_temporary_directory_is_told_as_that(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as a damaged index, which would be made again for nothing."""
    real = checking_module.index_to_read

    def cramped(path: Path, patience_s: float) -> sqlite3.Connection:
        index = real(path, patience_s)
        index.execute("PRAGMA temp.max_page_count = 1")
        return index

    monkeypatch.setattr(checking_module, "index_to_read", cramped)
    (told,) = bench.said()
    assert "no room for a copy of the index" in told
    assert "SQLITE_TMPDIR" in told


def test_a_volume_that_is_in_order_is_looked_at_once(bench: Bench) -> None:
    files = Failing(0)
    assert bench.check(files).findings == ()
    assert files.looks == 1


def test_the_disk_s_own_words_are_told_where_nothing_can_be_looked_at(bench: Bench) -> None:
    files = RecordingFiles()
    files.fault = Always(errno.EIO, lambda call: call.path == MARKER_NAME)
    (said,) = bench.check(files).findings
    assert os.strerror(errno.EIO) in said
    (bench.path / MARKER_NAME).unlink()
    (said,) = bench.said()
    assert f"has no {MARKER_NAME}" in said


def test_no_more_is_told_than_a_person_reads(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    with closing(farm.engine):
        row = row_of(farm, farm.store(noise(10)).shard)
        with volume_of(farm).ground.index.transaction() as transaction:
            for number in range(FINDINGS_MAX + 5):
                place = replace(row.place, offset=row.place.offset + 4096 * (number + 1))
                shard = ShardId(number.to_bytes(32, "big"))
                other = replace(row, shard=shard, place=place, sequence=row.sequence + number + 1)
                transaction.put(other)
    checked = check_volume(farm.path, NODE, OsFiles())
    assert (len(checked.findings), checked.more) == (FINDINGS_MAX, 5)


def test_what_only_looked_wrong_hides_nothing_that_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much passes between two looks, what both saw is told."""
    monkeypatch.setattr(checking_module, "FINDINGS_MAX", 3)
    shelf = bench.path / "shards" / "00"
    shelf.mkdir(exist_ok=True)
    lost = shelf / f"{'ff' * 16}.seg"
    lost.write_bytes(b"")
    look, looks = checking_module._look, list[int]()

    def looking(*around: Any) -> tuple[int, int]:
        looks.append(1)
        passing = [shelf / f"{len(looks):016x}{number:016x}.seg" for number in range(9)]
        for path in passing:
            path.write_bytes(b"")
        seen = look(*around)
        for path in passing:
            path.unlink()
        return seen

    monkeypatch.setattr(checking_module, "_look", looking)
    checked = bench.check()
    assert len(looks) == 2
    assert (checked.more, [str(lost.name) in one for one in checked.findings]) == (0, [True])
