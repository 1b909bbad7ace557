"""How far a scrub is and what it found: a small file in the volume, cheap to write, no truth."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from farmer.model.ids import NodeId, ShardId
from farmer.storage.directory import replace_small
from farmer.storage.files import Access
from farmer.storage.ground import Ground
from farmer.storage.places import Key

NOTES_NAME: Final = "scrub.json"
NOTES_VERSION: Final = 1
_NOTES_BYTES_MAX: Final = 4096

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

    def end(self, now_ms: int) -> None:
        """End it."""
        self.phase, self.ended_ms = "", now_ms


def read_notes(ground: Ground) -> Notes:
    """Return what was noted; anything that is not notes means a new pass."""
    files, path = ground.files, ground.paths.root / NOTES_NAME
    try:
        if not files.exists(path):
            return Notes()
        fd = files.open(path, Access.READ)
        try:
            raw = files.pread(fd, _NOTES_BYTES_MAX, 0)
        finally:
            files.close(fd)
        return _parsed(json.loads(raw))
    except (OSError, ValueError):
        return Notes()


def write_notes(ground: Ground, notes: Notes) -> None:
    """Note it; after a crash an older note costs some reading again.  Raises `OSError`."""
    paths = ground.paths
    raw = json.dumps({"format": NOTES_VERSION} | asdict(notes)).encode()
    replace_small(ground.files, paths.root / NOTES_NAME, raw, drafts=paths.staging)


def _parsed(document: Any) -> Notes:  # noqa: ANN401 - whatever JSON holds
    if not isinstance(document, dict) or document.get("format") != NOTES_VERSION:
        raise ValueError("not these notes")
    known: dict[str, Any] = {}
    for field in fields(Notes):
        value = document.get(field.name)
        if not isinstance(value, type(field.default)) or (type(value) is int and value < 0):
            raise ValueError(field.name)
        known[field.name] = value
    notes = Notes(**known)
    if notes.phase not in {"", *PHASES}:
        raise ValueError("phase")
    _ = notes.last_key  # must be one
    return notes
