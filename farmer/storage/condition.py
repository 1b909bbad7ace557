"""
A volume's states as tables: which observation leads where, and what brings it back.

Three things are true of a volume at the same time and know nothing of each other: whether it
is there, whether it may be written, and how fast it is.  Each has its own small table; an
observation that a table does not name changes nothing there.  What an owner sees is the worst
of the three.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from farmer.model.status import VolumeState


class Presence(Enum):
    """Whether the volume can be asked at all."""

    HERE = "here"
    GONE = "gone"
    HUNG = "hung"


class Writing(Enum):
    """Whether it may be written."""

    WELL = "well"
    FULL = "full"
    READ_ONLY = "read-only"
    FAILING = "failing"


class Pace(Enum):
    """How fast it is."""

    USUAL = "usual"
    SLOW = "slow"


class Seen(Enum):
    """What was observed."""

    VANISHED = "its directory or marker is not there, or another one is"
    HUNG = "a call has not returned for too long"
    RETURNED = "that call has returned"
    NO_SPACE = "ENOSPC or EDQUOT"
    ROOM = "the filesystem has room again"
    READ_ONLY = "EROFS"
    WRITE_FAILED = "a write failed with EIO or the like"
    SYNC_FAILED = "bytes could not be made durable, and not for the first time"
    BROKEN = "the index or the writer failed"
    PROVED = "a probe was written, synced and read back"
    UNPROVED = "that probe failed"
    REOPENED = "the volume was closed, opened again and checked"
    SLOWED = "calls take far longer than usual"
    QUICKENED = "calls are as fast as usual"


_PRESENCE: Final[dict[tuple[Presence, Seen], Presence]] = {
    (Presence.HERE, Seen.VANISHED): Presence.GONE,
    (Presence.HERE, Seen.HUNG): Presence.HUNG,
    (Presence.GONE, Seen.REOPENED): Presence.HERE,
    (Presence.GONE, Seen.HUNG): Presence.HUNG,
    (Presence.HUNG, Seen.VANISHED): Presence.GONE,
}
"""HUNG ends by `Seen.RETURNED` as what it was before: see `Condition.before_hung`."""

_WRITING: Final[dict[tuple[Writing, Seen], Writing]] = {
    **{(Writing.WELL, Seen.NO_SPACE): Writing.FULL},
    **{(Writing.FULL, Seen.ROOM): Writing.WELL},
    **{
        (now, Seen.READ_ONLY): Writing.READ_ONLY
        for now in (Writing.WELL, Writing.FULL, Writing.READ_ONLY)
    },
    **{
        (now, bad): Writing.FAILING
        for now in Writing
        for bad in (Seen.WRITE_FAILED, Seen.SYNC_FAILED, Seen.BROKEN)
    },
    **{(Writing.READ_ONLY, Seen.PROVED): Writing.WELL},
    **{(Writing.READ_ONLY, Seen.REOPENED): Writing.READ_ONLY},
    **{(Writing.FULL, Seen.REOPENED): Writing.WELL},
}
"""FAILING ends by `Seen.REOPENED`, but only after enough proofs: see `Condition.after`."""

_PACE: Final[dict[tuple[Pace, Seen], Pace]] = {
    (Pace.USUAL, Seen.SLOWED): Pace.SLOW,
    (Pace.SLOW, Seen.QUICKENED): Pace.USUAL,
}

PROOFS_WANTED: Final[dict[Seen, int]] = {
    Seen.WRITE_FAILED: 3,
    Seen.BROKEN: 3,
    Seen.SYNC_FAILED: 60,
}
"""
Good probes in a row until a failing volume is opened again.

A disk that has twice said that it could not keep bytes must work for an hour (a probe a
minute), one whose cable was loose for some seconds.
"""

PROBE_EVERY_S: Final = 5.0
PROBE_EVERY_MAX_S: Final = 300.0
"""Each bad probe doubles the pause: a dying disk is not to be worn down by our asking."""

PROBE_DISTRUSTED_EVERY_S: Final = 60.0

VANISHED_ERRORS: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ENOTCONN}
)
"""The filesystem under the volume went away; ENOTCONN is what a dead FUSE server leaves."""


@dataclass(frozen=True, slots=True)
class Condition:
    """How one volume is, as a value."""

    presence: Presence = Presence.HERE
    writing: Writing = Writing.WELL
    pace: Pace = Pace.USUAL
    proofs: int = 0
    """Good probes in a row since it fails."""
    proofs_wanted: int = 0
    """After so many it is opened again."""
    bad_probes: int = 0
    before_hung: Presence = Presence.HERE
    """What it is when the calls have returned: an unmounted disk is not there by that."""

    @property
    def state(self) -> VolumeState:
        """The worst of what is true."""
        if self.presence is not Presence.HERE:
            return VolumeState.GONE
        match self.writing:
            case Writing.FAILING:
                return VolumeState.FAILING
            case Writing.READ_ONLY:
                return VolumeState.READ_ONLY
            case Writing.FULL:
                return VolumeState.FULL
            case Writing.WELL:
                return VolumeState.SLOW if self.pace is Pace.SLOW else VolumeState.HEALTHY

    @property
    def wants_probe(self) -> bool:
        """Whether only a write can tell that it is well again; a slow one gets few others."""
        if self.presence is not Presence.HERE:
            return False
        is_slow = self.pace is Pace.SLOW and self.writing is Writing.WELL
        return is_slow or self.writing in {Writing.READ_ONLY, Writing.FAILING}

    @property
    def is_proven(self) -> bool:
        """Whether a failing volume has earned to be opened again."""
        return self.writing is Writing.FAILING and self.proofs >= self.proofs_wanted

    @property
    def probe_every_s(self) -> float:
        """How long to wait until the next probe."""
        distrusted = self.proofs_wanted >= PROOFS_WANTED[Seen.SYNC_FAILED]
        least_s = PROBE_DISTRUSTED_EVERY_S if distrusted else PROBE_EVERY_S
        return min(PROBE_EVERY_MAX_S, least_s * (1 << min(self.bad_probes, 10)))

    def after(self, seen: Seen) -> Condition:
        """Return what follows from an observation."""
        writing = _WRITING.get((self.writing, seen), self.writing)
        proofs, wanted, bad = self.proofs, self.proofs_wanted, self.bad_probes
        if seen is Seen.BROKEN and self.writing is Writing.FAILING:
            # What is mended by the next opening must not put that off: whoever asks an index
            # that cannot be read sees it again and again, and the probes say nothing of it.
            wanted = max(wanted, PROOFS_WANTED[seen])
        elif seen in PROOFS_WANTED:
            proofs, wanted, bad = 0, max(wanted, PROOFS_WANTED[seen]), 0
        elif seen is Seen.PROVED:
            proofs, bad = proofs + 1, 0
        elif seen is Seen.UNPROVED:
            proofs, bad = 0, bad + 1
        elif seen is Seen.REOPENED and self.is_proven:
            writing = Writing.WELL
        if writing in {Writing.WELL, Writing.FULL}:
            proofs = wanted = bad = 0
        presence, before_hung = self._presence_after(seen)
        return replace(
            self,
            presence=presence,
            writing=writing,
            pace=_PACE.get((self.pace, seen), self.pace),
            proofs=proofs,
            proofs_wanted=wanted,
            bad_probes=bad,
            before_hung=before_hung,
        )

    def _presence_after(self, seen: Seen) -> tuple[Presence, Presence]:
        """Return whether it is there, and what it will be after a call that hangs."""
        before = self.before_hung
        if self.presence is Presence.HUNG:
            if seen is Seen.REOPENED:
                before = Presence.HERE
            elif seen is Seen.RETURNED:
                return before, Presence.HERE
        elif seen is Seen.HUNG:
            before = self.presence
        presence = _PRESENCE.get((self.presence, seen), self.presence)
        return presence, before if presence is Presence.HUNG else Presence.HERE
