"""
The real door from the reactor to blocking work: threads of its own.

A thread that waits for a disk that does not answer is lost until it does.  The door sees
which ones are (`check`), lends others in their place, and tells whoever waits that it is in
vain; what the lost thread brings at last is dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from threading import Condition, get_ident
from typing import Any, Final, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.threads import begin_thread

P = ParamSpec("P")
R = TypeVar("R")

THREADS: Final = 8
"""Enough to keep one disk's queue filled and both cores hashing; each costs a malloc arena."""

STALLED_MAX: Final = 64
"""Threads that may wait for disks besides those: more would be memory for dead disks."""

STOP_S: Final = 5.0
"""How long a stop waits for threads; those that still wait for a disk die with the process."""

Stalled = Callable[[], Mapping[int, bool]]
"""Returns the threads that wait for a disk, and whether that is in vain."""


class _Work:
    """One piece of work, from the asking to the answer."""

    def __init__(self, do: Callable[[], Any], answer: Deferred[Any]) -> None:
        self.do = do
        self.answer = answer
        self.is_stalled = False
        self.is_answered = False

    def settle(self, outcome: Any) -> None:  # noqa: ANN401  # whatever the work returned
        """Tell who asked; on the reactor, and once."""
        if not self.is_answered:
            self.is_answered = True
            self.answer.callback(outcome)


class ThreadedDisk:
    """
    Threads apart from the reactor's, so that DNS never waits for disks.

    Deferreds of this door must not be cancelled: the thread would go on regardless.
    """

    def __init__(self, reactor: IReactorFromThreads, threads: int = THREADS) -> None:
        self.stalled: Stalled = dict
        """Asked by `check`."""
        self._reactor = reactor
        self._threads_max = threads
        self._waiting: deque[_Work] = deque()
        self._running: dict[int, _Work] = {}
        self._threads = 0
        self._idle = 0
        self._lost = 0
        self._is_barren = False
        """Whether no thread could be begun just now: to try takes a moment."""
        self._changed = Condition()
        self._open = False

    def start(self) -> None:
        """Open the door."""
        self._open = True

    def stop(self, within_s: float = STOP_S) -> bool:
        """Close the door; say whether all work was done before this returned."""
        with self._changed:
            self._open = False
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._threads, within_s)

    @property
    def busy(self) -> int:
        """How many threads are at work."""
        return len(self._running)

    def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Deferred[R]:
        """See `ports.Disk.run`."""
        answer: Deferred[R] = Deferred()
        with self._changed:
            self._waiting.append(_Work(lambda: work(*args, **kwargs), answer))
            self._changed.notify()
            self._lend()
        return answer

    def settle(self, future: Future[R]) -> Deferred[R]:
        """See `ports.Disk.settle`."""
        settled: Deferred[R] = Deferred()

        def pass_on(done: Future[R]) -> None:
            self._reactor.callFromThread(fire, done, settled)

        future.add_done_callback(pass_on)
        return settled

    def check(self) -> None:
        """Lend threads in the place of those that wait for a disk; on the reactor."""
        stalled = self.stalled()
        in_vain = []
        with self._changed:
            for thread, work in self._running.items():
                work.is_stalled = thread in stalled
                if stalled.get(thread) and not work.is_answered:
                    in_vain.append(work)
            self._lost = sum(work.is_stalled for work in self._running.values())
            self._is_barren = False
            self._lend()
        for work in in_vain:
            error = VolumeUnavailableError("the disk does not answer")
            work.settle(Failure(error))  # type: ignore[no-untyped-call]  # untyped there

    def _lend(self) -> None:
        """Begin another thread if there is work for one; with the lock held."""
        allowed = self._threads_max + min(self._lost, STALLED_MAX)
        while self._threads < allowed and len(self._waiting) > self._idle:
            if self._is_barren:
                return
            try:
                # Not to be waited for at the end of the process: some never return.
                begin_thread(self._serve)
            except OSError:
                # Whoever is there does the work, or who can be begun at the next look.
                self._is_barren = True
                return
            self._threads += 1
            self._idle += 1

    def _serve(self) -> None:
        while (work := self._next()) is not None:
            try:
                outcome = work.do()
            except BaseException:  # whatever it is, it belongs to who asked
                outcome = Failure()  # type: ignore[no-untyped-call]  # untyped there
            with self._changed:
                del self._running[get_ident()]
                self._idle += 1
            self._reactor.callFromThread(work.settle, outcome)
            del work, outcome

    def _next(self) -> _Work | None:
        """Wait for work; None if this thread is not needed any more."""
        with self._changed:
            while True:
                surplus = self._threads > self._threads_max + min(self._lost, STALLED_MAX)
                if self._waiting and not surplus:
                    work = self._running[get_ident()] = self._waiting.popleft()
                    self._idle -= 1
                    return work
                if surplus or not self._open:
                    self._threads -= 1
                    self._idle -= 1
                    self._changed.notify_all()
                    return None
                self._changed.wait()


def fire(done: Future[R], settled: Deferred[R]) -> None:
    """Give a Deferred what a future that is done holds."""
    error = done.exception()
    if error is None:
        settled.callback(done.result())
    else:
        settled.errback(error)
