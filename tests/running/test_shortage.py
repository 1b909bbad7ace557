from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from farmer.model.status import VolumeState, VolumeStatus
from farmer.running.shortage import HOLD_S, Shortage
from tests.running.well import WELL

FILLED = replace(WELL, free_bytes=50)
"""Others have filled its disk."""


class Looks:
    """Looks at what is promised and at the volumes; says whether the alert stands."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.shortage = Shortage(lambda: self.now_s)

    def look(self, promised_bytes: int, *volumes: VolumeStatus, after_s: float = 5.0) -> bool:
        self.now_s += after_s
        return bool(self.shortage.alerts(promised_bytes, volumes))


@pytest.fixture
def looks() -> Looks:
    return Looks()


def test_the_quotas_may_be_promised_whole(looks) -> None:
    """As `farmer invite` lets an owner do, although a part is kept for the index."""
    assert not looks.look(1000, WELL)
    assert not looks.look(1000, WELL, after_s=HOLD_S)


@pytest.mark.parametrize(
    "after",
    [
        (1000, replace(WELL, quota_bytes=900, free_bytes=740)),
        (1001, WELL),
        (1000, replace(WELL, draining=True, free_bytes=0)),
    ],
    ids=["a smaller quota", "an invite more", "a volume that leaves"],
)
def test_what_an_owner_does_counts_at_once(looks, after) -> None:
    """In both directions: who mends it sees that it is mended."""
    assert not looks.look(1000, WELL)
    assert looks.look(*after)
    assert not looks.look(1000, WELL)


def test_a_disk_that_others_fill_is_told_when_it_stays_full(looks) -> None:
    """Nothing comes or goes with a file that comes and goes."""
    for _ in range(5):
        assert not looks.look(1000, WELL)
        assert not looks.look(1000, FILLED)
    assert looks.look(1000, FILLED, after_s=HOLD_S)
    assert looks.look(1000, WELL)
    assert looks.look(1000, FILLED)
    assert looks.look(1000, WELL)
    assert not looks.look(1000, WELL, after_s=HOLD_S)


def test_after_a_start_it_is_told_when_it_has_stayed_so(looks) -> None:
    """The first looks may come before the disks have said how full they are."""
    assert not looks.look(1000, FILLED)
    assert not looks.look(1000, WELL)


@pytest.mark.parametrize("state", ["gone", "read-only", "failing"])
def test_a_volume_that_is_ill_is_told_as_that(looks, state) -> None:
    """When it is well again it holds what it held."""
    looks.look(1000, WELL)
    ill: dict[str, Any] = {"state": VolumeState(state), "free_bytes": 0, "used_bytes": 0}
    assert not looks.look(1000, replace(WELL, **ill), after_s=HOLD_S)
    assert not looks.look(1000, replace(WELL, **ill), after_s=HOLD_S)


def test_an_owner_who_allows_more_is_told_later(looks) -> None:
    """With an overcommit of two the quotas are promised twice."""
    looks.shortage.overcommit = 2.0
    assert not looks.look(1000, WELL)
    assert not looks.look(2000, WELL)
    assert looks.look(2001, WELL)


def test_it_says_how_much_is_promised_and_held(looks) -> None:
    """And what to type, which some show in the same line."""
    looks.look(1000, WELL)
    [alert] = looks.shortage.alerts(5000, [WELL])
    assert alert.name == "PromisedTooMuch"
    assert "5 kB are promised" in alert.message
    assert "hold 940 B" in alert.message
    assert alert.command == "farmer volume list"
    assert alert.message.endswith(".")
