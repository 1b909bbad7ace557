"""
Up to where in a volume's log tombstones mean nothing any more: a small file beside it.

    met    {"format": 1, "sequence": 1234}

A tombstone is lifted when all volumes have been looked at together, or by a later record of its
shard.  What says so in the log may go before the tombstone's own mark does; an index made again
from the log alone would find it, and older copies that are not older would be taken for such.
So when no tombstone is left, the sequence is noted below which every one of them is over.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from farmer.storage.directory import Paths, replace_small
from farmer.storage.files import Files, read_head
from farmer.storage.records import NUMBER_BITS

MET_VERSION: Final = 1
_BYTES_MAX: Final = 4096
_SEQUENCE_END: Final = 1 << NUMBER_BITS - 1
"""No log comes so far; what is written from now on stands above it, and has to fit a record."""


def read_met(files: Files, root: Path) -> int:
    """Return the sequence, 0 if nothing that can be read was noted; raises `OSError`."""
    try:
        raw = read_head(files, Paths(root).met, _BYTES_MAX)
    except FileNotFoundError:
        return 0
    try:
        fields = json.loads(raw)
        sequence = fields["sequence"]
        is_known = fields["format"] == MET_VERSION and type(sequence) is int
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0
    return sequence if is_known and 0 <= sequence < _SEQUENCE_END else 0


def note_met(files: Files, root: Path, sequence: int) -> None:
    """Note it, durably: the old content or the new one.  Raises `OSError`."""
    text = json.dumps({"format": MET_VERSION, "sequence": sequence})
    raw = text.encode() + b"\n"
    paths = Paths(root)
    replace_small(files, paths.met, raw, drafts=paths.staging)
