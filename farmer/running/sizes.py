"""How large the volumes may be: by the settings in force, and by what their disks say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from twisted.internet.defer import DeferredLock

from farmer.node.ports import Disk
from farmer.running.alerts import AlertBoard
from farmer.running.home import Home
from farmer.running.stores import Stores
from farmer.running.volumes import VolumePlan, adopting, check_quotas, plan_volumes, too_small
from farmer.settings.schema import Settings


class Sizes:
    """
    Gives volumes their quotas, and makes those that wait for their disks.

    *settings* are those that the stores were opened with; later ones come by `put`, or by
    `adopt` what somebody else has put in force.
    """

    def __init__(
        self, home: Home, settings: Settings, stores: Stores, disk: Disk, board: AlertBoard
    ) -> None:
        self.turns = DeferredLock()
        """Held while settings or sizes are put in force: of two at once neither would be whole.
        Whoever calls `put` holds it."""
        self._home = home
        self._settings = settings
        self._stores = stores
        self._disk = disk
        self._board = board
        self._silent = stores.silent

    async def put(self, settings: Settings) -> None:
        """Put the volumes of these settings in force, or nothing of it if anything is wrong."""
        plans = await self._plans(settings)
        check_quotas(plans)
        await self._size(plans)
        self._settings = settings

    def adopt(self, path: Path, settings: Settings) -> None:
        """Take one of their volumes as in force: somebody else opened or closed it."""
        self._settings = adopting(self._settings, settings, path)

    async def again(self) -> None:
        """Ask disks that did not say how large they are, and make volumes that wait there."""
        async with self.turns:
            wanted = self._silent | self._stores.unmade.waiting
            # Not while they hang: each question would cost another thread.
            if wanted - self._stores.engine.silent():
                settings = self._settings
                plans = await self._plans(settings)
                # Else an owner has added a volume meanwhile: next time.
                if settings is self._settings:
                    await self._size(plans)

    async def _plans(self, settings: Settings) -> list[VolumePlan]:
        silent = self._stores.engine.silent()
        return await self._disk.run(plan_volumes, self._home, settings, silent)

    async def _size(self, plans: Sequence[VolumePlan]) -> None:
        """
        Make the volumes that wait for their disks, and give all the quotas that they can have.

        The quotas come last: they do not fail, and before them nothing of the settings is in
        force.
        """
        self._silent = frozenset(plan.path for plan in plans if plan.is_guess)
        found = await self._disk.run(self._stores.unmade.make_late, plans)
        self._board.report("unmade volumes", *found)
        for plan in plans:
            if too_small(plan.path, plan.quota_bytes) is None:
                sizes = (plan.quota_bytes, plan.keep_free_bytes)
                await self._disk.run(self._stores.engine.change_quota, plan.path, *sizes)
