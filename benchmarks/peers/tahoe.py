"""A Tahoe-LAFS node that only stores: no introducer, no page, asked over its HTTPS protocol."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_pem_x509_certificate

from benchmarks.peers.install import python_programs, words
from benchmarks.peers.job import Target
from benchmarks.peers.peer import Traits
from benchmarks.peers.running import free_port, running

REQUIREMENT: Final = "tahoe-lafs==1.20.0"


class Tahoe:
    """The package of the Python index, in an environment of its own."""

    traits = Traits("Tahoe-LAFS", tls=True, syncs=False, does="leases; hashing is its client's")

    def set_up(self, cache: Path) -> str:
        """See `Peer`."""
        self._program = python_programs(REQUIREMENT, cache) / "tahoe"
        first, *_ = words("tahoe", self._program, "--version").splitlines()
        return first.rpartition("/")[2]

    @contextmanager
    def serving(self, folder: Path) -> Iterator[Target]:
        """See `Peer`."""
        port, node = free_port(), folder / "node"
        words(
            *("tahoe", self._program, "create-node", "--webport", "none"),
            *("--port", f"tcp:{port}:interface=127.0.0.1"),
            *("--location", f"tcp:127.0.0.1:{port}", node),
        )
        with running((self._program, "run", node), folder, port) as pid:
            secret = (node / "private" / "storage.furl").read_text().strip().rpartition("/")[2]
            shown = load_pem_x509_certificate((node / "private" / "node.pem").read_bytes())
            yield Target("tahoe", pid, port, shown.fingerprint(SHA256()).hex(), secret)
