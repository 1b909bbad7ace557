"""A volume looked over: what is in order is called so, what is not is named."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from farmer.storage.checking import check_volume
from farmer.storage.directory import create_volume
from farmer.storage.files import OsFiles
from tests.storage.bench import ALICE, MIB, NODE, Farm, noise
from tests.storage.test_moving import DRAIN, Street


def check(path: Path) -> tuple[str, ...]:
    return check_volume(path, NODE, OsFiles()).findings


def test_what_is_in_order_is_called_so_in_use_and_closed(tmp_path: Path) -> None:
    """With deletes, holes, files, marks, and after an emptying."""
    street = Street(tmp_path)
    shards = list(street.data)
    street.farm.delete(shards[1], erase=True)
    street.farm.delete(shards[2])
    found = check_volume(street.farm.path, NODE, OsFiles())
    assert (found.findings, found.shards, found.segments) == ((), len(shards) - 1, 1)
    street.begin()
    street.steps()
    for path in (street.source.settings.path, street.target.settings.path):
        assert check(path) == ()
    street.farm.engine.close()
    for settings in street.farm.settings:
        before = sorted(path.name for path in settings.path.iterdir())
        assert check(settings.path) == ()
        assert sorted(path.name for path in settings.path.iterdir()) == before
    assert DRAIN.since_ms


def test_what_was_made_and_never_opened_is_in_order_and_left_as_it_is(tmp_path: Path) -> None:
    create_volume(tmp_path / "new", NODE, OsFiles(), 0)
    before = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert check(tmp_path / "new") == ()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == before


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def segment(farm: Farm) -> Path:
    return farm.path / "log" / "00000001.seg"


def large(farm: Farm) -> Path:
    return next((farm.path / "shards").rglob("*.seg"))


def change_index(farm: Farm, statement: str) -> None:
    with closing(sqlite3.connect(farm.path / "index.sqlite", isolation_level=None)) as sql:
        assert sql.execute(statement).rowcount == 1


FAULTS: dict[str, tuple[Callable[[Farm], object], str]] = {
    "a record's header": (lambda f: overwrite(segment(f), 4100, b"x"), "does not stand there"),
    "a segment's header": (lambda f: overwrite(segment(f), 20, bytes(8)), "header is damaged"),
    "a segment": (lambda f: segment(f).unlink(), "cannot be opened"),
    "a file": (lambda f: large(f).unlink(), "cannot be read"),
    "a file's header": (lambda f: overwrite(large(f), 9, b"x"), "no sound record"),
    "a row of a file": (
        lambda f: change_index(f, "UPDATE shards SET size = size - 1 WHERE file IS NOT NULL"),
        "another record than",
    ),
    "a row of the log": (
        lambda f: change_index(f, "UPDATE shards SET sequence = 99 WHERE file IS NULL"),
        "another record than",
    ),
    "a strange file": (
        lambda f: large(f).with_name("ab" * 16 + ".seg").write_bytes(b""),
        "does not know it",
    ),
    "the index": (lambda f: (f.path / "index.sqlite").write_bytes(b"x" * 9000), "cannot be read"),
    "the marker": (lambda f: (f.path / "farmer-volume.json").unlink(), "may not be mounted"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_what_is_wrong_is_named_and_nothing_is_touched(tmp_path: Path, what: str) -> None:
    """Each kind of loss has its sentence."""
    farm = Farm(tmp_path)
    farm.store(noise(5000))
    farm.store(noise(MIB + 1))
    farm.engine.close()
    assert check(farm.path) == ()
    break_it, words = FAULTS[what]
    break_it(farm)
    before = {path: path.stat().st_mtime_ns for path in farm.path.rglob("*")}
    findings = check(farm.path)
    assert any(words in finding for finding in findings), findings
    assert {path: path.stat().st_mtime_ns for path in farm.path.rglob("*")} == before


def test_records_that_the_index_lost_and_rows_that_the_log_lost_are_both_seen(
    tmp_path: Path,
) -> None:
    """An older index under a newer log, and the other way round."""
    farm = Farm(tmp_path)
    farm.store(noise(5000))
    farm.engine.close()
    old_index = (farm.path / "index.sqlite").read_bytes()
    old_log = segment(farm).read_bytes()
    farm.open()
    shard = farm.store(noise(6000)).shard
    farm.engine.close()
    new_index = (farm.path / "index.sqlite").read_bytes()
    segment(farm).write_bytes(old_log)
    assert any(str(shard) in finding for finding in check(farm.path))
    (farm.path / "index.sqlite").write_bytes(old_index)
    assert check(farm.path) == ()
    assert new_index != old_index
    assert ALICE
