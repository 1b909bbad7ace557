from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmer.units import (
    DURATION_MS_MAX,
    SIZE_BYTES_MAX,
    Space,
    counted,
    exact_duration,
    exact_money,
    exact_size,
    format_duration,
    format_moment,
    format_size,
    parse_duration,
    parse_money,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("500GB", 500 * 10**9),
        ("500 GB", 500 * 10**9),
        ("500gb", 500 * 10**9),
        ("1.5TB", 1_500_000_000_000),
        ("500GiB", 500 * 2**30),
        ("64MiB", 64 * 2**20),
        ("0B", 0),
        (" 1kB ", 1000),
    ],
)
def test_sizes_are_si_unless_binary(text: str, size_bytes: int) -> None:
    """GB is 10^9 as disks are sold, GiB is 2^30."""
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1e9B", "1,5GB", "5 X", "9999999PB", "0x5B"])
def test_other_texts_are_no_sizes(text: str) -> None:
    """Each is refused with a hint, none is guessed at."""
    with pytest.raises(ValueError, match=r"like|unit|larger"):
        parse_size(text)


def test_bare_numbers_are_refused_with_a_hint() -> None:
    """The hint is what the person most likely meant."""
    with pytest.raises(ValueError, match="write 500GB"):
        parse_size("500")
    with pytest.raises(ValueError, match="write 90d"):
        parse_duration("90")


@pytest.mark.parametrize(
    ("text", "duration_ms"),
    [("90d", 90 * 86_400_000), ("12h", 43_200_000), ("30s", 30_000), ("1.5h", 5_400_000)],
)
def test_durations(text: str, duration_ms: int) -> None:
    assert parse_duration(text) == duration_ms


@pytest.mark.parametrize("text", ["", "d", "-1d", "101y", "5 moons"])
def test_other_texts_are_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match=r"like|unit|longer"):
        parse_duration(text)


@given(st.integers(0, SIZE_BYTES_MAX))
def test_exact_sizes_read_back(size_bytes: int) -> None:
    assert parse_size(exact_size(size_bytes)) == size_bytes


@given(st.integers(0, DURATION_MS_MAX))
def test_exact_durations_read_back(duration_ms: int) -> None:
    assert parse_duration(exact_duration(duration_ms)) == duration_ms


@given(st.integers(0, 10**17))
def test_exact_money_reads_back(micros: int) -> None:
    assert parse_money(exact_money(micros)) == micros


@pytest.mark.parametrize("text", ["", "-1", "NaN", "inf", "1.1234567", "1e30", "two"])
def test_other_texts_are_no_money(text: str) -> None:
    with pytest.raises(ValueError, match=r"amount|decimals"):
        parse_money(text)


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1_234_567, "1.23 MB"),
        (12_345_678, "12.3 MB"),
        (999_400, "999 kB"),
        (999_600, "1 MB"),
        (500 * 10**9, "500 GB"),
    ],
)
def test_people_read_three_digits(size_bytes: int, shown: str) -> None:
    assert format_size(size_bytes) == shown


@given(st.integers(0, SIZE_BYTES_MAX))
def test_shown_sizes_are_near_the_truth(size_bytes: int) -> None:
    """Rounded to three digits, and readable as a size again."""
    shown = parse_size(format_size(size_bytes))
    assert abs(shown - size_bytes) <= max(1, size_bytes * 0.006)


def test_durations_for_people_have_two_parts() -> None:
    assert format_duration(90 * 86_400_000 + 3_600_000 + 5) == "90 d 1 h"
    assert format_duration(0) == "0 s"


def test_a_moment_is_utc_and_shown_however_far_off() -> None:
    assert format_moment(1_600_000_000_000) == "2020-09-13 12:26 UTC"
    assert format_moment((1 << 63) - 1) == f"{(1 << 63) - 1} ms"


def test_one_is_singular() -> None:
    assert [counted(number, "shard") for number in (0, 1, 2)] == [
        "0 shards",
        "1 shard",
        "2 shards",
    ]


def test_shares_of_a_filesystem() -> None:
    """A share is of the whole filesystem, a size is itself."""
    assert Space.parse("80%").of(1000) == 800
    assert Space.parse("max").of(1000) == 1000
    assert Space.parse("500GB").of(1000) == 500 * 10**9


@pytest.mark.parametrize("text", ["80%", "max", "500GB", "0%", "12.5%"])
def test_shares_read_back(text: str) -> None:
    assert str(Space.parse(text)) == text


@pytest.mark.parametrize("text", ["101%", "-1%", "%", "x%", "nan%", "80", "maximum"])
def test_other_texts_are_no_shares(text: str) -> None:
    with pytest.raises(ValueError, match=r"share|like|unit"):
        Space.parse(text)
