"""A volume's states: the tables, what an owner sees of them, and the ways back."""

from __future__ import annotations

import pytest

from farmer.model.status import VolumeState
from farmer.storage.condition import (
    PROBE_EVERY_MAX_S,
    PROBE_EVERY_S,
    PROOFS_WANTED,
    Condition,
    Seen,
)
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.health import SYNC_FAILURES_WITHIN_S, Health

S = VolumeState


def after(*seen: Seen) -> Condition:
    condition = Condition()
    for one in seen:
        condition = condition.after(one)
    return condition


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        ([], S.HEALTHY),
        ([Seen.VANISHED], S.GONE),
        ([Seen.VANISHED, Seen.REOPENED], S.HEALTHY),
        ([Seen.VANISHED, Seen.PROVED, Seen.ROOM, Seen.QUICKENED, Seen.RETURNED], S.GONE),
        ([Seen.HUNG], S.GONE),
        ([Seen.HUNG, Seen.REOPENED], S.GONE),
        ([Seen.HUNG, Seen.RETURNED], S.HEALTHY),
        ([Seen.VANISHED, Seen.HUNG, Seen.RETURNED], S.GONE),
        ([Seen.VANISHED, Seen.HUNG, Seen.HUNG, Seen.SLOWED, Seen.RETURNED], S.GONE),
        ([Seen.VANISHED, Seen.HUNG, Seen.RETURNED, Seen.REOPENED], S.HEALTHY),
        ([Seen.VANISHED, Seen.HUNG, Seen.REOPENED, Seen.RETURNED], S.HEALTHY),
        ([Seen.HUNG, Seen.VANISHED, Seen.RETURNED], S.GONE),
        ([Seen.VANISHED, Seen.REOPENED, Seen.HUNG, Seen.RETURNED], S.HEALTHY),
        ([Seen.NO_SPACE], S.FULL),
        ([Seen.NO_SPACE, Seen.ROOM], S.HEALTHY),
        ([Seen.READ_ONLY], S.READ_ONLY),
        ([Seen.READ_ONLY, Seen.ROOM, Seen.UNPROVED], S.READ_ONLY),
        ([Seen.READ_ONLY, Seen.PROVED], S.HEALTHY),
        ([Seen.NO_SPACE, Seen.READ_ONLY], S.READ_ONLY),
        ([Seen.WRITE_FAILED], S.FAILING),
        ([Seen.WRITE_FAILED, Seen.READ_ONLY, Seen.NO_SPACE, Seen.ROOM], S.FAILING),
        ([Seen.WRITE_FAILED, Seen.REOPENED], S.FAILING),
        ([Seen.WRITE_FAILED, *[Seen.PROVED] * 3], S.FAILING),
        ([Seen.WRITE_FAILED, *[Seen.PROVED] * 3, Seen.REOPENED], S.HEALTHY),
        ([Seen.WRITE_FAILED, *[Seen.PROVED] * 2, Seen.REOPENED], S.FAILING),
        (
            [Seen.WRITE_FAILED, *(2 * [Seen.PROVED]), Seen.UNPROVED, Seen.PROVED, Seen.REOPENED],
            S.FAILING,
        ),
        ([Seen.SYNC_FAILED, *[Seen.PROVED] * 59, Seen.REOPENED], S.FAILING),
        ([Seen.SYNC_FAILED, *[Seen.PROVED] * 60, Seen.REOPENED], S.HEALTHY),
        (
            [
                *(Seen.SYNC_FAILED, *[Seen.PROVED] * 59),
                *(Seen.WRITE_FAILED, *[Seen.PROVED] * 3, Seen.REOPENED),
            ],
            S.FAILING,
        ),
        ([Seen.BROKEN, *[Seen.PROVED] * 3, Seen.REOPENED], S.HEALTHY),
        ([Seen.BROKEN, Seen.VANISHED], S.GONE),
        ([Seen.BROKEN, Seen.VANISHED, Seen.REOPENED], S.FAILING),
        ([Seen.BROKEN, *[Seen.PROVED, Seen.BROKEN] * 3, Seen.REOPENED], S.HEALTHY),
        ([Seen.BROKEN, *[Seen.PROVED, Seen.BROKEN] * 2, Seen.REOPENED], S.FAILING),
        ([Seen.SYNC_FAILED, *[Seen.PROVED, Seen.BROKEN] * 59, Seen.REOPENED], S.FAILING),
        ([Seen.SLOWED], S.SLOW),
        ([Seen.SLOWED, Seen.NO_SPACE], S.FULL),
        ([Seen.SLOWED, Seen.QUICKENED], S.HEALTHY),
    ],
    ids=lambda value: value.name if isinstance(value, S) else "+".join(one.name for one in value),
)
def test_what_was_seen_leads_to_a_state(seen: list[Seen], state: VolumeState) -> None:
    assert after(*seen).state is state


@pytest.mark.parametrize("bad", [Seen.READ_ONLY, Seen.WRITE_FAILED, Seen.SYNC_FAILED, Seen.BROKEN])
def test_what_only_a_write_can_tell_is_probed_while_the_volume_is_there(bad: Seen) -> None:
    assert after(bad).wants_probe
    assert not after(bad, Seen.VANISHED).wants_probe
    assert not after(bad, Seen.HUNG).wants_probe
    assert not after(Seen.NO_SPACE).wants_probe
    assert not after().wants_probe


def test_a_slow_volume_is_probed_for_it_gets_few_calls_from_others() -> None:
    assert after(Seen.SLOWED).wants_probe
    assert not after(Seen.SLOWED, Seen.NO_SPACE).wants_probe
    assert not after(Seen.SLOWED, Seen.QUICKENED).wants_probe


def test_a_probe_that_fails_again_and_again_comes_more_and_more_seldom() -> None:
    pauses = [after(Seen.WRITE_FAILED, *[Seen.UNPROVED] * n).probe_every_s for n in range(12)]
    assert pauses[:3] == [PROBE_EVERY_S, 2 * PROBE_EVERY_S, 4 * PROBE_EVERY_S]
    assert pauses[-1] == PROBE_EVERY_MAX_S
    assert after(Seen.WRITE_FAILED, *[Seen.UNPROVED] * 5, Seen.PROVED).probe_every_s == (
        PROBE_EVERY_S
    )


def test_a_disk_that_lost_bytes_twice_must_work_for_an_hour() -> None:
    distrusted = after(Seen.SYNC_FAILED)
    assert distrusted.probe_every_s * PROOFS_WANTED[Seen.SYNC_FAILED] == 3600


def test_reasons_and_alerts_come_and_go_with_their_condition() -> None:
    """The worst reason is shown, the others are not forgotten."""
    health = Health("attic", lambda: 1_800_000_000_000, lambda: 1000.0)
    health.slowed("a sync takes 1 s")
    assert (health.state, health.alerts()) == (S.SLOW, ())
    health.stays_slow("a sync takes 3 s")
    health.read_only("Read-only file system")
    health.go("its marker is gone")
    assert (health.state, health.reason) == (S.GONE, "its marker is gone")
    assert {one.name for one in health.alerts()} == {"VolumeSlow", "VolumeReadOnly", "VolumeGone"}
    assert all(one.command for one in health.alerts())
    with pytest.raises(VolumeUnavailableError, match="marker"):
        health.check_readable()
    health.hang("a call hangs")
    assert (health.state, health.reason) == (S.GONE, "a call hangs")
    health.returned()
    assert (health.state, health.reason) == (S.GONE, "its marker is gone"), "as it was before"
    health.reopened()
    assert (health.state, health.reason[:17]) == (S.READ_ONLY, "its filesystem is")
    health.check_readable()
    with pytest.raises(VolumeUnavailableError, match="read-only"):
        health.check_writable()
    health.probe_worked()
    assert (health.state, health.reason) == (S.SLOW, "a sync takes 3 s")
    health.check_writable()
    health.quickened()
    assert (health.state, health.reason, health.alerts()) == (S.HEALTHY, "", ())


def test_failed_syncs_a_month_apart_are_no_dying_disk() -> None:
    now_s = 1000.0
    health = Health("attic", lambda: 1_800_000_000_000, lambda: now_s)
    for _ in range(3):
        health.sync_failed("EIO")
        assert health.state is S.HEALTHY
        now_s += SYNC_FAILURES_WITHIN_S + 1
    health.sync_failed("EIO")
    health.sync_failed("EIO")
    assert health.state is S.FAILING
    assert "2 times" in health.reason
