"""How far a scrub is and what it found: a small file in the volume, cheap to write, no truth."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from farmer.model.ids import NodeId, ShardId
from farmer.model.shard import RECORD_ALIGNMENT_BYTES
from farmer.storage.directory import replace_small
from farmer.storage.files import read_head
from farmer.storage.ground import Ground
from farmer.storage.places import Key
from farmer.storage.records import NUMBER_BITS

NOTES_VERSION: Final = 1
_NOTES_BYTES_MAX: Final = 4096
SEGMENTS_MAX: Final = 64
"""Segments that a list of the notes may name; a longer one stands for all of them."""

_NEWER: Final = frozenset({"spotted", "doubtful"})
"""What earlier releases did not note: a pass of theirs goes on without it."""

PHASES: Final = ("log", "files", "rows", "index")
"""A pass goes through these in order: segments of the log, large shards' files, the rows of the
index, and the index's own structure."""


@dataclass(slots=True, kw_only=True)
class Notes:
    """One volume's."""

    phase: str = ""
    """One of `PHASES`; empty between passes."""
    segment: int = 0
    offset: int = 0
    """In the log: the record to go on with."""
    shelf: int = 0
    """Among the files: which of the 256 directories to go on with."""
    renter: str = ""
    shard: str = ""
    """Among the rows: renter and shard of the last one that was looked at, in hex."""
    done_bytes: int = 0
    """Read in this pass."""
    began_ms: int = 0
    """Wall clock at the beginning of this pass, or of the last one; 0 for never."""
    ended_ms: int = 0
    """Wall clock at the end of the last whole pass; 0 for never."""
    checked: int = 0
    """Shards looked at in this pass."""
    damaged: int = 0
    """Of those, with blocks that are not what was stored."""
    mended: int = 0
    """Of those, with damage beside the shard's bytes only, and written anew."""
    disagreements: int = 0
    """Where index and log did not say the same, in this pass."""
    is_paused: bool = False

    # What the log leaves to the later phases: see `_NEWER`.

    spotted: list[int] = field(default_factory=list)
    """Segments with bad spots: what the log did not show there is read by its rows."""
    doubtful: list[int] = field(default_factory=list)
    """Segments with marks that could not be read: they are looked at again at the end."""

    @property
    def findings(self) -> int:
        """Return how often something was wrong in this pass."""
        return self.damaged + self.mended + self.disagreements

    @property
    def last_key(self) -> Key | None:
        """Return the row that was looked at last."""
        if not self.shard:
            return None
        return NodeId(bytes.fromhex(self.renter)), ShardId(bytes.fromhex(self.shard))

    def begin(self, now_ms: int) -> None:
        """Begin a pass."""
        self.phase, self.began_ms = PHASES[0], now_ms
        self.segment = self.offset = self.shelf = self.done_bytes = 0
        self.checked = self.damaged = self.mended = self.disagreements = 0
        self.renter = self.shard = ""
        self.spotted, self.doubtful = [], []

    def end(self, now_ms: int) -> None:
        """End it."""
        self.phase, self.ended_ms = "", now_ms


def name_segment(segments: list[int], number: int) -> None:
    """Let a list of the notes name a segment."""
    if not is_named(segments, number):
        segments.append(number)


def is_named(segments: list[int], number: int) -> bool:
    """Say whether a list of the notes names a segment."""
    return number in segments or len(segments) > SEGMENTS_MAX


def read_notes(ground: Ground) -> Notes:
    """Return what was noted; anything that is not notes means a new pass."""
    files, path = ground.files, ground.paths.scrub_notes
    try:
        if not files.exists(path):
            return Notes()
        return _parsed(json.loads(read_head(files, path, _NOTES_BYTES_MAX)))
    except (OSError, ValueError, RecursionError):
        return Notes()


def write_notes(ground: Ground, notes: Notes) -> None:
    """Note it; after a crash an older note costs some reading again.  Raises `OSError`."""
    paths = ground.paths
    raw = json.dumps({"format": NOTES_VERSION} | asdict(notes)).encode()
    replace_small(ground.files, paths.scrub_notes, raw, drafts=paths.staging)


def _parsed(document: Any) -> Notes:  # noqa: ANN401 - whatever JSON holds
    if not isinstance(document, dict) or document.get("format") != NOTES_VERSION:
        raise ValueError("not these notes")
    known: dict[str, Any] = {}
    blank = Notes()
    for one in fields(Notes):
        default = getattr(blank, one.name)
        value = document.get(one.name, default if one.name in _NEWER else None)
        if not _is_of_kind(value, default):
            raise ValueError(one.name)
        known[one.name] = value
    notes = Notes(**known)
    if notes.phase not in {"", *PHASES}:
        raise ValueError("phase")
    if notes.offset % RECORD_ALIGNMENT_BYTES:
        raise ValueError("offset")  # from there on no record would be found
    key = notes.last_key
    if (notes.renter, notes.shard) != ((str(key[0]), str(key[1])) if key else ("", "")):
        raise ValueError("shard")
    return notes


def _is_of_kind(value: object, default: object) -> bool:
    """Say whether a value may stand where this one stands in blank notes."""
    if isinstance(default, list):
        if not isinstance(value, list) or len(value) > SEGMENTS_MAX + 1:
            return False
        return all(_is_of_kind(one, 0) for one in value)
    if type(value) is int and not 0 <= value < 1 << NUMBER_BITS:
        return False  # the index is asked for some of them, and cannot be for larger ones
    return type(value) is type(default)
