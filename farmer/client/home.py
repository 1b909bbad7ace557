"""A renter's home directory: its identity and its ledger."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from farmer.client.checks import check_promise
from farmer.client.dial import FarmerAddress
from farmer.client.errors import NotJoinedError
from farmer.client.ledger import Ledger, LedgerError
from farmer.client.ledger_rows import Entry, Standing
from farmer.identity.keys import Identity, IdentityError
from farmer.model.contract import Contract, Receipt
from farmer.model.ids import NodeId, ShardId

LEDGER_FILE: Final = "ledger.sqlite"

PREFIX_DIGITS_MIN: Final = 8
"""Digits of a shard id that stand for it among a renter's own receipts."""


_BEGINNING: Final = re.compile(f"[0-9a-f]{{{PREFIX_DIGITS_MIN},{2 * ShardId.SIZE_BYTES - 1}}}")


class UnknownShardError(ValueError):
    """Neither a shard id nor the beginning of exactly one in the receipts."""


class NotStoredError(UnknownShardError):
    """The beginning of an id of none of the shards in the receipts; says what to do."""


class UnknownHomeError(ValueError):
    """A directory begins with `~`, and nobody knows where that is; says what to do."""


def named_home(text: str) -> Path:
    """Return the directory that was typed; raises `UnknownHomeError`."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UnknownHomeError(
            f"{text}: this machine does not know where {Path(text).parts[0]} is: name a home with "
            "--home or RENTER_HOME"
        ) from error


def default_home(environment: Mapping[str, str]) -> Path:
    """
    Return `RENTER_HOME`, or `renter` in the user's data directory.

    Raises:
        UnknownHomeError: neither can be told.

    """
    named = environment.get("RENTER_HOME")
    if named:
        return named_home(named)
    # The XDG specification says that a relative path is to be ignored.
    data = environment.get("XDG_DATA_HOME", "")
    return named_home(data if data.startswith("/") else "~/.local/share") / "renter"


@dataclass(frozen=True, slots=True)
class Home:
    """Who we are, and what we know."""

    identity: Identity
    ledger: Ledger

    @classmethod
    def open(cls, directory: Path) -> Self:
        """
        Open a home; made with a new identity if there is none yet.

        Raises:
            IdentityError, LedgerError: what is there cannot be used; says what to do.

        """
        if directory.exists() and not directory.is_dir():
            raise IdentityError(
                f"{directory} is not a directory, as a home is: name another with --home or "
                "RENTER_HOME"
            )
        identity = Identity.load_or_create(directory)
        return cls(identity, Ledger.open(directory / LEDGER_FILE))

    def farmer(self, prefix: str = "") -> FarmerAddress:
        """
        Return the farmer whose id begins so; without a prefix the one joined last.

        Raises:
            NotJoinedError: none or more than one.
            LedgerError: which was joined last cannot be told.

        """
        joined = self.ledger.farmers()
        if not prefix:
            self._check_farmers()
        if not joined:
            raise NotJoinedError("no farmer was joined yet; type: renter join INVITE")
        found = [one for one in joined if str(one.farmer).startswith(prefix.lower())]
        if not found or (prefix and len(found) > 1):
            count = "no joined farmer has" if not found else f"{len(found)} joined farmers have"
            raise NotJoinedError(f"{count} an id that begins with {prefix!r}")
        return found[0]

    def _check_farmers(self) -> None:
        """Refuse to guess who is the default: bytes would go to another farmer than usual."""
        for one in self.ledger.damaged:
            if one.is_farmer:
                raise LedgerError(f"{one}, or name another with --farmer")

    def shard(self, text: str) -> ShardId:
        """
        Return the shard of a whole id, or of the beginning of one in the receipts.

        Raises:
            UnknownShardError: neither.
            NotStoredError: of none in the receipts.

        """
        lowered = text.lower()
        if _BEGINNING.fullmatch(lowered):
            found = {entry.receipt.shard for entry in self.ledger.entries(lowered)}
            if len(found) == 1:
                return found.pop()
            if found:
                raise UnknownShardError(
                    f"{len(found)} shards begin with {text!r}; type more of it"
                )
            raise NotStoredError(
                f"no shard that you stored begins with {text!r}: renter list shows all that the "
                "farmer has of yours; one without a receipt has to be named by its whole id"
            )
        try:
            return ShardId.parse(lowered)
        except ValueError as error:
            raise UnknownShardError(
                f"{text!r} is not a shard id: 64 hex digits, or the first "
                f"{PREFIX_DIGITS_MIN} or more of one that you stored"
            ) from error

    def entry(
        self, shard: ShardId, prefix: str = "", standing: Standing = Standing.HELD
    ) -> Entry | None:
        """
        Return the receipt for a shard, of the farmer named or of any.

        Of several, one of the *standing* that is looked for, else the one that is least gone.
        One that is not as the farmer signed it is none.
        """
        found = self._entries(shard, prefix, standing)
        return next(filter(self.ledger.is_sound, found), None)

    def _entries(self, shard: ShardId, prefix: str, standing: Standing) -> list[Entry]:
        found = [
            entry
            for entry in self.ledger.entries(str(shard))
            if str(entry.farmer).startswith(prefix.lower())
        ]
        return sorted(found, key=lambda entry: (entry.standing is not standing, entry.standing))

    def keep(
        self, farmer: NodeId, receipt: Receipt, file: str, before: Contract | None = None
    ) -> None:
        """
        Keep a receipt in the ledger, as `Ledger.keep`; without a file, that of an earlier one.

        *before* is the contract in the ledger before the farmer was asked for the receipt.

        Raises:
            FarmerBrokeProtocolError: it is not under the contract that the farmer showed last,
                nor under that one.

        """
        agreed = self.ledger.contract(farmer)
        if agreed is not None:
            check_promise(receipt, agreed, before)
        known = None if file else self.entry(receipt.shard, str(farmer))
        self.ledger.keep(farmer, receipt, file if known is None else known.file)

    def holder(
        self, shard: ShardId, prefix: str = "", standing: Standing = Standing.HELD
    ) -> FarmerAddress:
        """Return the farmer to ask for a shard: by its receipt (see `entry`), else as `farmer`."""
        found = self._entries(shard, prefix, standing)
        return self.farmer(str(found[0].farmer) if found else prefix)

    def held(self, prefix: str = "") -> dict[NodeId, list[Entry]]:
        """Return what the receipts say is stored, by farmer: what an audit of all asks for."""
        held: dict[NodeId, list[Entry]] = {}
        for entry in self.ledger.entries():
            mine = str(entry.farmer).startswith(prefix.lower())
            if entry.standing is Standing.HELD and mine:
                held.setdefault(entry.farmer, []).append(entry)
        return held
