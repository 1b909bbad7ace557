"""`renter store` of many files: a farmer that says nothing does not cost its time for each."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from farmer.cli.renter_storing import Row, _Storing
from farmer.cli.terminal import ProgressLine
from farmer.client.dial import FarmerAddress
from farmer.client.home import Home
from farmer.client.ledger import Ledger
from farmer.client.limits import RETRY_DELAYS_S, SESSIONS_MAX, SILENCES_MAX
from farmer.model.shard import ShardState
from farmer.protocol.limits import ANSWER_S
from farmer.protocol.questions import Stated
from farmer.protocol.refusals import Refusal
from farmer.protocol.transfers import Stored
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


class RenewedTests(FarmerCase):
    """The contract is renewed again and again while files are sent."""

    def setUp(self):
        super().setUp()
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.ledger = Ledger.open(self.folder / "ledger")
        self.addCleanup(self.ledger.close)
        self.ledger.tell_once("stored as they are")
        self.ledger.join(FarmerAddress(self.farmer.node_id, ("a:1",)), self.fake.shown())
        self.fake.script[Type.STORE] = self.stored_and_renewed

    def stored_and_renewed(self, talk, store):
        receipt, agreed = self.fake.receipt(store.shard, store.size_bytes), self.fake.contract
        self.fake.contract = replace(
            agreed, revision=agreed.revision + 1, until_ms=agreed.until_ms + 1
        )
        self.ledger.refresh(self.farmer.node_id, self.fake.shown())
        talk.send(Stored(receipt))

    def test_a_file_is_held_to_the_contract_before_it_not_to_that_before_all(self):
        home = Home(self.renter, self.ledger)
        storing = _Storing(home, self.farmer, ProgressLine("storing"))
        for number in range(3):
            path = self.folder / str(number)
            path.write_bytes(bytes([number]))
            row = Row(str(path))
            self.world.run(storing.one(row))
            self.assertIsNone(row.error)


class NoRoomTests(FarmerCase):
    """The disk that would take it has no room."""

    def setUp(self):
        super().setUp()
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "file"
        path.write_bytes(b"content")
        self.row = Row(str(path))
        ledger = Ledger.open(Path(folder.name) / "ledger")
        self.addCleanup(ledger.close)
        ledger.tell_once("stored as they are")
        self.home = Home(self.renter, ledger)
        self.storing = _Storing(self.home, self.farmer, ProgressLine("storing"))
        self.fake.script[Type.STORE] = lambda talk, _: talk.refuse(
            Refusal.NO_SPACE, 20_000_000, 19_500_000
        )

    def stored_before(self, state):
        shard = self.hold(b"content")
        self.home.keep(self.farmer.node_id, self.fake.receipt(shard, 7), "file")
        stated = Stated(shard, 7, 5, state, 0)
        self.fake.script[Type.STAT] = lambda talk, _: talk.send(stated)
        return shard

    def said(self):
        self.world.run(self.storing.one(self.row))
        self.assertEqual(self.row.refusal.as_json()["wanted_bytes"], 20_000_000)
        return self.row.error

    def test_of_a_damaged_shard_it_says_on_which_disk_and_what_helps(self):
        shard = self.stored_before(ShardState.QUARANTINED)
        said = self.said()
        self.assertIn("20 MB are wanted there, and 19.5 MB are left", said)
        self.assertIn(f"renter delete --erase {shard}", said)

    def test_of_any_other_it_says_how_much_room_there_is(self):
        usual = "NO_SPACE: 20 MB are wanted, the disk that they would go to has 19.5 MB left"
        self.assertEqual(self.said(), usual)
        self.assertNotIn(Type.STAT, [one.TYPE for one in self.fake.asked])
        self.stored_before(ShardState.LIVE)
        self.assertEqual(self.said(), usual)
        self.fake.script[Type.STAT] = lambda talk, _: talk.refuse(Refusal.NOT_FOUND)
        self.assertEqual(self.said(), usual)
