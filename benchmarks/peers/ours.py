"""Our own farmer, as `farmer init` and `farmer run` make it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.peers.job import Target
from benchmarks.peers.peer import PeerError, Traits
from farmer.benching.process import BenchError, OwnFarmer
from farmer.client.limits import SESSIONS_MAX
from farmer.version import VERSION

QUOTA_BYTES: Final = 64 * 1024**3
"""No more than a number: what is stored is bounded by the job."""


class Ours:
    """This checkout."""

    traits = Traits("farmer", tls=True, syncs=True, does="hash tree, checked reads, receipts")

    def __init__(self, at_once_max: int) -> None:
        self._renters = -(-at_once_max // SESSIONS_MAX)

    def set_up(self, _cache: Path) -> str:
        """See `Peer`."""
        return VERSION

    @contextmanager
    def serving(self, folder: Path) -> Iterator[Target]:
        """See `Peer`."""
        try:
            with OwnFarmer(folder, QUOTA_BYTES) as owned:
                space_bytes = 9 * QUOTA_BYTES // (10 * self._renters)
                invites = tuple(owned.invite(space_bytes) for _ in range(self._renters))
                yield Target("farmer", owned.pid, invites=invites)
        except BenchError as error:
            raise PeerError(str(error)) from error
