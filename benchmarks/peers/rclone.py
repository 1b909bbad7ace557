"""`rclone serve webdav` over a local directory, as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers.install import debian_program, words
from benchmarks.peers.job import Target
from benchmarks.peers.peer import Traits
from benchmarks.peers.running import free_port, running


class Rclone:
    """The Debian package."""

    traits = Traits("rclone", tls=False, syncs=False, does="files, served by Go on all cores")

    def set_up(self, cache: Path) -> str:
        """See `Peer`."""
        self._program = debian_program("rclone", "rclone", cache)
        first, *_ = words("rclone", self._program, "version").splitlines()
        return first.removeprefix("rclone v")

    @contextmanager
    def serving(self, folder: Path) -> Iterator[Target]:
        """See `Peer`."""
        port, files, settings = free_port(), folder / "files", folder / "rclone.conf"
        files.mkdir()
        settings.touch()
        command = (
            *(self._program, "serve", "webdav", files, "--addr", f"127.0.0.1:{port}"),
            *("--config", settings, "--cache-dir", folder / "cache"),
        )
        with running(command, folder, port) as pid:
            yield Target("dav", pid, port)
