"""Asking a disk that may never answer, with an end to the waiting."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

from farmer.storage.threads import begin_thread

R = TypeVar("R")

ANSWER_S: Final = 2.0
"""At the start a disk is not waited for longer: one that only sleeps is asked again later."""


def answer_of(ask: Callable[[], R], within_s: float = ANSWER_S) -> R | None:
    """Return what *ask* returns, or None if that takes too long; raises what *ask* raises."""
    answer = asked(ask)
    try:
        return answer.result(within_s)
    except TimeoutError:
        if answer.done():
            # The disk's own answer was this error.
            raise
        return None


def asked(ask: Callable[[], R]) -> Future[R]:
    """Ask, in a thread that nobody waits for; the answer may never come."""
    answer: Future[R] = Future()

    def work() -> None:
        try:
            answer.set_result(ask())
        except Exception as error:
            answer.set_exception(error)

    # The end of the process does not wait for it: it may never return.
    begin_thread(work)
    return answer
