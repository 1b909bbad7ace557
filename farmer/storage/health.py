"""How a volume is: what has failed, what that means, and whether it may be written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from threading import Lock
from typing import Final

from farmer.model.status import Alert, VolumeState
from farmer.storage.errors import VolumeUnavailableError

SYNC_FAILURES_MAX: Final = 2
"""One failed sync may be a hiccup of the cable; at the second the disk is not to be trusted."""


class Health:
    """One volume's state, error counts and standing conditions; safe from any thread."""

    def __init__(self, label: str, clock_ms: Callable[[], int]) -> None:
        self.state = VolumeState.HEALTHY
        self.reason = ""
        self.label = label
        self._clock_ms = clock_ms
        self._lock = Lock()
        self._errors: Counter[str] = Counter()
        self._alerts: dict[str, Alert] = {}
        self._sync_failures = 0
        self._failure = ""
        """Why it may not be written any more, also after it was gone for a while."""

    def check_readable(self) -> None:
        """Raise `VolumeUnavailableError` if nothing can be read."""
        if self.state is VolumeState.GONE:
            raise VolumeUnavailableError(self.reason)

    def check_writable(self) -> None:
        """Raise `VolumeUnavailableError` if nothing may be written."""
        if self.state not in {VolumeState.HEALTHY, VolumeState.FULL}:
            raise VolumeUnavailableError(self.reason)

    def count(self, kind: str) -> None:
        """Count a failed operation."""
        with self._lock:
            self._errors[kind] += 1

    def errors(self) -> tuple[tuple[str, int], ...]:
        """Return the counts by kind."""
        with self._lock:
            return tuple(sorted(self._errors.items()))

    def sync_failed(self, detail: str) -> None:
        """Note that bytes could not be made durable; the second time the volume is closed."""
        self.count("sync")
        self._sync_failures += 1
        self.raise_alert(
            "VolumeSyncFailed",
            f"The disk of {self.label} could not make data durable ({detail}). Nothing that was"
            " acknowledged is lost; the store in question was refused.",
            "dmesg | tail",
        )
        if self._sync_failures >= SYNC_FAILURES_MAX:
            self.fail(f"the disk failed to make data durable {self._sync_failures} times")

    def fail(self, reason: str) -> None:
        """Stop writing for good, until a restart; reading goes on."""
        self._failure = reason
        if self.state is VolumeState.GONE:
            return
        self.state, self.reason = VolumeState.FAILING, reason
        self.raise_alert(
            "VolumeFailing",
            f"{self.label} is only read from now on: {reason}.",
            "farmer volume list",
        )

    def go(self, reason: str) -> None:
        """Note that the volume is not there."""
        self.state, self.reason = VolumeState.GONE, reason
        self.raise_alert("VolumeGone", f"{self.label}: {reason}", "farmer volume list")

    def come_back(self) -> None:
        """Note that a gone volume is there again."""
        if self.state is not VolumeState.GONE:
            return
        self.state, self.reason = VolumeState.HEALTHY, ""
        self.clear_alert("VolumeGone")
        if self._failure:
            self.fail(self._failure)

    def raise_alert(self, name: str, message: str, command: str = "") -> None:
        """Let a condition stand; the first time counts as its beginning."""
        with self._lock:
            since_ms = self._alerts[name].since_ms if name in self._alerts else self._clock_ms()
            self._alerts[name] = Alert(
                name=name, since_ms=since_ms, message=message, command=command
            )

    def clear_alert(self, name: str) -> None:
        """Let a condition end."""
        with self._lock:
            self._alerts.pop(name, None)

    def alerts(self) -> tuple[Alert, ...]:
        """Return what stands."""
        with self._lock:
            return tuple(self._alerts.values())
