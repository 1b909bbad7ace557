"""Conditions that need the owner: shown until they clear, logged once when they come and go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from twisted.logger import Logger

from farmer.model.status import Alert


class AlertBoard:
    """
    What stands now.  A condition keeps its first time while its words may change.

    *naming* completes the command of each alert: one of `farmer` does not say which one.
    """

    log = Logger()

    def __init__(self, now_ms: Callable[[], int], naming: Callable[[str], str] = str) -> None:
        self._now_ms = now_ms
        self._naming = naming
        self._standing: dict[str, dict[str, Alert]] = {}

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """All that stands, the oldest first."""
        standing = [alert for group in self._standing.values() for alert in group.values()]
        return tuple(sorted(standing, key=lambda alert: (alert.since_ms, alert.name)))

    def report(self, source: str, *found: Alert) -> None:
        """
        Replace all that *source* reported before by *found*.

        An alert that does not know since when it stands, 0, began when it was first
        reported, and its source has one of that name about the same.
        """
        before = self._standing.get(source, {})
        after = {}
        for alert in found:
            key = f"{alert.name} {alert.message if alert.since_ms else alert.about}"
            since_ms = before[key].since_ms if key in before else self._now_ms()
            command = self._naming(alert.command) if alert.command else ""
            after[key] = replace(alert, since_ms=alert.since_ms or since_ms, command=command)
        self._standing[source] = after
        for key in after.keys() - before.keys():
            alert = after[key]
            hint = f"; type: {alert.command}" if alert.command else ""
            self.log.warn(
                "alert {name}: {text}{hint}", name=alert.name, text=alert.message, hint=hint
            )
        for key in before.keys() - after.keys():
            self.log.info("alert {name} is over", name=before[key].name)
