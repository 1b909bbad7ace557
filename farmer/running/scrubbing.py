"""When the scrubs work, and how much: hours, rate, and giving way to everything else."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from farmer.model.status import Alert, ScrubStatus, VolumeState, VolumeStatus
from farmer.node.chores import Chore
from farmer.node.ports import Disk
from farmer.node.tasks import Tasks
from farmer.running.control import Verb
from farmer.running.errors import OwnerError
from farmer.settings.schema import ScrubSettings
from farmer.storage.errors import StorageError
from farmer.storage.scrub import DAY_MS, Turn
from farmer.storage.scrub_check import check_database
from farmer.storage.scrubs import PASS_SHARE, Scrubs
from farmer.units import format_size
from farmer.version import SCHEMA

WORK_S: Final = 0.1
"""One turn: what a request that comes meanwhile may have to wait for the disk, about."""

IDLE_S: Final = 60.0
"""How often a volume without anything to do is asked again."""

GIVE_WAY_S: Final = 0.5
"""A pass that has time asks so often whether a renter is still being served."""

LOOK_S: Final = 60.0
"""How often volumes that came are noticed, and the hours."""

FIRST_LOOK_S: Final = 5.0

QUEUE_FACTOR: Final = 20.0
"""Rest so many times as long as a turn waited for a thread: that is what others wait, too."""

BOOK_S: Final = 86_400.0
FIRST_BOOK_S: Final = 600.0
"""The contract database is small: SQLite's check of it takes milliseconds, once a day is often."""

_NOT_HERE: Final = (VolumeState.GONE, VolumeState.RETIRED)

RELIABLE_BYTES: Final = 256 * 1024 * 1024
"""A pass that has read less says little of its speed."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The owner's wishes."""

    settings: ScrubSettings

    def rest_s(self, turn: Turn, waited_s: float, others: int) -> float:
        """
        Return how long to rest after a turn.

        *waited_s* is what the turn waited for a thread, *others* how many threads were busy
        with other work when it ended.  A disk that others use makes turns slower, and so the
        rests longer, by itself.
        """
        if turn.is_idle:
            return IDLE_S
        if turn.is_put_off:
            return GIVE_WAY_S
        tranquil_s = self.settings.tranquility * turn.worked_s * (1 + others)
        rate = self.settings.rate
        slow_s = turn.read_bytes / rate - turn.worked_s if rate else 0.0
        return max(0.0, tranquil_s, slow_s) + QUEUE_FACTOR * waited_s

    @property
    def bytes_per_day_max(self) -> float:
        """What the rate and the hours allow in one day; 0 for no bound."""
        if not self.settings.rate:
            return 0.0
        return self.settings.rate * 86_400 * self.settings.hours.share


class Scrubbing:
    """One chore for each volume, so that a hung disk holds up none but its own."""

    log = Logger()

    def __init__(
        self,
        scrubs: Scrubs,
        disk: Disk,
        now_ms: Callable[[], int],
        settings: ScrubSettings,
        others_busy: Callable[[], int] = lambda: 0,
        is_serving: Callable[[], bool] = lambda: False,
        book: Path | None = None,
    ) -> None:
        """
        Make it.

        *others_busy* says how many threads of the door are at work, *is_serving* whether a
        renter is being served at this moment, *book* where the contract database is: its own
        structure is checked as well.
        """
        self.settings = settings
        self.scrubs = scrubs
        self._disk = disk
        self._now_ms = now_ms
        self._others_busy = others_busy
        self._is_serving = is_serving
        self._chores: dict[str, Chore] = {}
        self._at_work: set[str] = set()
        self._own_chores: list[Chore] = []
        self._book = book
        self._book_damage = ""
        self.made_ms: Callable[[str], int] = lambda _name: 0
        """When a volume was made, by its name; may ask its disk, and is 0 if nobody knows."""
        self._since_ms: dict[str, int] = {}
        """Since when there is something to read on each volume; at least since it was seen."""

    def start(self, clock: IReactorTime, tasks: Tasks) -> None:
        """Begin."""

        async def look() -> None:
            # It reads a small file of a volume that it sees for the first time.
            await self._disk.run(self._tell_hours)
            names = self.scrubs.names()
            self._forget_others(names)
            for name in names:
                if name not in self._chores:
                    self._add(name, clock, tasks)

        hours = Chore("scrub hours", LOOK_S, look, clock, tasks)
        hours.start(first_after_s=FIRST_LOOK_S)
        book = Chore("check of the contracts", BOOK_S, self.check_book, clock, tasks)
        book.start(first_after_s=FIRST_BOOK_S)
        self._own_chores = [hours, book]

    def stop(self) -> None:
        """Begin no more turns."""
        for chore in (*self._own_chores, *self._chores.values()):
            chore.stop()

    def wake(self) -> None:
        """Begin the next turns now: the owner has just said something about it."""
        for chore in (*self._own_chores[:1], *self._chores.values()):
            chore.run_now()

    async def check_book(self) -> None:
        """Have SQLite check the contract database."""
        if self._book is not None:
            self._book_damage = await self._disk.run(check_database, self._book)

    def alerts(self, volumes: tuple[VolumeStatus, ...]) -> list[Alert]:
        """Return what stands: a damaged contract database, and what makes the scrub too slow."""
        late = scrub_alerts(volumes, self.settings, self._now_ms(), self._since_ms)
        if not self._book_damage:
            return late
        message = (
            f"The database of the contracts is damaged ({self._book_damage}). The farmer goes on"
            " with it, but will not start again. Stop it first: then the command sets the file"
            " aside and makes the contracts again from the shards, without prices."
        )
        command = "farmer contract recover"
        return [
            Alert(name="ContractsDamaged", since_ms=0, message=message, command=command),
            *late,
        ]

    def _forget_others(self, names: Collection[str]) -> None:
        """Let a new volume that gets the name of one that is gone not be taken for that one."""
        for name in self._since_ms.keys() - set(names):
            del self._since_ms[name]

    def _add(self, name: str, clock: IReactorTime, tasks: Tasks) -> None:
        async def turn() -> None:
            chore.every_s = await self._turn(name, clock)

        chore = self._chores[name] = Chore(f"scrub of {name}", IDLE_S, turn, clock, tasks)
        chore.start(first_after_s=0)

    async def _turn(self, name: str, clock: IReactorTime) -> float:
        """Do one turn, or put it off; return how long to rest."""
        asked_s = clock.seconds()
        may_wait = self._is_serving()
        began: list[float] = []

        def work() -> Turn:
            began.append(clock.seconds())
            now_ms, days = self._now_ms(), self.settings.days
            if name not in self._since_ms and name in self.scrubs.names():
                self._since_ms[name] = self.made_ms(name) or now_ms
            return self.scrubs.turn(name, WORK_S, now_ms, days, may_wait=may_wait)

        self._at_work.add(name)
        try:
            turn = await self._disk.run(work)
        except StorageError as error:
            self.log.info("no scrub of {name} now: {error}", name=name, error=error)
            return IDLE_S
        finally:
            self._at_work.discard(name)
        others = max(0, self._others_busy() - len(self._at_work))
        return Pace(self.settings).rest_s(turn, began[0] - asked_s, others)

    def _tell_hours(self) -> None:
        local = time.localtime(self._now_ms() / 1000)
        are_open = self.settings.hours.contain(local.tm_hour * 60 + local.tm_min)
        self.scrubs.open_hours(are_open=are_open)


def scrub_verbs(scrubbing: Scrubbing, disk: Disk) -> dict[str, Verb]:
    """Return the verbs by which the owner tells the scrubs what to do."""

    def told(work: Callable[[Scrubs, list[str]], tuple[str, ...]]) -> Verb:
        async def ask(words: dict[str, Any]) -> dict[str, Any]:
            names = [str(name) for name in words.get("volumes", ())]
            try:
                chosen = await disk.run(work, scrubbing.scrubs, names)
            except StorageError as error:
                raise OwnerError(str(error)) from error
            scrubbing.wake()
            return {"schema": SCHEMA, "volumes": list(chosen)}

        return ask

    return {
        "scrub-now": told(Scrubs.begin_now),
        "scrub-pause": told(partial(Scrubs.pause, paused=True)),
        "scrub-resume": told(partial(Scrubs.pause, paused=False)),
    }


def scrub_alerts(
    volumes: tuple[VolumeStatus, ...],
    settings: ScrubSettings,
    now_ms: int,
    since_ms: Mapping[str, int],
) -> list[Alert]:
    """
    Return what stands in the way of reading everything within the days.

    *since_ms* says by their names since when there is something to read on the volumes; one that
    is not among them has not had its first turn, which may begin a pass.
    """
    late = []
    for volume in volumes:
        if volume.scrub is None:
            continue
        late.append(_lateness(volume, volume.scrub, settings, now_ms))
        if not late[-1] and volume.name in since_ms:
            unread_ms = now_ms - (volume.scrub.ended_at_ms or since_ms[volume.name])
            late.append(_absence(volume, volume.scrub, settings, unread_ms))
    late = list(filter(None, late))
    if not late:
        return []
    return [
        Alert(
            name="ScrubTooSlow",
            since_ms=0,
            message=f"Not every byte can be read again within {settings.days} days: "
            + "; ".join(late),
            command="farmer scrub status",
        )
    ]


def _lateness(
    volume: VolumeStatus, scrub: ScrubStatus, settings: ScrubSettings, now_ms: int
) -> str:
    """Return why what goes on, or would go on, takes too long; empty if it does not."""
    pace = Pace(settings)
    pass_days = settings.days / PASS_SHARE
    needed = scrub.total_bytes / pass_days
    possible = pace.bytes_per_day_max
    if possible and needed > possible:
        needed_rate = needed / 86_400 / settings.hours.share
        return (
            f"{volume.path} needs {format_size(int(needed_rate))} a second in its hours, "
            f"scrub.rate allows {format_size(settings.rate)}: raise it, or widen scrub.hours"
        )
    if scrub.state == "idle" or not scrub.began_at_ms:
        return ""
    eta_s = scrub.eta_s if scrub.done_bytes >= RELIABLE_BYTES else None
    if eta_s is not None and scrub.state == "running":
        days = (now_ms - scrub.began_at_ms) / DAY_MS + eta_s / 86_400 / settings.hours.share
        if days > settings.days:
            return (
                f"at this speed the pass over {volume.path} takes {days:.0f} days: it needs "
                f"{format_size(int(needed / 86_400))} a second; lower scrub.tranquility"
            )
    if now_ms - max(scrub.ended_at_ms, 0) > settings.days * DAY_MS < now_ms - scrub.began_at_ms:
        return f"the pass over {volume.path} is not done yet (it is {scrub.state})"
    return ""


def _absence(
    volume: VolumeStatus, scrub: ScrubStatus, settings: ScrubSettings, unread_ms: int
) -> str:
    """Return why a pass that is due has not begun; empty if none is, or if there is no disk."""
    is_under_way = scrub.state != "idle" and scrub.began_at_ms
    if is_under_way or not scrub.total_bytes or volume.state in _NOT_HERE:
        return ""
    days = unread_ms // DAY_MS
    if days < settings.days:
        return ""
    why = (
        "it is paused"
        if scrub.state == "paused"
        else "this machine may be off in scrub.hours: widen them, or begin one by hand"
    )
    return f"no pass over {volume.path} has ended for {days} days, and none is under way: {why}"
