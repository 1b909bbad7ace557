"""What the port to files and the wire in memory do not show: what the kernel is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.budgets.budgets import CALLS, Calls
from tests.budgets.tracing import Traced, over

OPERATIONS = 200
SLACK = 0.1
"""Of an operation: what the farmer does beside, once a second and now and then."""


def test_what_is_over_is_named() -> None:
    budget = Calls(send=1, receive=1, write=0, sync=0, read=3, futex=9, epoll=5)
    found = Calls(send=1.5, receive=1.05, write=0, sync=0.2, read=2, futex=9, epoll=5)
    assert over(found, budget, 0.1) == {"send": (1.5, 1), "sync": (0.2, 0)}


@pytest.mark.slow
@pytest.mark.tool("strace")
def test_an_operation_asks_the_kernel_for_no_more_than_its_budget(tmp_path: Path) -> None:
    """A real daemon, one connection, one thing after the other."""
    farmer = Traced(tmp_path)
    farmer.run(OPERATIONS)
    found = farmer.calls()
    assert found.keys() == CALLS.keys()
    too_many = {what: over(found[what], CALLS[what], SLACK) for what in CALLS}
    assert not any(too_many.values()), too_many
    # Else nothing was traced, or the moments of the phases are not those of the trace.
    assert all(calls.send >= 1 and calls.receive >= 1 for calls in found.values()), found
    assert found["store"].sync >= 1
