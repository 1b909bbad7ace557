"""The long proof of the scrub, once, small."""

from __future__ import annotations

from pathlib import Path

from tests.scrubbing.__main__ import SHARDS, planted


def test_a_hundred_bits_are_found_in_one_pass(tmp_path: Path) -> None:
    """Nothing is missed, and nothing that is right is kept back."""
    found, right, missing = planted(tmp_path, 5)
    assert (found, missing) == (SHARDS, 0)
    assert right > SHARDS
