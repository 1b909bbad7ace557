"""OpenStack Swift's object server, alone: one worker, no proxy, no container to be told."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Final

from benchmarks.peers.install import python_programs, words
from benchmarks.peers.job import Target
from benchmarks.peers.peer import Traits
from benchmarks.peers.running import free_port, running

REQUIREMENT: Final = "swift==2.38.3"

CONFIGURATION: Final = Template("""\
[DEFAULT]
swift_dir = $folder
devices = $folder/devices
mount_check = false
fallocate_reserve = 0
bind_ip = 127.0.0.1
bind_port = $port
workers = 1
user = $user
log_level = WARNING

[pipeline:main]
pipeline = object-server

[app:object-server]
use = egg:swift#object
log_requests = false
""")

CLUSTER: Final = """\
[swift-hash]
swift_hash_path_suffix = benchmark
"""


class Swift:
    """
    The package of the Python index, in an environment of its own.

    Its library for erasure coding, of which nothing is used here, comes inside a wheel.
    """

    traits = Traits("Swift", tls=False, syncs=True, does="MD5 of each write and whole read")

    def set_up(self, cache: Path) -> str:
        """See `Peer`."""
        self._bin = python_programs(REQUIREMENT, cache)
        version = "from importlib.metadata import version; print(version('swift'))"
        return words("swift", self._bin / "python", "-c", version).strip()

    @contextmanager
    def serving(self, folder: Path) -> Iterator[Target]:
        """See `Peer`."""
        port, settings = free_port(), folder / "object-server.conf"
        (folder / "devices" / "disk").mkdir(parents=True)
        (folder / "swift.conf").write_text(CLUSTER)
        settings.write_text(
            CONFIGURATION.substitute(folder=folder, port=port, user=getpass.getuser())
        )
        command = (self._bin / "swift-object-server", settings)
        with running(command, folder, port) as pid:
            yield Target("swift", pid, port)
