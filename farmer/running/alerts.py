"""Conditions that need the owner: shown until they clear, logged once when they come and go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from twisted.logger import Logger

from farmer.model.moments import Clocks, Moment
from farmer.model.status import Alert

JUST_NOW_MS: Final = 60_000
"""Who says since when it stands, and that is not longer ago, was told it by the clock as it is."""


@dataclass(frozen=True, slots=True)
class _Standing:
    """An alert, and when it began; None if that is known by the calendar alone."""

    alert: Alert
    since: Moment | None

    @property
    def shown(self) -> Alert:
        return (
            self.alert if self.since is None else replace(self.alert, since_ms=self.since.at_ms())
        )


class AlertBoard:
    """
    What stands now.  A condition keeps its first time while its words may change.

    *naming* completes the command of each alert: one of `farmer` does not say which one.
    """

    log = Logger()

    def __init__(self, clocks: Clocks, naming: Callable[[str], str] = str) -> None:
        self._clocks = clocks
        self._naming = naming
        self._standing: dict[str, dict[str, _Standing]] = {}

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """All that stands, the oldest first."""
        standing = [one.shown for group in self._standing.values() for one in group.values()]
        return tuple(sorted(standing, key=lambda alert: (alert.since_ms, alert.name)))

    def report(self, source: str, *found: Alert) -> None:
        """
        Replace all that *source* reported before by *found*.

        It is the same alert as before if its name is, and what it is about: its words may
        change.  One that does not know since when it stands, 0, began when first reported.
        """
        before = self._standing.get(source, {})
        after = {}
        for alert in found:
            key = f"{alert.name} {alert.about}"
            known = before.get(key)
            if known is not None and known.alert.since_ms == alert.since_ms:
                since = known.since
            else:
                since = self._since(alert)
            command = self._naming(alert.command) if alert.command else ""
            after[key] = _Standing(replace(alert, command=command), since)
        self._standing[source] = after
        for key in after.keys() - before.keys():
            alert = after[key].alert
            hint = f"; type: {alert.command}" if alert.command else ""
            self.log.warn(
                "alert {name}: {text}{hint}", name=alert.name, text=alert.message, hint=hint
            )
        for key in before.keys() - after.keys():
            self.log.info("alert {name} is over", name=before[key].alert.name)

    def _since(self, alert: Alert) -> Moment | None:
        ago_ms = self._clocks.now_ms() - alert.since_ms if alert.since_ms else 0
        return Moment(self._clocks, ago_ms) if 0 <= ago_ms <= JUST_NOW_MS else None
