"""
THE composition root: names the real reactor, clocks and disks, and joins all parts.

What is started is stopped in reverse order.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from twisted.internet import reactor as _reactor
from twisted.logger import Logger

from farmer.identity.keys import IdentityError
from farmer.identity.tls import farmer_side
from farmer.model.moments import Clocks, Moment
from farmer.model.status import Alert
from farmer.monitor.lag import LagSampler
from farmer.monitor.log import LogStyle, LogWriter, begin_logging, stderr_writer, style_for
from farmer.monitor.metrics import LabelSets, Metrics
from farmer.monitor.own_process import tell_of_process
from farmer.monitor.page import StatusPage, page_site
from farmer.node.admission import Places, Sessions
from farmer.node.chores import Chore
from farmer.node.disk import ThreadedDisk
from farmer.node.farm import Farm
from farmer.node.ports import CloseReason
from farmer.node.service import ListenError
from farmer.node.tasks import Tasks
from farmer.protocol.refusals import Refusal
from farmer.running.addresses import NoAddressError, absent, announced, local_addresses
from farmer.running.alerts import AlertBoard
from farmer.running.checks import Checks
from farmer.running.clocks import awake_or_asleep_s, wall_clock_ms
from farmer.running.control import ControlFactory
from farmer.running.desk import HouseTerms, OwnerDesk
from farmer.running.errors import OwnerError, system_words
from farmer.running.greeting import greeting, places
from farmer.running.home import Home
from farmer.running.listening import Doors
from farmer.running.memory import collect_seldom, share_heaps
from farmer.running.moving import Movings
from farmer.running.notify import ServiceNotifier
from farmer.running.one_core import TURN_S as ONE_CORE_S
from farmer.running.one_core import OneCore, OwnThreads
from farmer.running.overview import Overview, usable_bytes
from farmer.running.pacing import TURN_S, Pacing
from farmer.running.passed import take as passed_sockets
from farmer.running.process import (
    STDERR,
    STDOUT,
    allow_many_sessions,
    end_at_once,
    goes_to_journal,
    say,
    tell_at_once,
)
from farmer.running.reload import Reloader, load_again
from farmer.running.remembering import recover
from farmer.running.retired import Retired
from farmer.running.retiring import Household, Retiring
from farmer.running.run_note import is_noted, note_run
from farmer.running.scrubbing import Scrubbing, scrub_verbs
from farmer.running.signals import Signals
from farmer.running.sizes import Sizes
from farmer.running.stores import Stores, open_stores
from farmer.running.terms import price_of, terms_of
from farmer.running.upkeep import Upkeep, count_book
from farmer.running.verbs import owner_verbs
from farmer.running.volumes import made_at_ms
from farmer.running.winding_down import WindingDown
from farmer.settings.schema import Settings
from farmer.storage.directory import VolumeSetupError
from farmer.storage.errors import StorageError
from farmer.storage.fill import Fill
from farmer.version import build

reactor: Any = _reactor
"""The real one; its interfaces are many and the module's type says none of them."""

# Twisted reads the wall clock here, which steps on home servers: every timer would fire, or
# none.  Wall time is for contracts and receipts only.
reactor.seconds = time.monotonic


WATCH_S: Final = 0.5
"""How often calls that do not return are looked for; in memory, on the reactor."""

SIZES_S: Final = 10.0
"""How often a disk that was not there, or did not answer, is asked again how large it is."""


class CannotServeError(Exception):
    """The farmer cannot start: what happened, what it means, what to do."""


_CLOCKS: Final = Clocks(wall_clock_ms, awake_or_asleep_s)


def serve(
    home: Home, settings: Settings, environ: Mapping[str, str], unlock: Callable[[], None]
) -> int:
    """
    Serve until a signal; the home is ours and locked.  Return the exit code.

    If a disk that does not answer is left, the home is unlocked and the process ended.

    Raises:
        CannotServeError: before anything was served.

    """
    writer = LogWriter(stderr_writer, _style(settings, environ))
    writer.level = settings.log.level
    begin_logging(writer)
    share_heaps()
    farmer = RunningFarmer(home, settings, environ, writer)
    signals = Signals(reactor, farmer.stop_soon, farmer.reload_soon, farmer.end_now)
    signals.catch_reloads()
    farmer.start()
    collect_seldom()
    signals.catch()
    reactor.callWhenRunning(farmer.say_ready)
    reactor.run(installSignalHandlers=False)
    if farmer.ending.is_stuck:
        # The interpreter would close what is open on the dead disk, and wait there for ever.
        end_at_once(farmer.ending.exit_code, unlock)
    return farmer.ending.exit_code


def _style(settings: Settings, environ: Mapping[str, str]) -> LogStyle:
    if settings.log.format != "auto":
        return LogStyle(settings.log.format)
    return style_for(sys.stderr, journal=goes_to_journal(environ, STDERR))


class RunningFarmer:
    """One farmer from start to stop."""

    log = Logger()

    def __init__(
        self, home: Home, settings: Settings, environ: Mapping[str, str], writer: LogWriter
    ) -> None:
        self._home = home
        self._settings = settings
        self._environ = environ
        self._writer = writer
        self._tasks = Tasks()
        self._stopping = Tasks()
        self._watching = Tasks()
        self._disk = ThreadedDisk(reactor)
        self._notifier = ServiceNotifier(environ)
        self._board = AlertBoard(_CLOCKS, home.naming)
        self._background = ExitStack()
        self._stores: Stores | None = None
        self.ending: WindingDown
        """How it ends; as soon as it has been started."""

    def start(self) -> None:
        """
        Open and begin everything, in the order of need; blocking, before the reactor runs.

        Raises:
            CannotServeError: with what to do; nothing is left open.

        """
        try:
            self._begin(open_stores(self._home, self._settings, wall_clock_ms, self._tell))
        except (ListenError, StorageError, VolumeSetupError, IdentityError, OwnerError) as error:
            raise CannotServeError(str(error) or type(error).__name__) from error
        except OSError as error:
            raise CannotServeError(system_words(error)) from error

    def _tell(self, line: str) -> None:
        self.log.info("{line}", line=line)

    def _begin(self, stores: Stores) -> None:
        self._disk.start()
        try:
            self._compose(stores)
            self._serve(stores)
        except BaseException:
            self._disk.stop()
            stores.close()
            raise

    def _compose(self, stores: Stores) -> None:
        """Make the parts and join them; nothing moves yet."""
        self._stores = stores
        settings = self._settings
        self._retired = Retired(self._home)
        self._overview = Overview(
            node_id=stores.identity.node_id,
            build=build(),
            pid=os.getpid(),
            started_at_ms=Moment(_CLOCKS).at_ms,
            clean_start=not is_noted(self._home.run),
            first_start=stores.book.clock.first_run,
            board=self._board,
            volumes=lambda: (*stores.engine.volumes(), *self._retired.shown(wall_clock_ms())),
            name=settings.name,
        )
        self._disk.stalled = stores.engine.stalled_threads
        self._metrics = Metrics(self._overview.status, _CLOCKS, _label_sets())
        tell_of_process(self._metrics.registry)
        self._writer.count = self._metrics.logged
        self._disk_watch = Chore("disk watch", WATCH_S, self._watch_disks, reactor, self._watching)
        self._lag = LagSampler(reactor, self._metrics.lagged)
        self._farm = Farm(
            signer=stores.identity,
            store=stores.engine,
            book=stores.book,
            disk=self._disk,
            meter=self._metrics,
            clock=reactor,
            now_ms=wall_clock_ms,
            terms=terms_of(settings),
        )
        self._desk = OwnerDesk(
            *(stores.book, stores.identity, wall_clock_ms, self._house_terms(settings)),
            usage=stores.engine.usage,
            recovery=lambda: recover(stores.book, stores.engine, wall_clock_ms()),
        )
        self._compose_background(stores)

    def _compose_background(self, stores: Stores) -> None:
        """Make what goes on beside serving: upkeep, scrub, reloading, moving."""
        settings = self._settings
        self._upkeep = Upkeep(
            *(stores.engine, stores.book, self._overview, self._disk, _CLOCKS),
            purged=self._metrics.purged,
        )
        self._scrubbing = Scrubbing(
            *(stores.engine.scrubs, self._disk, wall_clock_ms, settings.scrub),
            others_busy=lambda: self._disk.busy,
            is_serving=self._is_serving,
            book=self._home.contracts,
        )
        self._scrubbing.made_ms = self._made_ms
        self._upkeep.shortage.overcommit = settings.contracts.overcommit
        self._upkeep.more_alerts = self._more_alerts
        self._sizes = Sizes(self._home, settings, stores, self._disk, self._board)
        self._reloader = Reloader(
            read=lambda: self._disk.run(load_again, self._home, self._environ),
            started=settings,
            apply=self._apply,
            turns=self._sizes.turns,
            board=self._board,
            notifier=self._notifier,
            reloaded=self._metrics.reloaded,
        )
        self._overview.waiting = lambda: self._reloader.waiting
        household = Household(
            home=self._home,
            environ=self._environ,
            identity=stores.identity,
            now_ms=wall_clock_ms,
            adopted=self._adopt,
            retired=self._retired,
            report=lambda stuck: self._board.report("moving", *stuck),
        )
        retiring = Retiring(stores.engine, household)
        self._pacing = Pacing(stores.engine, self._disk, retiring, self._is_serving)
        self._movings = Movings(stores.engine, household, retiring, self._pacing.hurry)

    def _more_alerts(self) -> list[Alert]:
        """Return what the scrub and the addresses complain of; asks no disk."""
        assert self._stores is not None
        return [
            *self._scrubbing.alerts(self._stores.engine.volumes()),
            *(
                alert
                for setting, addresses in self._doors.by_settings.items()
                for alert in absent(addresses, setting)
            ),
        ]

    def _made_ms(self, name: str) -> int:
        """Return when a volume was made; 0 if that cannot be told.  Blocking."""
        assert self._stores is not None
        paths = {one.name: Path(one.path) for one in self._stores.engine.volumes()}
        node = self._stores.identity.node_id
        return made_at_ms(paths[name], node) if name in paths else 0

    def _is_serving(self) -> bool:
        """Tell whether a renter is being served at this moment."""
        return self._service.sessions.busy > 0

    def _serve(self, stores: Stores) -> None:
        """Listen, then begin what goes on in the background."""
        settings, overview = self._settings, self._overview
        passed = passed_sockets(self._environ, os.getpid(), reactor)
        self._doors = doors = Doors(reactor, self._home, passed)
        side = farmer_side(stores.identity)
        sessions = Sessions(self._places(settings))
        self._service = doors.for_renters(self._farm, side, settings.listen.shards, sessions)
        overview.listen = self._service.addresses
        overview.announced = self._announced_if_any
        overview.sessions = lambda: len(sessions)
        self._one_core = OneCore(reactor, self._farm.served, OwnThreads())
        self._one_core.is_wanted = settings.processor.one_core == "auto"
        hosts = doors.page_hosts(settings.listen.page)
        root = StatusPage(overview.status, self._metrics, time.time, reactor.seconds, hosts)
        page = page_site(root, reactor)
        page_ports, overview.page = doors.for_page(page, settings.listen.page)
        verbs = owner_verbs(
            *(self._desk, self._movings, self._disk, self._upkeep, overview, self._metrics)
        )
        verbs |= scrub_verbs(self._scrubbing, self._disk)
        checks = Checks(stores.identity.node_id, self._home.annexes, self._disk)
        self._background.callback(checks.stop)
        verbs |= {"volume-check": checks.check}
        control = ControlFactory(verbs, self._tasks, reactor)
        control_port, control_path = doors.for_owner(control, self._environ)
        self.ending = WindingDown(
            clock=reactor,
            home=self._home,
            control=control_path,
            stores=stores,
            disk=self._disk,
            service=self._service,
            ports=(*page_ports, control_port),
            tasks=self._tasks,
            background=self._background,
            disk_watch=self._disk_watch,
            notifier=self._notifier,
        )
        to_journal = goes_to_journal(self._environ, STDOUT)
        is_first = overview.first_start and not to_journal
        self._greeting = [
            *places(self._home, settings, stores.engine.volumes(), is_first=is_first),
            *greeting(
                settings,
                self._desk,
                wall_clock_ms(),
                is_first=is_first,
                to_journal=to_journal,
                naming=self._home.naming,
            ),
        ]
        self._begin_background(stores)

    def _places(self, settings: Settings) -> Places:
        """Return how many connections there may be; no more than there are descriptors for."""
        wanted = settings.sessions.most
        most = allow_many_sessions(wanted)
        if most < wanted:
            self.log.warn(
                "only {most} connections at once instead of {wanted}: the system allows too few"
                " open files; raise its limit (LimitNOFILE= of the service)",
                most=most,
                wanted=wanted,
            )
        return Places(most, settings.sessions.most_per_address)

    def _begin_background(self, stores: Stores) -> None:
        if not self._overview.clean_start:
            self.log.warn(
                "the run before this one did not end in order; its last writes were read again"
            )
        self._overview.counts = count_book(stores.book)
        run = {
            "pid": os.getpid(),
            "control": str(self.ending.control),
            "node_id": str(stores.identity.node_id),
            "settings": str(self._home.settings) if self._home.settings_named else None,
        }
        if not note_run(self._home.run, run, self.ending.control.parent):
            self.log.warn(
                "no room for {path}: the farmer serves, but its owner's commands do not find it."
                " Free space on that disk, and restart the farmer",
                path=str(self._home.run),
            )
        self._begin_chores()
        self._disk_watch.start()
        if self._notifier.watchdog_s:
            half_s = self._notifier.watchdog_s / 2
            Chore("watchdog", half_s, self._beat, reactor, self._tasks).start()

    def _begin_chores(self) -> None:
        """Begin what goes on beside serving, and have it stop the other way round."""
        tasks, stopping = self._tasks, self._background.callback
        self._lag.start()
        stopping(self._lag.stop)
        self._upkeep.start(reactor, tasks, self._watching, self._service.tasks)
        stopping(self._upkeep.stop)
        self._scrubbing.start(reactor, tasks)
        stopping(self._scrubbing.stop)
        stopping(self._pacing.stop)
        stopping(self._one_core.stop)
        for chore in (
            Chore("moving", TURN_S, self._pacing.turn, reactor, tasks),
            Chore("disk sizes", SIZES_S, self._sizes.again, reactor, tasks),
            Chore("one core", ONE_CORE_S, self._one_core.turn, reactor, tasks),
        ):
            chore.start()
            stopping(chore.stop)

    async def _watch_disks(self) -> None:
        assert self._stores is not None
        self._stores.engine.watch_disks()
        self._disk.check()

    async def _beat(self) -> None:
        self._notifier.alive()

    # What may change while serving.

    def _house_terms(self, settings: Settings) -> HouseTerms:
        return HouseTerms(
            price=price_of(settings),
            addresses=self._announced,
            capacity_bytes=self._capacity_bytes,
            usable_bytes=self._usable_bytes,
        )

    def _announced(self) -> tuple[str, ...]:
        return announced(self._settings.announce, self._overview.listen, local_addresses)

    def _announced_if_any(self) -> tuple[str, ...]:
        try:
            return self._announced()
        except NoAddressError:
            return ()

    def _capacity_bytes(self) -> int:
        assert self._stores is not None
        # What leaves a volume takes room on another one.
        kept = (one for one in self._stores.engine.volumes() if not one.draining)
        quotas = sum(volume.quota_bytes for volume in kept)
        return int(quotas * self._settings.contracts.overcommit)

    def _usable_bytes(self) -> int:
        assert self._stores is not None
        return usable_bytes(self._stores.engine.volumes())

    async def _apply(self, settings: Settings) -> None:
        """Put in force what can change while serving: all of it, or nothing if any of it fails."""
        assert self._stores is not None
        await self._sizes.put(settings)
        self._settings = settings
        self._writer.level = settings.log.level
        self._overview.name = settings.name
        self._scrubbing.settings = settings.scrub
        self._one_core.is_wanted = settings.processor.one_core == "auto"
        self._upkeep.shortage.overcommit = settings.contracts.overcommit
        self._desk.terms = self._house_terms(settings)
        self._farm.terms = replace(self._farm.terms, price=price_of(settings))
        self._stores.engine.fill = Fill(settings.shards.fill)

    def _adopt(self, path: Path, settings: Settings) -> None:
        """Take one of their volumes as in force: somebody else opened or closed it."""
        self._sizes.adopt(path, settings)
        self._reloader.adopt(path, settings)

    # Ready, reload, stop.

    def say_ready(self) -> None:
        """Tell everybody; the reactor runs now."""
        self._overview.serving = True
        addresses, page = " ".join(self._overview.listen), f"http://{self._overview.page}/"
        for line in (*self._greeting, f"ready {addresses} page {page}"):
            say(line)
        self._notifier.ready(f"serving on {addresses}")
        self.log.info("serving on {addresses}, page {page}", addresses=addresses, page=page)

    def reload_soon(self) -> None:
        """Read the settings again."""
        self._tasks.start("reload", self._reloader.reload())

    def stop_soon(self) -> None:
        """Stop in order, start order reversed; the reactor ends when all is done."""
        self._stopping.start("stop", self._stop())

    def end_now(self, exit_code: int) -> None:
        """End in the middle of whatever runs, with a word of that; called by a signal handler."""
        if not self.ending.is_over:
            tell_at_once(self._writer.line("warn", self.ending.cut_off()))
        os._exit(exit_code)

    async def _stop(self) -> None:
        self._overview.draining = True
        try:
            await self.ending.run(self._settings.drain.grace / 1000)
        finally:
            reactor.stop()


def _label_sets() -> LabelSets:
    reasons = [reason.value for reason in CloseReason]
    return LabelSets(
        refusals=[refusal.name for refusal in Refusal],
        close_reasons=reasons,
        handshake_reasons=reasons,
    )
