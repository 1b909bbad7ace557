"""
Shards on their way from one volume to another, kept apart from what is asked of them.

A shard crosses in two steps, each durable: it is entered at the target, then given up at the
source.  A delete between the two would reach one of them only; so it waits, and a crossing
waits for deletes that have begun.  Reads need not wait: they find the shard at one volume or
the other.  Only who looks at the target before the first step and at the source after the
second one misses it, and learns from `crossed` that it must look again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Condition
from typing import Final, TypeVar

from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.places import Key

R = TypeVar("R")

LOOKS: Final = 3
"""Looks at all volumes while shards go from one to another, before that has to wait."""

PATIENCE_S: Final = 20.0
"""A crossing takes a few syncs; whoever waits longer than this waits for a sick disk."""


class Crossing:
    """One engine's.  Safe from any thread."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._crossing: set[Key] = set()
        self._passing: Counter[Key] = Counter()
        self._holders = 0
        self.crossed = 0
        """Raised before a shard is given up at its source, for good or not."""

    @contextmanager
    def passing(self, key: Key) -> Iterator[None]:
        """Let a shard not cross within the block; raises `VolumeUnavailableError`."""
        with self._changed:
            self._wait(lambda: key not in self._crossing)
            self._passing[key] += 1
        try:
            yield
        finally:
            with self._changed:
                self._passing[key] -= 1
                if not self._passing[key]:
                    del self._passing[key]
                self._changed.notify_all()

    @contextmanager
    def crossing(self, keys: Iterable[Key]) -> Iterator[None]:
        """Let these cross; who passes one of them waits.  Raises `VolumeUnavailableError`."""
        wanted = set(keys)
        with self._changed:
            self._wait(lambda: self._may_cross(wanted))
            self._crossing |= wanted
        try:
            yield
        finally:
            with self._changed:
                self._crossing -= wanted
                self._changed.notify_all()

    @contextmanager
    def none(self) -> Iterator[None]:
        """Let nothing cross within the block; raises `VolumeUnavailableError`."""
        with self._changed:
            self._holders += 1
        try:
            with self._changed:
                self._wait(lambda: not self._crossing)
            yield
        finally:
            with self._changed:
                self._holders -= 1
                self._changed.notify_all()

    def steadily(
        self, look: Callable[[], R], is_enough: Callable[[R], bool] = lambda _: False
    ) -> R:
        """
        Return what *look* sees at all volumes while nothing goes from one to another.

        What *is_enough* need not have been seen so.
        """
        for _ in range(LOOKS):
            before = self.crossed
            seen = look()
            if is_enough(seen) or self.crossed == before:
                return seen
        with self.none():
            return look()

    def leaves(self) -> None:
        """Note that from now on shards vanish from their source."""
        with self._changed:
            self.crossed += 1

    def _may_cross(self, wanted: set[Key]) -> bool:
        if self._holders or wanted & self._crossing:
            return False
        return not any(key in self._passing for key in wanted)

    def _wait(self, truth: Callable[[], bool]) -> None:
        if not self._changed.wait_for(truth, PATIENCE_S):
            raise VolumeUnavailableError("the shard is being moved to another volume; try again")
