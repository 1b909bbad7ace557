"""
What a volume cannot say: shards of which nobody knows whether its disk holds them.

What is refused is cut off the log first, and the file of a failed large store is removed.
Where the disk refuses that as well, the next start may believe what was left.  Until then, or
until the disk obeys, such a shard is neither there nor absent; whoever asks is told that this
cannot be said.  The space of a file that could not be removed stays taken.

So it is with a change whose promise was broken because the disk hung: when the disk answers, it
may still come true, until it has or has failed.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from farmer.model.ids import NodeId
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.files import Files
from farmer.storage.places import Key
from farmer.storage.quota import Reservation


class InDoubtError(VolumeUnavailableError):
    """The volume is there, but of this shard it cannot say what it holds."""

    def __init__(self) -> None:
        super().__init__("the disk has neither made nor undone a change of this shard yet")


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file that should have been removed."""

    path: Path
    held: Reservation
    key: Key | None = None
    """Of the shard that a start might find stored in it."""


@dataclass(frozen=True, slots=True)
class Overhang:
    """What could not be cut off a segment that is sealed now."""

    path: Path
    end: int
    taken_bytes: int
    """What it may take, and the account counts for it."""


class Doubts:
    """One volume's, since it was opened; safe from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._in_log: set[Key] = set()
        self._unsettled: dict[Future[Any], tuple[Key, ...]] = {}
        """Changes that may still happen, and whom they speak of."""
        self._leftovers: list[Leftover] = []
        self.overhangs: list[Overhang] = []
        """Each is taken out by whoever has cut it off."""
        self.keys: frozenset[Key] = frozenset()
        """The shards in question; replaced as a whole."""
        self._is_over = False

    @property
    def concerns_log(self) -> bool:
        """Whether the log ends with what should have been cut off."""
        return bool(self._in_log)

    def check(self, key: Key) -> None:
        """Raise `InDoubtError` for a shard in question."""
        if key in self.keys:
            raise InDoubtError

    def check_all(self, renter: NodeId) -> None:
        """Raise `InDoubtError` if a shard of this renter is in question."""
        if any(key[0] == renter for key in self.keys):
            raise InDoubtError

    def log_not_cut(self, keys: Iterable[Key]) -> None:
        """Note whom that speaks of which could not be cut off the log."""
        with self._lock:
            self._in_log |= set(keys)
            self._update()

    def log_ended(self) -> None:
        """Note that the log durably says where its segments end."""
        with self._lock:
            self._in_log.clear()
            self._update()

    def until_settled(self, change: Future[Any], keys: tuple[Key, ...]) -> None:
        """Note whom a change speaks of that may still happen, though nobody waits for it."""
        if not keys:
            return
        with self._lock:
            self._unsettled[change] = keys
            self._update()
        change.add_done_callback(self._settled)

    def leave(self, leftover: Leftover) -> None:
        """Note a file that could not be removed."""
        with self._lock:
            if not self._is_over:
                self._leftovers.append(leftover)
                self._update()
                return
        # The volume was opened anew meanwhile, and has found the file itself.
        leftover.held.release()

    def remove_leftovers(self, files: Files) -> None:
        """Try again; the space of what goes is given back.  Raises `OSError`."""
        for leftover in list(self._leftovers):
            files.unlink(leftover.path)
            files.sync_directory(leftover.path.parent)
            with self._lock:
                if leftover not in self._leftovers:
                    # The volume was given up meanwhile.
                    return
                self._leftovers.remove(leftover)
                self._update()
            leftover.held.release()

    def let_go(self) -> None:
        """Give back what is held: the volume is given up, and its next opening looks itself."""
        with self._lock:
            self._is_over = True
            leftovers, self._leftovers = self._leftovers, []
        for leftover in leftovers:
            leftover.held.release()

    def _settled(self, change: Future[Any]) -> None:
        with self._lock:
            del self._unsettled[change]
            self._update()

    def _update(self) -> None:
        in_files = {one.key for one in self._leftovers if one.key is not None}
        self.keys = frozenset(self._in_log.union(in_files, *self._unsettled.values()))
