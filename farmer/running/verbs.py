"""What the running farmer answers its owner."""

from __future__ import annotations

from typing import Any

from farmer.monitor.metrics import Metrics
from farmer.monitor.status import status_document
from farmer.node.ports import Disk
from farmer.running.control import Verb
from farmer.running.desk import OwnerDesk
from farmer.running.moving import Movings
from farmer.running.overview import Overview
from farmer.running.upkeep import Upkeep


def owner_verbs(
    desk: OwnerDesk,
    movings: Movings,
    disk: Disk,
    upkeep: Upkeep,
    overview: Overview,
    metrics: Metrics,
) -> dict[str, Verb]:
    """Return all verbs: those that change something through the disk's door, and the readings."""

    def through_the_door(place: OwnerDesk | Movings, name: str) -> Verb:
        async def ask(words: dict[str, Any]) -> dict[str, Any]:
            answer = await disk.run(place.do, name, words)
            movings.tell()
            # The next reading, also of the page, shows what was just changed.
            await upkeep.look()
            return answer

        return ask

    async def status(_words: dict[str, Any]) -> dict[str, Any]:
        await upkeep.look()
        return status_document(overview.status(), metrics.activity)

    async def exposition(_words: dict[str, Any]) -> dict[str, Any]:
        return {"text": metrics.exposition().decode()}

    places: tuple[OwnerDesk | Movings, ...] = (desk, movings)
    verbs = {name: through_the_door(place, name) for place in places for name in place.verbs}
    return verbs | {"status": status, "metrics": exposition}
