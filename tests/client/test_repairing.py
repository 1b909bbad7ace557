"""A repair from our own copy: honest farmers are mended, others are found out."""

import io

from farmer.client import refusals
from farmer.client.errors import ConnectionLostError, FarmerBrokeProtocolError, SourceChangedError
from farmer.model.shard import BLOCK_BYTES, BadBlocks
from farmer.protocol.refusals import Refusal
from farmer.protocol.repairs import BadBlocksNamed
from farmer.protocol.transfers import Stored
from farmer.protocol.types import Type
from tests.client.fake_farmer import shard_of
from tests.client.test_farmer import FarmerCase, content_of

SIZE = 12 * BLOCK_BYTES + 77
BAD = (0, 3, 4, 5, 6, 7, 8, 12)


class RepairTests(FarmerCase):
    def setUp(self):
        super().setUp()
        self.content = content_of(SIZE)
        self.shard = shard_of(self.content)

    def named(self, size=SIZE, blocks=BAD):
        return BadBlocksNamed(BadBlocks(size, blocks))

    def wants(self, blocks=BAD, answer=None):
        """Have the farmer ask for blocks and answer what comes with *answer(talk, bytes)*."""

        def begin(talk, _):
            talk.open = (self.shard, SIZE, bytearray())
            talk.send(self.named(blocks=blocks))

        def end(talk, _):
            (_shard, _size, taken), talk.open = talk.open, None
            self.taken = bytes(taken)
            (answer or self.stored)(talk)

        self.fake.script = {Type.REPAIR: begin, Type.END: end}

    def stored(self, talk):
        talk.send(Stored(self.fake.receipt(self.shard, SIZE)))

    def repair(self, content=None):
        return self.farmer.repair(self.shard, io.BytesIO(content or self.content))

    def test_the_wanted_blocks_are_sent_and_no_others(self):
        self.wants()
        repaired = self.run_(self.repair())
        wanted = b"".join(self.content[b * BLOCK_BYTES : (b + 1) * BLOCK_BYTES] for b in BAD)
        self.assertEqual(wanted, self.taken)
        self.assertEqual(BAD, repaired.bad.blocks)
        self.assertEqual(self.shard, repaired.receipt.shard)

    def test_all_blocks_are_sent_if_all_are_wanted(self):
        self.wants(tuple(range(13)))
        self.run_(self.repair())
        self.assertEqual(self.content, self.taken)

    def test_a_sound_shard_needs_nothing(self):
        self.fake.script = {Type.REPAIR: lambda talk, _: self.stored(talk)}
        self.assertEqual((), self.run_(self.repair()).bad.blocks)

    def test_a_file_that_is_not_that_shard_is_never_sent(self):
        self.wants()
        with self.assertRaises(SourceChangedError):
            self.run_(self.repair(self.content[:-1]))
        self.assertNotIn(Type.REPAIR, {message.TYPE for message in self.fake.asked})

    def test_lies_about_size_and_receipt_are_refused(self):
        self.fake.script = {Type.REPAIR: lambda talk, _: talk.send(self.named(SIZE + 1, ()))}
        with self.assertRaises(FarmerBrokeProtocolError):
            self.run_(self.repair())
        self.wants(answer=lambda talk: talk.send(Stored(self.fake.receipt(self.shard, 5))))
        with self.assertRaises(FarmerBrokeProtocolError):
            self.run_(self.repair())
        self.fake.script = {Type.EXAMINE: lambda talk, _: talk.send(self.named(SIZE + 1, ()))}
        with self.assertRaises(FarmerBrokeProtocolError):
            self.run_(self.farmer.examine(self.shard, SIZE))

    def test_refusals_come_through_and_an_older_farmer_is_told_apart(self):
        for kind in (Type.REPAIR, Type.EXAMINE):
            self.fake.script[kind] = lambda talk, _, kind=kind: talk.refuse(
                Refusal.UNKNOWN_MESSAGE, kind
            )
        with self.assertRaises(refusals.UnknownMessageError):
            self.run_(self.repair())
        with self.assertRaises(refusals.UnknownMessageError):
            self.run_(self.farmer.examine(self.shard, SIZE))
        self.wants(answer=lambda talk: talk.refuse(Refusal.WRONG_HASH))
        with self.assertRaises(refusals.WrongHashError):
            self.run_(self.repair())

    def test_the_damage_is_told(self):
        self.fake.script = {Type.EXAMINE: lambda talk, _: talk.send(self.named())}
        self.assertEqual(BadBlocks(SIZE, BAD), self.run_(self.farmer.examine(self.shard, SIZE)))

    def test_a_farmer_that_hangs_up_each_time_is_given_up(self):
        self.fake.script = {Type.REPAIR: lambda talk, _: talk.cut()}
        with self.assertRaises(ConnectionLostError):
            self.run_(self.repair())
