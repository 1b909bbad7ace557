"""Reading the rows of a renter's ledger; one that a disk has damaged costs no other."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from enum import IntEnum

from farmer.client.dial import FarmerAddress
from farmer.identity.signing import contract_is_valid, receipt_is_valid
from farmer.model.addresses import ADDRESSES_MAX
from farmer.model.contract import Contract, Receipt
from farmer.model.ids import NodeId, ShardId
from farmer.model.shard import SHARD_BYTES_MAX
from farmer.protocol.documents import SIGNATURE_BYTES, read_contract, read_receipt
from farmer.protocol.fields import LayoutError, Reader


class Standing(IntEnum):
    """What we last heard of a shard.  Disk values: never renumber."""

    HELD = 0
    TRASHED = 1
    ERASED = 2


@dataclass(frozen=True, slots=True)
class Text:
    """
    A text, of which nobody says that it is one of letters.

    One bit of a row's header makes it of a blob; SQLite does not find it by those bytes then.
    """

    raw: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """One receipt, where its bytes came from, and what was done with the shard since."""

    receipt: Receipt
    farmer: NodeId
    file: str
    standing: Standing


@dataclass(frozen=True, slots=True)
class Damaged:
    """A row that cannot be read; `str()` says which, why, and what to do."""

    what: str
    reason: str
    remedy: str
    farmer: NodeId | None
    """Whose row it is, if that can be read."""
    is_farmer: bool
    """A farmer's row; else one of a receipt."""
    is_expected: bool = False
    """A receipt for what an audit of all asks for, as far as that can be told."""

    def __str__(self) -> str:
        return f"the renter's ledger is damaged: {self.what}: {self.reason}; {self.remedy}"


_BACKUP = "bring it back from a backup"
_STORE = "store the file again, which replaces it"


def read_entry(row: tuple[object, ...]) -> Entry | Damaged:
    """Read farmer, shard, receipt, file and standing."""
    farmer, shard, receipt, file, standing = row
    try:
        read = read_receipt(_bytes(receipt))
        if read.shard.raw != shard:
            return _damaged_receipt(row, f"it is one for {read.shard}", _BACKUP)
        if read.size_bytes > SHARD_BYTES_MAX:
            return _damaged_receipt(row, "it is for more bytes than a shard can have", _STORE)
        return Entry(read, NodeId(_bytes(farmer)), os.fsdecode(_bytes(file)), _standing(standing))
    except (ValueError, LayoutError) as error:
        return _damaged_receipt(row, str(error), _STORE)


def read_signed_contract(value: object) -> Contract | None:
    """Read a contract and its signature; None if it is not as it was signed."""
    try:
        reader = Reader(_bytes(value))
        contract, signature = read_contract(reader), reader.raw(SIGNATURE_BYTES)
        reader.end()
    except (ValueError, LayoutError):
        return None
    return contract if contract_is_valid(contract, signature) else None


def altered(entry: Entry) -> Damaged | None:
    """Return an entry as damaged if its receipt is not as the farmer signed it."""
    if receipt_is_valid(entry.receipt):
        return None
    row = (entry.farmer.raw, entry.receipt.shard.raw, None, None, entry.standing)
    return _damaged_receipt(row, "it is not as the farmer signed it", _STORE)


def read_farmer(row: tuple[object, ...]) -> FarmerAddress | Damaged:
    """Read farmer and addresses."""
    farmer, addresses = row
    try:
        return FarmerAddress.of(FarmerAddress(NodeId(_bytes(farmer)), _places(addresses)))
    except (ValueError, RecursionError) as error:
        node_id = _node_id(farmer)
        remedy = _BACKUP if node_id is None else "join it again with its invite"
        return Damaged(f"farmer {_shown(farmer)}", str(error), remedy, node_id, is_farmer=True)


def _damaged_receipt(row: tuple[object, ...], reason: str, remedy: str) -> Damaged:
    farmer, shard, _, _, standing = row
    node_id = _node_id(farmer)
    has_shard = isinstance(shard, bytes) and len(shard) == ShardId.SIZE_BYTES
    return Damaged(
        f"its receipt for {_shown(shard)} of farmer {_shown(farmer)}",
        reason,
        remedy if has_shard and node_id is not None else _BACKUP,
        node_id,
        is_farmer=False,
        is_expected=standing not in (Standing.TRASHED, Standing.ERASED),
    )


def _places(addresses: object) -> tuple[str, ...]:
    read = json.loads(_bytes(addresses))
    if not (isinstance(read, list) and read and all(isinstance(one, str) for one in read)):
        raise ValueError("its addresses are none")
    # Joined when a farmer could still name more of them.
    return tuple(read[:ADDRESSES_MAX])


def _node_id(value: object) -> NodeId | None:
    try:
        return NodeId(_bytes(value))
    except ValueError:
        return None


def _bytes(value: object) -> bytes:
    """Return a value that must be a blob; SQLite would keep anything in any column."""
    if not isinstance(value, bytes):
        raise ValueError(f"{_kind(value)} in place of bytes")  # noqa: TRY004 - not our bug
    return value


def _standing(value: object) -> Standing:
    if not isinstance(value, int):
        raise ValueError(f"{_kind(value)} in place of a standing")  # noqa: TRY004 - not our bug
    return Standing(value)


def _kind(value: object) -> str:
    """Return what a value is, and not the value: it may be as long as all the row."""
    match value:
        case bytes():
            return "bytes"
        case Text():
            return "a text"
        case None:
            return "nothing"
        case _:
            return "a number"


def _shown(value: object) -> str:
    """Return the digits of an id, as many as one has: behind them the receipt may begin."""
    raw = value.raw if isinstance(value, Text) else value
    return raw[: NodeId.SIZE_BYTES].hex() if isinstance(raw, bytes) else f"({_kind(value)})"
