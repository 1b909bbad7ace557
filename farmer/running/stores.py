"""Everything durable of one farmer, opened: identity, volumes, contract database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from farmer.identity.keys import Identity
from farmer.identity.signing import contract_digest
from farmer.protocol.limits import SHARDS_PER_CONTRACT_MAX, UPLOADS_PER_RENTER_MAX
from farmer.running.home import Home
from farmer.running.volumes import VolumePlan, plan_volumes, remember
from farmer.settings.schema import Settings
from farmer.storage.contracts import ContractDatabase
from farmer.storage.directory import MARKER_NAME, VolumeSettings, create_volume, read_marker
from farmer.storage.engine import Engine, EngineLimits
from farmer.storage.files import OsFiles
from farmer.storage.opening import rebuild_index

Told = Callable[[str], None]
"""Takes a line about something that takes long."""

SEGMENTS_PER_LINE: Final = 16


@dataclass(frozen=True, slots=True)
class Stores:
    """What a farmer must not lose, open.  Blocking; close it."""

    identity: Identity
    engine: Engine
    book: ContractDatabase

    def close(self) -> None:
        """Close all in order."""
        self.engine.close()
        self.book.close()


def open_stores(home: Home, settings: Settings, now_ms: Callable[[], int], tell: Told) -> Stores:
    """
    Open all, making what never existed: identity, contract database, new volumes.

    Raises:
        IdentityError, StorageError, VolumeSetupError, OSError: with what to do.

    """
    identity = Identity.load_or_create(home.identity)
    plans = plan_volumes(home, settings)
    make_volumes(home, identity, plans, now_ms())
    book = open_book(home, identity, now_ms)
    try:
        engine = Engine(
            [volume_settings(plan) for plan in plans],
            identity.node_id,
            OsFiles(),
            clock_ms=now_ms,
            observed_ms=lambda: book.clock.observed_ms,
            limits=EngineLimits(
                uploads_per_renter_max=UPLOADS_PER_RENTER_MAX,
                shards_per_contract_max=SHARDS_PER_CONTRACT_MAX,
                shard_bytes_max=settings.shards.size_max,
            ),
            progress=_progress(tell),
        )
    except BaseException:
        book.close()
        raise
    return Stores(identity, engine, book)


def open_book(home: Home, identity: Identity, now_ms: Callable[[], int]) -> ContractDatabase:
    """Open the contract database, making it if this is the first time."""
    return ContractDatabase(
        home.contracts, farmer_key=identity.public_key, now_ms=now_ms, digest=contract_digest
    )


def make_volumes(home: Home, identity: Identity, plans: Sequence[VolumePlan], now_ms: int) -> None:
    """Make the volumes that never were, and remember them."""
    files = OsFiles()
    for plan in plans:
        if plan.new and (plan.path / MARKER_NAME).exists():
            # Made by this identity for a home that has forgotten it, else refused here.
            read_marker(plan.path, identity.node_id, files)
        elif plan.new:
            create_volume(plan.path, identity.node_id, files, now_ms)
    remember(home, plans)


def rebuild(home: Home, plan: VolumePlan, tell: Told) -> int:
    """Make a volume's index anew from its records; return how many records were read."""
    identity = Identity.load(home.identity)
    settings = volume_settings(plan)
    return rebuild_index(settings, identity.node_id, OsFiles(), _progress(tell)).records


def volume_settings(plan: VolumePlan) -> VolumeSettings:
    """Return a plan as the engine takes it."""
    return VolumeSettings(plan.path, plan.quota_bytes, plan.keep_free_bytes, plan.name)


def _progress(tell: Told) -> Callable[[int, int], None]:
    def read(segment: int, last: int) -> None:
        if segment % SEGMENTS_PER_LINE == 1 or segment == last:
            tell(f"making a lost index again from the shards: segment {segment} of {last}")

    return read
