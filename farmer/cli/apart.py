"""
A command's work in a child process, so that the command itself ends whatever becomes of it.

Whoever asks a disk that does not answer may wait in the kernel where no signal reaches him, for
as long as the disk is dead; a shell would wait with him.
"""

from __future__ import annotations

import contextlib
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final, NoReturn

from farmer.cli.exits import FAILED, INTERRUPTED
from farmer.cli.terminal import flushed

_PASSED_ON: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""The keyboard's interrupt reaches the child by itself, too; of those it hears the first."""

BY_SIGNAL: Final = 128
"""As shells have it: to this the signal's number is added."""


def in_a_child(work: Callable[[], int]) -> int:
    """Return the exit code of *work*, as soon as it is known."""
    reading, writing = os.pipe()
    # What comes before it can be passed on waits: it would end us, and leave the child behind.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    child = os.fork()
    if not child:
        _hear_interrupts_once()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(reading)
        _work(work, writing)
    os.close(writing)
    try:
        with _passing_on(child):
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            told = os.read(reading, 1)
    except KeyboardInterrupt:
        return INTERRUPTED
    if told:
        return told[0]
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return ended if ended >= 0 else BY_SIGNAL - ended


@contextlib.contextmanager
def _passing_on(child: int) -> Iterator[None]:
    """Let whoever ends us end the child."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        # The child may have ended just now.
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    handlers = {number: signal.getsignal(number) for number in _PASSED_ON}
    # By `nohup` some are to be ignored, and so they are by the child.
    heard = {one: was for one, was in handlers.items() if was not in (signal.SIG_IGN, None)}
    for number in heard:
        signal.signal(number, pass_on)
    try:
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)


def _hear_interrupts_once() -> None:
    """
    Be interrupted by the first, and go on with what is to be done then.

    Who interrupts a whole group, as a terminal does, has the command pass on another.
    """
    was_heard = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal was_heard
        if not was_heard:
            was_heard = True
            raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)


def _work(work: Callable[[], int], writing: int) -> NoReturn:
    code = FAILED
    try:
        code = work()
    except BaseException:  # it must not return into what the parent does
        traceback.print_exc()
    finally:
        code = flushed(code, "farmer")
        # A thread of ours may never end, and keep open what others read to its end.
        os.closerange(1, 3)
        os.write(writing, bytes((code,)))
        os._exit(code)
