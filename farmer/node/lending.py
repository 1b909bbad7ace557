"""What a thread fetches for somebody who may not wait for it any more."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Generic, ParamSpec, TypeVar

from farmer.node.ports import Disk

P = ParamSpec("P")
R = TypeVar("R")


class Lent(Generic[R]):
    """
    One thing that must be given back: an upload with its space, a reader with its pin.

    Where the disk hangs, whoever asked is told so while the thread still waits; what it then
    brings finds nobody, and is given back by the thread itself.
    """

    def __init__(self, give_back: Callable[[R], object]) -> None:
        self._give_back = give_back
        self._lock = Lock()
        self._thing: R | None = None
        self._is_waived = False

    async def fetch(
        self, disk: Disk, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Return what the work returns; nothing is left of it if this raises."""
        try:
            return await disk.run(lambda: self._bring(work(*args, **kwargs)))
        except BaseException:
            late = self._waive()
            if late is not None:
                await disk.run(self._give_back, late)
            raise

    def _bring(self, thing: R) -> R:
        with self._lock:
            self._thing = thing
            is_waived = self._is_waived
        if is_waived:
            self._give_back(thing)
        return thing

    def _waive(self) -> R | None:
        with self._lock:
            self._is_waived = True
            return self._thing
