"""What of a log is worth writing again, by what its index says; nothing here touches a disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from farmer.model.shard import RECORD_ALIGNMENT_BYTES
from farmer.storage.marks import MARK_BYTES
from farmer.storage.places import Doomed, Segment
from farmer.storage.records import SEGMENT_HEADER_BYTES

MARKS_SLACK_BYTES: Final = 1024 * 1024
"""Marks that may gather before they are condensed: 256 lone deletes."""

SPARSE_SHARE: Final = 4
"""A segment of which a quarter is idle is worth writing again."""

LIVE_SHARE: Final = 5
"""So is one of which less than a fifth is alive, however much of the rest was given back: what
its map of extents takes goes by what was written (`farmer.storage.quota.EXTENTS_PER_QUOTA`)."""

HURRIED_RECORDS: Final = 512
"""Records of each kind that a hurried run looks at: what everybody else has left is not to be
paid for by the one who waits."""

HURRIED_STEPS: Final = 16
"""Steps in which such a run condenses; each has syncs of its own."""

HURRIED_LIVE_BYTES: Final = 1024 * 1024
"""What it may copy, out of one segment: of the smallest records 256, with 32 syncs."""

HURRIED_MARKS: Final = 2 * HURRIED_STEPS
"""Lone marks records that may stand in that segment: each speaks of 40 shards at most, so that
a step takes two of them or more."""


def is_much(grown_bytes: int) -> bool:
    """Say whether so much has been written since a run that the next should not wait."""
    return grown_bytes > MARKS_SLACK_BYTES


@dataclass(frozen=True, slots=True)
class Plan:
    """What is worth doing."""

    condense: bool
    compact: tuple[int, ...]
    """Sealed segments, the emptiest first; without live records there is nothing to copy."""


def plan(
    segments: Iterable[Segment], active: int, marks: Sequence[Doomed], marks_needed: int | None
) -> Plan:
    """
    Decide; *marks_needed* is how many marks were needed when last counted; None: never counted.

    Unless many are known not to be, those that were written together count as alive: of millions
    there are segments full, which would be written again and again.
    """
    enough = 2 * (marks_needed or 0) * MARK_BYTES + MARKS_SLACK_BYTES // 2
    condense = sum(one.length for one in marks) > enough
    kept: Counter[int] = Counter()
    for one in () if condense and marks_needed is not None else marks:
        if not is_lone(one):
            kept[one.place.segment] += one.length
    sparse = [one for one in segments if one.number != active and _is_sparse(one, kept)]
    sparse.sort(key=lambda one: one.live_bytes)
    return Plan(condense, tuple(one.number for one in sparse))


def _is_sparse(segment: Segment, kept: Mapping[int, int]) -> bool:
    alive_bytes = segment.live_bytes + kept.get(segment.number, 0)
    idle_bytes = segment.idle_bytes - kept.get(segment.number, 0) - SEGMENT_HEADER_BYTES
    return (
        alive_bytes * LIVE_SHARE <= segment.size_bytes
        or idle_bytes > segment.size_bytes // SPARSE_SHARE
    )


def is_lone(marks: Doomed) -> bool:
    """Say whether a marks record takes the least space; what was condensed takes more."""
    return marks.length <= RECORD_ALIGNMENT_BYTES


def cheap(segments: Iterable[Segment], marks: Iterable[Doomed]) -> list[Segment]:
    """Return those in which so little is left, marks included, that somebody may wait for it."""
    lone: Counter[int] = Counter()
    dense = set()
    for one in marks:
        if is_lone(one):
            lone[one.place.segment] += 1
        else:
            dense.add(one.place.segment)
    return [
        one
        for one in segments
        if one.live_bytes <= HURRIED_LIVE_BYTES
        and lone[one.number] <= HURRIED_MARKS
        and one.number not in dense
    ]
