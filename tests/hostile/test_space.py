"""Renters with contracts who play with space: half-open stores, churn, huge lists, odd names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farmer.identity.keys import Identity
from farmer.identity.signing import make_invite
from farmer.model.audit import AuditEntry, AuditKind, Challenge
from farmer.model.ids import InviteSerial, ShardId
from farmer.model.shard import DeletionOutcome, charge_bytes
from farmer.protocol.connection import DataReceived
from farmer.protocol.documents import invite_bytes
from farmer.protocol.limits import LIST_ENTRIES_MAX, UPLOADS_PER_RENTER_MAX
from farmer.protocol.opening import End, Refuse
from farmer.protocol.questions import ContractShown, Delete, Deleted, List, Listed, Redeem
from farmer.protocol.refusals import Refusal
from farmer.protocol.transfers import TO_THE_END, Audit, Retrieve, Send, Store, Stored
from tests.e2e.daemon import allocated_bytes
from tests.fakes import shard_of
from tests.hostile.base import FRAME, QUOTA_BYTES, HostileCase, Renter
from tests.node.wires import OFFER

MIB = 1 << 20


def ending_of(reader: Renter) -> Any:
    """Take what still comes, and return what it ends with."""
    with reader:
        while isinstance(event := reader.hear(), DataReceived):
            pass
        return event


class SpaceTests(HostileCase):
    def leave_half(self, name: str, n: int) -> str:
        """Begin a large store, send a step of it, vanish; return the answer's name."""
        with self.call(name) as renter:
            answer = renter.ask(Store(ShardId(n.to_bytes(32, "big")), 2 * MIB))
            if isinstance(answer, Refuse):
                return answer.refused.refusal.name
            renter.socket.sendall(renter.connection.send_data(bytes(FRAME)))
            return type(answer).__name__

    async def test_half_open_stores_are_counted_and_paid_by_their_renter(self) -> None:
        """Limits: UPLOADS_PER_RENTER_MAX, leases included; the contract's and quota's space."""
        greedy = self.join("greedy")
        most = UPLOADS_PER_RENTER_MAX

        def talk() -> list[str]:
            return [self.leave_half("greedy", n) for n in range(most + 3)]

        answers = await self.in_thread(talk)

        self.assertEqual(["Accept"] * most + ["TOO_MANY"] * 3, answers)
        await self.until(lambda: self.service.sessions.busy == 0)
        usage = self.engine.usage(greedy)
        self.assertLessEqual(usage.reserved_bytes, most * charge_bytes(2 * MIB))
        self.assertLessEqual(allocated_bytes(self.home / "volume"), QUOTA_BYTES)
        await self.serve_honest()

    async def test_who_reads_slowly_what_he_has_erased_holds_no_space(self) -> None:
        """However many shards were stored, begun to be read or proved, and erased: one counts."""
        greedy, one_bytes = self.join("greedy", replace(OFFER, space_bytes=10 * MIB)), 8 * MIB
        volume = self.home / "volume"
        before_bytes = allocated_bytes(volume)

        def hold(main: Renter, n: int) -> Renter:
            """Store one, have a step of it and no more, erase it."""
            data = bytes([n]) * one_bytes
            assert isinstance(main.store(data), Stored)
            reader = self.call("greedy")
            reader.hello()
            if n % 2:
                reader.ask(Retrieve(shard_of(data), 0, TO_THE_END, False), Send)
            else:
                entry = AuditEntry(shard_of(data), one_bytes, 1024)
                reader.ask(Audit(Challenge(bytes(32), AuditKind.SAMPLE, (entry,))), DataReceived)
            deleted = main.ask(Delete(shard_of(data), erase=True), Deleted)
            assert deleted.outcome is DeletionOutcome.ERASED
            return reader

        def talk() -> tuple[int, list[Any]]:
            with self.call("greedy") as main:
                readers = [hold(main, n) for n in range(8)]
                held_bytes = allocated_bytes(volume) - before_bytes
            return held_bytes, [ending_of(reader) for reader in readers]

        held_bytes, ends = await self.in_thread(talk)

        self.assertLess(held_bytes, one_bytes)
        self.assertEqual({Refusal.NOT_FOUND}, {end.refused.refusal for end in ends})
        self.assertEqual(0, self.engine.usage(greedy).total_bytes)
        self.assertEqual({}, dict(self.engine.volumes()[0].errors))
        await self.serve_honest()

    @pytest.mark.slow
    async def test_storing_and_erasing_for_ever_takes_no_space(self) -> None:
        """Space and index stay as they were, however many shards came and went."""
        sizes = []
        for turn in range(4):

            def churn(turn: int = turn) -> None:
                with self.call() as renter:
                    for n in range(60):
                        data = bytes([turn, n]) * 20_000
                        assert isinstance(renter.store(data), Stored)
                        renter.ask(Delete(shard_of(data), erase=True))

            await self.in_thread(churn)
            await self.in_thread(lambda: self.engine.sweep(1_000, 1_000))
            sizes.append(allocated_bytes(self.home / "volume"))
        self.assertEqual(0, self.engine.usage(self.honest).total_bytes)
        self.assertLess(sizes[-1], sizes[0] + 4 * MIB, sizes)

    async def test_tiny_shards_pay_for_a_whole_record(self) -> None:
        """Limit: a record is charged 4 KiB at least, so the index is paid for."""

        def store() -> list[Any]:
            with self.call() as renter:
                return [renter.store(bytes([n])) for n in range(100)]

        stored = await self.in_thread(store)

        self.assertTrue(all(isinstance(one, Stored) for one in stored))
        usage = self.engine.usage(self.honest)
        self.assertEqual(100 * charge_bytes(1), usage.live_bytes)
        self.assertGreaterEqual(charge_bytes(1), 4096)

    async def test_a_list_is_never_longer_than_a_page(self) -> None:
        """Limit: LIST_ENTRIES_MAX, whatever is asked for."""

        def talk() -> tuple[int, Any]:
            with self.call() as renter:
                for n in range(30):
                    renter.store(bytes([n, n]))
                listed = renter.ask(List(ShardId(bytes(32)), LIST_ENTRIES_MAX), Listed)
                frame = bytearray(renter.connection.send(List(ShardId(bytes(32)), 1)))
                frame[-2:] = (LIST_ENTRIES_MAX + 1).to_bytes(2, "big")
                renter.socket.sendall(frame)
                return len(listed.entries), renter.hear()

        listed, refused = await self.in_thread(talk)

        self.assertEqual(30, listed)
        self.assertEqual(Refusal.MALFORMED, refused.refused.refusal)

    async def test_no_name_of_a_peer_reaches_a_path(self) -> None:
        """A shard id is 32 bytes of anything; files are named by us."""
        ids = [
            b"../../../../../../etc/passwd\0\0\0\0"[:32],
            b"/" * 32,
            b"\0" * 31 + b"\n",
            b"%2e%2e%2f; rm -rf ~ `reboot` $(x)"[:32],
        ]

        def talk() -> None:
            for raw in ids:
                with self.call() as renter:
                    renter.ask(Store(ShardId(raw), 2 * MIB))
                    renter.socket.sendall(renter.connection.send_data(bytes(FRAME)))

        before = set(self.home.iterdir())
        await self.in_thread(talk)
        await self.until(lambda: self.service.sessions.busy == 0)

        self.assertEqual(before, set(self.home.iterdir()))
        names = [path.name for path in (self.home / "volume").rglob("*")]
        self.assertTrue(all(name.isascii() and name.isprintable() for name in names))
        self.assertEqual(4, len(list((self.home / "volume" / "staging").iterdir())))

    async def test_wrong_bytes_again_and_again_keep_nothing(self) -> None:
        def talk() -> list[str]:
            names = []
            for n in range(20):
                with self.call() as renter:
                    renter.ask(Store(ShardId(bytes([n]) * 32), 1000))
                    renter.socket.sendall(renter.connection.send_data(bytes(1000)))
                    renter.tell(End())
                    names.append(renter.hear().refused.refusal.name)
            return names

        self.assertEqual(["WRONG_HASH"] * 20, await self.in_thread(talk))
        self.assertEqual(0, self.engine.usage(self.honest).total_bytes)


class InviteTests(HostileCase):
    async def test_an_invite_is_spent_once_however_often_it_is_played(self) -> None:
        """One of many strangers at once gets it; the others, and copies of it, get nothing."""
        serial = InviteSerial(b"one invite only."[:16])
        self.book.mint(serial, OFFER)
        invite = invite_bytes(make_invite(self.identity, serial, OFFER))
        names = [f"stranger{n}" for n in range(6)]
        for name in names:
            Identity.create(self.home / name)

        def redeem(name: str) -> Any:
            with self.call(name) as renter:
                first = renter.ask(Redeem(invite))
                again = renter.ask(Redeem(invite))
                return first, again

        def play() -> list[Any]:
            return [redeem(name) for name in names]

        answers = await self.in_thread(play)

        self.assertEqual(1, sum(isinstance(one, ContractShown) for one, _ in answers))
        self.assertIsInstance(answers[0][1], ContractShown)
        spent = {one.refused.refusal for one, _ in answers[1:]}
        self.assertEqual({Refusal.INVITE_SPENT}, spent)

    async def test_a_changed_or_foreign_invite_is_none(self) -> None:
        other = Identity.create(self.home / "other-farmer")
        Identity.create(self.home / "stranger")
        serial = InviteSerial(bytes(16))
        good = invite_bytes(make_invite(self.identity, serial, OFFER))
        foreign = invite_bytes(make_invite(other, serial, OFFER))
        changed = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in (0, 5, 20, -1)]

        def play() -> list[Any]:
            with self.call("stranger") as renter:
                return [renter.ask(Redeem(raw)) for raw in (foreign, *changed, b"", b"x" * 5000)]

        answers = await self.in_thread(play)

        self.assertEqual({Refusal.INVITE_INVALID}, {one.refused.refusal for one in answers})


def test_what_is_compared_is_what_the_disk_says(tmp_path: Path) -> None:
    """The space tests would prove nothing with a ruler that shows nothing."""
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    assert allocated_bytes(tmp_path) >= 1 << 20
