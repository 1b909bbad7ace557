from __future__ import annotations

from dataclasses import replace

import pytest

from farmer.model.status import VolumeState
from farmer.running.overview import usable_bytes
from tests.running.well import WELL


def test_what_a_volume_holds_and_what_is_free_can_be_promised() -> None:
    assert usable_bytes([WELL, replace(WELL, free_bytes=0)]) == 940 + 123


@pytest.mark.parametrize(
    "how",
    [{"state": VolumeState.GONE, "free_bytes": 0}, {"draining": True, "free_bytes": 0}],
    ids=["gone", "draining"],
)
def test_a_volume_that_is_gone_or_being_emptied_holds_nothing_more(how) -> None:
    """What a drained one holds is on its way into the free space of the others."""
    assert usable_bytes([WELL, replace(WELL, **how)]) == 940
