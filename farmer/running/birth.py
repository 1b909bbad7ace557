"""A farmer made from settings: home, identity, volumes, and the settings file last."""

from __future__ import annotations

from dataclasses import dataclass

from farmer.model.ids import NodeId
from farmer.running.clocks import wall_clock_ms
from farmer.running.home import Home
from farmer.running.locks import lock_to_change
from farmer.running.making import make_volumes
from farmer.running.own_identity import own_identity
from farmer.running.rewriting import write_settings
from farmer.running.volumes import answers, plan_volumes, volume_paths
from farmer.settings.schema import Settings


@dataclass(frozen=True, slots=True)
class Made:
    """What `make_farmer` made."""

    node_id: NodeId
    volumes: tuple[tuple[str, int], ...]
    """Path and quota in bytes."""


def make_farmer(home: Home, settings: Settings, text: str) -> Made:
    """
    Make everything that a first start needs; *text* are the *settings* as a file.

    The file comes last: an attempt that failed half way can be made again.

    Raises:
        HomeError, HomeLockedError, IdentityError, StorageError, VolumeSetupError, OSError.

    """
    home.make()
    with lock_to_change(home):
        identity = own_identity(home)
        for path in volume_paths(home, settings):
            # It may sleep; whether it answers is seen below.
            answers(path)
        plans = plan_volumes(home, settings)
        make_volumes(home, identity, plans, wall_clock_ms())
        write_settings(home, text)
    return Made(identity.node_id, tuple((str(plan.path), plan.quota_bytes) for plan in plans))
