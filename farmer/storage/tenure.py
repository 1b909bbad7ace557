"""
How long what was opened of a volume may still make, finish and remove what lies in staging.

A volume that is given up while stores are under way is opened anew at once, and the new opening
goes by what it finds there: a finished file is a stored shard, an unfinished one a lease.  So
nobody makes, finishes or removes such a file for the old opening any more once it has looked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Tenure:
    """One opening's; safe from any thread."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._inside = 0
        self.is_over = False
        """Whether the volume was given up."""

    @contextmanager
    def lasting(self) -> Iterator[bool]:
        """Say whether it lasts; if it does, then to the end of the block at least."""
        with self._changed:
            lasts = not self.is_over
            self._inside += lasts
        try:
            yield lasts
        finally:
            with self._changed:
                self._inside -= lasts
                self._changed.notify_all()

    def end(self) -> None:
        """End it, as soon as nobody is inside; who comes later is told that it is over."""
        with self._changed:
            self.is_over = True
            self._changed.wait_for(lambda: not self._inside)
