from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from farmer.model.contract import Contract, ContractStage, Offer
from farmer.model.ids import NodeId
from farmer.model.moments import Clocks
from farmer.model.status import Alert, NodeState, VolumeState
from farmer.node.tasks import Tasks
from farmer.running.alerts import AlertBoard
from farmer.running.home import Home
from farmer.running.overview import Overview
from farmer.running.stores import open_stores
from farmer.running.upkeep import HINTS_S, SWEEP_S, Upkeep, damage
from farmer.settings.loader import load_text
from farmer.storage.errors import NoSpaceError, VolumeUnavailableError
from tests.fakes import InlineDisk

DAY_MS = 86_400_000
RENTER = NodeId(b"r" * 32)


class UpkeepTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.wall_ms = 1_700_000_000_000
        self.clock = Clock()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.home = Home.at(Path(directory.name) / "home")
        self.home.make()
        self.disk_path = self.home.state / "disk"
        text = f"version: 1\nvolumes: [{{path: {self.disk_path}, quota: 100MB}}]\n"
        self.settings = load_text(text, "f", {}).settings
        self.stores = open_stores(self.home, self.settings, lambda: self.wall_ms, print)
        self.addCleanup(self.stores.close)
        self.purged: list[tuple[str, int]] = []
        self.overview = Overview(
            node_id=self.stores.identity.node_id,
            build="0123abcd",
            pid=1,
            started_at_ms=lambda: 0,
            clean_start=True,
            board=AlertBoard(Clocks(lambda: self.wall_ms, self.clock.seconds)),
            volumes=self.stores.engine.volumes,
            serving=True,
        )
        self.upkeep = Upkeep(
            self.stores.engine,
            self.stores.book,
            self.overview,
            InlineDisk(),
            Clocks(lambda: self.wall_ms, self.clock.seconds),
            lambda why, count: self.purged.append((why, count)),
        )

    def do(self, work: Any) -> None:
        self.successResultOf(Deferred.fromCoroutine(work))

    def live(self, days: float) -> None:
        """Let time go by, on both clocks, minute by minute as the farmer sees it."""
        for _ in range(int(days * 144)):
            self.clock.advance(600)
            self.wall_ms += 600_000
            self.do(self.upkeep.tick())

    def rent(self, renter: NodeId = RENTER) -> None:
        offer = Offer(
            space_bytes=1000,
            duration_ms=DAY_MS,
            created_at_ms=self.wall_ms,
            expires_at_ms=self.wall_ms + DAY_MS,
        )
        book = self.stores.book
        book.redeem(book.mint(offer, 10**9), renter)

    def stages(self) -> dict[ContractStage, int]:
        self.do(self.upkeep.look())
        return {stage: count for stage, count in self.overview.counts.contracts if count}

    def test_a_contract_lives_and_goes(self) -> None:
        """
        A day of contract, two weeks of grace, a week of trash, then nothing.
        """
        self.do(self.upkeep.tick())
        self.rent()
        self.assertEqual({ContractStage.ACTIVE: 1}, self.stages())
        for days, stages in (
            (1.1, {ContractStage.GRACE: 1}),
            (14.1, {ContractStage.TRASH: 1}),
            (7.1, {}),
        ):
            self.live(days)
            self.do(self.upkeep.sweep())
            self.assertEqual(stages, self.stages())
        self.assertEqual([], self.stores.book.to_purge())

    def test_a_clock_that_jumped_removes_nothing(self) -> None:
        """
        A year ahead at once: told as an alert, with what to type, and nothing moves on.
        """
        self.do(self.upkeep.tick())
        self.live(1.1)
        self.rent()
        self.wall_ms += 400 * DAY_MS
        self.clock.advance(60)
        self.do(self.upkeep.tick())
        self.do(self.upkeep.sweep())
        self.assertEqual([], self.purged)
        self.do(self.upkeep.look())
        [alert] = self.overview.board.alerts
        self.assertEqual(("ClockSuspicious", "farmer clock confirm"), (alert.name, alert.command))
        self.assertIs(NodeState.DEGRADED, self.overview.status().state)

    def test_a_contract_waits_for_a_disk_that_is_away(self) -> None:
        """
        It is cleared when the disk is back; meanwhile the trash of the others is emptied.
        """
        self.do(self.upkeep.tick())
        self.rent()
        for days in (1.1, 14.1):
            self.live(days)
            self.do(self.upkeep.sweep())
        away = self.disk_path.with_name("away")
        self.disk_path.rename(away)
        self.do(self.upkeep.probe())
        self.purged.clear()
        self.live(7.1)
        self.do(self.upkeep.sweep())
        self.assertEqual([("deleted", 0)], self.purged)
        self.assertEqual(1, len(self.stores.book.to_purge()))
        away.rename(self.disk_path)
        self.do(self.upkeep.probe())
        self.do(self.upkeep.sweep())
        self.assertEqual([], self.stores.book.to_purge())

    def test_a_contract_that_cannot_be_cleared_holds_up_nothing_else(self) -> None:
        """
        A disk too full to note that shards are gone; the trash of the others is emptied.
        """

        def full(*_: object) -> int:
            raise NoSpaceError(1, 0)

        self.do(self.upkeep.tick())
        self.rent()
        for days in (1.1, 14.1):
            self.live(days)
            self.do(self.upkeep.sweep())
        purge, self.stores.engine.purge = self.stores.engine.purge, full
        self.purged.clear()
        self.live(7.1)
        self.do(self.upkeep.sweep())
        self.assertEqual([("deleted", 0)], self.purged)
        self.stores.engine.purge = purge
        self.do(self.upkeep.sweep())
        self.assertEqual([], self.stores.book.to_purge())

    def test_contracts_are_cleared_though_none_can_be_noted_as_cleared(self) -> None:
        """
        The room on the volumes is had, and the next sweep notes it.
        """

        def full(*_: object) -> None:
            raise VolumeUnavailableError("the database or disk is full")

        self.do(self.upkeep.tick())
        self.rent()
        self.rent(NodeId(b"s" * 32))
        for days in (1.1, 14.1):
            self.live(days)
            self.do(self.upkeep.sweep())
        noted, self.stores.book.purged = self.stores.book.purged, full
        self.purged.clear()
        self.live(7.1)
        self.do(self.upkeep.sweep())
        self.assertEqual([("expired", 0), ("expired", 0), ("deleted", 0)], self.purged)
        self.stores.book.purged = noted
        self.do(self.upkeep.sweep())
        self.assertEqual([], self.stores.book.to_purge())

    def test_a_home_that_cannot_be_written_keeps_no_trash(self) -> None:
        """
        Contracts do not move on; what renters deleted goes all the same.
        """
        self.do(self.upkeep.tick())
        self.rent()
        self.live(1.1)
        away = self.home.contracts.rename(self.home.contracts.with_name("away"))
        self.do(self.upkeep.sweep())
        self.assertEqual([("deleted", 0)], self.purged)
        away.rename(self.home.contracts)
        self.do(self.upkeep.sweep())
        self.assertEqual({ContractStage.GRACE: 1}, self.stages())

    def test_contracts_that_do_not_move_on_for_whatever_reason_keep_no_trash(self) -> None:
        """
        A reason that nobody foresaw goes on to whoever keeps account of failed chores.
        """

        def fails(*_: object) -> list[Contract]:
            raise ZeroDivisionError

        self.do(self.upkeep.tick())
        self.stores.book.advance = fails  # type: ignore[method-assign]
        self.failureResultOf(Deferred.fromCoroutine(self.upkeep.sweep()), ZeroDivisionError)
        self.assertEqual([("deleted", 0)], self.purged)

    def test_a_disk_that_goes_and_comes_back(self) -> None:
        """
        Told while it is away, forgotten when it is there again, without a restart.
        """
        away = self.disk_path.with_name("away")
        self.disk_path.rename(away)
        self.do(self.upkeep.probe())
        self.do(self.upkeep.look())
        self.assertIs(VolumeState.GONE, self.overview.status().volumes[0].state)
        self.assertEqual(["VolumeGone"], [alert.name for alert in self.overview.board.alerts])
        away.rename(self.disk_path)
        self.do(self.upkeep.probe())
        self.do(self.upkeep.look())
        self.assertIs(NodeState.RUNNING, self.overview.status().state)

    def test_more_promised_than_there_is_needs_the_owner(self) -> None:
        """
        As after a smaller quota; it stands until the quota is what was promised.
        """
        self.do(self.upkeep.tick())
        self.do(self.upkeep.look())
        book = self.stores.book
        offer = Offer(
            space_bytes=100 * 10**6,
            duration_ms=DAY_MS,
            created_at_ms=self.wall_ms,
            expires_at_ms=self.wall_ms + DAY_MS,
        )
        book.mint(offer, 100 * 10**6)
        self.do(self.upkeep.look())
        self.assertEqual((), self.overview.board.alerts)
        engine = self.stores.engine
        engine.change_quota(self.disk_path, 90 * 10**6, 0)
        self.do(self.upkeep.look())
        self.assertEqual(["PromisedTooMuch"], [one.name for one in self.overview.board.alerts])
        self.assertIs(NodeState.DEGRADED, self.overview.status().state)
        engine.change_quota(self.disk_path, 100 * 10**6, 0)
        self.do(self.upkeep.look())
        self.assertIs(NodeState.RUNNING, self.overview.status().state)

    def test_a_home_whose_disk_fails_is_told_until_it_is_well(self) -> None:
        """
        What the renters are refused for stands on the page; what else stands is told as well.
        """
        self.do(self.upkeep.tick())
        self.do(self.upkeep.look())
        away = self.home.contracts.rename(self.home.contracts.with_name("away"))
        with self.assertRaises(VolumeUnavailableError):
            self.rent()
        self.upkeep.more_alerts = lambda: [Alert(name="ScrubTooSlow", since_ms=0, message="")]
        self.do(self.upkeep.look())
        alerts = {alert.name: alert.message for alert in self.overview.board.alerts}
        self.assertEqual({"ContractsUnavailable", "ScrubTooSlow"}, set(alerts))
        self.assertIn("removed or replaced", alerts["ContractsUnavailable"])
        self.assertIs(NodeState.DEGRADED, self.overview.status().state)
        away.rename(self.home.contracts)
        self.upkeep.more_alerts = list
        self.do(self.upkeep.tick())
        self.do(self.upkeep.look())
        self.assertEqual((), self.overview.board.alerts)

    def test_a_chore_that_fails_each_time_is_told(self) -> None:
        """
        By its name, whoever began it; until it does not fail any more.
        """
        tasks = Tasks()
        self.upkeep.start(self.clock, tasks)
        tasks.failing |= {"moving": "no room", "disk sizes": "no home"}
        self.do(self.upkeep.look())
        alerts = self.overview.board.alerts
        self.assertEqual(["ChoreFailing"] * 2, [alert.name for alert in alerts])
        self.assertEqual({"moving", "disk sizes"}, {alert.about for alert in alerts})
        self.assertIn('"moving" fails each time: no room.', alerts[0].message)
        tasks.failing.clear()
        self.do(self.upkeep.look())
        self.assertEqual((), self.overview.board.alerts)

    def test_what_fails_elsewhere_is_not_laid_to_the_contracts(self) -> None:
        """
        It goes on to whoever keeps account of failed chores.
        """

        def fails() -> list[NodeId]:
            raise VolumeUnavailableError("an index cannot be read")

        self.stores.engine.renters = fails  # type: ignore[method-assign]
        looked = Deferred.fromCoroutine(self.upkeep.look())
        self.failureResultOf(looked, VolumeUnavailableError)
        self.assertEqual((), self.overview.board.alerts)

    def test_damage_stands_while_damaged_shards_are_there(self) -> None:
        """
        Counted from what the volumes say, so a restart does not hide it; over all volumes.
        """
        attic = self.stores.engine.volumes()[0]
        usb = replace(attic, path="/usb", quarantined=2)
        self.assertEqual([], damage([attic]))
        [alert] = damage([replace(attic, quarantined=1), usb])
        self.assertEqual("ShardsQuarantined", alert.name)
        self.assertIn(f"1 damaged shard on {attic.path}, 2 damaged shards on /usb", alert.message)

    def test_disks_that_nobody_uses_are_looked_at_often_enough(self) -> None:
        """
        One that went is noticed within ten seconds: by a look, or by the next, when it hangs.
        """
        looks: list[float] = []
        self.patch(
            self.stores.engine, "look_after_disks", lambda: looks.append(self.clock.seconds())
        )
        self.upkeep.start(self.clock, Tasks())
        for _ in range(10):
            self.clock.advance(1)
        self.upkeep.stop()
        self.assertGreaterEqual(len(looks), 3)

    def test_all_chores_have_their_turn(self) -> None:
        """
        And none after the stop.
        """
        learned: list[float] = []
        self.stores.engine.learn = lambda: learned.append(self.clock.seconds())  # type: ignore[method-assign]
        self.upkeep.start(self.clock, Tasks())
        for _ in range(int(SWEEP_S / 5) + 20):
            self.clock.advance(5)
            self.wall_ms += 5000
        self.assertTrue(self.purged)
        self.assertGreater(len(learned), SWEEP_S / HINTS_S / 2)
        self.upkeep.stop()
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_a_full_volume_says_why(self) -> None:
        """
        It needs nobody as long as nothing more was promised.
        """
        self.stores.engine.change_quota(self.disk_path, 100 * 10**6, 1 << 62)
        status = self.overview.status()
        self.assertIs(VolumeState.FULL, status.volumes[0].state)
        self.assertIn("kept free (keep_free)", status.volumes[0].reason)
        self.assertIs(NodeState.RUNNING, status.state)
