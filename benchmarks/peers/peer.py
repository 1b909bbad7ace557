"""What a server must offer to be measured."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.peers.job import Target


class PeerError(Exception):
    """A peer cannot be installed, started or asked; says why.  The others go on."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What must be known to compare figures."""

    name: str
    tls: bool
    syncs: bool
    """What it acknowledged is on the disk: it survives a power cut."""
    does: str
    """In a few words, beside moving bytes."""


class Peer(Protocol):
    """A kind of server."""

    traits: Traits

    def set_up(self, cache: Path) -> str:
        """Install what is missing below *cache* and return the version; raises `PeerError`."""

    def serving(self, folder: Path) -> AbstractContextManager[Target]:
        """
        Run a fresh one in an empty directory, from `with` to its end.

        Raises:
            PeerError: it does not start.

        """
