"""What volumes get, by the settings in force, when disks say how large they are."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from farmer.model.moments import Clocks
from farmer.model.status import Alert
from farmer.running import register
from farmer.running.alerts import AlertBoard
from farmer.running.home import Home
from farmer.running.notify import ServiceNotifier
from farmer.running.reload import Reloader
from farmer.running.sizes import Sizes
from farmer.running.stores import Stores
from farmer.running.volumes import VolumePlan
from farmer.settings.loader import load_text
from farmer.settings.schema import Settings
from farmer.storage.directory import MARKER_NAME
from tests.fakes import SteppingDisk

MIB = 1 << 20


class Engine:
    """Notes which quotas volumes have."""

    def __init__(self) -> None:
        self.quotas: dict[str, int] = {}

    def silent(self) -> Collection[Path]:
        return frozenset()

    def change_quota(self, path: Path, quota_bytes: int, keep_free_bytes: int) -> None:
        self.quotas[path.name] = quota_bytes


class Unmade:
    """None is."""

    waiting: frozenset[Path] = frozenset()

    def make_late(self, plans: list[VolumePlan]) -> list[Alert]:
        return []


class SizesTests(SynchronousTestCase):
    """Two volumes, and the disk of one of them is away."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.home = Home.at(self.root / "home")
        self.home.make()
        for name in ("here", "away"):
            (self.root / name).mkdir()
        (self.root / "here" / MARKER_NAME).write_text("{}")
        made = [(self.root / name, 100 * MIB) for name in ("here", "away")]
        register.remember(self.home, made, {path: path.name for path, _ in made})
        self.disk, self.engine = SteppingDisk(), Engine()
        stores = SimpleNamespace(
            engine=self.engine, unmade=Unmade(), silent=frozenset({self.root / "away"})
        )
        self.board = AlertBoard(Clocks(lambda: 5, lambda: 0.0))
        settings = self.settings(100)
        self.sizes = Sizes(self.home, settings, cast(Stores, stores), self.disk, self.board)
        self.newest = settings
        self.reloader = Reloader(
            read=self.read,
            started=settings,
            apply=self.sizes.put,
            turns=self.sizes.turns,
            board=self.board,
            notifier=ServiceNotifier({}),
            reloaded=lambda *, good: self.assertTrue(good),
        )

    async def read(self) -> Settings:
        return self.newest

    def settings(self, here_mib: int) -> Settings:
        volumes = [
            {"path": str(self.root / "here"), "quota": f"{here_mib}MiB"},
            {"path": str(self.root / "away"), "quota": "100MiB"},
        ]
        text = json.dumps({"version": 1, "volumes": volumes})
        return load_text(text, "f", {}).settings

    def do(self, work: Any) -> None:
        done = Deferred.fromCoroutine(work)
        self.disk.run_all()
        self.successResultOf(done)

    def test_what_an_owner_has_added_keeps_its_quota_while_a_disk_is_away(self) -> None:
        """A look at the disk that is away gives all of them their quotas once more."""
        self.sizes.adopt(self.root / "here", self.settings(200))
        self.do(self.sizes.again())

        self.assertEqual(200 * MIB, self.engine.quotas["here"])

    def test_what_was_changed_by_hand_is_not_in_force_with_what_was_added(self) -> None:
        self.sizes.adopt(self.root / "away", self.settings(200))
        self.do(self.sizes.again())

        self.assertEqual(100 * MIB, self.engine.quotas["here"])

    def test_so_it_does_if_it_was_added_during_a_look_that_is_the_last(self) -> None:
        (self.root / "away" / MARKER_NAME).write_text("{}")
        look = Deferred.fromCoroutine(self.sizes.again())
        self.sizes.adopt(self.root / "here", self.settings(200))
        self.disk.run_all()
        self.successResultOf(look)
        self.do(self.sizes.again())

        self.assertEqual(200 * MIB, self.engine.quotas["here"])

    def test_a_reload_waits_for_a_look_at_the_disks(self) -> None:
        """Else the look would end after it, and put the settings from before in force again."""
        look = Deferred.fromCoroutine(self.sizes.again())
        self.disk.step()
        self.newest = self.settings(300)
        reload = Deferred.fromCoroutine(self.reloader.reload())
        while self.disk.waiting:
            # What was given last is done first, as several threads may.
            self.disk.waiting.insert(0, self.disk.waiting.pop())
            self.disk.step()
        self.successResultOf(look)
        self.successResultOf(reload)

        self.assertEqual(300 * MIB, self.engine.quotas["here"])

    def test_none_is_asked_while_all_have_said_how_large_they_are(self) -> None:
        (self.root / "away" / MARKER_NAME).write_text("{}")
        self.do(self.sizes.again())
        self.do(self.sizes.again())
        self.engine.quotas.clear()
        self.do(self.sizes.again())

        self.assertEqual({}, self.engine.quotas)
