"""
The end of a farmer, in order: nothing more is begun, what runs is finished, all is closed.

What was started is stopped in reverse order.  A disk that does not answer is waited for no longer
than is said here; the threads that wait in it may then outlive all else.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.logger import Logger

from farmer.node.chores import Chore
from farmer.node.disk import ThreadedDisk
from farmer.node.service import FarmerService
from farmer.node.tasks import Tasks, within
from farmer.running.home import Home
from farmer.running.notify import ServiceNotifier
from farmer.running.run_note import forget_run
from farmer.running.stores import Stores
from farmer.storage.errors import StorageError
from farmer.units import counted

WIND_DOWN_S: Final = 10.0
"""For background work after the grace of transfers; longer than a hang takes to be seen."""


@dataclass(slots=True, kw_only=True)
class WindingDown:
    """What of a farmer that serves has to end, and how that went."""

    clock: IReactorTime
    home: Home
    control: Path
    """The owner's door; its directory goes with it."""
    stores: Stores
    disk: ThreadedDisk
    service: FarmerService
    ports: Sequence[IListeningPort]
    """As they were opened, one after the other."""
    tasks: Tasks
    background: ExitStack
    """Stops what goes on beside serving."""
    disk_watch: Chore
    """It is what ends the waiting for a disk that does not answer: it goes on to the very end."""
    notifier: ServiceNotifier
    exit_code: int = 0
    is_over: bool = False
    """Whether nothing is left to be ended."""
    is_stuck: bool = False
    """Whether a thread still waits for a disk: the process must not wait for that."""

    log = Logger()

    async def run(self, grace_s: float) -> None:
        """End all; transfers under way have *grace_s* seconds to be finished."""
        self.log.info(
            "stopping; running transfers have {grace_s} s (who does not wait for them asks once "
            "more, with another Ctrl-C: nothing that was acknowledged is lost)",
            grace_s=grace_s,
        )
        self.notifier.stopping()
        try:
            await self._run(grace_s)
        except BaseException:
            self.exit_code = 1
            raise

    def cut_off(self) -> str:
        """Return what ends unfinished if the process ends now; takes no lock, asks no disk."""
        return cut_off(self.service.sessions.busy)

    async def _run(self, grace_s: float) -> None:
        self.background.close()
        finished = await self.service.drain(grace_s)
        # What goes on in the background ends sooner without its rests.
        self.stores.engine.begin_close()
        if not await within(self.clock, WIND_DOWN_S, self.tasks.drain()):
            self.log.warn("some background work waits for a disk that does not answer")
        for port in reversed(self.ports):
            await maybeDeferred(port.stopListening)
        has_answered = False
        try:
            has_answered = await self._close()
        finally:
            self.disk_watch.stop()
            has_ended = self.disk.stop()
            self.is_stuck = not (has_answered and has_ended and not self.stores.engine.silent())
        how = "all transfers were finished" if finished else "some transfers were cut off"
        self.log.info("stopped; {how}", how=how)
        self.is_over = True
        if self.is_stuck:
            self.notifier.lingering()
            self.log.warn(
                "the kernel may keep this process until the disk answers or is unmounted by"
                " force; a new one can be started meanwhile"
            )

    async def _close(self) -> bool:
        """Close all, whatever of it fails; say whether the disk of the home has answered."""
        try:
            await self.disk.run(self.stores.engine.close)
        except StorageError as error:
            self._failed(f"the volumes could not be closed in order: {error}")
        has_answered = await within(self.clock, WIND_DOWN_S, self._leave_home())
        if not has_answered:
            self._failed(f"the disk of {self.home.state} does not answer")
        return has_answered

    async def _leave_home(self) -> None:
        book = self.stores.book
        await self.disk.run(book.close)
        if book.failure:
            self.log.warn("contract database: {why}", why=book.failure)
        try:
            await self.disk.run(_mark_the_end, self.home, self.control.parent)
        except OSError as error:
            self._failed(f"{self.home.run} could not be removed: {error.strerror}")

    def _failed(self, why: str) -> None:
        self.exit_code = 1
        self.log.error("{why}", why=why)


def cut_off(transfers: int) -> str:
    """Return what to say of an end at once, while so many transfers run."""
    what = f"{counted(transfers, 'transfer')} and" if transfers else "no transfer, but"
    were = "were" if transfers else "was"
    return (
        f"stopped at once, as asked: {what} the closing of the volumes {were} cut off. Nothing"
        " that was acknowledged is lost; the next start reads the last writes again"
    )


def _mark_the_end(home: Home, control: Path) -> None:
    """Note an orderly end: only now is everything on the disk.  Blocking."""
    forget_run(home.run, control)
    with suppress(OSError):
        control.rmdir()
