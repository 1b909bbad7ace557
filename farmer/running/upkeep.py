"""The background of a running farmer: what is looked at, swept and compared, and how often."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from farmer.model.contract import Contract
from farmer.model.moments import Clocks
from farmer.model.status import Alert, VolumeStatus
from farmer.node.chores import Chore
from farmer.node.ports import Disk
from farmer.node.tasks import Tasks
from farmer.running.overview import BookCounts, Overview
from farmer.running.remembering import compare, complaints
from farmer.running.shortage import Shortage
from farmer.storage.contracts import ContractDatabase
from farmer.storage.engine import Engine
from farmer.storage.errors import StorageError
from farmer.units import counted

LOOK_S: Final = 5.0
"""How old the counts and the alerts of page and metrics may be."""

PROBE_S: Final = 2.0
"""A disk that went is noticed within 10 s, also when nobody uses it: a look, then a hang."""

HINTS_S: Final = 30.0
"""Until a volume that was opened is learned each look-up asks it, which is slower and no worse."""

TICK_S: Final = 60.0
SWEEP_S: Final = 3600.0
COMPARE_S: Final = 6 * 3600.0
FIRST_COMPARE_S: Final = 120.0
"""After the start the disks have better to do."""


class Upkeep:
    """The chores; start and stop them together."""

    log = Logger()

    def __init__(
        self,
        engine: Engine,
        book: ContractDatabase,
        overview: Overview,
        disk: Disk,
        clocks: Clocks,
        purged: Callable[[str, int], None],
    ) -> None:
        """*purged* hears of shards that went for good: why (deleted, expired) and how many."""
        self._engine = engine
        self._book = book
        self._overview = overview
        self._disk = disk
        self._clocks = clocks
        self._purged = purged
        self._chores: list[Chore] = []
        self._failing: Mapping[str, str] = {}
        self.more_alerts: Callable[[], list[Alert]] = list
        """What else stands, asked at each look; never waits for a disk."""
        self.shortage: Final = Shortage(clocks.monotonic_s)
        """Whether more is promised than there is."""

    def start(self, clock: IReactorTime, tasks: Tasks, *others: Tasks) -> None:
        """
        Begin all chores; the clock is looked at before the first sweep.

        Those of *tasks*, and of *others*, that fail each time are told, whoever began them.
        """
        self._failing = ChainMap(tasks.failing, *(one.failing for one in others))
        plan = (
            ("clock", TICK_S, 0.0, self.tick),
            ("look", LOOK_S, LOOK_S, self.look),
            ("probe", PROBE_S, PROBE_S, self.probe),
            ("hints", HINTS_S, PROBE_S, self.learn),
            ("sweep", SWEEP_S, TICK_S, self.sweep),
            ("comparison", COMPARE_S, FIRST_COMPARE_S, self.compare),
        )
        for name, every_s, first_after_s, work in plan:
            chore = Chore(name, every_s, work, clock, tasks)
            chore.start(first_after_s=first_after_s)
            self._chores.append(chore)

    def stop(self) -> None:
        """Begin no more turns."""
        for chore in self._chores:
            chore.stop()

    async def look(self) -> None:
        """Count contracts and invites, and gather what disks and clock complain of."""
        report = self._overview.board.report
        report("chores", *chores_failing(self._failing))
        report("engine", *self._engine.trouble())
        report("clock", *clock_doubt(self._book.clock.doubt))
        report("damage", *damage(self._engine.volumes()))
        report("others", *self.more_alerts())
        try:
            with self._told_by_book():
                await self._look_at_book()
        finally:
            report("book", *book_failure(self._book.failure))

    async def _look_at_book(self) -> None:
        self._overview.counts = await self._disk.run(count_book, self._book)
        await self._disk.run(compare, self._book, self._engine)
        missing = await self._disk.run(complaints, self._book, self._engine)
        self._overview.board.report("contracts", *missing)
        promised_bytes = self._overview.counts.promised_bytes
        short = self.shortage.alerts(promised_bytes, self._engine.volumes())
        self._overview.board.report("shortage", *short)

    async def probe(self) -> None:
        """Notice a disk that went, or came back, while nobody stored or retrieved."""
        await self._disk.run(self._engine.look_after_disks)

    async def learn(self) -> None:
        """Let the engine learn where a shard need not be looked for."""
        await self._disk.run(self._engine.learn)

    async def tick(self) -> None:
        """Let the durable clock go on; one in doubt stops the sweeps and is told."""
        now_ms, monotonic_s = self._clocks.now_ms(), self._clocks.monotonic_s()
        with self._told_by_book():
            several = len(self._engine.volumes()) > 1
            look = self._book.clock.tick
            await self._disk.run(look, now_ms, monotonic_s, tells_order=several)

    async def sweep(self) -> None:
        """Move ended contracts on, empty the trash; not while the clock is doubtful."""
        if not self._book.clock.trusted:
            self.log.info("no sweep while the clock is in doubt")
            return
        now_ms = self._clocks.now_ms()
        try:
            with self._told_by_book():
                await self._advance(now_ms)
        finally:
            # A full home keeps no volume from emptying its trash.
            observed_ms = self._book.clock.observed_ms
            swept = await self._disk.run(self._engine.sweep, now_ms, observed_ms)
            self._purged("deleted", swept)

    async def _advance(self, now_ms: int) -> None:
        for contract in await self._disk.run(self._book.advance, now_ms):
            await self._purge(contract)

    async def _purge(self, contract: Contract) -> None:
        try:
            removed = await self._disk.run(self._engine.purge, contract.renter, contract.contract)
            self._purged("expired", removed)
            await self._disk.run(self._book.purged, contract.contract)
        except StorageError as error:
            # Its other shards may lie there; the next sweep tries again, and the others go on.
            self.log.info(
                "contract {id} is not cleared yet: {error}", id=contract.contract, error=error
            )

    @contextmanager
    def _told_by_book(self) -> Iterator[None]:
        """Let pass what is told anyway: that the contracts cannot be read or changed."""
        try:
            yield
        except StorageError:
            if not self._book.failure:
                raise

    async def compare(self) -> None:
        """Compare the ledger with what the disks say."""
        await self._disk.run(self._engine.compare_with_disk)


def count_book(book: ContractDatabase) -> BookCounts:
    """Return what the contract database holds.  Blocking."""
    census = book.census()
    return BookCounts(census.contracts, census.open_invites, census.promised_bytes)


def chores_failing(failing: Mapping[str, str]) -> list[Alert]:
    """Return an alert for each chore that fails each time."""
    return [
        Alert(
            name="ChoreFailing",
            since_ms=0,
            message=f'The background work called "{name}" fails each time: {why}. What it does is '
            "not done meanwhile; the log says more, and a restart may help.",
            about=name,
        )
        for name, why in failing.items()
    ]


def clock_doubt(doubt: str) -> list[Alert]:
    """Return the alert that stands while the clock is in doubt."""
    if not doubt:
        return []
    command = "farmer clock confirm"
    return [Alert(name="ClockSuspicious", since_ms=0, message=doubt, command=command)]


def book_failure(failure: str) -> list[Alert]:
    """Return the alert that stands while the contract database cannot be used."""
    if not failure:
        return []
    message = (
        f"The contracts cannot be read or changed ({failure}): renters may be refused, no invite "
        "can be made or redeemed; shards and contracts are kept. See that the disk of the "
        "farmer's home is there, has room and can be written: the farmer then goes on by itself "
        "within a minute, and restarting it helps where it does not."
    )
    return [Alert(name="ContractsUnavailable", since_ms=0, message=message)]


def damage(volumes: Iterable[VolumeStatus]) -> list[Alert]:
    """Return the alert that stands while damaged shards are set aside, also over a restart."""
    found = [
        f"{counted(volume.quarantined, 'damaged shard')} on {volume.path}"
        for volume in volumes
        if volume.quarantined
    ]
    if not found:
        return []
    message = (
        f"{', '.join(found)}: set aside until their renters repair, store or delete them; what is "
        "intact of them is served. The disk may be failing."
    )
    command = "farmer volume list"
    return [Alert(name="ShardsQuarantined", since_ms=0, message=message, command=command)]
