"""`renter join`: an invite can be spent once, so it is not where it would bring nothing."""

from __future__ import annotations

import argparse

from farmer.cli.exits import OK, CommandError
from farmer.cli.renter_asking import ask
from farmer.cli.renter_contract import back_since, not_taken, tell_contract
from farmer.cli.terminal import warn
from farmer.client.dial import FarmerAddress
from farmer.client.farmer import Farmer
from farmer.client.home import Home
from farmer.client.refusals import NoContractError
from farmer.client.terms import TakenBack, less_than_offered, more_than_agreed
from farmer.identity.signing import invite_is_valid, parse_link
from farmer.model.contract import Contract, Invite, Offer
from farmer.units import format_duration, format_moment, format_size


def join(home: Home, options: argparse.Namespace) -> int:
    """Redeem an invite and remember the farmer; refuse to spend one that brings nothing."""
    link = parse_link(options.invite)
    address = FarmerAddress.of(link)
    known = {one.farmer: one for one in home.ledger.farmers()}.get(address.farmer)
    if known is not None and not options.anyway:
        useless_for = ask(home, address, lambda farmer: _useless_for(farmer, link.invite))
        if useless_for is not None:
            home.ledger.move(address)
            raise CommandError(_kept(useless_for, link.invite.offer, moved=known != address))
    anyway: bool = options.anyway
    shown = ask(home, address, lambda farmer: farmer.redeem(link.invite, anyway=anyway))
    back = back_since(home, address.farmer, shown, link.invite.offer)
    if back != TakenBack() and not anyway:
        home.ledger.move(address)
        raise CommandError(not_taken(back, "renter join"))
    home.ledger.join(address, shown)
    if lacking := less_than_offered(shown.contract, link.invite.offer):
        warn(f"renter: the contract has {lacking} than this invite, and was taken anyway")
    tell_contract("joined farmer", address, shown, back, as_json=options.json)
    return OK


async def _useless_for(farmer: Farmer, invite: Invite) -> Contract | None:
    """
    Return the contract there is, if by the farmer's clock the invite brings nothing more.

    One that this farmer did not sign is for it to refuse: whoever made it chose the addresses.
    """
    try:
        shown = await farmer.contract()
    except NoContractError:
        return None
    if not invite_is_valid(shown.contract.farmer_key, invite):
        return None
    pong = await farmer.ping()
    brings = more_than_agreed(shown.contract, invite.offer, pong.time_ms)
    return None if brings else shown.contract


def _kept(contract: Contract, offer: Offer, *, moved: bool) -> str:
    """Say why an invite was not spent, and what can be done."""
    has = f"{format_size(contract.space_bytes)} until {format_moment(contract.until_ms)}"
    brings = f"{format_size(offer.space_bytes)} for {format_duration(offer.duration_ms)}"
    where = "; the farmer's new address is remembered" if moved else ""
    return (
        f"the invite was not spent: your contract with this farmer has {has}, and {brings}, which "
        f"it offers, are neither more space nor a later end{where}; give it to another renter, "
        "or spend it all the same with --anyway"
    )
