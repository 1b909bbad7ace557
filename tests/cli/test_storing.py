"""`renter store` of many files: a farmer that says nothing does not cost its time for each."""

from pathlib import Path
from tempfile import TemporaryDirectory

from farmer.cli.renter_storing import Row, _Storing
from farmer.cli.terminal import ProgressLine
from farmer.client.home import Home
from farmer.client.ledger import Ledger
from farmer.client.limits import RETRY_DELAYS_S, SESSIONS_MAX, SILENCES_MAX
from farmer.protocol.limits import ANSWER_S
from farmer.protocol.types import Type
from tests.client.test_farmer import FarmerCase

FILES = 20


class SilentTests(FarmerCase):
    """It greets, and then is silent."""

    def setUp(self):
        super().setUp()
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.rows = []
        for number in range(FILES):
            path = Path(folder.name) / str(number)
            path.write_bytes(bytes([number]))
            self.rows.append(Row(str(path)))
        ledger = Ledger.open(Path(folder.name) / "ledger")
        self.addCleanup(ledger.close)
        ledger.tell_once("stored as they are")
        self.storing = _Storing(Home(self.renter, ledger), self.farmer, ProgressLine("storing"))

    async def store_all(self):
        for row in self.rows:
            await self.storing.one(row)

    def test_after_some_files_the_others_are_not_waited_for(self):
        self.fake.script[Type.STORE] = lambda *_: None
        self.world.run(self.store_all(), until_s=100_000.0)
        each_s = (1 + SILENCES_MAX) * (ANSWER_S + 1) + sum(RETRY_DELAYS_S)
        self.assertLess(self.world.clock.seconds(), SESSIONS_MAX * each_s)
        self.assertNotIn(None, [row.error for row in self.rows])
        self.assertIn("was silent", self.rows[-1].error)
        self.assertEqual({row.may_go_on for row in self.rows}, {True})

    def test_one_that_speaks_again_is_asked_again(self):
        """Files that were given up before count no more."""
        self.fake.script[Type.STORE] = lambda *_: None
        self.rows, others = self.rows[: SESSIONS_MAX - 1], self.rows[SESSIONS_MAX - 1 :]
        self.world.run(self.store_all(), until_s=100_000.0)
        self.fake.script.clear()
        self.rows = others
        self.world.run(self.store_all(), until_s=100_000.0)
        self.assertEqual({row.error for row in others}, {None})
