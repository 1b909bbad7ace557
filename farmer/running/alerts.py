"""Conditions that need the owner: shown until they clear, logged once when they come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.logger import Logger

from farmer.model.status import Alert


class AlertBoard:
    """What stands now.  A condition keeps its first time while its words may change."""

    log = Logger()

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._standing: dict[str, dict[str, Alert]] = {}

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """All that stands, the oldest first."""
        standing = [alert for group in self._standing.values() for alert in group.values()]
        return tuple(sorted(standing, key=lambda alert: (alert.since_ms, alert.name)))

    def report(self, source: str, found: Iterable[tuple[str, str, str]]) -> None:
        """
        Replace all that *source* reported before by *found*: name, message, command.

        Two of one name are two conditions if their commands differ (one for each volume).
        """
        before = self._standing.get(source, {})
        after = {}
        for name, message, command in found:
            key = f"{name} {command}"
            since_ms = before[key].since_ms if key in before else self._now_ms()
            after[key] = Alert(name=name, since_ms=since_ms, message=message, command=command)
        self._standing[source] = after
        for key in after.keys() - before.keys():
            alert = after[key]
            hint = f"; type: {alert.command}" if alert.command else ""
            self.log.warn(
                "alert {name}: {text}{hint}", name=alert.name, text=alert.message, hint=hint
            )
        for key in before.keys() - after.keys():
            self.log.info("alert {name} is over", name=before[key].name)
