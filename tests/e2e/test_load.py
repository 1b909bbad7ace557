"""A little of the load programs: `python -m tests.load idle|hostile|soak` are the whole ones."""

from __future__ import annotations

import pytest

from tests.load import idle, soak


@pytest.mark.slow
def test_quiet_sessions_are_held_and_some_then_work(capsys: pytest.CaptureFixture[str]) -> None:
    """All redeem an invite, get answers to pings, and one in a hundred stores and audits."""
    assert idle.run(40, 1.0) == 0
    assert "sessions 40 redeemed 40 lost 0" in capsys.readouterr().out


@pytest.mark.slow
def test_a_few_seconds_of_ordinary_work_leave_nothing_behind() -> None:
    """Memory, descriptors and leases are flat, every answer is right."""
    assert soak.run(0.1) == 0
