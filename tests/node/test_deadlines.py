"""What is late, and when: no session, no clock, only numbers."""

from __future__ import annotations

import pytest

from farmer.node.deadlines import Late, Patience, WaitingFor
from farmer.node.ports import CloseReason
from farmer.protocol.limits import (
    CLOSE_S,
    DISCARD_S,
    HANDSHAKE_S,
    HURRIED_BYTES_PER_S_MIN,
    HURRIED_S,
    IDLE_S,
    RATE_BYTES_PER_S_MIN,
    RATE_GRACE_S,
    STRANGER_S,
)
from farmer.protocol.refusals import Refusal, Refused

START_S = 1_000.0


@pytest.fixture
def patience() -> Patience:
    """Of a session whose renter is known, from second 1000 on."""
    made = Patience(START_S)
    made.greeted(known=True)
    made.begin()
    return made


def late_at(patience: Patience, first_s: float, reason: CloseReason) -> bool:
    """Tell whether exactly from *first_s* on (not at it) something is late."""
    late = patience.late(first_s + 0.001)
    return patience.late(first_s) is None and late is not None and late.reason is reason


def test_hello_comes_in_time_whatever_is_waited_for() -> None:
    """Waiting, going on and waiting again moves nothing before the greeting."""
    patience = Patience(START_S)
    patience.wait(WaitingFor.REQUEST, START_S + 5)
    patience.go_on(WaitingFor.REQUEST, START_S + 6)

    assert late_at(patience, START_S + HANDSHAKE_S, CloseReason.HANDSHAKE)


def test_who_has_not_said_hello_is_hurried_like_everybody() -> None:
    """Half a HELLO is a wait; only while what it holds is wanted."""
    patience = Patience(START_S)
    patience.wait(WaitingFor.REQUEST, START_S)
    assert patience.late(START_S + HURRIED_S, hurried=True) is None
    late = patience.late(START_S + HURRIED_S + 0.1, hurried=True)
    assert late == Late(CloseReason.HANDSHAKE)
    assert patience.late(START_S + HURRIED_S + 0.1) is None

    patience.go_on(WaitingFor.REQUEST, START_S + 3)
    assert patience.late(START_S + 9, hurried=True) is None


def test_a_known_renter_idles_longer_than_a_stranger() -> None:
    """The stranger's patience is the handshake's, each time anew."""
    for known, allowed_s in ((True, IDLE_S), (False, HANDSHAKE_S)):
        patience = Patience(START_S)
        patience.greeted(known=known)
        assert patience.late(START_S + STRANGER_S) is None
        patience.wait(WaitingFor.REQUEST, START_S + 7)
        assert late_at(patience, START_S + 7 + allowed_s, CloseReason.IDLE)


def test_an_invite_that_is_redeemed_while_we_close_does_not_keep_it_open() -> None:
    """The answer to what was under way comes after we have hung up."""
    patience = Patience(START_S)
    patience.greeted(known=False)
    patience.closing(START_S + 7)
    patience.greeted(known=True)
    assert late_at(patience, START_S + 7 + CLOSE_S, CloseReason.HANDSHAKE)


def test_a_stranger_does_not_stay_by_asking_again_and_again() -> None:
    """His time is counted from the accept; a contract ends the counting."""
    patience = Patience(START_S)
    patience.greeted(known=False)
    for n in range(int(STRANGER_S)):
        patience.wait(WaitingFor.REQUEST, START_S + n)
        patience.go_on(WaitingFor.REQUEST, START_S + n + 0.5)
        assert patience.late(START_S + n + 0.9) is None

    assert late_at(patience, START_S + STRANGER_S, CloseReason.STRANGER)
    patience.greeted(known=True)
    assert patience.late(START_S + 1e6) is None


def test_a_stranger_hung_up_on_has_the_same_moment_to_close() -> None:
    """It is not late twice."""
    patience = Patience(START_S)
    patience.greeted(known=False)
    patience.closing(START_S + STRANGER_S + 1)
    assert patience.late(START_S + STRANGER_S + 1 + CLOSE_S) is None


def test_nobody_is_late_while_we_work(patience: Patience) -> None:
    """Between two waits no deadline runs."""
    patience.wait(WaitingFor.REQUEST, START_S)
    patience.go_on(WaitingFor.REQUEST, START_S + 1)

    assert patience.late(START_S + 1e6) is None


def test_a_transfer_may_be_slow_for_the_grace_then_its_average_counts(patience: Patience) -> None:
    """One byte below the average is too slow, the average itself is not."""
    enough = int(RATE_BYTES_PER_S_MIN * (RATE_GRACE_S + 10))
    for moved, is_late in ((enough, False), (enough - 1, True)):
        patience.begin()
        patience.moved(moved)
        patience.wait(WaitingFor.TRANSFER, START_S)
        assert patience.late(START_S + RATE_GRACE_S) is None
        found = patience.late(START_S + RATE_GRACE_S + 10)
        assert (found is not None) is is_late
        patience.go_on(WaitingFor.TRANSFER, START_S + RATE_GRACE_S + 10)


def test_whoever_holds_what_is_wanted_may_not_stop(patience: Patience) -> None:
    """However much it moved before, and only while it is wanted."""
    patience.moved(1 << 40)
    patience.wait(WaitingFor.TRANSFER, START_S)
    assert patience.late(START_S + HURRIED_S, hurried=True) is None
    late = patience.late(START_S + HURRIED_S + 1, hurried=True)
    assert late is not None and late.reason is CloseReason.SLOW
    assert patience.late(START_S + HURRIED_S + 1) is None


def test_who_takes_what_we_sent_at_the_least_average_may_take_that_long(
    patience: Patience,
) -> None:
    """A step of 256 KiB is not taken in two seconds at 1 Mbit/s; nor is it left for ever."""
    step_bytes = 256 * 1024
    patience.moved(1 << 40)
    patience.wait(WaitingFor.TRANSFER, START_S, step_bytes)
    allowed_s = HURRIED_S + step_bytes / HURRIED_BYTES_PER_S_MIN
    assert patience.late(START_S + allowed_s, hurried=True) is None
    assert patience.late(START_S + allowed_s + 0.1, hurried=True) is not None

    patience.go_on(WaitingFor.TRANSFER, START_S + 3)
    patience.wait(WaitingFor.TRANSFER, START_S + 3)
    assert patience.late(START_S + 3 + HURRIED_S + 0.1, hurried=True) is not None


def test_nor_dribble(patience: Patience) -> None:
    """After the same time its average counts; the least that is allowed is enough."""
    enough = int(HURRIED_BYTES_PER_S_MIN * (HURRIED_S + 1))
    for moved, is_late in ((enough, False), (enough - 1, True)):
        patience.begin()
        patience.moved(moved)
        for n in range(10):
            patience.wait(WaitingFor.TRANSFER, START_S + n)
            assert patience.late(START_S + n + 0.1, hurried=True) is None or is_late
            patience.go_on(WaitingFor.TRANSFER, START_S + n + (HURRIED_S + 1) / 10)
        patience.wait(WaitingFor.TRANSFER, START_S + 10)
        assert (patience.late(START_S + 10, hurried=True) is not None) is is_late
        assert patience.late(START_S + 10) is None
        patience.go_on(WaitingFor.TRANSFER, START_S + 10)


def test_half_a_request_is_hurried_too(patience: Patience) -> None:
    """It is closed as idle: there is nothing to refuse."""
    patience.wait(WaitingFor.REQUEST, START_S)
    assert patience.late(START_S + HURRIED_S, hurried=True) is None
    assert patience.late(START_S + HURRIED_S + 1, hurried=True) == Late(CloseReason.IDLE)
    assert patience.late(START_S + HURRIED_S + 1) is None


def test_only_time_spent_waiting_counts(patience: Patience) -> None:
    """Ten waits of 2 s in an hour are 20 s."""
    for n in range(10):
        patience.wait(WaitingFor.TRANSFER, START_S + 360 * n)
        patience.go_on(WaitingFor.TRANSFER, START_S + 360 * n + 2)

    patience.wait(WaitingFor.TRANSFER, START_S + 4000)
    assert patience.late(START_S + 4000 + RATE_GRACE_S - 20) is None
    late = patience.late(START_S + 4000 + RATE_GRACE_S - 20 + 1)
    assert late == Late(CloseReason.SLOW, Refused(Refusal.TOO_SLOW, 0, int(RATE_GRACE_S + 1)))


def test_each_request_begins_anew(patience: Patience) -> None:
    """Neither the bytes nor the waits of the one before count."""
    patience.moved(1 << 40)
    patience.wait(WaitingFor.TRANSFER, START_S)
    patience.go_on(WaitingFor.TRANSFER, START_S + 25)
    patience.begin()
    patience.wait(WaitingFor.TRANSFER, START_S + 25)

    assert late_at(patience, START_S + 25 + RATE_GRACE_S, CloseReason.SLOW)


def test_a_fast_transfer_may_not_stand_still_for_ever(patience: Patience) -> None:
    """A good average buys no more than the idle deadline at a time."""
    patience.moved(1 << 40)
    patience.wait(WaitingFor.TRANSFER, START_S)

    assert late_at(patience, START_S + IDLE_S, CloseReason.SLOW)


def test_the_owed_end_has_one_deadline(patience: Patience) -> None:
    """Whatever else comes meanwhile."""
    for n in range(5):
        patience.wait(WaitingFor.END, START_S + n)
        patience.go_on(WaitingFor.END, START_S + n + 0.5)

    assert late_at(patience, START_S + DISCARD_S, CloseReason.SLOW)


def test_the_owed_end_is_told_with_all_that_was_moved_and_waited(patience: Patience) -> None:
    """The store before the refusal, what was thrown away after it, and both waits."""
    patience.wait(WaitingFor.TRANSFER, START_S)
    patience.go_on(WaitingFor.TRANSFER, START_S + 5)
    patience.moved(100)
    patience.wait(WaitingFor.END, START_S + 10)
    patience.moved(50)

    late = patience.late(START_S + 10 + DISCARD_S + 1)
    expected = Refused(Refusal.TOO_SLOW, 150, 5 + int(DISCARD_S) + 1)
    assert late == Late(CloseReason.SLOW, expected)


def test_who_owes_the_end_need_not_be_fast(patience: Patience) -> None:
    """It may say nothing for the whole of its time."""
    patience.wait(WaitingFor.END, START_S)

    assert patience.late(START_S + DISCARD_S) is None


def test_after_the_end_that_deadline_is_gone(patience: Patience) -> None:
    """Also for a request that came right behind the END, whose service takes long."""
    patience.wait(WaitingFor.END, START_S)
    patience.go_on(WaitingFor.END, START_S + 1)
    patience.discarded()

    assert patience.late(START_S + 1e6) is None


def test_a_close_has_its_own_moment(patience: Patience) -> None:
    """Even in the middle of a transfer."""
    patience.wait(WaitingFor.TRANSFER, START_S)
    patience.closing(START_S + 100)

    assert patience.late(START_S + 100 + CLOSE_S) is None
    assert patience.late(START_S + 100 + CLOSE_S + 0.001) is not None


def test_the_time_in_which_it_waits_for_our_turn_is_not_the_renters(patience: Patience) -> None:
    """While we read nothing it cannot be quick, and the deadline is as far away afterwards."""
    patience.wait(WaitingFor.TRANSFER, START_S)
    patience.stand_still(START_S + 1)
    assert patience.late(START_S + 1e6, hurried=True) is None
    patience.run_on(START_S + 1000)
    assert patience.late(START_S + 999 + HURRIED_S, hurried=True) is None
    assert patience.late(START_S + 1000 + HURRIED_S, hurried=True) is not None
    assert patience.late(START_S + 998 + RATE_GRACE_S) is None


def test_a_wait_that_begins_while_we_do_not_read_counts_from_when_we_do(
    patience: Patience,
) -> None:
    patience.stand_still(START_S)
    patience.wait(WaitingFor.TRANSFER, START_S + 5)
    patience.run_on(START_S + 10)
    assert patience.late(START_S + 10 + HURRIED_S, hurried=True) is None
    assert patience.late(START_S + 10.1 + HURRIED_S, hurried=True) is not None
