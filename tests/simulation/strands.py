"""
Threads whose every switch is drawn from the seed.

The engine has a writer thread per volume and is called from the disk door's threads.  Here
each of them is a strand: a stack of its own (a greenlet; where that package is not installed,
an operating-system thread, which is slower and gives the same run) that runs only while it
holds the one baton.  It hands the baton on where it would block (a lock, a condition, a future, a
sleep) and, now and then, at a call of the file port; who gets it is drawn from the seed.  So
interleavings are part of the run, and a run is repeatable.

`installed` puts these strands in the place of `threading` in the modules of `farmer.storage`,
by what their names are bound to; no seam in the engine is needed for it.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from random import Random
from types import ModuleType, SimpleNamespace
from typing import Any

from farmer.storage.threads import begin_thread

try:
    from greenlet import getcurrent, greenlet
except ImportError:
    greenlet = None

PREEMPTED = 0.03
"""How often a call of the file port hands the baton on although it need not."""


class CrashedError(BaseException):
    """The machine stopped: whatever ran, ran until here.  Nothing may catch it."""


class DeadlockError(Exception):
    """Everybody waits and nothing will ever happen."""


class _ThreadStack:
    """A stack that is a thread: it waits at its gate unless it has the baton."""

    def __init__(self, work: Callable[[], _ThreadStack] | None) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()
        if work is not None:
            threading.Thread(target=self._live, args=(work,), daemon=True).start()

    def go_on(self, me: _ThreadStack) -> None:
        """Run this one; returns to *me* when somebody lets it go on."""
        self._gate.release()
        me._gate.acquire()

    def _live(self, work: Callable[[], _ThreadStack]) -> None:
        self._gate.acquire()
        work()._gate.release()


class _GreenStack:
    """A stack that is a greenlet."""

    def __init__(self, work: Callable[[], _GreenStack] | None) -> None:
        self._green = getcurrent()
        if work is not None:
            main = self._green
            while main.parent is not None:
                main = main.parent
            self._green = greenlet(lambda *_: self._live(work), parent=main)

    def go_on(self, _me: _GreenStack) -> None:
        """Run this one; returns when somebody lets the caller go on."""
        self._green.switch()

    def _live(self, work: Callable[[], _GreenStack]) -> None:
        # A greenlet that ends goes on where its parent is.
        self._green.parent = work()._green


Stack: Any = _ThreadStack if greenlet is None else _GreenStack


class Strand:
    """One thread of the simulation; `ready` is None while it could run."""

    __slots__ = ("is_done", "name", "number", "ready", "stack", "wake_s")

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.stack: Any = None
        self.ready: Callable[[], object] | None = None
        self.wake_s: float | None = None
        self.is_done = False

    def can_run(self, now_s: float) -> bool:
        """Say whether it could go on now."""
        if self.ready is None or (self.wake_s is not None and self.wake_s <= now_s):
            return True
        return bool(self.ready())


class Strands:
    """All strands of one run, and its monotonic clock.  `main` is whoever makes it."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.now_s = 1000.0
        self.main = Strand("main", 0)
        self.main.stack = Stack(None)
        self.current = self.main
        self.alive = [self.main]
        self.is_dead = False
        """Set by a crash until `reap` has ended all strands but the main one."""
        self.switches = 0
        self._made = 0
        self.failures: list[BaseException] = []
        """What a strand ended with, which should not be."""

    def spawn(self, name: str, work: Callable[[], None]) -> Strand:
        """Make a strand; it first runs when the baton comes to it."""
        self._made += 1
        strand = Strand(name, self._made)
        self.alive.append(strand)
        strand.stack = Stack(lambda: self._live(strand, work))
        return strand

    def point(self) -> None:
        """A moment at which another strand may run."""
        if self.is_dead:
            raise CrashedError
        if len(self.alive) > 1 and self._rng.random() < PREEMPTED:
            self.others()

    def others(self) -> None:
        """Let whoever can run, maybe ourselves."""
        self.block(None)

    def block(self, ready: Callable[[], object] | None, timeout_s: float | None = None) -> bool:
        """
        Wait until *ready* says so; False if the time was over before.

        It is asked at every switch: the cheaper, the better.
        """
        if self.is_dead:
            raise CrashedError
        me = self.current
        me.ready = ready
        me.wake_s = None if timeout_s is None else self.now_s + max(0.0, timeout_s)
        chosen = self._pick()
        if chosen is not me:
            self._hand_to(chosen)
        me.ready = me.wake_s = None
        if self.is_dead:
            raise CrashedError
        return ready is None or bool(ready())

    def sleep(self, seconds: float) -> None:
        """Wait in simulated time."""
        self.block(_never, seconds)

    def can_others_run(self) -> bool:
        """Say whether a strand other than the current one could go on now."""
        me, now_s = self.current, self.now_s
        return any(one is not me and one.can_run(now_s) for one in self.alive)

    def next_wake_s(self) -> float | None:
        """Return when the first sleeper wakes up."""
        return min((one.wake_s for one in self.alive if one.wake_s is not None), default=None)

    def crash(self) -> None:
        """Stop everything; raised in the strand that is at it, and in the others by `reap`."""
        self.is_dead = True

    def reap(self) -> None:
        """End all strands but the main one, which calls this, after a crash."""
        assert self.current is self.main
        self.is_dead = True
        while len(self.alive) > 1:
            self._hand_to(self.alive[-1])
        self.is_dead = False

    def _live(self, strand: Strand, work: Callable[[], None]) -> Any:
        """Run a strand to its end; return the stack that goes on."""
        try:
            if not self.is_dead:
                work()
        except CrashedError:
            pass
        except BaseException as error:
            self.failures.append(error)
        strand.is_done = True
        self.alive.remove(strand)
        self.current = self.main if self.is_dead else self._pick()
        return self.current.stack

    def _hand_to(self, strand: Strand) -> None:
        me, self.current = self.current, strand
        self.switches += 1
        strand.stack.go_on(me.stack)

    def _able(self) -> list[Strand]:
        """Return who could go on now."""
        now_s = self.now_s
        # As `can_run` says it, without a call: this is asked at every switch.
        return [
            one
            for one in self.alive
            if (ready := one.ready) is None
            or ((wake_s := one.wake_s) is not None and wake_s <= now_s)
            or ready()
        ]

    def _pick(self) -> Strand:
        while True:
            able = self._able()
            if able:
                return able[int(self._rng.random() * len(able))]
            wake_s = self.next_wake_s()
            if wake_s is None:
                waiting = ", ".join(one.name for one in self.alive)
                raise DeadlockError(f"everybody waits: {waiting}")
            self.now_s = max(self.now_s, wake_s)


def _never() -> bool:
    return False


_active: Strands | None = None


def _strands() -> Strands:
    assert _active is not None, "outside of a simulation"
    return _active


class _Lock:
    def __init__(self) -> None:
        self._is_held = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if _active is None:
            # A generator of a run that is over is only now thrown away.
            return True
        strands = _strands()
        # After a crash nobody runs at the same time as anybody, and all only clean up.
        if self._is_held and not strands.is_dead:
            limit = None if timeout < 0 else timeout
            if not blocking or not strands.block(lambda: not self._is_held, limit):
                return False
        self._is_held = True
        return True

    def release(self) -> None:
        self._is_held = False

    def locked(self) -> bool:
        return self._is_held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_exc: object) -> None:
        self.release()


class _RLock(_Lock):
    def __init__(self) -> None:
        super().__init__()
        self._owner: Strand | None = None
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me = _strands().current
        if self._owner is not me:
            if not super().acquire(blocking, timeout):
                return False
            self._owner = me
        self._depth += 1
        return True

    def release(self) -> None:
        self._depth -= 1
        if self._depth <= 0:
            self._owner, self._depth = None, 0
            super().release()


class _Condition:
    def __init__(self, lock: Any = None) -> None:
        self._lock = lock or _RLock()
        self._waiting: list[list[bool]] = []
        self.acquire, self.release = self._lock.acquire, self._lock.release

    def wait(self, timeout: float | None = None) -> bool:
        told: list[bool] = []
        self._waiting.append(told)
        self._lock.release()
        try:
            return _strands().block(told.__len__, timeout)
        finally:
            # By identity: all that were not told yet are equal.
            self._waiting = [one for one in self._waiting if one is not told]
            self._lock.acquire()

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        while not predicate():
            if not self.wait(timeout):
                return predicate()
        return True

    def notify(self, n: int = 1) -> None:
        for told in self._waiting[:n]:
            told.append(True)
        del self._waiting[:n]

    def notify_all(self) -> None:
        self.notify(len(self._waiting))

    def __enter__(self) -> bool:
        return bool(self._lock.acquire())

    def __exit__(self, *_exc: object) -> None:
        self._lock.release()


class _Event:
    def __init__(self) -> None:
        self._flag = False

    def is_set(self) -> bool:
        return self._flag

    def set(self) -> None:
        self._flag = True

    def clear(self) -> None:
        self._flag = False

    def wait(self, timeout: float | None = None) -> bool:
        return self._flag or _strands().block(lambda: self._flag, timeout)


class _Semaphore:
    def __init__(self, value: int = 1) -> None:
        self._value = value

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        if self._value <= 0 and not (
            blocking and _strands().block(lambda: self._value > 0, timeout)
        ):
            return False
        self._value -= 1
        return True

    def release(self, n: int = 1) -> None:
        self._value += n

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_exc: object) -> None:
        self.release()


class _Queue:
    def __init__(self) -> None:
        self._items: deque[Any] = deque()

    def put(self, item: Any) -> None:
        self._items.append(item)

    def get(self) -> Any:
        if not self._items:
            _strands().block(self._items.__len__)
        return self._items.popleft()

    def get_nowait(self) -> Any:
        if not self._items:
            raise Empty
        return self._items.popleft()

    def empty(self) -> bool:
        return not self._items

    def qsize(self) -> int:
        return len(self._items)


class _Thread:
    def __init__(
        self,
        group: None = None,
        target: Callable[..., None] | None = None,
        name: str = "thread",
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        self.name, self.daemon = name, daemon
        self._work = lambda: target(*args, **(kwargs or {})) if target else None
        self._strand: Strand | None = None

    def start(self) -> None:
        self._strand = _strands().spawn(self.name, self._work)

    def is_alive(self) -> bool:
        return self._strand is not None and not self._strand.is_done

    def join(self, timeout: float | None = None) -> None:
        if self.is_alive():
            _strands().block(lambda: not self.is_alive(), timeout)


def _begin_thread(work: Callable[[], None]) -> None:
    _strands().spawn("begun", work)


def _ident() -> int:
    assert _active is not None, "outside of a simulation"
    return _active.current.number


def _wait(futures: Any, timeout: float | None = None, return_when: str = "ALL_COMPLETED") -> Any:
    some = list(futures)
    enough = all if return_when == "ALL_COMPLETED" else any
    if not enough(one.done() for one in some):
        _strands().block(lambda: enough(one.done() for one in some), timeout)
    done = {one for one in some if one.done()}
    return SimpleNamespace(done=done, not_done=set(some) - done)


_INSTEAD: dict[int, object] = {
    id(threading.Lock): _Lock,
    id(threading.RLock): _RLock,
    id(threading.Condition): _Condition,
    id(threading.Event): _Event,
    id(threading.Semaphore): _Semaphore,
    id(threading.Thread): _Thread,
    id(threading.get_ident): _ident,
    id(begin_thread): _begin_thread,
    id(SimpleQueue): _Queue,
    id(wait): _wait,
    id(threading): SimpleNamespace(
        Lock=_Lock, RLock=_RLock, Condition=_Condition, Event=_Event, Semaphore=_Semaphore,
        Thread=_Thread, current_thread=lambda: _strands().current, get_ident=_ident,
    ),
}  # fmt: skip

_really_result, _really_exception = Future.result, Future.exception


def _result(self: Future[Any], timeout: float | None = None) -> Any:
    _until_done(self, timeout)
    return _really_result(self, 0)


def _exception(self: Future[Any], timeout: float | None = None) -> Any:
    _until_done(self, timeout)
    return _really_exception(self, 0)


def _until_done(future: Future[Any], timeout: float | None) -> None:
    if not future.done():
        _strands().block(future.done, timeout)


def _engine_modules() -> Iterator[ModuleType]:
    for name, module in list(sys.modules.items()):
        if name.startswith("farmer.storage."):
            yield module


@contextmanager
def installed(strands: Strands, others: dict[int, object]) -> Iterator[None]:
    """
    Let the engine's modules use these strands.

    *others* are further replacements: by the `id` of what a name is bound to now.
    """
    global _active  # noqa: PLW0603  # the stand-ins of `threading` are as global as it is
    instead = _INSTEAD | others
    undo: list[tuple[ModuleType, str, object]] = []
    assert _active is None, "one simulation at a time"
    _active = strands
    Future.result, Future.exception = _result, _exception  # type: ignore[method-assign]
    try:
        for module in _engine_modules():
            for name, value in list(vars(module).items()):
                if id(value) in instead:
                    undo.append((module, name, value))
                    setattr(module, name, instead[id(value)])
        yield
    finally:
        for module, name, value in undo:
            setattr(module, name, value)
        Future.result, Future.exception = _really_result, _really_exception  # type: ignore[method-assign]
        _active = None
