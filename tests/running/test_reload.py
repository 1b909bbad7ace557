from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from farmer.model.moments import Clocks
from farmer.running.alerts import AlertBoard
from farmer.running.home import HomeError
from farmer.running.notify import ServiceNotifier
from farmer.running.reload import Reloader
from farmer.running.signals import ONE_REQUEST_S, STOPPED_AT_ONCE, Signals
from farmer.settings.loader import load_text
from farmer.settings.schema import Settings


class Manager(ServiceNotifier):
    """Writes down what the service manager would hear."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(environ)
        self.told: list[str] = []

    def reloading(self, monotonic_us: int) -> None:
        self.told.append("reloading")

    def ready(self, status: str) -> None:
        self.told.append("ready")


class ReloadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.text = "version: 1\n"
        self.applied: list[Settings] = []
        self.counted: list[bool] = []
        self.failure: Exception | None = None
        self.slow: Deferred[None] | None = None
        self.slow_disk: Deferred[None] | None = None
        self.board = AlertBoard(Clocks(lambda: 5, lambda: 0.0))
        self.notifier = Manager({})
        self.reloader = Reloader(
            read=self.read,
            started=load_text(self.text, "f", {}).settings,
            apply=self.apply,
            turns=DeferredLock(),
            board=self.board,
            notifier=self.notifier,
            reloaded=self.count,
        )

    async def read(self) -> Settings:
        settings = load_text(self.text, "f", {}).settings
        if self.slow_disk is not None:
            await self.slow_disk
        return settings

    async def apply(self, settings: Settings) -> None:
        if self.failure is not None:
            raise self.failure
        if self.slow is not None:
            await self.slow
        self.applied.append(settings)

    def count(self, *, good: bool) -> None:
        self.counted.append(good)

    def reload(self, text: str) -> None:
        self.text = "version: 1\n" + text
        self.successResultOf(Deferred.fromCoroutine(self.reloader.reload()))

    def test_good_settings_are_applied(self) -> None:
        self.reload("name: attic\n")
        self.assertEqual(["attic"], [settings.name for settings in self.applied])
        self.assertEqual([True], self.counted)
        self.assertEqual((), self.board.alerts)

    def test_bad_settings_change_nothing_and_are_told(self) -> None:
        """
        The old ones stay in force, an alert stands until the file is mended.
        """
        self.reload("nmae: attic\n")
        self.assertEqual([], self.applied)
        [alert] = self.board.alerts
        self.assertIn('f:2:1: unknown key "nmae"', alert.message)
        self.assertEqual("farmer config check", alert.command)
        self.reload("name: attic\n")
        self.assertEqual((), self.board.alerts)
        self.assertEqual([False, True], self.counted)

    def test_settings_that_cannot_be_put_in_force_are_told(self) -> None:
        """Whatever it is, and the service manager hears of the end of each reload."""
        for error in (
            OSError(5, "Input/output error", "/mnt/a"),
            HomeError("volumes.json cannot be used"),
            RuntimeError("a bug"),
        ):
            self.failure = error
            self.reload("name: attic\n")
            [alert] = self.board.alerts
            self.assertEqual("SettingsNotApplied", alert.name)
            self.assertIn(error.args[-1], alert.message)
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))
        self.failure = None
        self.reload("name: attic\n")
        self.assertEqual((), self.board.alerts)
        self.assertEqual([False, False, False, True], self.counted)
        self.assertEqual(["reloading", "ready"] * 4, self.notifier.told)

    def test_what_is_adopted_waits_for_no_restart_but_what_was_changed_by_hand_does(self) -> None:
        def lines(*names: str) -> str:
            rows = "".join(f"  - path: /mnt/{name}\n    quota: 1GiB\n" for name in names)
            return f"volumes:\n{rows}"

        self.reloader.adopt(Path(), load_text("version: 1\n" + lines("a", "b"), "f", {}).settings)
        by_hand = lines("a", "other", "c")
        self.reloader.adopt(Path("/mnt/c"), load_text(f"version: 1\n{by_hand}", "f", {}).settings)
        with capturedLogs() as events:
            self.reload(by_hand)
        [waiting] = [event["names"] for event in events if "restart" in event["log_format"]]
        self.assertEqual("volumes.1.path", waiting)
        self.assertEqual(("volumes.1.path",), self.reloader.waiting)

    def test_what_waits_for_a_restart_is_known_until_it_is_taken_back(self) -> None:
        """A page that was moved waits; a name does not; bad settings change nothing of it."""
        self.reload("listen: {page: '127.0.0.1:5555'}\nname: attic\n")
        self.assertEqual(("listen.page",), self.reloader.waiting)
        self.reload("nmae: attic\n")
        self.assertEqual(("listen.page",), self.reloader.waiting)
        self.reload("name: attic\n")
        self.assertEqual((), self.reloader.waiting)

    def test_a_reload_waits_for_the_one_before_it(self) -> None:
        """Each is whole: what a slow disk holds up is not overtaken, and left half in force."""
        slow = self.slow = Deferred()
        self.text = "version: 1\nname: attic\n"
        first = Deferred.fromCoroutine(self.reloader.reload())
        self.slow, self.text = None, "version: 1\nname: cellar\n"
        second = Deferred.fromCoroutine(self.reloader.reload())
        self.assertEqual(["reloading"], self.notifier.told)
        slow.callback(None)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(["attic", "cellar"], [settings.name for settings in self.applied])
        self.assertEqual(["reloading", "ready"] * 2, self.notifier.told)

    def test_settings_on_a_disk_that_hangs_are_waited_for(self) -> None:
        disk = self.slow_disk = Deferred()
        self.text = "version: 1\nname: attic\n"
        reloaded = Deferred.fromCoroutine(self.reloader.reload())
        self.assertNoResult(reloaded)
        self.assertEqual(([], ["reloading"]), (self.applied, self.notifier.told))
        disk.callback(None)
        self.successResultOf(reloaded)
        self.assertEqual(["attic"], [settings.name for settings in self.applied])


class Thread:
    """Stands for the reactor: what is called from a signal runs at once."""

    def callFromThread(self, work: Callable[..., Any]) -> None:
        work()


class SignalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.heard: list[Any] = []
        self.clock = Clock()
        self.signals = Signals(
            Thread(),  # type: ignore[arg-type]  # as much of a reactor as is used
            lambda: self.heard.append("stop"),
            lambda: self.heard.append("reload"),
            self.heard.append,
            self.clock.seconds,
        )

    def test_the_second_request_to_stop_ends_at_once(self) -> None:
        self.signals.stop_asked()
        self.assertEqual(["stop"], self.heard)
        self.clock.advance(ONE_REQUEST_S)
        self.signals.stop_asked()
        self.assertEqual(["stop", STOPPED_AT_ONCE], self.heard)

    def test_one_request_may_come_by_several_signals(self) -> None:
        """As from `timeout make run`: nobody was impatient."""
        self.signals.stop_asked()
        self.clock.advance(ONE_REQUEST_S / 2)
        self.signals.stop_asked()
        self.assertEqual(["stop"], self.heard)

    def test_no_reload_while_stopping(self) -> None:
        self.signals.reload_asked()
        self.signals.stop_asked()
        self.signals.reload_asked()
        self.assertEqual(["reload", "stop"], self.heard)

    def test_all_three_signals_are_caught(self) -> None:
        before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        self.addCleanup(lambda: [signal.signal(n, how) for n, how in before.items()])
        self.signals.catch()
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
        self.assertEqual(["reload", "stop"], self.heard)
