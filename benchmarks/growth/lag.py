"""How late the farmer's reactor was, out of two readings of its metrics."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

_BUCKET: Final = re.compile(r'^farmer_reactor_lag_seconds_bucket\{le="([^"]+)"\} (\S+)$', re.M)

Buckets = Mapping[float, float]
"""For each bound in seconds how many samples were within it, all smaller ones included."""


def buckets(metrics: str) -> dict[float, float]:
    """Return the histogram out of a page of metrics."""
    return {float(bound): float(count) for bound, count in _BUCKET.findall(metrics)}


def quantile_s(before: Buckets, after: Buckets, part: float) -> float:
    """Return a bound below which this part of the samples in between lies; NaN without any."""
    between = {bound: after[bound] - before.get(bound, 0.0) for bound in sorted(after)}
    samples = between.get(math.inf, 0.0)
    if not samples:
        return math.nan
    return next(bound for bound, count in between.items() if count >= part * samples)
