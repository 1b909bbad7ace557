"""Gate, budget and admission: who has to wait, who has to go."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from farmer.model.ids import NodeId
from farmer.node import budget
from farmer.node.admission import Places, Sessions, TurnedAway, Welcomed
from farmer.node.budget import DAY_S, AuditBudget, Spent
from farmer.node.exchange import Exchange
from farmer.node.gate import Gate
from farmer.node.origins import origin
from farmer.node.ports import CloseReason, Verb
from tests.node.wires import OTHER, RENTER, STRANGER, NodeCase

GIB = 1 << 30


class GateTests(NodeCase):
    def test_who_does_not_fit_waits_in_order(self) -> None:
        gate = Gate(10)
        first, second, third = (gate.enter(who, who) for who in (6, 5, 1))
        self.result(first)
        self.assertNoResult(second)
        self.assertNoResult(third)

        gate.leave(6, 6)

        self.result(second)
        self.result(third)
        self.assertEqual(6, gate.inside_bytes)

    def test_who_gives_up_lets_the_next_in(self) -> None:
        gate = Gate(10)
        self.result(gate.enter("a", 9))
        large, small = gate.enter("b", 5), gate.enter("c", 1)

        large.cancel()

        self.failureResultOf(large, CancelledError)
        self.result(small)
        self.assertEqual((10, 0), (gate.inside_bytes, gate.waiting))

    def test_somebody_too_large_for_the_gate_goes_alone(self) -> None:
        gate = Gate(10)
        self.result(gate.enter("a", 1))
        giant = gate.enter("b", 99)
        self.assertNoResult(giant)

        gate.leave("a", 1)
        self.result(giant)
        self.assertNoResult(gate.enter("c", 1))

        gate.leave("b", 99)
        self.assertEqual(1, gate.inside_bytes)

    def test_who_is_inside_two_is_hurried_for_either(self) -> None:
        """After the inner one is left, others still wait for the outer one."""
        outer, inner = Gate(10), Gate(10)
        peer = self.greet()
        exchange = Exchange(self.farm, peer.session, RENTER, Verb.REPAIR)
        seen = []

        def look() -> None:
            held = peer.session._wanted
            seen.append(held is not None and held())

        async def go() -> None:
            async with exchange.inside(outer, 5):
                look()
                waits = [outer.enter(OTHER, 10)]
                async with exchange.inside(inner, 5):
                    look()
                look()
            self.result(waits[0])
            look()

        self.result(Deferred.fromCoroutine(go()))
        self.assertEqual([False, True, True, False], seen)

    def test_who_holds_a_share_waits_for_himself_and_is_overtaken(self) -> None:
        gate = Gate(16)
        self.result(gate.enter("greedy", 4))
        more = [gate.enter("greedy", 4) for _ in range(10)]

        self.result(gate.enter("honest", 4))

        for turn in more:
            self.assertNoResult(turn)
        gate.leave("greedy", 4)
        self.result(more[0])
        self.assertNoResult(more[1])

    def test_who_holds_least_is_next_however_many_others_he_has_sent_ahead(self) -> None:
        gate = Gate(16)
        for who in ("a", "b", "c", "d"):
            self.result(gate.enter(who, 2))
            self.result(gate.enter(who, 2))
        ahead = [gate.enter(who, 2) for who in ("a", "b", "c", "d") for _ in range(5)]
        self.assertFalse(Gate(1).is_wanted("a"))
        honest = gate.enter("honest", 2)

        gate.leave("a", 2)

        self.result(honest)
        for turn in ahead:
            self.assertNoResult(turn)
        self.assertTrue(gate.is_wanted("a"))

    def test_something_larger_than_a_share_goes_in_if_it_is_the_first(self) -> None:
        gate = Gate(16)
        self.result(gate.enter("a", 9))
        self.assertNoResult(gate.enter("a", 1))
        self.result(gate.enter("b", 7))

    def test_never_more_inside_than_allowed(self) -> None:
        moves = st.tuples(st.integers(0, 15), st.integers(0, 2), st.integers(0, 3))

        @given(st.lists(moves, max_size=60))
        def check(moves: list[tuple[int, int, int]]) -> None:
            gate, places = Gate(10), list[tuple[int, int, Deferred[None]]]()
            for size, move, who in moves:
                if move == 0 or not places:
                    places.append((who, size, gate.enter(who, size)))
                else:
                    whose, old, turn = places.pop(0)
                    inside = turn.called
                    turn.addErrback(lambda failure: failure.trap(CancelledError) and None)
                    gate.leave(whose, old) if inside else turn.cancel()
                self.assertLessEqual(gate.inside_bytes, 10)
            inside = sum(min(size, 10) for _, size, turn in places if turn.called)
            self.assertEqual(inside, gate.inside_bytes)
            self.assertTrue(places == [] or any(turn.called for _, _, turn in places))

        check()


class BudgetTests(NodeCase):
    def test_a_gibibyte_a_day_or_twice_what_is_stored(self) -> None:
        for stored, capacity in ((0, GIB), (GIB // 2, GIB), (3 * GIB, 6 * GIB)):
            spending = AuditBudget()
            self.assertIsNone(spending.take(RENTER, capacity, stored, 0))
            self.assertIsInstance(spending.take(RENTER, 1, stored, 0), Spent)

    def test_it_fills_up_evenly(self) -> None:
        spending = AuditBudget()
        self.assertIsNone(spending.take(RENTER, GIB, 0, 0))

        spent = spending.take(RENTER, GIB // 4, 0, 0)

        assert spent is not None
        self.assertApproximates(DAY_S / 4, spent.retry_after_ms / 1000, 0.01)
        self.assertIsNone(spending.take(RENTER, GIB // 4, 0, spent.retry_after_ms / 1000))
        self.assertIsNone(spending.take(RENTER, GIB, 0, 10 * DAY_S))
        self.assertIsNotNone(spending.take(RENTER, GIB // 2, 0, 10 * DAY_S))

    def test_in_no_day_is_it_more_than_twice_what_is_allowed_at_once(self) -> None:
        """It is full at first: who empties it then has all that comes after it, and no more."""
        spending, taken = AuditBudget(), []
        for minute in range(3 * 1440):
            while spending.take(RENTER, GIB // 1024, 0, 60.0 * minute) is None:
                taken.append(minute)

        days = [sum(day <= at < day + 1440 for at in taken) for day in range(0, 2 * 1440, 60)]
        self.assertLessEqual(max(days), 2 * 1024)
        self.assertGreaterEqual(days[0], 2 * 1024 - 2)
        self.assertLessEqual(max(days[1:]), 1024 + 1)

    def test_who_wants_more_than_ever_fits_is_told_when_it_is_full(self) -> None:
        spending = AuditBudget()
        self.assertIsNone(spending.take(RENTER, GIB, 0, 0))

        spent = spending.take(RENTER, 3 * GIB, 0, 0)

        assert spent is not None
        self.assertApproximates(DAY_S, spent.retry_after_ms / 1000, 0.01)

    def test_renters_do_not_share(self) -> None:
        spending = AuditBudget()
        self.assertIsNone(spending.take(RENTER, GIB, 0, 0))

        self.assertIsNone(spending.take(OTHER, GIB, 0, 0))

    def test_what_was_not_read_comes_back(self) -> None:
        spending = AuditBudget()
        self.assertIsNone(spending.take(RENTER, GIB, 0, 0))
        spending.give_back(RENTER, GIB)
        spending.give_back(STRANGER, GIB)

        self.assertIsNone(spending.take(RENTER, GIB, 0, 0))
        self.assertEqual(1, len(spending))

    def test_it_remembers_only_so_many_renters(self) -> None:
        self.patch(budget, "RENTERS_MAX", 3)
        spending = AuditBudget()
        for n in range(10):
            self.assertIsNone(spending.take(NodeId(bytes([n]) * 32), GIB, 0, n))

        self.assertEqual(3, len(spending))
        self.assertIsNotNone(spending.take(NodeId(bytes([9]) * 32), GIB, 0, 9))

    def test_it_forgets_first_who_audited_longest_ago(self) -> None:
        """His bucket is the fullest: who asks again and again gains nothing by a crowd."""
        self.patch(budget, "RENTERS_MAX", 2)
        spending = AuditBudget()
        for renter, wanted in ((RENTER, GIB), (OTHER, GIB), (RENTER, 0), (STRANGER, GIB)):
            self.assertIsNone(spending.take(renter, wanted, 0, 0))

        self.assertIsNotNone(spending.take(RENTER, GIB, 0, 0))


class AdmissionTests(NodeCase):
    def setUp(self) -> None:
        super().setUp()
        self.small = Sessions(Places(4, per_address=3, per_renter=3))

    def enter(self, address: str, *, known: bool = False) -> Any:
        session = self.call(RENTER, address).session
        session.known = known
        self.small.enter(session)
        return session

    def test_there_is_room_until_there_is_none(self) -> None:
        for n in range(4):
            self.assertEqual(Welcomed(), self.small.decide(f"10.0.0.{n}"))
            self.enter(f"10.0.0.{n}", known=True)

        self.assertEqual(TurnedAway(4, 4), self.small.decide("10.0.0.9"))

    def test_one_address_cannot_take_all(self) -> None:
        sessions = [self.enter("10.0.0.1") for _ in range(3)]
        self.assertEqual(TurnedAway(3, 3), self.small.decide("10.0.0.1"))
        self.assertEqual(Welcomed(), self.small.decide("10.0.0.2"))

        self.small.leave(sessions[0])
        self.small.leave(sessions[0])

        self.assertEqual(Welcomed(), self.small.decide("10.0.0.1"))

    def test_the_oldest_stranger_of_the_largest_crowd_makes_room(self) -> None:
        self.enter("10.0.0.1", known=True)
        self.enter("10.0.0.2")
        first = self.enter("10.0.0.3")
        self.enter("10.0.0.3")

        self.assertEqual(Welcomed(instead=first), self.small.decide("10.0.0.4"))

    def introduced(self, n: int, renter: NodeId) -> Any:
        session = self.enter(f"10.0.0.{n}")
        found = self.small.introduce(session, renter, known=True)
        session.known = isinstance(found, Welcomed)
        return session, found

    def test_one_renter_cannot_take_all_from_many_addresses(self) -> None:
        sessions = [self.introduced(n, RENTER)[0] for n in range(3)]
        self.assertEqual(TurnedAway(3, 3), self.introduced(3, RENTER)[1])

        self.small.leave(sessions[0])

        self.assertIsInstance(self.introduced(4, RENTER)[1], Welcomed)

    def test_who_left_and_is_served_still_counts_to_its_renter(self) -> None:
        sessions = [self.introduced(n, RENTER)[0] for n in range(3)]
        self.small.began(sessions[0])
        self.small.leave(sessions[0])
        self.assertEqual(TurnedAway(3, 3), self.introduced(4, RENTER)[1])

        self.small.ended(sessions[0])

        self.assertIsInstance(self.introduced(5, RENTER)[1], Welcomed)

    def test_work_for_those_who_left_does_not_pile_up(self) -> None:
        for n in range(4):
            session, found = self.introduced(n, NodeId(bytes([n]) * 32))
            self.assertEqual(Welcomed(), found)
            self.small.began(session)
            self.small.leave(session)

        session, found = self.introduced(9, RENTER)

        self.assertEqual((TurnedAway(4, 4), 4), (found, self.small.departed))

    def test_the_only_place_is_for_a_renter_too(self) -> None:
        self.small = Sessions(Places(1))
        self.assertEqual(Welcomed(), self.introduced(1, RENTER)[1])

    def test_strangers_take_no_place_from_renters(self) -> None:
        known = [self.introduced(n, who)[0] for n, who in enumerate((RENTER, OTHER, OTHER))]
        stranger = self.enter("10.0.0.8")

        self.assertEqual(Welcomed(instead=stranger), self.small.decide("10.0.0.9"))
        self.small.leave(stranger)
        self.assertEqual(Welcomed(), self.small.decide("10.0.0.9"))
        self.assertEqual(3, len(known))

    def test_the_idlest_of_who_has_most_makes_room_for_a_renter(self) -> None:
        first, second, third = (
            self.introduced(n, who)[0] for n, who in enumerate((OTHER, RENTER, RENTER))
        )
        self.small.began(second)
        self.small.ended(second)

        self.assertEqual(Welcomed(instead=third), self.introduced(3, STRANGER)[1])

        self.small.leave(third)
        self.small.began(second)
        self.small.began(first)
        self.assertIsInstance(self.introduced(4, NodeId(b"x" * 32))[1], Welcomed)

    def test_nobody_who_is_being_served_makes_room(self) -> None:
        for n, who in enumerate((OTHER, RENTER, RENTER)):
            self.small.began(self.introduced(n, who)[0])

        self.assertEqual(TurnedAway(3, 3), self.introduced(3, STRANGER)[1])

    def test_who_has_a_contract_since_hello_needs_a_renters_place(self) -> None:
        """Whoever has a few invites could fill all places with them one by one, else."""
        sessions = [self.enter(f"10.0.0.{n}") for n in range(4)]
        for session, who in zip(sessions, (RENTER, OTHER, OTHER, STRANGER), strict=True):
            self.assertEqual(Welcomed(), self.small.introduce(session, who, known=False))
        for session, who in zip(sessions[:3], (RENTER, OTHER, OTHER), strict=True):
            self.assertEqual(Welcomed(), self.small.introduce(session, who, known=True))
            session.known = True
        self.small.began(sessions[1])

        found = self.small.introduce(sessions[3], STRANGER, known=True)
        self.assertEqual(Welcomed(instead=sessions[2]), found)
        self.small.leave(sessions[2])
        sessions[3].known = True
        self.small.began(sessions[0])
        self.small.began(sessions[3])
        late = self.enter("10.0.0.9")
        self.small.introduce(late, OTHER, known=False)

        self.assertEqual(TurnedAway(3, 3), self.small.introduce(late, OTHER, known=True))
        self.assertEqual(Welcomed(instead=late), self.small.decide("10.0.0.10"))

    def test_a_session_is_counted_to_its_renter_once(self) -> None:
        sessions = [self.enter(f"10.0.0.{n}") for n in range(3)]
        for session in sessions:
            self.small.introduce(session, RENTER, known=False)

        for session in sessions:
            self.assertEqual(Welcomed(), self.small.introduce(session, RENTER, known=True))
        self.small.leave(sessions[0])
        self.assertEqual(Welcomed(), self.introduced(4, RENTER)[1])

    def test_a_renter_who_has_the_only_place_and_is_idle_makes_room(self) -> None:
        self.small = Sessions(Places(1))
        renter, _ = self.introduced(1, RENTER)

        self.assertEqual(Welcomed(instead=renter), self.small.decide("10.0.0.9"))

    def test_a_household_is_one_origin(self) -> None:
        for host, same in (
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("a-path", "a-path"),
        ):
            self.assertEqual(same, origin(host))

    def test_an_aborted_session_gives_up_its_place_at_once(self) -> None:
        peer = self.greet()
        peer.session.abort(CloseReason.SHED)

        self.assertEqual(0, len(self.sessions))
        peer.pump()
        self.assertEqual([CloseReason.SHED.value], self.meter.closed)
