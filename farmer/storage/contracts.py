"""
Contracts and invites, durable: who may store how much until when.

Every change is one transaction, on the disk before the call returns.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from farmer.model.contract import Contract, ContractStage, Offer, renewed
from farmer.model.ids import ContractId, InviteSerial, NodeId
from farmer.storage import book_rows
from farmer.storage.book import Book
from farmer.storage.book_rows import InviteState, KnownInvite
from farmer.storage.census import Census, Counting
from farmer.storage.clock import DurableClock
from farmer.storage.errors import (
    BusyError,
    InviteExpiredError,
    InviteSpentError,
    InviteUnknownError,
    NoContractError,
    StorageError,
    VolumeUnavailableError,
)
from farmer.storage.generation import Generation
from farmer.storage.history import BookHistory
from farmer.storage.lifetime import HeldContract, plan_transitions, stage_at
from farmer.storage.remembered import RememberedContracts

DURATION_MS_MAX: Final = 100 * 366 * 86_400_000
"""A hundred years: no sum of a few of them with a time leaves 63 bits."""

SPACE_BYTES_MAX: Final = 1 << 50
"""A pebibyte in one contract: no sum of many of them leaves 63 bits."""


class OvercommitError(StorageError):
    """More would be promised than there is."""

    def __init__(self, wanted_bytes: int, available_bytes: int) -> None:
        super().__init__(
            f"{wanted_bytes} bytes wanted, but only {available_bytes} are not yet promised "
            "by contracts and open invites: withdraw an invite, or give a volume more quota"
        )
        self.wanted_bytes = wanted_bytes
        self.available_bytes = available_bytes


class ContractDatabase:
    """
    The contract book of one farmer (`farmer.node.ports.ContractBook`) and its owner's verbs.

    Blocking; any thread.  *now_ms* is the wall clock, *digest* gives what the next revision
    of a contract holds as `previous`.  A disk that fails is a `VolumeUnavailableError`.
    """

    def __init__(
        self,
        path: Path,
        *,
        farmer_key: bytes,
        now_ms: Callable[[], int],
        digest: Callable[[Contract], bytes],
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """
        Open the database, or make it.

        Raises:
            FormatTooNewError, BookDamagedError, BookForeignError: nothing was touched.

        """
        self._book = Book(path, farmer_key)
        self._counting = Counting(self._book)
        self.clock: Final = DurableClock(self._book)
        self.history: Final = BookHistory(self._book, now_ms)
        self.witness: Callable[[Generation], None] = lambda _generation: None
        """Keeps a generation where a lost or older database is found out by it; durably, or
        it raises a `StorageError`."""
        self.consult: Callable[[], None] = lambda: None
        """Asks all who keep generations whether this database is older, before it is changed;
        raises a `StorageError` if nobody could bear witness to the change."""
        self.farmer_key: Final = farmer_key
        self._remembered = RememberedContracts()
        self._now_ms = now_ms
        self._digest = digest
        self._random_bytes = random_bytes

    def close(self) -> None:
        """
        Keep what the clock saw and close the file; safe twice.

        A disk that does not take it costs what a crash would, minutes of what was observed, and
        keeps nobody from ending: `failure` says why.
        """
        try:
            with suppress(VolumeUnavailableError):
                if self._book.is_open:
                    self.clock.save()
        finally:
            self._book.close()

    @property
    def failure(self) -> str:
        """Why the file could not be used, for a person; empty again when it took a change."""
        return self._book.failure

    # What renters do.

    def redeem(self, serial: InviteSerial, renter: NodeId) -> Contract:
        """
        Spend an invite and make or renew the renter's contract, in one durable transaction.

        The same renter redeeming the same invite again gets the same contract, as it is now,
        until it is gone.

        Raises:
            InviteUnknownError, InviteExpiredError, InviteSpentError.
            BusyError: the shards of the renter's last contract are being removed just now.
            VolumeUnavailableError: no volume can witness it; it may have happened: try again.

        """
        with self._changing(must_be_witnessed=True) as rows:
            invite = _known(rows, serial)
            live = book_rows.find_contract_of(rows, self.farmer_key, renter)
            if invite.state is InviteState.SPENT:
                return _given(invite, live)
            if self._now_ms() >= invite.offer.expires_at_ms:
                raise InviteExpiredError(invite.offer.expires_at_ms)
            contract = self._contract_for(rows, renter, live, invite.offer)
            self._put(rows, contract, ContractStage.ACTIVE)
            book_rows.spend_invite(rows, serial, renter, contract.contract)
        return contract

    def find(self, renter: NodeId) -> tuple[Contract, ContractStage]:
        """Return the renter's contract and its stage now; raises `NoContractError`."""
        held = self._remembered.find(renter, self._book.changes)
        if held is None:
            with self._book.reading() as rows:
                as_of = self._book.changes
                held = book_rows.find_contract_of(rows, self.farmer_key, renter)
            if held is None:
                raise NoContractError
            self._remembered.keep(renter, held, as_of)
        return held.contract, self._stage(held)

    # What the owner does.

    def mint(self, offer: Offer, capacity_bytes: int) -> InviteSerial:
        """
        Make an open invite.

        *capacity_bytes* is what contracts and open invites may promise together.

        Raises:
            OvercommitError: they would promise more.
            ValueError: an offer beyond all measure.

        """
        if offer.duration_ms > DURATION_MS_MAX or offer.space_bytes > SPACE_BYTES_MAX:
            raise ValueError("an offer has a hundred years and 2^50 bytes at most")
        serial = InviteSerial(self._random_bytes(InviteSerial.SIZE_BYTES))
        with self._changing() as rows:
            self._check_room(rows, offer.space_bytes, capacity_bytes)
            book_rows.add_invite(rows, serial, offer)
        return serial

    def open_invites(self) -> list[tuple[InviteSerial, Offer]]:
        """Return what can still be redeemed, the oldest first."""
        with self._book.reading() as rows:
            invites = book_rows.open_invites(rows, self._now_ms())
        return [(invite.serial, invite.offer) for invite in invites]

    def withdraw(self, serial: InviteSerial) -> None:
        """
        Make an open invite worthless.

        Raises:
            InviteUnknownError: or withdrawn before.
            InviteSpentError.

        """
        with self._changing() as rows:
            if _known(rows, serial).state is InviteState.SPENT:
                raise InviteSpentError("this invite was redeemed; end its contract instead")
            book_rows.withdraw_invite(rows, serial)

    def promised_bytes(self) -> int:
        """Return the space of open invites, and of contracts whose shards are not all removed."""
        with self._book.reading() as rows:
            return book_rows.promised_bytes(rows, self._now_ms())

    def contracts(self) -> list[tuple[Contract, ContractStage]]:
        """Return all contracts that are not gone, with their stages now, the oldest first."""
        with self._book.reading() as rows:
            held = list(book_rows.live_contracts(rows, self.farmer_key))
        return [(one.contract, self._stage(one)) for one in held]

    def census(self) -> Census:
        """Return how many contracts and open invites there are now; cheap if nothing happened."""
        return self._counting.census(self._now_ms(), trusted=self.clock.trusted)

    def extend(
        self,
        contract: ContractId,
        for_ms: int,
        space_bytes: int | None = None,
        *,
        capacity_bytes: int | None = None,
    ) -> Contract:
        """
        Let a contract last *for_ms* longer, from its end, or from now if that is over.

        It may get more space with it, within *capacity_bytes* if that is given.

        Raises:
            NoContractError: there is none of that id, or it is gone.
            OvercommitError: more would be promised than *capacity_bytes*.
            ValueError: less space, or beyond all measure.

        """
        with self._changing() as rows:
            old = self._named(rows, contract)
            space = old.space_bytes if space_bytes is None else space_bytes
            if not (0 < for_ms <= DURATION_MS_MAX and old.space_bytes <= space <= SPACE_BYTES_MAX):
                raise ValueError(
                    "an extension adds up to a hundred years and takes no space away; "
                    f"the contract has {old.space_bytes} bytes"
                )
            if capacity_bytes is not None and space > old.space_bytes:
                self._check_room(rows, space - old.space_bytes, capacity_bytes)
            until_ms = max(old.until_ms, self._now_ms()) + for_ms
            new = self._revised(old, space, until_ms)
            self._put(rows, new, ContractStage.ACTIVE)
        return new

    def end(self, contract: ContractId) -> Contract:
        """End a contract now, unless it is over; grace begins.  Raises `NoContractError`."""
        with self._changing() as rows:
            old = self._named(rows, contract)
            now_ms = self._now_ms()
            if old.until_ms <= now_ms:
                return old
            new = self._revised(old, old.space_bytes, now_ms)
            self._put(rows, new, ContractStage.GRACE)
        return new

    # What time does.

    def advance(self, now_ms: int) -> list[Contract]:
        """
        Move contracts on to the stages that are due, unless the clock is in doubt.

        Returns the contracts that are gone and whose shards are still to be removed, also
        those that an earlier run left: remove them, then say `purged`.
        """
        if not self.clock.trusted:
            return []
        observed_ms = self.clock.observed_ms
        with self._changing() as rows:
            held = book_rows.live_contracts(rows, self.farmer_key)
            for due in list(plan_transitions(held, now_ms, observed_ms)):
                book_rows.move_contract(rows, due.contract, due.to, observed_ms)
        return self.to_purge()

    def to_purge(self) -> list[Contract]:
        """Return the contracts that are gone and whose shards may not be."""
        with self._book.reading() as rows:
            gone = book_rows.contracts_to_purge(rows, self.farmer_key)
        return [held.contract for held in gone]

    def purged(self, contract: ContractId) -> None:
        """Keep in mind, durably, that no shard of this contract is left."""
        with self._changing() as rows:
            book_rows.mark_purged(rows, contract)

    # When the database is not what it was.

    def adopt(self, contracts: Iterable[Contract]) -> list[Contract]:
        """
        Enter contracts that were made again; return those that were.

        A renter who has a contract, or one whose shards are being removed, keeps that.
        """
        adopted = []
        with self._changing() as rows:
            known = book_rows.known_renters(rows)
            for contract in contracts:
                if contract.renter.raw not in known:
                    self._put(rows, contract, ContractStage.ACTIVE)
                    adopted.append(contract)
        return adopted

    @contextmanager
    def _changing(self, *, must_be_witnessed: bool = False) -> Iterator[sqlite3.Connection]:
        """Change the database durably, and let the volumes know how far it is."""
        with _tried(raises=must_be_witnessed):
            self.consult()
        with self._book.changing() as rows:
            yield rows
        with _tried(raises=must_be_witnessed):
            self.witness(self._book.generation)

    def _stage(self, held: HeldContract) -> ContractStage:
        return stage_at(held, self._now_ms()) if self.clock.trusted else held.stage

    def _put(self, rows: sqlite3.Connection, contract: Contract, stage: ContractStage) -> None:
        book_rows.put_contract(rows, HeldContract(contract, stage, self.clock.observed_ms))

    def _named(self, rows: sqlite3.Connection, contract: ContractId) -> Contract:
        held = book_rows.find_contract(rows, self.farmer_key, contract)
        if held is None:
            raise NoContractError(f"there is no contract {contract}, or it is gone")
        return held.contract

    def _check_room(self, rows: sqlite3.Connection, more_bytes: int, capacity_bytes: int) -> None:
        available_bytes = capacity_bytes - book_rows.promised_bytes(rows, self._now_ms())
        if more_bytes > available_bytes:
            raise OvercommitError(more_bytes, max(0, available_bytes))

    def _contract_for(
        self, rows: sqlite3.Connection, renter: NodeId, live: HeldContract | None, offer: Offer
    ) -> Contract:
        """Return the contract that an offer makes, or makes of the one that there is."""
        now_ms = self._now_ms()
        if live is not None:
            return renewed(live.contract, offer, now_ms, self._digest(live.contract))
        # A shard of the old contract could be taken for one of the new, and then be removed.
        if book_rows.is_being_purged(rows, renter):
            raise BusyError("the shards of the last contract are being removed; try again soon")
        return Contract(
            contract=ContractId(self._random_bytes(ContractId.SIZE_BYTES)),
            farmer_key=self.farmer_key,
            renter=renter,
            revision=1,
            space_bytes=offer.space_bytes,
            from_ms=now_ms,
            until_ms=now_ms + offer.duration_ms,
            price=offer.price,
            issued_at_ms=now_ms,
        )

    def _revised(self, old: Contract, space_bytes: int, until_ms: int) -> Contract:
        return replace(
            old,
            revision=old.revision + 1,
            space_bytes=space_bytes,
            until_ms=until_ms,
            issued_at_ms=self._now_ms(),
            previous=self._digest(old),
        )


@contextmanager
def _tried(*, raises: bool) -> Iterator[None]:
    try:
        yield
    except StorageError:
        if raises:
            raise


def _known(rows: sqlite3.Connection, serial: InviteSerial) -> KnownInvite:
    invite = book_rows.find_invite(rows, serial)
    if invite is None or invite.state is InviteState.WITHDRAWN:
        raise InviteUnknownError("this invite was never made here, or was withdrawn")
    return invite


def _given(invite: KnownInvite, live: HeldContract | None) -> Contract:
    """Return what a spent invite gave to the renter who holds *live*."""
    if live is None or (live.contract.renter, live.contract.contract) != (
        invite.renter,
        invite.contract,
    ):
        raise InviteSpentError("this invite has been redeemed")
    return live.contract
