"""A volume seen from outside: what its marker and its index say, with nothing opened or locked."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from farmer.model.shard import ShardState
from farmer.storage.annex import annex_of
from farmer.storage.directory import Paths, VolumeSetupError, marker_of
from farmer.storage.errors import FormatTooNewError
from farmer.storage.files import OsFiles
from farmer.storage.index_file import INDEX_NAME

_PATIENCE_S: Final = 1.0

_USAGE: Final = (
    "SELECT coalesce(sum(live), 0), coalesce(sum(trash), 0), coalesce(sum(files), 0),"
    " coalesce(sum(shards), 0), coalesce(sum(quarantined), 0) FROM usage"
)
_LIVE: Final = "SELECT count(*), coalesce(sum(size), 0) FROM shards WHERE state = ?"


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a volume's index says that it holds."""

    used_bytes: int
    trash_bytes: int
    files: int
    """Shards that have a file of their own."""
    shards: int
    """In all states, as `VolumeStatus.shards`."""
    quarantined: int


def volume_id(root: Path) -> str:
    """Return the hex id in a volume's marker; empty if there is none to be read."""
    try:
        return marker_of(root, OsFiles()).volume.hex()
    except (OSError, VolumeSetupError, FormatTooNewError):
        return ""


def holdings(root: Path, annexes: Path | None = None) -> Holdings | None:
    """
    Return what a volume holds; None if that cannot be told without opening it.

    Of one that can only be read, what it holds still is noted in its annex.
    """
    if is_untouched(root):
        return Holdings(0, 0, 0, 0, 0)
    row = _ask(index_of(root, annexes), _USAGE)
    return None if row is None else Holdings(*row)


def live_shards(root: Path, annexes: Path | None = None) -> tuple[int, int] | None:
    """Return how many shards a volume serves and their bytes, as `holdings`; reads every row."""
    row = _ask(index_of(root, annexes), _LIVE, ShardState.LIVE)
    return None if row is None else (row[0], row[1])


def is_untouched(root: Path) -> bool:
    """Tell whether a volume was made and never opened."""
    paths = Paths(root)
    try:
        return not any((paths.index.exists(), *paths.log.iterdir(), *paths.shards.iterdir()))
    except OSError:
        return False


def index_of(root: Path, annexes: Path | None) -> Path:
    """Return where the index of a volume is that counts."""
    if annexes is not None:
        annex = annex_of(annexes, bytes.fromhex(volume_id(root)))
        if (annex / INDEX_NAME).exists():
            return annex / INDEX_NAME
    return root / INDEX_NAME


def index_to_read(path: Path, patience_s: float) -> sqlite3.Connection:
    """
    Return a connection to an index, open or not, that changes nothing and makes no file.

    In autocommit; *patience_s* is for a writer that holds it.  Raises `OSError`, `sqlite3.Error`.
    """
    log = path.with_name(f"{path.name}-wal")
    # One that was closed in order needs no files beside it, and SQLite would make them.
    how = "mode=ro" if log.exists() and log.stat().st_size else "mode=ro&immutable=1"
    uri = f"file:{quote(str(path))}?{how}"
    return sqlite3.connect(uri, uri=True, timeout=patience_s, isolation_level=None)


def _ask(index: Path, query: str, *values: int) -> tuple[int, ...] | None:
    try:
        connection = index_to_read(index, _PATIENCE_S)
        try:
            (complete,) = connection.execute("SELECT complete FROM state").fetchone()
            row: tuple[int, ...] = connection.execute(query, values).fetchone()
        finally:
            connection.close()
    except (OSError, sqlite3.Error, TypeError):
        return None
    return row if complete else None
