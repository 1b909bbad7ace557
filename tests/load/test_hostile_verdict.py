"""What the hostile run calls kept, by figures made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.load.hostile import FLAT_BYTES_MAX, GROWTH_BYTES_MAX, Found

GOOD = Found(
    peers=100,
    there=90,
    came_back=1,
    p99_ms=(6.0, 15.0),
    growth_bytes=GROWTH_BYTES_MAX,
    drift_bytes=FLAT_BYTES_MAX,
    wrong=(0, 0),
    busy=0.5,
)


def test_a_run_within_all_limits_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert GOOD.tell(timed=True) == 0
    assert capsys.readouterr().out.endswith(" kept\n")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"there": 89}, "peers"),
        ({"came_back": 0}, "came back"),
        ({"p99_ms": (6.0, 15.1)}, "p99"),
        ({"growth_bytes": GROWTH_BYTES_MAX + 1}, "memory"),
        ({"drift_bytes": FLAT_BYTES_MAX + 1}, "drift"),
        ({"wrong": (1, 0)}, "answers alone"),
        ({"wrong": (0, 1)}, "answers"),
    ],
)
def test_each_limit_that_is_not_kept_is_named(
    change: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replace(GOOD, **change).tell(timed=True) == 1
    assert capsys.readouterr().out.endswith(f" NOT KEPT: {said}\n")


def test_a_long_wait_alone_is_not_judged_where_the_machine_may_be_busy() -> None:
    assert replace(GOOD, p99_ms=(6.0, 60.0)).broken(timed=False) == []
