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
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from threading import Condition
from typing import Final, TypeVar

from farmer.model.ids import NodeId
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.places import Key

R = TypeVar("R")

LOOKS: Final = 3
"""Looks at all volumes while shards go from one to another, before that has to wait."""

PATIENCE_S: Final = 20.0
"""A crossing takes a few syncs; whoever waits longer than this waits for a sick disk."""

_MOVING: Final = "the shard is being moved to another volume; try again"
_USED: Final = "the shards are being changed, removed or looked through; they cross later"


class Crossing:
    """One engine's.  Safe from any thread."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._crossing: set[Key] = set()
        self._passing: Counter[Key] = Counter()
        self._holding: list[Callable[[Key], bool]] = []
        """Which shards each of those holds who let none cross."""
        self.crossed = 0
        """Raised before a shard is given up at its source, for good or not."""

    @contextmanager
    def passing(self, key: Key) -> Iterator[None]:
        """Let a shard not cross within the block; raises `VolumeUnavailableError`."""
        with self._changed:
            self._wait(lambda: key not in self._crossing, _MOVING, PATIENCE_S)
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
    def crossing(self, keys: Iterable[Key], *, is_patient: bool = True) -> Iterator[None]:
        """
        Let these cross; who passes one of them waits.

        Raises `VolumeUnavailableError`, without patience at once.
        """
        wanted = set(keys)
        with self._changed:
            self._wait(lambda: self._may_cross(wanted), _USED, PATIENCE_S if is_patient else 0.0)
            self._crossing |= wanted
        try:
            yield
        finally:
            self._has_crossed(wanted)

    @contextmanager
    def crossing_if_free(self, keys: Iterable[Key]) -> Iterator[frozenset[Key]]:
        """Let those of these cross that may at once; says which."""
        with self._changed:
            free = frozenset(key for key in keys if self._may_cross({key}))
            self._crossing |= free
        try:
            yield free
        finally:
            self._has_crossed(free)

    @contextmanager
    def none(self) -> Iterator[None]:
        """Let nothing cross within the block; raises `VolumeUnavailableError`."""
        with self._held(lambda _key: True) as is_still:
            if not is_still:
                raise VolumeUnavailableError(_MOVING)
            yield

    @contextmanager
    def staying(self, renter: NodeId) -> Iterator[bool]:
        """
        Let no shard of a renter begin to cross within the block.

        Says whether none is on its way; one that is, even now, waits for a sick disk.
        """
        with self._held(lambda key: key[0] == renter) as is_still:
            yield is_still

    @contextmanager
    def _held(self, holds: Callable[[Key], bool]) -> Iterator[bool]:
        with self._changed:
            self._holding.append(holds)
        try:
            with self._changed:
                is_still = self._changed.wait_for(
                    lambda: not any(map(holds, self._crossing)), PATIENCE_S
                )
            yield is_still
        finally:
            with self._changed:
                self._holding.remove(holds)
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

    def _has_crossed(self, keys: AbstractSet[Key]) -> None:
        with self._changed:
            self._crossing -= keys
            self._changed.notify_all()

    def _may_cross(self, wanted: set[Key]) -> bool:
        if wanted & self._crossing or any(key in self._passing for key in wanted):
            return False
        return not any(holds(key) for holds in self._holding for key in wanted)

    def _wait(self, truth: Callable[[], bool], why: str, patience_s: float) -> None:
        if not self._changed.wait_for(truth, patience_s):
            raise VolumeUnavailableError(why)
