from __future__ import annotations

import pytest

from farmer.model.status import VolumeWork
from farmer.monitor.words import count, percent, problem_of


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


@pytest.mark.parametrize(
    ("to_path", "said"),
    [
        ("", "no other volume has more than 48.8 MB left; add a volume, or give one more quota"),
        ("/new", "/new has 48.8 MB left; give it more quota"),
    ],
)
def test_where_there_is_no_room_to_go_to_the_words_say_what_makes_some(to_path, said) -> None:
    work = VolumeWork(
        verb="drain",
        to_path=to_path,
        problem="67158400 bytes wanted, 48773668 available",
        wanted_bytes=67_158_400,
        available_bytes=48_773_668,
    )
    assert problem_of(work) == f"67.2 MB are wanted, {said}"


def test_other_problems_are_told_as_they_are() -> None:
    assert problem_of(VolumeWork(verb="drain", problem="the disk failed")) == "the disk failed"
