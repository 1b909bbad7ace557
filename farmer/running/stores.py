"""Everything durable of one farmer, opened: identity, volumes, contract database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from farmer.identity.keys import Identity
from farmer.identity.signing import contract_digest
from farmer.running.home import Home
from farmer.running.volumes import VolumePlan, plan_volumes, remember
from farmer.settings.schema import Settings
from farmer.storage.contracts import ContractDatabase
from farmer.storage.engine import Engine, create_volume


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


def open_book(home: Home, identity: Identity, now_ms: Callable[[], int]) -> ContractDatabase:
    """Open the contract database, making it if this is the first time."""
    return ContractDatabase(
        home.contracts,
        farmer_key=identity.public_key,
        now_ms=now_ms,
        digest=contract_digest,
    )


def open_stores(home: Home, settings: Settings, now_ms: Callable[[], int]) -> Stores:
    """
    Open all, making what never existed: identity, contract database, new volumes.

    Raises:
        IdentityError, StorageError, VolumeSetupError, OSError: with what to do.

    """
    identity = Identity.load_or_create(home.identity)
    plans = plan_volumes(home, settings)
    make_volumes(home, identity, plans, now_ms)
    book = open_book(home, identity, now_ms)
    try:
        engine = open_engine(identity, plans, settings, now_ms)
    except BaseException:
        book.close()
        raise
    return Stores(identity, engine, book)


def make_volumes(
    home: Home, identity: Identity, plans: Sequence[VolumePlan], now_ms: Callable[[], int]
) -> None:
    """Make the volumes that never were, and remember them."""
    for plan in plans:
        if plan.new:
            create_volume(volume_settings(plan), identity.node_id, now_ms())
    remember(home, plans)
