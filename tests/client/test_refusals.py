"""Each refusal of the wire is an exception that says its name and its numbers."""

import pytest

from farmer.client.refusals import ERROR_OF, InviteExpiredError, RefusedError, error_of
from farmer.protocol.refusals import Refusal, Refused


@pytest.mark.parametrize("refusal", Refusal)
def test_every_refusal_has_its_own_class_and_says_its_name(refusal):
    error = error_of(Refused(refusal, 12, 34))
    assert type(error) is ERROR_OF[refusal]
    assert error.refusal is refusal
    assert (error.first, error.second) == (12, 34)
    assert str(error).startswith(f"{refusal.name}: ")


def test_no_two_refusals_share_a_class():
    assert len(set(ERROR_OF.values())) == len(Refusal)
    assert set(RefusedError.__subclasses__()) == set(ERROR_OF.values())


def test_named_numbers_are_the_numbers():
    for kind in ERROR_OF.values():
        names = [name for name in vars(kind) if name.islower() and not name.startswith("_")]
        error = kind(12, 34)
        assert [getattr(error, name) for name in names] == [12, 34][: len(names)]


def test_times_are_shown_as_dates_however_far_off():
    assert "2020-09-13 12:26 UTC" in str(InviteExpiredError(1_600_000_000_000, 0))
    assert "9999-12-31" in str(InviteExpiredError((1 << 63) - 1, (1 << 63) - 1))
