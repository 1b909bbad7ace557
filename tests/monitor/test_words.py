from __future__ import annotations

import pytest

from farmer.monitor.words import count, percent


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, "0 %"),
        (0, 5, "0 %"),
        (5, 5, "100 %"),
        (3418, 3420, "99.94 %"),
        (99_999_999, 100_000_000, "99.99 %"),
        (1, 100_000_000, "0.1 %"),
        (12, 100, "12 %"),
        (1, 16, "6.2 %"),
    ],
)
def test_only_all_is_everything_and_only_none_is_nothing(part, whole, text) -> None:
    assert percent(part, whole) == text.replace(" ", "\u202f")


def test_thousands_have_gaps() -> None:
    """At which a browser ends no line, as it may at a thin space."""
    assert count(1_214_880) == "1\u202f214\u202f880"
