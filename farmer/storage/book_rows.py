"""
The statements on the contract database: invites and contracts as rows, and back.

Each takes the connection that `Book` hands out, and leaves transactions to its caller.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from farmer.model.contract import Contract, ContractStage, Offer, Price
from farmer.model.ids import ContractId, InviteSerial, NodeId
from farmer.storage.lifetime import HeldContract

Row = tuple[Any, ...]


class InviteState(IntEnum):
    """Disk values: never renumber."""

    OPEN = 0
    SPENT = 1
    WITHDRAWN = 2


@dataclass(frozen=True, slots=True)
class KnownInvite:
    """An invite that was minted here, and what became of it."""

    serial: InviteSerial
    offer: Offer
    state: InviteState
    renter: NodeId | None
    """Who spent it."""
    contract: ContractId | None
    """What for."""


_INVITE: Final = (
    *("serial", "space_bytes", "duration_ms", "created_at_ms", "expires_at_ms"),
    *("currency", "stored_micros", "served_micros", "state", "renter", "contract"),
)
_CONTRACT: Final = (
    *("contract", "renter", "revision", "space_bytes", "from_ms", "until_ms", "issued_at_ms"),
    *("previous", "currency", "stored_micros", "served_micros", "stage", "since_observed_ms"),
)


def _select(table: str, columns: tuple[str, ...], condition: str) -> str:
    return " ".join(("SELECT", ", ".join(columns), "FROM", table, "WHERE", condition))


def _insert(table: str, columns: tuple[str, ...]) -> str:
    marks = ", ".join("?" for _ in columns)
    return " ".join(("INSERT INTO", table, "(", ", ".join(columns), ") VALUES (", marks, ")"))


_INVITE_NAMED: Final = _select("invites", _INVITE, "serial = ?")
_INVITES_OPEN: Final = _select(
    "invites", _INVITE, "state = 0 AND expires_at_ms > ? ORDER BY created_at_ms, serial"
)
_INVITE_NEW: Final = _insert("invites", _INVITE)

_CONTRACT_NAMED: Final = _select("contracts", _CONTRACT, "contract = ? AND stage < 3")
_CONTRACT_OF: Final = _select("contracts", _CONTRACT, "renter = ? AND stage < 3")
_CONTRACTS_LIVE: Final = _select("contracts", _CONTRACT, "stage < 3 ORDER BY from_ms, contract")
_CONTRACTS_TO_PURGE: Final = _select("contracts", _CONTRACT, "stage = 3 AND purged = 0")
_CONTRACT_PUT: Final = " ".join(
    (
        _insert("contracts", _CONTRACT),
        "ON CONFLICT (contract) DO UPDATE SET",
        # One that is made again after it was gone may have shards again.
        ", ".join([*(f"{column} = excluded.{column}" for column in _CONTRACT[1:]), "purged = 0"]),
    )
)


def find_invite(rows: sqlite3.Connection, serial: InviteSerial) -> KnownInvite | None:
    """Return an invite by its serial, in whatever state."""
    row = rows.execute(_INVITE_NAMED, (serial.raw,)).fetchone()
    return _read_invite(row) if row else None


def open_invites(rows: sqlite3.Connection, now_ms: int) -> list[KnownInvite]:
    """Return the invites that can be redeemed now, the oldest first."""
    return [_read_invite(row) for row in rows.execute(_INVITES_OPEN, (now_ms,))]


def add_invite(rows: sqlite3.Connection, serial: InviteSerial, offer: Offer) -> None:
    """Put a new invite, open."""
    times = (offer.duration_ms, offer.created_at_ms, offer.expires_at_ms)
    values = (serial.raw, offer.space_bytes, *times, *_price_row(offer.price))
    rows.execute(_INVITE_NEW, (*values, InviteState.OPEN, None, None))


def spend_invite(
    rows: sqlite3.Connection, serial: InviteSerial, renter: NodeId, contract: ContractId
) -> None:
    """Mark an invite as spent."""
    rows.execute(
        "UPDATE invites SET state = ?, renter = ?, contract = ? WHERE serial = ?",
        (InviteState.SPENT, renter.raw, contract.raw, serial.raw),
    )


def withdraw_invite(rows: sqlite3.Connection, serial: InviteSerial) -> None:
    """Mark an invite as withdrawn."""
    rows.execute(
        "UPDATE invites SET state = ? WHERE serial = ?", (InviteState.WITHDRAWN, serial.raw)
    )


def withdraw_open_invites(rows: sqlite3.Connection) -> None:
    """Mark all invites as withdrawn that could still be redeemed."""
    # Open as the partial index has it, not bound: there SQLite 3.45.1 (Ubuntu 24.04) crashes.
    rows.execute("UPDATE invites SET state = ? WHERE state = 0", (InviteState.WITHDRAWN,))


def find_contract(
    rows: sqlite3.Connection, farmer_key: bytes, contract: ContractId
) -> HeldContract | None:
    """Return a contract that is not gone, by its id."""
    row = rows.execute(_CONTRACT_NAMED, (contract.raw,)).fetchone()
    return _read_contract(row, farmer_key) if row else None


def find_contract_of(
    rows: sqlite3.Connection, farmer_key: bytes, renter: NodeId
) -> HeldContract | None:
    """Return the one contract of a renter that is not gone."""
    row = rows.execute(_CONTRACT_OF, (renter.raw,)).fetchone()
    return _read_contract(row, farmer_key) if row else None


def live_contracts(rows: sqlite3.Connection, farmer_key: bytes) -> Iterator[HeldContract]:
    """Return all contracts that are not gone, the oldest first."""
    return (_read_contract(row, farmer_key) for row in rows.execute(_CONTRACTS_LIVE))


def contracts_to_purge(rows: sqlite3.Connection, farmer_key: bytes) -> list[HeldContract]:
    """Return the contracts that are gone and whose shards may not be."""
    return [_read_contract(row, farmer_key) for row in rows.execute(_CONTRACTS_TO_PURGE)]


def put_contract(rows: sqlite3.Connection, held: HeldContract) -> None:
    """Put a contract, over its last revision if there is one."""
    contract = held.contract
    values = (
        *(contract.contract.raw, contract.renter.raw, contract.revision, contract.space_bytes),
        *(contract.from_ms, contract.until_ms, contract.issued_at_ms, contract.previous),
        *_price_row(contract.price),
        *(held.stage, held.since_observed_ms),
    )
    rows.execute(_CONTRACT_PUT, values)


def move_contract(
    rows: sqlite3.Connection, contract: ContractId, to: ContractStage, observed_ms: int
) -> None:
    """Put a contract in another stage, which begins at this observed running time."""
    rows.execute(
        "UPDATE contracts SET stage = ?, since_observed_ms = ? WHERE contract = ?",
        (to, observed_ms, contract.raw),
    )


def mark_purged(rows: sqlite3.Connection, contract: ContractId) -> None:
    """Mark a contract that is gone as one without shards."""
    rows.execute(
        "UPDATE contracts SET purged = 1 WHERE contract = ? AND stage = 3", (contract.raw,)
    )


def is_being_purged(rows: sqlite3.Connection, renter: NodeId) -> bool:
    """Tell whether shards of an earlier contract of this renter may still be there."""
    query = "SELECT 1 FROM contracts WHERE renter = ? AND stage = 3 AND purged = 0"
    return rows.execute(query, (renter.raw,)).fetchone() is not None


def known_renters(rows: sqlite3.Connection) -> set[bytes]:
    """Return the node ids of all who have a contract, or shards that are being removed."""
    query = "SELECT renter FROM contracts WHERE stage < 3 OR purged = 0"
    return {renter for (renter,) in rows.execute(query)}


def promised_bytes(rows: sqlite3.Connection, now_ms: int) -> int:
    """Return the space of all contracts whose shards are not removed, and of open invites."""
    query = """
        SELECT (SELECT coalesce(sum(space_bytes), 0) FROM contracts WHERE NOT purged)
             + (SELECT coalesce(sum(space_bytes), 0) FROM invites
                WHERE state = 0 AND expires_at_ms > ?)"""
    (promised,) = rows.execute(query, (now_ms,)).fetchone()
    return int(promised)


def _read_invite(row: Row) -> KnownInvite:
    serial, space, duration, created, expires, *price, state, renter, contract = row
    offer = Offer(
        space_bytes=space,
        duration_ms=duration,
        created_at_ms=created,
        expires_at_ms=expires,
        price=_read_price(*price),
    )
    return KnownInvite(
        serial=InviteSerial(serial),
        offer=offer,
        state=InviteState(state),
        renter=None if renter is None else NodeId(renter),
        contract=None if contract is None else ContractId(contract),
    )


def _read_contract(row: Row, farmer_key: bytes) -> HeldContract:
    name, renter, revision, space, from_ms, until_ms, issued, previous, *rest = row
    *price, stage, since_observed_ms = rest
    contract = Contract(
        contract=ContractId(name),
        farmer_key=farmer_key,
        renter=NodeId(renter),
        revision=revision,
        space_bytes=space,
        from_ms=from_ms,
        until_ms=until_ms,
        price=_read_price(*price),
        issued_at_ms=issued,
        previous=previous,
    )
    return HeldContract(contract, ContractStage(stage), since_observed_ms)


def _price_row(price: Price) -> Row:
    return price.currency, price.stored_micros, price.served_micros


def _read_price(currency: str, stored_micros: int, served_micros: int) -> Price:
    return Price(currency=currency, stored_micros=stored_micros, served_micros=served_micros)
