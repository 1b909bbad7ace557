"""The owner's commands on a farmer that does not run; the home's lock is ours."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from farmer.identity.keys import Identity
from farmer.running.addresses import announced, local_addresses
from farmer.running.clocks import wall_clock_ms
from farmer.running.desk import HouseTerms, OwnerDesk
from farmer.running.files import sync_directory
from farmer.running.home import Home
from farmer.running.last_ports import SHARDS, with_last_ports
from farmer.running.own_identity import own_identity
from farmer.running.remembering import recover
from farmer.running.stores import open_book, open_stores
from farmer.running.terms import price_of
from farmer.running.volumes import plan_volumes, room_on_disk_bytes
from farmer.settings.schema import Settings
from farmer.storage.book_schema import BookDamagedError

RECOVER: Final = "contract-recover"


def do(home: Home, settings: Settings, verb: str, words: dict[str, Any]) -> dict[str, Any]:
    """
    Return the answer to one command of the owner's.

    Raises:
        OwnerError: not possible, with the reason.
        IdentityError, StorageError: the home is damaged.

    """
    if verb == RECOVER:
        return _recover(home, settings)
    identity = own_identity(home)
    plans = plan_volumes(home, settings)
    quotas = sum(plan.quota_bytes for plan in plans)
    listen = with_last_ports(home, SHARDS, settings.listen.shards)
    terms = HouseTerms(
        price=price_of(settings),
        addresses=lambda: announced(settings.announce, listen, local_addresses),
        capacity_bytes=lambda: int(quotas * settings.contracts.overcommit),
        usable_bytes=lambda: sum(
            min(plan.quota_bytes, room_on_disk_bytes(plan) or 0) for plan in plans
        ),
    )
    book = open_book(home, identity, wall_clock_ms)
    try:
        return OwnerDesk(book, identity, wall_clock_ms, terms).do(verb, words)
    finally:
        book.close()


def _recover(home: Home, settings: Settings) -> dict[str, Any]:
    """Make lost contracts again from the shards; a database that cannot be read is set aside."""
    set_aside = _set_aside(home, Identity.load(home.identity))
    stores = open_stores(home, settings, wall_clock_ms, lambda _line: None)
    try:
        made = recover(stores.book, stores.engine, wall_clock_ms())
    finally:
        stores.close()
    answer = do(home, settings, "contracts", {})
    names = {str(contract.contract) for contract in made}
    rows = [row for row in answer["contracts"] if row["contract"] in names]
    return answer | {"contracts": rows} | ({"set_aside": str(set_aside)} if set_aside else {})


def _set_aside(home: Home, identity: Identity) -> Path | None:
    """Rename a damaged contract database with what belongs to it; return its new name."""
    try:
        open_book(home, identity, wall_clock_ms).close()
    except BookDamagedError:
        aside = home.contracts.with_name(f"{home.contracts.name}.damaged-{wall_clock_ms()}")
        for end in ("-shm", "-wal", ""):
            with suppress(FileNotFoundError):
                home.contracts.with_name(f"{home.contracts.name}{end}").rename(f"{aside}{end}")
        sync_directory(home.contracts.parent)
        return aside
    return None
