"""
How fast a volume's disk answers: averages of the calls that wait for it, and when that is slow.

What waits for a disk is a sync, a read that memory could not answer and a write that it could
not take.  An average follows time, not calls: whatever they were, the last seconds count, and
while there are none it fades.  One long wait makes no volume slow, be it that of eight readers
at once, for a disk that slept: of two calls in a row the quicker one is believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp2
from statistics import median
from typing import Final

from farmer.storage.health import Health

FROM_MEMORY_S: Final = 0.001
"""A read or write that is quicker did not wait for a disk worth the name."""

SPAN_S: Final = 6.0
"""What the average is over, about: a disk that turns slow is noticed within ten seconds."""

SHARE_MAX: Final = 1 / 3
"""A call's part of the average at most, however long it took and however quiet it was before."""

HALVED_S: Final = 30.0
"""While nothing waits for the disk, the average halves in this time: it grows old."""

KNOWN_S: Final = 60.0
"""What was seen before says nothing: nobody is compared with it, and the disk may have slept."""

SLOW_S: Final = 1.0
"""
Slow on the average, whatever the other volumes do.

A spinning disk syncs in 20 to 60 ms, a busy, shingled or USB one in some hundred.  etcd and
ZooKeeper warn at this, too; beyond it lie disks that try a sector again and again, and at it
`farmer.storage.watch` lets others go around a single call.
"""

UNUSUAL_S: Final = 0.3
"""Never slow below this: about what a sound spinning disk takes to sync the largest batch."""

UNUSUAL_FACTOR: Final = 4.0
"""
Between the two, slow is what takes so many times as long as the other volumes.

When a whole NAS is busy, all its disks are; when one of them alone is, that says something.
"""

QUICK_PART: Final = 0.5
"""Below this part of what made it slow it counts as quick again ..."""

QUICK_FOR_S: Final = 60.0
"""... after so long: a disk that is slow now and then is slow."""

SHOWN_IN_S: Final = 0.1

TOLD_AFTER_S: Final = 30.0
"""The owner is not told of a busy moment, but within a minute of what lasts."""


class Meter:
    """The average of one kind of call; from any thread: a note that gets lost is no harm."""

    __slots__ = ("_average_s", "_before_s", "_last_s", "_least_s", "_noted_s", "_over_s")

    def __init__(self, least_s: float = 0.0) -> None:
        """Calls below *least_s* did not wait for the disk."""
        self._least_s = least_s
        self._average_s = 0.0
        self._noted_s = float("-inf")
        """When a call ended last."""
        self._last_s, self._over_s = 0.0, float("-inf")
        """The last of a row of calls of which each began after the one before: how long it
        took, and when it was over."""
        self._before_s = 0.0
        """How long the one before that took; 0 if the disk has rested since."""

    def note(self, since_s: float, now_s: float) -> None:
        """Take a call that has just ended."""
        took_s = now_s - since_s
        if took_s < self._least_s:
            return
        if since_s >= self._over_s:
            has_rested = since_s - self._over_s > KNOWN_S
            self._before_s = 0.0 if has_rested else self._last_s
            self._last_s, self._over_s = took_s, now_s
        average_s = self._average_s
        if since_s > self._noted_s:
            average_s *= exp2((self._noted_s - since_s) / HALVED_S)
        # Of calls that ran side by side, the ones that end together add nothing.
        share = min(SHARE_MAX, (now_s - self._noted_s) / SPAN_S)
        self._average_s = average_s + share * (min(took_s, self._before_s) - average_s)
        self._noted_s = now_s

    def average_s(self, now_s: float) -> float:
        """Return how long such a call takes, on the average of the last time."""
        idle_s = max(0.0, now_s - self._noted_s)
        return self._average_s * exp2(-idle_s / HALVED_S)

    def is_known(self, now_s: float) -> bool:
        """Say whether there were calls of late."""
        return now_s - self._noted_s < KNOWN_S


class Meters:
    """One volume's."""

    __slots__ = ("reads", "syncs", "writes")

    def __init__(self) -> None:
        self.reads = Meter(FROM_MEMORY_S)
        self.syncs = Meter()
        self.writes = Meter(FROM_MEMORY_S)

    def by_name(self) -> dict[str, Meter]:
        """Return them with what a person calls such a call."""
        return {"sync": self.syncs, "read": self.reads, "write": self.writes}


class Tempo:
    """Whether one volume counts as slow; told to its health.  One thread at a time."""

    def __init__(self, meters: Meters, health: Health) -> None:
        self.meters = meters
        self._health = health
        self._slow_since_s = self._slow_until_s = 0.0

    def judge(self, others: Sequence[Meters], now_s: float) -> None:
        """Compare with what may be expected, and with the *others*; never waits."""
        factor, reason = excess(self.meters, others, now_s)
        is_slow = self._health.is_slow
        if factor > (QUICK_PART if is_slow else 1.0):
            self._slow_until_s = now_s + QUICK_FOR_S
        if not is_slow and factor > 1.0:
            self._slow_since_s = now_s
            self._health.slowed(reason)
        elif is_slow and now_s >= self._slow_until_s:
            self._health.quickened()
        elif is_slow and factor > 1.0 and now_s - self._slow_since_s >= TOLD_AFTER_S:
            self._health.stays_slow(reason)


def excess(meters: Meters, others: Sequence[Meters], now_s: float) -> tuple[float, str]:
    """Return the largest average as a multiple of what makes one slow, and in words."""
    worst, reason = 0.0, ""
    for name, meter in meters.by_name().items():
        average_s = meter.average_s(now_s)
        known = [other.by_name()[name] for other in others]
        theirs = [one.average_s(now_s) for one in known if one.is_known(now_s)]
        usual_s = median(theirs) if theirs else SLOW_S
        allowed_s = min(SLOW_S, max(UNUSUAL_S, UNUSUAL_FACTOR * usual_s))
        if average_s / allowed_s > worst:
            worst, reason = average_s / allowed_s, f"a {name} takes {_shown(average_s)}"
            if allowed_s < SLOW_S:
                reason += f", on the other volumes {_shown(usual_s)}"
    return worst, reason


def _shown(time_s: float) -> str:
    return f"{time_s:.1f} s" if time_s >= SHOWN_IN_S else f"{time_s * 1000:.1f} ms"
