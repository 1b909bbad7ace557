"""Each refusal of the wire is an exception that says its name and its numbers."""

import pytest

from farmer.client.refusals import (
    ERROR_OF,
    BusyError,
    ContractFullError,
    InviteExpiredError,
    NoContractError,
    NoSpaceError,
    RefusedError,
    ShardTooLargeError,
    WrongHashError,
    error_of,
)
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


@pytest.mark.parametrize(
    ("retry_after_ms", "words"),
    [
        (0, "0 s"),
        (1, "1 s"),
        (59_001, "1 m"),
        (90_000, "1 m 30 s"),
        (7_260_000, "2 h 1 m"),
        (90_000_000, "1 d 1 h"),
        (90_000_001, "1 d 2 h"),
        (93_540_000, "1 d 2 h"),
        (86_400_000 + 60_001, "1 d 2 m"),
        (86_400_000 + 5_000, "1 d 5 s"),
        (172_799_000, "2 d"),
        (7_199_001, "2 h"),
        ((1 << 63) - 1, "106751991167 d 8 h"),
    ],
)
def test_waits_are_shown_as_people_count_them(retry_after_ms, words):
    """Never shorter than they are: who comes back before is refused again."""
    assert str(BusyError(retry_after_ms)).endswith(f"try again in {words}")


@pytest.mark.parametrize("kind", [NoSpaceError, ContractFullError, ShardTooLargeError])
def test_sizes_are_shown_as_people_read_them_and_kept_exactly(kind):
    error = kind(200_000_017, 67_108_864)
    assert "200 MB" in str(error)
    assert "67.1 MB" in str(error)
    assert (error.first, error.second) == (200_000_017, 67_108_864)


def test_two_sizes_that_look_alike_are_shown_to_the_byte():
    words = str(ShardTooLargeError(67_108_865, 67_108_864))
    assert "67108865 bytes" in words
    assert "67108864 bytes" in words


def test_a_refusal_said_in_other_words_is_the_same_refusal():
    error = NoSpaceError(5, 3).said_as("buy a disk")
    assert str(error) == "NO_SPACE: buy a disk"
    assert type(error) is NoSpaceError
    assert (error.wanted_bytes, error.available_bytes) == (5, 3)


def test_programs_get_the_numbers_under_their_names():
    told = {"name": "NO_SPACE", "wanted_bytes": 5000, "available_bytes": 3}
    assert NoSpaceError(5000, 3).as_json() == told
    assert WrongHashError(1, 2).as_json() == {"name": "WRONG_HASH"}


def test_who_had_a_contract_that_the_farmer_lost_is_told_who_brings_it_back():
    """Not only to join, which takes another invite."""
    assert "its owner types farmer contract recover" in str(NoContractError())
