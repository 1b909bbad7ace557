"""How much each renter may have read besides what it is sent: a token bucket per renter."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from farmer.model.ids import NodeId
from farmer.protocol.limits import AUDIT_BUDGET_BYTES_MIN, AUDIT_BUDGET_STORED_FACTOR

DAY_S: Final = 86_400.0

RENTERS_MAX: Final = 10_000
"""Buckets kept; the one used longest ago, thus filled up most, is forgotten first."""


@dataclass(frozen=True, slots=True)
class Spent:
    """The budget does not allow it now."""

    retry_after_ms: int
    left_bytes: int


@dataclass(slots=True)
class _Bucket:
    level_bytes: float
    at_s: float


class AuditBudget:
    """
    max(1 GiB, 2 x stored) bytes at once for each renter, and as much again in 24 hours.

    It is full at first and fills up evenly, so in no 24 hours is it more than twice as much.
    Another least and factor make another budget.

    Times are monotonic seconds.  Memory is bounded by `RENTERS_MAX`.
    """

    def __init__(
        self,
        least_bytes: int = AUDIT_BUDGET_BYTES_MIN,
        stored_factor: int = AUDIT_BUDGET_STORED_FACTOR,
    ) -> None:
        self._least_bytes = least_bytes
        self._stored_factor = stored_factor
        self._buckets: OrderedDict[NodeId, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(
        self, renter: NodeId, wanted_bytes: int, stored_bytes: int, now_s: float
    ) -> Spent | None:
        """Take *wanted_bytes* out, or say when there will be enough; all or nothing."""
        capacity = max(self._least_bytes, self._stored_factor * stored_bytes)
        bucket = self._filled(renter, capacity, now_s)
        if bucket.level_bytes >= wanted_bytes:
            bucket.level_bytes -= wanted_bytes
            return None
        missing = min(wanted_bytes, capacity) - bucket.level_bytes
        return Spent(int(missing / capacity * DAY_S * 1000) + 1, int(bucket.level_bytes))

    def spent(self, renter: NodeId, stored_bytes: int, now_s: float) -> Spent | None:
        """Say when there will be anything again if nothing is left."""
        spent = self.take(renter, 1, stored_bytes, now_s)
        if spent is None:
            self.give_back(renter, 1)
        return spent

    def charge(self, renter: NodeId, read_bytes: int) -> None:
        """Take out what was read already, also if it was more than there is."""
        self.give_back(renter, -read_bytes)

    def give_back(self, renter: NodeId, unread_bytes: int) -> None:
        """Put back what was taken and not read."""
        bucket = self._buckets.get(renter)
        if bucket is not None:
            bucket.level_bytes += unread_bytes

    def _filled(self, renter: NodeId, capacity: int, now_s: float) -> _Bucket:
        bucket = self._buckets.setdefault(renter, _Bucket(capacity, now_s))
        self._buckets.move_to_end(renter)
        if len(self._buckets) > RENTERS_MAX:
            self._buckets.popitem(last=False)
        gained = (now_s - bucket.at_s) / DAY_S * capacity
        bucket.level_bytes = min(capacity, bucket.level_bytes + gained)
        bucket.at_s = now_s
        return bucket


def budget_bytes(stored_bytes: int) -> int:
    """Return what a renter with *stored_bytes* may have read by audits at once."""
    return max(AUDIT_BUDGET_BYTES_MIN, AUDIT_BUDGET_STORED_FACTOR * stored_bytes)
