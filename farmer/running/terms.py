"""Settings as the values that the serving parts take."""

from __future__ import annotations

from farmer.model.contract import Price
from farmer.node.farm import Terms
from farmer.settings.schema import Settings


def price_of(settings: Settings) -> Price:
    """Return what new invites ask for."""
    price = settings.price
    return Price(currency=price.currency, stored_micros=price.stored, served_micros=price.served)


def terms_of(settings: Settings) -> Terms:
    """Return what the serving side tells renters."""
    return Terms(shard_bytes_max=settings.shards.size_max, price=price_of(settings))
