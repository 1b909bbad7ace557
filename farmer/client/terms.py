"""Contracts held against what was agreed: the invite, and the contract that was shown before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from farmer.model.contract import Contract, Offer, Price
from farmer.units import exact_money, exact_size, format_moment


def less_than_offered(contract: Contract, offer: Offer) -> str:
    """
    Return what a contract has less of than an invite offers, in words, if anything.

    One that was made before, and redeemed again, may have been ended or have another price since.
    """
    # A beginning before the invite's own would make any end a late one.
    begun_ms = max(contract.from_ms, offer.created_at_ms)
    lacking = {
        "less space": contract.space_bytes < offer.space_bytes,
        "less time": contract.until_ms - begun_ms < offer.duration_ms,
        "another price": _may_be_lower(offer.price, contract.price),
        # By the farmer's clock, as both are: it redeems no invite that has expired.
        "a later beginning": contract.from_ms > offer.expires_at_ms,
    }
    return _all_that_is(lacking)


def more_than_agreed(contract: Contract, offer: Offer, now_ms: int) -> bool:
    """
    Say whether a contract gets anything from an invite that is redeemed on it now.

    Space and end never become less, and are not added up.  The price is the invite's from then on:
    one that may be lower is a reason, one that is higher is none.
    """
    is_larger = offer.space_bytes > contract.space_bytes
    is_longer = now_ms + offer.duration_ms > contract.until_ms
    return is_larger or is_longer or _may_be_lower(offer.price, contract.price)


@dataclass(frozen=True, slots=True)
class TakenBack:
    """What a contract takes back of the one that was shown before, in words; empty is nothing."""

    rewritten: str = ""
    """What no honest farmer does to the contract that we know of."""
    shortened: str = ""
    """What one does that ends a contract early, or makes one again that it lost."""

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.rewritten, self.shortened)))


def taken_back(
    before: Contract, shown: Contract, now_ms: int, offer: Offer | None = None
) -> TakenBack:
    """
    Return what a contract takes back of the one before, unless that is over and this another.

    A price that *offer*, the invite redeemed just now, has is none that was taken back.  The
    revision, which the farmer chooses, excuses nothing.
    """
    is_other = shown.contract != before.contract
    if shown == before or (is_other and before.until_ms <= now_ms):
        return TakenBack()
    is_dearer = _may_be_lower(before.price, shown.price)
    rewritten = {
        f"another contract in place of {before.contract}": is_other,
        f"revision {shown.revision} after {before.revision}": (
            not is_other and shown.revision <= before.revision
        ),
        f"a price of {_money(shown.price)} in place of {_money(before.price)}": (
            is_dearer and (offer is None or _may_be_lower(offer.price, shown.price))
        ),
        f"a beginning that is to come, {format_moment(shown.from_ms)}": (
            shown.from_ms > max(before.from_ms, now_ms)
        ),
    }
    ends, ended = format_moment(shown.until_ms), format_moment(before.until_ms)
    shortened = {
        f"{exact_size(shown.space_bytes)} in place of {exact_size(before.space_bytes)}": (
            shown.space_bytes < before.space_bytes
        ),
        f"an earlier end, {ends} in place of {ended}": shown.until_ms < before.until_ms,
    }
    return TakenBack(_all_that_is(rewritten), _all_that_is(shortened))


def _all_that_is(told: Mapping[str, bool]) -> str:
    return ", ".join(what for what, is_so in told.items() if is_so)


def _may_be_lower(price: Price, than: Price) -> bool:
    """Say whether anything may cost less at one price; nothing costs less than nothing."""
    pairs = (
        (price.stored_micros, than.stored_micros),
        (price.served_micros, than.served_micros),
    )
    if price.currency != than.currency:
        return any(other for _, other in pairs)
    return any(one < other for one, other in pairs)


def _money(price: Price) -> str:
    if not (price.stored_micros or price.served_micros):
        return "nothing"
    stored, served = exact_money(price.stored_micros), exact_money(price.served_micros)
    return f"{stored} {price.currency} stored and {served} {price.currency} retrieved"
