"""How a volume is: what was observed of it, why, what that means, and what an owner is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from threading import Lock
from typing import Final

from farmer.model.status import Alert, VolumeState
from farmer.storage.condition import Condition, Pace, Presence, Seen, Writing
from farmer.storage.errors import VolumeUnavailableError

SYNC_FAILURES_MAX: Final = 2
"""One failed sync may be a hiccup of the cable; at the second the disk is not to be trusted."""

SYNC_FAILURES_WITHIN_S: Final = 24 * 3600
"""A hiccup each month is not a dying disk."""

OVER_S: Final = 24 * 3600
"""What has happened and is over is told for so long: an owner who looks once a day sees it."""

_PASSING: Final = frozenset(
    {"IndexRebuilt", "VolumeRefused", "VolumeSpoilsCopies", "VolumeSyncFailed"}
)
"""Alerts of that; counted from the last time."""

BEYOND_BYTES_MIN: Final = 16 * 1024 * 1024
"""
More than can be explained; a little may be what came, and went, while the files were walked over.

What was there before that walk, or is after it, is explained however much it is.
"""

_LIST: Final = "farmer volume list"
_KERNEL: Final = "dmesg | tail"
_TOO_FULL: Final = "VolumeTooFull"
_TAKES_MORE: Final = "VolumeTakesMore"


class Health:
    """
    One volume's condition, its reasons, error counts and standing alerts; safe from any thread.

    Nothing here ever waits for a disk: page, metrics and the reactor ask.
    """

    def __init__(
        self, label: str, clock_ms: Callable[[], int], monotonic_s: Callable[[], float]
    ) -> None:
        """*clock_ms*, which may be set, says what is shown; *monotonic_s* what has passed."""
        self.label = label
        self._clock_ms = clock_ms
        self._monotonic_s = monotonic_s
        self._lock = Lock()
        self._condition = Condition()
        self._reasons: dict[object, str] = {}
        """Why, for each part of the condition that is not as it should be."""
        self._errors: Counter[str] = Counter()
        self._alerts: dict[str, Alert] = {}
        self._passing_s: dict[str, float] = {}
        """When each of those that pass was last raised."""
        self._sync_failures_s: list[float] = []

    @property
    def condition(self) -> Condition:
        """All that is known."""
        return self._condition

    @property
    def state(self) -> VolumeState:
        """The worst of what is true."""
        return self._condition.state

    @property
    def reason(self) -> str:
        """Why it is in this state, for a person; empty if it is healthy."""
        condition = self._condition
        parts = (condition.presence, condition.writing, condition.pace)
        return next((self._reasons[part] for part in parts if part in self._reasons), "")

    @property
    def is_here(self) -> bool:
        """Whether it can be asked."""
        return self._condition.presence is Presence.HERE

    @property
    def is_read_only(self) -> bool:
        """Whether it is only read, for want of a disk that takes writes."""
        writing = self._condition.writing
        return writing is Writing.READ_ONLY or writing is Writing.FAILING

    @property
    def is_slow(self) -> bool:
        """Whether its disk takes far longer than usual."""
        return self._condition.pace is Pace.SLOW

    def check_readable(self) -> None:
        """Raise `VolumeUnavailableError` if nothing can be read."""
        if not self.is_here:
            raise VolumeUnavailableError(self.reason)

    def check_writable(self) -> None:
        """Raise `VolumeUnavailableError` if nothing may be written; a full one may be."""
        self.check_readable()
        if self.is_read_only:
            raise VolumeUnavailableError(self.reason)

    # Failures, counted.

    def count(self, kind: str) -> None:
        """Count a failed operation."""
        with self._lock:
            self._errors[kind] += 1

    def errors(self) -> tuple[tuple[str, int], ...]:
        """Return the counts by kind."""
        with self._lock:
            return tuple(sorted(self._errors.items()))

    # Whether it may be written.

    def sync_failed(self, detail: str) -> None:
        """Note that bytes could not be made durable; the second time the volume is closed."""
        self.count("sync")
        now_s = self._monotonic_s()
        recent = [at for at in self._sync_failures_s if at > now_s - SYNC_FAILURES_WITHIN_S]
        self._sync_failures_s = [*recent, now_s]
        self.raise_alert(
            "VolumeSyncFailed",
            f"The disk of {self.label} could not make data durable ({detail}). Nothing that was"
            " acknowledged is lost; the store in question was refused.",
            _KERNEL,
        )
        times = len(self._sync_failures_s)
        if times >= SYNC_FAILURES_MAX:
            self._fail(Seen.SYNC_FAILED, f"the disk failed to make data durable {times} times")

    def write_failed(self, detail: str) -> None:
        """Note that a write failed: nothing is stored until probes have worked again."""
        self.count("write")
        self._fail(Seen.WRITE_FAILED, f"the disk could not be written ({detail})")

    def fail(self, reason: str) -> None:
        """Stop writing until the volume was opened and checked anew; reading goes on."""
        self._fail(Seen.BROKEN, reason)

    def copy_spoiled(self) -> None:
        """Note that shards were copied here, and not read back as they were written."""
        self.raise_alert(
            "VolumeSpoilsCopies",
            f"Shards were copied to {self.label} and not read back as they were written. None is"
            " lost: they stay where they were. Its disk, or the cable, may be failing.",
            _KERNEL,
        )

    def read_only(self, detail: str) -> None:
        """Note that the filesystem takes no writes."""
        self.count("read_only")
        reason = f"its filesystem is read-only ({detail})"
        self._see(Seen.READ_ONLY, Writing.READ_ONLY, reason)
        self._tell(
            Writing.READ_ONLY,
            "VolumeReadOnly",
            f"{self.label} is only read: {reason}. Stores go on by themselves once it can be"
            " written (a service that was started before must be restarted for that).",
            _KERNEL,
        )

    def no_space(self) -> None:
        """Note that the filesystem, or a quota of its own, is full."""
        self.count("no_space")
        self._see(Seen.NO_SPACE, Writing.FULL, "its filesystem is full")

    def lets_not_delete(self) -> None:
        """Note that there is no room either for what would make some."""
        self.raise_alert(
            _TOO_FULL,
            f"The filesystem of {self.label} is so full that not even a delete can be written:"
            " what renters give up there is refused, and it cannot be drained. Nothing is lost,"
            " what is stored is served. Free space on that disk; it then goes on by itself.",
            _LIST,
        )

    def lets_delete(self) -> None:
        """Note that there is room for that again."""
        self.clear_alert(_TOO_FULL)

    def room(self) -> None:
        """Note that there is room again."""
        if self._condition.writing is Writing.FULL:
            self._see(Seen.ROOM)

    def probe_worked(self) -> None:
        """Note that a probe was written, synced and read back."""
        self._see(Seen.PROVED)

    def probe_failed(self) -> None:
        """Note that it was not."""
        self.count("probe")
        self._see(Seen.UNPROVED)

    # Whether it is there.

    def go(self, reason: str) -> None:
        """Note that the volume is not there."""
        self._see(Seen.VANISHED, Presence.GONE, reason)
        self._tell(Presence.GONE, "VolumeGone", f"{self.label}: {reason}", _LIST)

    def reopened(self) -> None:
        """Note that it was opened anew and its log checked: also its failures are over."""
        self._see(Seen.REOPENED)

    def hang(self, reason: str) -> None:
        """Note that a call into it does not return."""
        if self._condition.presence is not Presence.HUNG:
            self.count("hung")
        self._see(Seen.HUNG, Presence.HUNG, reason)
        self._tell(
            Presence.HUNG,
            "VolumeHung",
            f"{self.label}: {reason}. What is stored there cannot be read now; the other"
            " volumes go on. It comes back by itself when the disk answers.",
            _KERNEL,
        )

    def returned(self) -> None:
        """Note that the calls have returned."""
        self._see(Seen.RETURNED)

    # What it takes of its disk.

    def note_beyond(self, beyond_bytes: int, root: Path) -> None:
        """Tell of bytes beyond what can be explained, while they are many."""
        if beyond_bytes < BEYOND_BYTES_MIN:
            self.clear_alert(_TAKES_MORE)
            return
        self.raise_alert(
            _TAKES_MORE,
            f"{self.label} takes {beyond_bytes >> 20} MiB more of its disk than its shards, its"
            " trash and what is kept for all else explain, and may outgrow its quota. Something"
            f" else lies in {root}: move it elsewhere. Or nothing does, and the filesystem gives"
            " back nothing of what is erased (ext4 made with bigalloc, a disk that copies what is"
            " written over): lower the quota by as much, or have the shards moved to a filesystem"
            " that does with farmer volume move. It is compared every six hours.",
            f"du -xsh {quote(str(root))}/*",
        )

    # How fast it is.

    def slowed(self, reason: str) -> None:
        """Note that it has become slow: new shards go elsewhere."""
        self._see(Seen.SLOWED, Pace.SLOW, reason)

    def stays_slow(self, reason: str) -> None:
        """Tell the owner of it, once: this is no moment that passes."""
        if "VolumeSlow" in self._alerts:
            return
        self._see(Seen.SLOWED, Pace.SLOW, reason)
        self._tell(
            Pace.SLOW,
            "VolumeSlow",
            f"{self.label} is slow: {reason}. New shards go to other volumes first. If nothing"
            " else keeps this disk busy it may be failing: see what the kernel says of it, and"
            " empty it in time with farmer volume drain.",
            _KERNEL,
        )

    def quickened(self) -> None:
        """Note that it is as fast as usual."""
        self._see(Seen.QUICKENED)

    # Alerts.

    def raise_alert(self, name: str, message: str, command: str = "") -> None:
        """Let a condition stand; the first time counts as its beginning."""
        with self._lock:
            self._raise(name, message, command)

    def clear_alert(self, name: str) -> None:
        """Let a condition end."""
        with self._lock:
            self._alerts.pop(name, None)

    def alerts(self) -> tuple[Alert, ...]:
        """Return what stands."""
        with self._lock:
            self._pass()
            return tuple(self._alerts.values())

    def _fail(self, seen: Seen, reason: str) -> None:
        self._see(seen, Writing.FAILING, reason)
        self._tell(
            Writing.FAILING,
            "VolumeFailing",
            f"{self.label} is only read from now on: {reason}. It is tried again by itself.",
            _LIST,
        )

    def _see(self, seen: Seen, part: object = None, reason: str = "") -> None:
        """Enter an observation and, if it put *part* of the condition so, its reason."""
        with self._lock:
            self._condition = after = self._condition.after(seen)
            # That it was gone before it hung is true again when the calls have returned.
            parts = {after.presence, after.before_hung, after.writing, after.pace}
            if part in parts:
                self._reasons[part] = reason
            for over in self._reasons.keys() - parts:
                del self._reasons[over]
                self._alerts.pop(_ALERT_OF.get(over, ""), None)

    def _tell(self, part: object, name: str, message: str, command: str) -> None:
        with self._lock:
            if part in self._reasons:
                self._raise(name, message, command)

    def _pass(self) -> None:
        """Let end what was over long enough ago."""
        before_s = self._monotonic_s() - OVER_S
        for name in [name for name, at_s in self._passing_s.items() if at_s <= before_s]:
            del self._passing_s[name]
            self._alerts.pop(name, None)

    def _raise(self, name: str, message: str, command: str) -> None:
        self._pass()
        if name in _PASSING:
            self._passing_s[name] = self._monotonic_s()
        since_ms = self._alerts[name].since_ms if name in self._alerts else self._clock_ms()
        self._alerts[name] = Alert(
            name=name, since_ms=since_ms, message=message, command=command, about=self.label
        )


_ALERT_OF: Final[dict[object, str]] = {
    Presence.GONE: "VolumeGone",
    Presence.HUNG: "VolumeHung",
    Writing.READ_ONLY: "VolumeReadOnly",
    Writing.FAILING: "VolumeFailing",
    Pace.SLOW: "VolumeSlow",
}
