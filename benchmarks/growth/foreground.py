"""A renter at a fixed rate, before something happens in the background and while it does."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

from benchmarks.growth.lag import buckets, quantile_s
from benchmarks.harness import percentile
from benchmarks.rig.errors import MeasuringError
from benchmarks.rig.ground import Running
from tests.load.honest import OPERATIONS, Honest

RENTER: Final = 1_000_000
"""Whose number nobody else has."""

RATE_PER_S: Final = 40.0
"""Requests in a second, the four kinds in turn, each counted from when it was due."""

SLICE_S: Final = 5.0
"""Between two looks whether the background is done."""


class Foreground:
    """One renter over eight connections, an open loop."""

    def __init__(self, farmer: Running) -> None:
        self._farmer = farmer
        self._honest = Honest(farmer.address, RENTER, RATE_PER_S)

    def watch(self, seconds: float, is_over: Callable[[], bool] = lambda: False) -> dict[str, Any]:
        """Ask until it is over, or the time is; return what each kind took, and the lag."""
        took: dict[str, list[float]] = defaultdict(list)
        before, began = buckets(self._farmer.metrics()), time.monotonic()
        used_s = self._farmer.cpu_s()
        while time.monotonic() - began < seconds:
            self._honest.run(min(SLICE_S, seconds))
            for name, some in self._honest.took_ms.items():
                took[name] += some
            if is_over():
                break
        if self._honest.wrong:
            raise MeasuringError(f"wrong answers: {dict(self._honest.answers)}")
        lasted_s = time.monotonic() - began
        lag_s = quantile_s(before, buckets(self._farmer.metrics()), 0.99)
        return {
            "seconds": lasted_s,
            "cpu_share": (self._farmer.cpu_s() - used_s) / lasted_s,
            "lag_p99_s": lag_s,
            "took_ms": {name: _figures(took[name]) for name in OPERATIONS},
            "all_ms": _figures([one for some in took.values() for one in some]),
        }


def _figures(took_ms: list[float]) -> dict[str, float]:
    return {
        "count": len(took_ms),
        "median": percentile(took_ms, 0.5),
        "p99": percentile(took_ms, 0.99),
    }
