"""
The real door from the reactor to blocking work: threads of its own.

A thread that waits for a disk that does not answer is lost until it does.  The door sees
which ones are (`check`), lends others in their place, and tells whoever waits that it is in
vain; what the lost thread brings at last is dropped.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from threading import Condition, get_ident
from typing import Any, Final, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from twisted.python.failure import Failure

from farmer.crew import LOOK_S, Crew
from farmer.node.posts import Posts
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.threads import begin_thread

P = ParamSpec("P")
R = TypeVar("R")

THREADS: Final = 8
"""Enough to keep one disk's queue filled and both cores hashing; each costs a malloc arena."""

STALLED_MAX: Final = 64
"""Threads that may wait for disks besides those: more would be memory for dead disks."""

NO_MEMORY_S: Final = 0.05
"""Until a thread tries again to say what it has done."""

STOP_S: Final = 5.0
"""How long a stop waits for threads; those that still wait for a disk die with the process."""

Stalled = Callable[[], Mapping[int, bool]]
"""Returns the threads that wait for a disk, and whether that is in vain."""


class ReactorWithThreads(IReactorFromThreads, IReactorTime):
    """What is asked of the reactor."""


class _Work:
    """One piece of work, from the asking to the answer."""

    def __init__(self, do: Callable[[], Any], *, is_followed: bool = False) -> None:
        self.do = do
        self.answer: Deferred[Any] = Deferred()
        self.is_followed = is_followed
        """Whether what it returns is a future, whose outcome is the answer."""
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

    def __init__(self, reactor: ReactorWithThreads, threads: int = THREADS) -> None:
        self.stalled: Stalled = dict
        """Asked by `check`."""
        self._reactor = reactor
        self._posts = Posts(reactor)
        self._crew = Crew(threads)
        self._threads_max = threads
        self._waiting: deque[_Work] = deque()
        self._running: dict[int, _Work] = {}
        self._threads = 0
        self._awake = 0
        """Those of them that work, or are about to look for some."""
        self._called = 0
        """Those of the awake that have yet to hear of it."""
        self._lost = 0
        self._is_barren = False
        """Whether no thread could be begun just now: to try takes a moment."""
        self._taken = 0
        """How much work was begun since the last look."""
        self._next_look: IDelayedCall | None = None
        self._next_wake: IDelayedCall | None = None
        """At the end of this turn: who is woken earlier takes Python from us, call by call."""
        self._given = 0
        """Pieces of work since threads were last woken."""
        self._is_crowded = False
        """Whether several are given in a turn, or some was given while another was at work; one
        alone does not wait for the turn's end."""
        self._changed = Condition()
        self._open = False
        self._no_memory = Failure(MemoryError())  # type: ignore[no-untyped-call]  # untyped there

    def start(self) -> None:
        """Open the door."""
        self._open = True

    def stop(self, within_s: float = STOP_S) -> bool:
        """Close the door; say whether all work was done before this returned."""
        if self._next_wake is not None:
            self._next_wake.cancel()
            self._wake_up()
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        with self._changed:
            self._open = False
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._threads, within_s)

    @property
    def busy(self) -> int:
        """How many threads are at work."""
        return len(self._running)

    @property
    def is_idle(self) -> bool:
        """See `ports.Disk.is_idle`."""
        return not (self._running or self._waiting)

    def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Deferred[R]:
        """See `ports.Disk.run`."""
        return self._give(_Work(lambda: work(*args, **kwargs)))

    def follow(
        self, work: Callable[P, Future[R]], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[R]:
        """See `ports.Disk.follow`."""
        return self._give(_Work(lambda: work(*args, **kwargs), is_followed=True))

    def settle(self, future: Future[R]) -> Deferred[R]:
        """See `ports.Disk.settle`."""
        settled: Deferred[R] = Deferred()
        future.add_done_callback(lambda done: self._posts.put(fire, done, settled))
        return settled

    def check(self) -> None:
        """Lend threads in the place of those that wait for a disk; on the reactor."""
        self._posts.look()
        stalled = self.stalled()
        in_vain = []
        with self._changed:
            for thread, work in self._running.items():
                work.is_stalled = thread in stalled
                if stalled.get(thread) and not work.is_answered:
                    in_vain.append(work)
            self._lost = sum(work.is_stalled for work in self._running.values())
            self._is_barren = False
            self._wake()
        for work in in_vain:
            error = VolumeUnavailableError("the disk does not answer")
            work.settle(Failure(error))  # type: ignore[no-untyped-call]  # untyped there

    def _give(self, work: _Work) -> Deferred[Any]:
        self._given += 1
        at_work = len(self._waiting) + len(self._running) - self._lost
        self._is_crowded = self._is_crowded or at_work > 0
        if self._is_crowded and self._next_wake is None:
            self._next_wake = self._reactor.callLater(0, self._wake_up)
        self._waiting.append(work)
        if not self._is_crowded:
            self._wake_up()
        return work.answer

    def _wake_up(self) -> None:
        """Have all that was given in a turn done; on the reactor."""
        self._next_wake = None
        self._is_crowded, self._given = self._given > 1, 0
        with self._changed:
            self._wake()
            if self._is_behind and self._next_look is None:
                self._taken = 0
                self._crew.begin()
                self._next_look = self._reactor.callLater(LOOK_S, self._look)

    @property
    def _is_behind(self) -> bool:
        """Whether more work waits than threads that are about to take some."""
        return len(self._waiting) > self._awake - len(self._running)

    @property
    def _spare(self) -> int:
        """How many threads work in the place of those that wait in vain."""
        return min(self._lost, STALLED_MAX)

    @property
    def _allowed(self) -> int:
        """How many threads may be awake."""
        return self._crew.size + self._spare

    def _look(self) -> None:
        """See whether more threads would help with what waits; on the reactor."""
        self._next_look = None
        with self._changed:
            if self._is_behind:
                self._crew.look(moved=bool(self._taken))
                self._taken = 0
                self._wake()
                self._next_look = self._reactor.callLater(LOOK_S, self._look)

    def _wake(self) -> None:
        """Let as many threads work as what waits needs and the crew has; with the lock held."""
        while self._is_behind and self._awake < self._allowed:
            if self._awake < self._threads:
                self._called += 1
                self._changed.notify()
            elif not self._begin_thread():
                return
            self._awake += 1

    def _begin_thread(self) -> bool:
        if self._is_barren:
            return False
        try:
            # Not to be waited for at the end of the process: some never return.
            begin_thread(self._serve)
        except OSError:
            # Whoever is there does the work, or who can be begun at the next look.
            self._is_barren = True
            return False
        self._threads += 1
        return True

    def _serve(self) -> None:
        while (work := self._next()) is not None:
            outcome = self._outcome(work)
            with self._changed:
                del self._running[get_ident()]
            while not self._told(work, outcome):
                time.sleep(NO_MEMORY_S)
            del work, outcome

    def _outcome(self, work: _Work) -> Any:  # noqa: ANN401  # whatever the work returned
        try:
            return work.do()
        except BaseException:  # whatever it is, it belongs to who asked
            try:
                return Failure()  # type: ignore[no-untyped-call]  # untyped there
            except MemoryError:
                return self._no_memory

    def _told(self, work: _Work, outcome: Any) -> bool:  # noqa: ANN401
        """Have who asked told; False if there is no memory for that, and nothing was done."""
        try:
            if work.is_followed and isinstance(outcome, Future):
                outcome.add_done_callback(partial(self._pass_on, work))
            else:
                self._posts.put(work.settle, outcome)
        except MemoryError:
            return False
        return True

    def _pass_on(self, work: _Work, done: Future[Any]) -> None:
        """Tell who asked what a future brought; in whatever thread settled it."""
        error = done.exception()
        self._posts.put(work.settle, done.result() if error is None else Failure(error))  # type: ignore[no-untyped-call]  # untyped there

    def _next(self) -> _Work | None:
        """Wait for work; None if this thread is not needed any more."""
        with self._changed:
            while True:
                surplus = self._threads > self._threads_max + self._spare
                if surplus or not (self._open or self._waiting):
                    self._threads -= 1
                    self._awake -= 1
                    self._changed.notify_all()
                    return None
                if self._waiting and (self._awake <= self._allowed or not self._open):
                    work = self._running[get_ident()] = self._waiting.popleft()
                    self._taken += 1
                    return work
                self._sleep()

    def _sleep(self) -> None:
        """Wait until called, or until the door is closed; with the lock held."""
        self._awake -= 1
        while self._open and not self._called:
            self._changed.wait()
        if self._called:
            self._called -= 1
        else:
            self._awake += 1


def fire(done: Future[R], settled: Deferred[R]) -> None:
    """Give a Deferred what a future that is done holds."""
    error = done.exception()
    if error is None:
        settled.callback(done.result())
    else:
        settled.errback(error)
