"""What a long campaign has come to so far: broken off, it goes on from here."""

from __future__ import annotations

import pickle
import sys
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import farmer
from tests.simulation.report import Report

KEPT_EVERY = 100
"""Seeds: what is lost by an interruption."""


class ForeignJournalError(Exception):
    """It is of other seeds, or of other code: the two do not add up."""


def digest_of_code() -> str:
    """Return what names all code that a run depends on."""
    digest = sha256(sys.version.encode())
    for top in (Path(farmer.__file__).parent, Path(__file__).parents[1]):
        for path in sorted(top.rglob("*.py")):
            digest.update(f"{path.relative_to(top)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


@dataclass
class Progress:
    """A campaign's sum up to a seed, and how long it took."""

    next_seed: int
    report: Report = field(default_factory=Report)
    took_s: float = 0.0


@dataclass(frozen=True)
class Campaign:
    """What is run: the same code with the same seeds makes the same sum."""

    first: int
    operations: int
    code: str = field(default_factory=digest_of_code)


class Journal:
    """A file that has the progress of one campaign."""

    def __init__(self, path: Path, campaign: Campaign) -> None:
        self._path = path
        self._campaign = campaign

    def read(self) -> Progress:
        """Return how far it is; raises `ForeignJournalError`."""
        if not self._path.exists():
            return Progress(self._campaign.first)
        campaign, progress = pickle.loads(self._path.read_bytes())
        if campaign != self._campaign:
            raise ForeignJournalError(
                f"{self._path} is of other seeds or of other code: remove it to begin anew"
            )
        assert isinstance(progress, Progress)
        return progress

    def keep(self, progress: Progress) -> None:
        """Write it down."""
        draft = self._path.with_name(f"{self._path.name}.new")
        draft.write_bytes(pickle.dumps((self._campaign, progress)))
        draft.replace(self._path)
