"""The owner's commands on a farmer that does not run; the home's lock is ours."""

from __future__ import annotations

from typing import Any

from farmer.identity.keys import Identity
from farmer.running.addresses import announced, local_addresses
from farmer.running.birth import now_ms
from farmer.running.desk import HouseTerms, OwnerDesk
from farmer.running.home import Home
from farmer.running.ports import SHARDS, with_last_ports
from farmer.running.stores import open_book
from farmer.running.terms import price_of
from farmer.running.volumes import plan_volumes, usable_bytes
from farmer.settings.schema import Settings


def do(home: Home, settings: Settings, verb: str, words: dict[str, Any]) -> dict[str, Any]:
    """
    Return the answer to one command of the owner's.

    Raises:
        OwnerError: not possible, with the reason.
        IdentityError, StorageError: the home is damaged.

    """
    identity = Identity.load_or_create(home.identity)
    plans = plan_volumes(home, settings)
    quotas = sum(plan.quota_bytes for plan in plans)
    listen = with_last_ports(home, SHARDS, settings.listen.shards)
    terms = HouseTerms(
        price=price_of(settings),
        addresses=lambda: announced(settings.announce, listen, local_addresses),
        capacity_bytes=lambda: int(quotas * settings.contracts.overcommit),
        usable_bytes=lambda: sum(min(plan.quota_bytes, usable_bytes(plan)) for plan in plans),
    )
    book = open_book(home, identity, now_ms)
    try:
        return OwnerDesk(book, identity, now_ms, terms).do(verb, words)
    finally:
        book.close()
