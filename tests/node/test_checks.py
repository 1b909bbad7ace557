"""Deadlines of many sessions: looked at in parts, between which everybody has a turn."""

from __future__ import annotations

from farmer.node.service import CHECKED_PER_TURN, HANG_UP_CHECKS
from farmer.node.session import Guest
from farmer.protocol.limits import HANDSHAKE_S
from tests.node.test_drain import DrainCase


class Looked:
    """A guest that counts how often it is looked at; all that checking asks of one."""

    address = "192.0.2.1"
    known = over = has_unread = False

    def __init__(self) -> None:
        self.looks = 0

    def check(self) -> bool:
        self.looks += 1
        return False


class CheckTests(DrainCase):
    def turn(self) -> None:
        """Let one turn of the reactor pass: what it asks for waits for the next."""
        due, self.clock.calls = self.clock.calls, []
        for call in due:
            call.called = 1
            call.func(*call.args, **call.kw)

    def check_in_turns(self, done: list[bool]) -> int:
        """Look at all deadlines; return after how many turns that is done."""
        self.clock.calls.clear()
        self.tasks.start("check", self._check(done))
        turns = 1
        while not done:
            self.turn()
            turns += 1
        return turns

    async def _check(self, done: list[bool]) -> None:
        await self.service._check()
        done.append(True)

    def test_deadlines_of_many_are_looked_at_in_parts(self) -> None:
        guests = [Looked() for _ in range(3 * CHECKED_PER_TURN - 1)]
        for one in guests:
            guest: Guest = one  # type: ignore[assignment]
            self.sessions.enter(guest)

        self.assertEqual(3, self.check_in_turns([]))

        self.assertEqual({1}, {one.looks for one in guests})
        for one in guests:
            self.sessions.leave(one)  # type: ignore[arg-type]

    def test_who_leaves_between_two_parts_is_not_looked_at_and_the_others_are(self) -> None:
        guests = [Looked() for _ in range(CHECKED_PER_TURN + 2)]
        for one in guests:
            self.sessions.enter(one)  # type: ignore[arg-type]
        done: list[bool] = []
        self.clock.calls.clear()
        self.tasks.start("check", self._check(done))

        gone = guests[CHECKED_PER_TURN]
        self.sessions.leave(gone)  # type: ignore[arg-type]
        self.turn()

        self.assertTrue(done)
        self.assertEqual([gone], [one for one in guests if not one.looks])
        for one in guests:
            self.sessions.leave(one)  # type: ignore[arg-type]

    def test_of_many_who_are_late_together_some_go_in_each_turn(self) -> None:
        at_once = CHECKED_PER_TURN // HANG_UP_CHECKS
        peers = [self.call() for _ in range(3 * at_once)]
        self.clock.rightNow += HANDSHAKE_S + 1

        self.assertEqual(4, self.check_in_turns([]))

        self.assertTrue(all(peer.session.over for peer in peers))
