"""The door to the disk where no thread can be begun for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from farmer.node import disk as door
from farmer.node.disk import ThreadedDisk
from farmer.storage.threads import begin_thread


class AtOnce(Clock):
    """A reactor that does in whatever thread what it is given, and the rest when told."""

    def callFromThread(self, work: Callable[..., Any], *words: Any) -> None:
        work(*words)


def test_work_waits_for_a_thread_and_nobody_waits_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tried once, then again at the next look: to try takes a moment of the reactor's."""
    tried: list[bool] = []
    has_memory = [False]

    def begin(work: Callable[[], None]) -> None:
        tried.append(has_memory[0])
        if not has_memory[0]:
            raise OSError(12, "Cannot allocate memory")
        begin_thread(work)

    monkeypatch.setattr(door, "begin_thread", begin)
    reactor, done = AtOnce(), threading.Event()
    disk = ThreadedDisk(reactor)  # type: ignore[arg-type]  # all it asks
    disk.start()
    for _ in range(3):
        disk.run(lambda: None)
    disk.run(done.set)
    reactor.advance(0)
    assert tried == [False]
    disk.check()
    assert tried == [False, False]
    has_memory[0] = True
    disk.check()
    assert done.wait(20)
    assert disk.stop(20)
