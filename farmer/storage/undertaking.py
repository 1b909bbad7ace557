"""What is done with one shard step by step, and may be given up while a thread is in a step."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock
from typing import TypeVar

from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.watch import Watch

R = TypeVar("R")


class Undertaking:
    """
    A context for each step; what is held is given back once, and never during a step.

    Where the disk hangs, a thread still waits in a step when it is given up: then that thread
    gives back, or whoever looks after the disk when it answers.  A descriptor that is closed
    under the hands of a thread may be another file's when it goes on.
    """

    def __init__(
        self,
        watch: Watch,
        give_back: Callable[[], None],
        ended: Callable[[], None],
        *,
        is_on_disk: bool = True,
        stored: Callable[[], None] = lambda: None,
    ) -> None:
        """
        *give_back* lets go of what it has; *ended* is called once, at its end.

        *stored* is called when what was committed is durable, before whoever asked hears of it.
        What has nothing *on disk* is let go at once, also of a disk that hangs: that may never
        answer, and memory, space and a place among its renter's stores would go with it.
        """
        self._watch = watch
        self._is_on_disk = is_on_disk
        self._give_back = give_back
        self._ended = ended
        self._stored = stored
        self._lock = Lock()
        self._is_inside = False
        self._is_given_up = False
        self._is_given_back = False
        self._is_committed = False
        self._is_over = False

    def __enter__(self) -> None:
        """Begin a step; raises `VolumeUnavailableError` if it has ended."""
        with self._lock:
            if self._is_given_up:
                raise VolumeUnavailableError("this upload has ended")
            self._is_inside = True

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._is_inside = False
            is_given_up = self._is_given_up
        if is_given_up:
            self.give_up()

    def commit(self, commit: Callable[[Callable[[], None]], Future[R]]) -> Future[R]:
        """Do the last step; if it works, the end is what *commit* is handed, and calls once."""
        with self:
            outcome = commit(self._end)
            self._is_committed = True
            outcome.add_done_callback(self._confirm)
            return outcome

    def give_up(self) -> None:
        """Give back what is held, as soon as that can be done; safe at any time, and twice."""
        with self._lock:
            self._is_given_up = True
            if self._is_inside or self._is_given_back:
                return
            self._is_given_back = True
        if self._is_on_disk and self._watch.hung_reason:
            # Nobody knows how long: meanwhile it may be stored elsewhere.
            self._end_unless_committed()
            self._watch.when_it_answers(self._give_back)
            return
        try:
            self._give_back()
        finally:
            # Not before: whoever begins it again goes on from the lease that is left.
            self._end_unless_committed()

    def _confirm(self, outcome: Future[R]) -> None:
        if outcome.exception() is None:
            self._stored()

    def _end_unless_committed(self) -> None:
        if not self._is_committed:
            self._end()

    def _end(self) -> None:
        """Let others have this shard; once, since afterwards it may be somebody else's turn."""
        with self._lock:
            was_over, self._is_over = self._is_over, True
        if not was_over:
            self._ended()
