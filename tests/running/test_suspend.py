"""A machine that is suspended: its monotonic clock stands still, all other time goes on."""

from __future__ import annotations

import subprocess
import sys

import pytest
from twisted.trial.unittest import SynchronousTestCase

from farmer.model.contract import ContractStage
from farmer.model.moments import Clocks
from farmer.node.tasks import Tasks
from farmer.running.upkeep import SWEEP_S
from tests.needs import lack
from tests.running import test_upkeep
from tests.running.test_upkeep import DAY_MS

AHEAD_S = 1_000_000


class SuspendTests(SynchronousTestCase):
    """The chores as they are: timers on one clock, looks at the other."""

    do = test_upkeep.UpkeepTests.do
    rent = test_upkeep.UpkeepTests.rent
    stages = test_upkeep.UpkeepTests.stages

    def setUp(self) -> None:
        test_upkeep.UpkeepTests.setUp(self)  # type: ignore[arg-type]  # all that it needs is here
        self.up_s = 5000.0
        self.upkeep._clocks = Clocks(lambda: self.wall_ms, lambda: self.up_s)
        self.upkeep.start(self.clock, Tasks())
        self.addCleanup(self.upkeep.stop)

    def run_for(self, seconds: float, step_s: float = 60.0) -> None:
        for _ in range(int(seconds / step_s)):
            self.wall_ms += int(step_s * 1000)
            self.up_s += step_s
            self.clock.advance(step_s)

    def suspend(self, days: float) -> None:
        self.wall_ms += int(days * DAY_MS)
        self.up_s += days * DAY_MS / 1000

    def test_weeks_of_sleep_are_no_jump_and_take_no_renters_time(self) -> None:
        """A contract that ended in its sleep has its days of grace from when the farmer runs."""
        self.run_for(1.1 * DAY_MS / 1000, 600)
        self.rent()
        for _ in range(3):
            self.suspend(20)
            self.run_for(2 * SWEEP_S + 120)
            self.assertFalse(self.stores.book.clock.doubt)
        self.assertEqual({ContractStage.GRACE: 1}, self.stages())
        self.assertEqual(0, sum(count for _why, count in self.purged))
        self.assertEqual([], list(self.overview.board.alerts))

    def test_timers_neither_all_fire_at_once_nor_stand_still_afterwards(self) -> None:
        """Waking up is not the moment to do everything that a month would have brought."""
        self.run_for(SWEEP_S + 120)
        looks: list[int] = []
        real = self.stores.book.clock.tick

        def tick(wall_ms: int, monotonic_s: float, *, tells_order: bool) -> None:
            looks.append(wall_ms)
            real(wall_ms, monotonic_s, tells_order=tells_order)

        self.patch(self.stores.book.clock, "tick", tick)
        self.suspend(30)
        self.run_for(240)
        self.assertIn(len(looks), range(3, 6))


@pytest.mark.tool("unshare")
def test_time_is_counted_by_a_clock_that_goes_on_in_sleep() -> None:
    """In a time namespace the two clocks differ as they do after a suspend."""
    script = "from farmer.running.clocks import awake_or_asleep_s; print(awake_or_asleep_s())"
    words = ["unshare", "--time", "--boottime", str(AHEAD_S), "--fork"]
    if subprocess.run([*words, "true"], check=False, capture_output=True).returncode:
        lack("to be root, and a kernel with time namespaces")
    told = subprocess.run(
        [*words, sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert float(told.stdout) > AHEAD_S
