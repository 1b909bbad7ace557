"""What a volume's condition forgets, and when it is asked next."""

from __future__ import annotations

import pytest

from farmer.storage.condition import PROBE_EVERY_S, Condition, Seen


def after(*seen: Seen) -> Condition:
    condition = Condition()
    for one in seen:
        condition = condition.after(one)
    return condition


@pytest.mark.parametrize(
    "seen",
    [
        [Seen.RETURNED],
        [Seen.UNPROVED, Seen.PROVED],
        [Seen.VANISHED, Seen.REOPENED],
        [Seen.VANISHED, Seen.HUNG, Seen.REOPENED, Seen.RETURNED],
        [Seen.VANISHED, Seen.HUNG, Seen.RETURNED, Seen.REOPENED],
        [Seen.NO_SPACE, Seen.UNPROVED, Seen.ROOM],
        [Seen.NO_SPACE, Seen.REOPENED],
        [Seen.SLOWED, Seen.UNPROVED, Seen.QUICKENED],
        [Seen.READ_ONLY, Seen.UNPROVED, Seen.UNPROVED, Seen.PROVED],
        [Seen.WRITE_FAILED, Seen.UNPROVED, *[Seen.PROVED] * 3, Seen.REOPENED],
    ],
    ids=lambda seen: "+".join(one.name for one in seen),
)
def test_one_that_is_well_again_is_as_if_nothing_had_been(seen: list[Seen]) -> None:
    assert after(*seen) == Condition()


@pytest.mark.parametrize("bad", [Seen.READ_ONLY, Seen.WRITE_FAILED, Seen.BROKEN])
def test_the_first_probe_comes_soon(bad: Seen) -> None:
    assert after(bad).probe_every_s == PROBE_EVERY_S


@pytest.mark.parametrize("bad", [Seen.WRITE_FAILED, Seen.BROKEN])
def test_a_failing_one_is_proven_by_as_many_good_probes_in_a_row_as_its_failure_asks(
    bad: Seen,
) -> None:
    row = [*[Seen.PROVED] * 2, Seen.UNPROVED, *[Seen.PROVED] * 2]
    assert not after(bad, *row).is_proven
    assert after(bad, *row, Seen.PROVED).is_proven
    assert not after(bad, *row, Seen.WRITE_FAILED, *[Seen.PROVED] * 2).is_proven
    assert after(bad, *row, Seen.BROKEN, Seen.PROVED).is_proven, "who looks puts nothing off"


def test_what_is_well_or_only_read_needs_no_proof() -> None:
    assert not after(*[Seen.PROVED] * 3).is_proven
    assert not after(Seen.READ_ONLY, *[Seen.UNPROVED] * 3).is_proven
