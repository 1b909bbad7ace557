"""
The client for scripts and notebooks: plain calls, no reactor in sight.

The reactor runs in a thread of its own, started by the first call and stopped when the
program ends.  Calls may come from any thread but that one, also several at a time.
"""

from __future__ import annotations

import atexit
import errno
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar, cast

from twisted.internet.defer import Deferred

from farmer.client import farmer as asynchronous
from farmer.client.auditing import Audited, AuditReport
from farmer.client.descriptors import descriptor_of
from farmer.client.dial import FarmerAddress
from farmer.client.repairing import Repaired
from farmer.client.replacing import followed, give_name, mode_of_new
from farmer.client.storing import Progress, no_progress
from farmer.identity.keys import Identity
from farmer.model.contract import Invite, InviteLink, Receipt
from farmer.model.ids import NodeId, ShardId
from farmer.model.shard import BadBlocks
from farmer.protocol.questions import ContractShown, Deleted, Pong, Stated

R = TypeVar("R")

_STOP_S: Final = 2.0
"""For the reactor to stop at the end of the program; a name look-up may take far longer."""

_CANCEL_S: Final = 3.0
"""For work that was interrupted to clean up behind itself; a silent disk would take for ever."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What the main thread has to notice while it waits."""


class BlockingFarmer:
    """One farmer, for one renter; every method waits for its answer.  See `client.farmer`."""

    def __init__(self, farmer: asynchronous.Farmer) -> None:
        self._farmer = farmer

    @property
    def node_id(self) -> NodeId:
        """Which farmer this is."""
        return self._farmer.node_id

    def redeem(self, invite: Invite, *, anyway: bool = False) -> ContractShown:
        """Spend an invite; return the contract, with *anyway* also one that has less."""
        return _wait(lambda: self._farmer.redeem(invite, anyway=anyway))

    def contract(self) -> ContractShown:
        """Return the contract, its stage and what it uses."""
        return _wait(self._farmer.contract)

    def store(self, source: Path | str | BinaryIO, progress: Progress = no_progress) -> Receipt:
        """Store a file, named or open (from where it stands); return the signed receipt."""
        with _to_read(source) as file:
            return _wait(lambda: self._farmer.store(file, progress))

    def retrieve(
        self,
        shard: ShardId,
        target: Path | str | BinaryIO,
        offset: int = 0,
        length: int | None = None,
        *,
        proved: bool = False,
        progress: Progress = no_progress,
    ) -> None:
        """
        Write a shard, or a part of it, to a file, named or open.

        A named file appears, or replaces an earlier one, only when all its bytes are there.

        Raises:
            WrongBytesError: what was written to an open file must not be used.

        """
        with _to_write(target) as file:
            _wait(
                lambda: self._farmer.retrieve(
                    shard, file, offset, length, proved=proved, progress=progress
                )
            )

    def audit(self, receipts: Iterable[Receipt], samples: int | None = None) -> AuditReport:
        """Have the farmer prove by samples that it holds what the receipts say."""
        return _wait(lambda: self._farmer.audit(receipts, samples))

    def audit_full(self, receipt: Receipt, source: Path | str | BinaryIO) -> Audited:
        """Have the farmer hash a whole shard, and compare with our own copy of it."""
        with _to_read(source) as file:
            return _wait(lambda: self._farmer.audit_full(receipt, file))

    def examine(self, shard: ShardId, size_bytes: int) -> BadBlocks:
        """Have the farmer read a whole shard; return which blocks are damaged."""
        return _wait(lambda: self._farmer.examine(shard, size_bytes))

    def repair(
        self, shard: ShardId, source: Path | str | BinaryIO, progress: Progress = no_progress
    ) -> Repaired:
        """Send the damaged blocks of a shard again, from a file with our own copy of it."""
        with _to_read(source) as file:
            return _wait(lambda: self._farmer.repair(shard, file, progress))

    def stat(self, shard: ShardId) -> Stated:
        """Return what the farmer knows of one shard."""
        return _wait(lambda: self._farmer.stat(shard))

    def list(self) -> Iterator[Stated]:
        """Return all shards that the farmer says it has, page by page."""
        pages = self._farmer.list()
        end = object()
        while (entry := _wait(lambda: _next(pages, end))) is not end:
            assert isinstance(entry, Stated)
            yield entry

    def delete(self, shard: ShardId, *, erase: bool = False) -> Deleted:
        """Move a shard to the trash, or erase it."""
        return _wait(lambda: self._farmer.delete(shard, erase=erase))

    def undelete(self, shard: ShardId) -> Stated:
        """Take a shard out of the trash."""
        return _wait(lambda: self._farmer.undelete(shard))

    def ping(self) -> Pong:
        """Return the farmer's time, free space, prices and version."""
        return _wait(self._farmer.ping)


@contextmanager
def connect(
    target: FarmerAddress | InviteLink | str, identity: Identity
) -> Iterator[BlockingFarmer]:
    """
    Connect to the farmer named by an invite, or by `NODEID@HOST:PORT`; hang up at the end.

    Raises:
        ValueError: *target* names no farmer.

    """
    lent = asynchronous.connect(target, identity, _THREAD.running())
    farmer = _wait(lent.__aenter__)
    try:
        yield BlockingFarmer(farmer)
    finally:
        _wait(lambda: lent.__aexit__(None, None, None))


def run(work: Callable[[Any], Coroutine[Any, Any, R]]) -> R:
    """
    Run `work(reactor)`, a coroutine of the asynchronous client, to its end.

    When the calling thread is interrupted (Ctrl-C), the work is cancelled and may clean up for
    a few seconds before the interruption goes on.
    """
    reactor = _THREAD.running()
    outcome: Future[R] = Future()
    started: list[Deferred[None]] = []

    def start() -> None:
        try:
            deferred = Deferred.fromCoroutine(work(reactor))
        except BaseException as error:
            outcome.set_exception(error)
            return
        started.append(
            deferred.addCallbacks(
                outcome.set_result, lambda failure: outcome.set_exception(failure.value)
            )
        )

    def cancel() -> None:
        for deferred in started:
            deferred.cancel()

    reactor.callFromThread(start)
    try:
        return outcome.result()
    except BaseException:
        if not outcome.done():
            reactor.callFromThread(cancel)
            with suppress(TimeoutError):
                outcome.exception(_CANCEL_S)
        raise


class _ReactorThread:
    """The process's one reactor, in a thread of ours unless somebody runs it already."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def running(self) -> Any:  # noqa: ANN401 - a reactor is many interfaces at once
        """Return the reactor, running."""
        from twisted.internet import reactor as the_reactor  # noqa: PLC0415 - installs it
        from twisted.python.threadable import isInIOThread  # noqa: PLC0415 - see above

        reactor: Any = the_reactor
        with self._lock:
            if not reactor.running:
                self._start(reactor)
        if cast(Callable[[], bool], isInIOThread)():
            raise RuntimeError(
                "this would wait for itself: in the reactor's thread use farmer.client.farmer"
            )
        return reactor

    def _start(self, reactor: Any) -> None:  # noqa: ANN401 - see above
        # Twisted's own clock is the wall's: a step of it would fire or stop every timeout.
        reactor.seconds = time.monotonic
        begun = threading.Event()
        reactor.callWhenRunning(begun.set)
        self._thread = threading.Thread(
            target=_run_reactor, args=(reactor,), name="renter reactor", daemon=True
        )
        self._thread.start()
        begun.wait()
        atexit.register(self._stop, reactor)

    def _stop(self, reactor: Any) -> None:  # noqa: ANN401 - see above
        assert self._thread is not None
        reactor.callFromThread(reactor.stop)
        self._thread.join(_STOP_S)


_THREAD: Final = _ReactorThread()
"""Twisted has one reactor per process that can be run once: so this is one as well."""


def _run_reactor(reactor: Any) -> None:  # noqa: ANN401 - see above
    # A signal that the system gives to this thread, or to one that it starts, does not wake
    # the main thread, where alone Python acts on it.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    reactor.run(False)


def _wait(work: Callable[[], Coroutine[Any, Any, R]]) -> R:
    return run(lambda _reactor: work())


async def _next(pages: Any, end: object) -> object:  # noqa: ANN401 - an async iterator
    return await anext(pages, end)


@contextmanager
def _to_read(file: Path | str | BinaryIO) -> Iterator[BinaryIO]:
    """Open a named file; one that is open already stays open."""
    if isinstance(file, Path | str):
        with Path(file).open("rb") as opened:
            yield opened
    else:
        yield file


@contextmanager
def _to_write(target: Path | str | BinaryIO) -> Iterator[BinaryIO]:
    """Write a named file beside what has the name; a pipe, a device, an open file as it is."""
    if not isinstance(target, Path | str):
        yield target
        return
    number = descriptor_of(target)
    if number is not None:
        with os.fdopen(os.dup(number), "wb") as opened:
            yield cast(BinaryIO, opened)
        return
    if str(target).endswith(os.sep):
        # A path would drop what says that a directory is meant.
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    path = followed(Path(target))
    if path.exists() and not path.is_file():
        with path.open("wb") as opened:
            yield opened
        return
    with _replacing(path) as file:
        yield file


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a new file the name when all went well; else leave nothing of it."""
    beside = path.with_name(f".{secrets.token_hex(8)}.part")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode_of_new(path))
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            give_name(descriptor, beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
