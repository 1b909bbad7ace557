"""`renter contract`, and what is told of a contract that takes back what its farmer signed."""

from __future__ import annotations

import argparse
import time

from farmer.cli.exits import OK, CommandError
from farmer.cli.renter_asking import ask
from farmer.cli.terminal import print_document, say, warn
from farmer.client.dial import FarmerAddress
from farmer.client.farmer import Farmer
from farmer.client.home import Home
from farmer.client.terms import TakenBack, taken_back
from farmer.model.contract import Offer
from farmer.model.ids import NodeId
from farmer.model.shard import Usage
from farmer.protocol.questions import ContractShown
from farmer.units import counted, exact_money, format_moment, format_size


def contract(home: Home, options: argparse.Namespace) -> int:
    """Show the contract, as the farmer has it now, and hold its receipts to that."""
    address = home.farmer(options.farmer)
    shown = ask(home, address, Farmer.contract)
    back = back_since(home, address.farmer, shown)
    if back.rewritten and not options.anyway:
        raise CommandError(not_taken(back, "renter contract"))
    home.ledger.refresh(address.farmer, shown)
    tell_contract("farmer", address, shown, back, as_json=options.json)
    return OK


def tell_contract(
    what: str, address: FarmerAddress, shown: ContractShown, back: TakenBack, *, as_json: bool
) -> None:
    """Tell a contract that was taken, and what it takes back; *what* says of which farmer."""
    _warn_of(back)
    if as_json:
        print_document(_contract_row(address, shown))
    else:
        say(f"{what} {address.farmer} at {', '.join(address.addresses)}")
        say(_contract_text(shown))


def back_since(
    home: Home, farmer: NodeId, shown: ContractShown, offer: Offer | None = None
) -> TakenBack:
    """Return what a contract takes back of the one in the ledger; see `taken_back`."""
    before = home.ledger.contract(farmer)
    if before is None:
        return TakenBack()
    return taken_back(before, shown.contract, int(time.time() * 1000), offer)


def not_taken(back: TakenBack, command: str) -> str:
    """Say why a contract was not taken, and what can be done."""
    return (
        f"the contract that the farmer shows takes back what it signed: {back}. It was not taken: "
        "the one that you had stays, and receipts are held to that. Ask the owner why: a contract "
        "that was ended early, a database put back from a backup, or an invite that you redeemed "
        f"elsewhere would explain it; {command} --anyway takes it, and keeps the old one beside it"
    )


def _warn_of(back: TakenBack) -> None:
    """Tell what a contract that was taken takes back, if anything."""
    if back != TakenBack():
        warn(
            f"renter: the contract that the farmer shows takes back what it signed: {back}. If "
            "its owner did not tell you, ask why: it may have been ended early, or made again by "
            "one who had lost it; the signed one that you had is kept in the ledger"
        )


def _contract_row(address: FarmerAddress, shown: ContractShown) -> dict[str, object]:
    """Return a contract as other programs read it."""
    agreed, usage = shown.contract, shown.usage
    return {
        "farmer": str(address.farmer),
        "addresses": list(address.addresses),
        "contract": str(agreed.contract),
        "stage": shown.stage.name.lower(),
        "revision": agreed.revision,
        "space_bytes": agreed.space_bytes,
        "live_bytes": usage.live_bytes,
        "trash_bytes": usage.trash_bytes,
        "reserved_bytes": usage.reserved_bytes,
        "shards": usage.shards,
        "from_ms": agreed.from_ms,
        "until_ms": agreed.until_ms,
        "price": {
            "currency": agreed.price.currency,
            "stored_micros": agreed.price.stored_micros,
            "served_micros": agreed.price.served_micros,
        },
    }


def _unfinished(usage: Usage) -> str:
    if not usage.reserved_bytes:
        return ""
    return f", {format_size(usage.reserved_bytes)} kept for unfinished stores"


def _contract_text(shown: ContractShown) -> str:
    """Return a contract as people read it, in a few lines."""
    agreed, usage = shown.contract, shown.usage
    used, space = format_size(usage.total_bytes), format_size(agreed.space_bytes)
    lines = [
        f"contract {agreed.contract}: {space} until {format_moment(agreed.until_ms)}, "
        f"{shown.stage.name.lower()}",
        f"{used} used by {counted(usage.shards, 'shard')}, "
        f"{format_size(usage.trash_bytes)} of it trash{_unfinished(usage)}",
    ]
    price = agreed.price
    if price.stored_micros or price.served_micros:
        lines.append(
            f"{exact_money(price.stored_micros)} {price.currency} per TB and 30 days stored, "
            f"{exact_money(price.served_micros)} {price.currency} per TB retrieved"
        )
    return "\n".join(lines)
