from __future__ import annotations

from dataclasses import replace

import pytest

from farmer.model.status import VolumeState
from farmer.running.fullness import with_reason
from tests.running.well import WELL

MB = 10**6
FULL = replace(
    WELL,
    state=VolumeState.FULL,
    quota_bytes=100 * MB,
    used_bytes=60 * MB,
    trash_bytes=10 * MB,
    allowance_bytes=20 * MB,
    filesystem_free_bytes=21 * MB,
)


@pytest.mark.parametrize(
    ("used_bytes", "why"),
    [
        (95 * MB, "it holds 105 MB, more than its quota of 100 MB"),
        (75 * MB, "its quota of 100 MB is used up: 20 MB of it are kept"),
        (60 * MB, "its filesystem has 21 MB free, no more than what is to be kept free"),
    ],
    ids=["above its quota", "used up", "filled by others"],
)
def test_a_full_volume_says_why(used_bytes, why) -> None:
    """Each cause is mended in another way."""
    assert with_reason(replace(FULL, used_bytes=used_bytes)).reason.startswith(why)


@pytest.mark.parametrize(
    "volume",
    [replace(FULL, state=VolumeState.HEALTHY), replace(FULL, reason="its filesystem is full")],
    ids=["not full", "told by the disk"],
)
def test_what_is_said_already_stays(volume) -> None:
    """The disk knows better."""
    assert with_reason(volume) is volume
