"""Moving stored large shards out of staging, once an index that knows them is durable."""

from __future__ import annotations

import sqlite3
from typing import Final

from farmer.storage.ground import Ground
from farmer.storage.index_errors import InUseError

STAGED_MAX: Final = 256
"""Stored large shards that a start has to look at, because they wait in staging."""


class Shelves:
    """The directories of large shards of one volume; on the writer thread only."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.staged = len(ground.index.staged())
        """Stored shards that wait in staging."""

    def checkpoint(self, *, forced: bool) -> bool:
        """
        Write the index back if it is time; say whether all of it is durable now.

        While somebody looks at its file for long it is not, and that is no failure of the disk.
        """
        try:
            if forced or self.staged >= STAGED_MAX:
                self._ground.index.checkpoint()
            else:
                # Noted, because it looks at a file without the volume's port to files.
                with self._ground.watch.call("index"):
                    is_done = self._ground.index.checkpoint_if_long()
                if not is_done:
                    return False
        except InUseError:
            return False
        except sqlite3.Error as error:
            self._ground.index_failed(error, 0)
            return False
        self._fill()
        return True

    def _fill(self) -> None:
        """Move what is staged."""
        files, paths, index = self._ground.files, self._ground.paths, self._ground.index
        try:
            staged = index.staged()
            if not staged or self._ground.is_apart:
                return
            shelves = sorted({paths.shard(file).parent for file in staged})
            for shelf in shelves:
                files.make_directory(shelf)
            files.sync_directory(paths.shards)
            for file in staged:
                if files.exists(paths.part(file)):
                    files.rename(paths.part(file), paths.shard(file))
            for directory in (*shelves, paths.staging):
                files.sync_directory(directory)
            with index.transaction() as transaction:
                for file in staged:
                    transaction.unstage(file)
        except (OSError, sqlite3.Error):
            # They stay readable where they are; the next checkpoint tries again.
            self._ground.health.count("rename")
            return
        self.staged = 0
