"""A thread that cannot be begun, or dies at its birth, holds nobody up."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable

import pytest

from farmer.storage import threads
from farmer.storage.threads import begin_thread


def test_work_is_done_in_a_thread_that_ends_with_the_process() -> None:
    done = threading.Event()
    begin_thread(done.set)
    assert done.wait(20)


def test_a_thread_that_the_system_refuses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_work: object, _words: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    with pytest.raises(OSError, match="no thread can be begun"):
        begin_thread(lambda: None)


def test_a_thread_that_never_says_that_it_runs_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So it is where there is no memory for its first call; if it comes after all, it ends."""
    late: list[Callable[[], None]] = []
    done: list[str] = []
    monkeypatch.setattr(threads, "BIRTH_S", 0.01)
    monkeypatch.setattr(_thread, "start_new_thread", lambda run, _words: late.append(run))
    with pytest.raises(OSError, match="no thread can be begun"):
        begin_thread(lambda: done.append("done"))
    late[0]()
    assert not done
