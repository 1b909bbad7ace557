"""The owner's desk: invites made and withdrawn, contracts shown, extended and ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from farmer.identity.signing import Signer, format_link, make_invite
from farmer.model.contract import (
    Contract,
    ContractStage,
    InviteLink,
    Offer,
    Price,
)
from farmer.model.ids import ContractId, InviteSerial, NodeId
from farmer.model.shard import Usage
from farmer.running.addresses import NoAddressError
from farmer.running.errors import OwnerError
from farmer.storage.contracts import ContractDatabase, OvercommitError
from farmer.storage.errors import StorageError
from farmer.units import format_size
from farmer.version import SCHEMA

I = TypeVar("I", ContractId, InviteSerial)  # noqa: E741  # an identifier

PREFIX_DIGITS_MIN: Final = 8

_NUMBER_END: Final = 1 << 62
"""A sum of two of them still fits the 63 bits of the wire and of the database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HouseTerms:
    """What a new invite says beside what the owner asks for."""

    price: Price
    addresses: Callable[[], tuple[str, ...]]
    """Where renters reach us; raises `NoAddressError`."""
    capacity_bytes: Callable[[], int]
    """How much contracts and open invites may promise together."""
    usable_bytes: Callable[[], int]
    """How much shards can take now: what they take, and what is still free for them."""


class OwnerDesk:
    """
    Does what the owner asks of the contract database.  Blocking; any one thread at a time.

    *terms* may be replaced at any time; *usage* tells what a renter uses now, None if that
    is not known without a running farmer; *recovery* makes lost contracts again from the shards.
    """

    def __init__(
        self,
        book: ContractDatabase,
        signer: Signer,
        now_ms: Callable[[], int],
        terms: HouseTerms,
        usage: Callable[[NodeId], Usage] | None = None,
        recovery: Callable[[], list[Contract]] | None = None,
    ) -> None:
        self.terms = terms
        self._book = book
        self._signer = signer
        self._now_ms = now_ms
        self._usage = usage
        self._recovery = recovery
        self.verbs: Final[dict[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
            "invite": self._invite,
            "invites": self._invites,
            "invite-withdraw": self._withdraw,
            "contracts": self._contracts,
            "contract": self._contract,
            "contract-extend": self._extend,
            "contract-end": self._end,
            "clock-confirm": self._confirm_clock,
            "contract-recover": self._recover,
        }

    def do(self, verb: str, words: dict[str, Any]) -> dict[str, Any]:
        """
        Return the answer to one command.

        Raises:
            OwnerError: not possible, with the reason.

        """
        try:
            return {"schema": SCHEMA} | self.verbs[verb](words)
        except NoAddressError as error:
            raise OwnerError(str(error)) from error
        except (KeyError, TypeError, ValueError) as error:
            raise OwnerError(f"{verb} was not understood: {error}") from error
        except OvercommitError as error:
            raise OwnerError(
                f"{format_size(error.wanted_bytes)} wanted, but only "
                f"{format_size(error.available_bytes)} are not yet promised by contracts and open "
                "invites: withdraw an invite, or give a volume more quota"
            ) from error
        except StorageError as error:
            raise OwnerError(str(error) or type(error).__name__) from error

    def open_invites(self) -> list[dict[str, Any]]:
        """Return a row for each invite that can still be redeemed, the oldest first."""
        return [self._invite_row(serial, offer) for serial, offer in self._book.open_invites()]

    def has_contracts(self) -> bool:
        """Tell whether any renter ever redeemed an invite."""
        return bool(self._book.contracts())

    def spare_bytes(self) -> int:
        """Return what may be promised still, and what the volumes can hold of that now."""
        most_bytes = min(self.terms.capacity_bytes(), self.terms.usable_bytes())
        return max(0, most_bytes - self._book.promised_bytes())

    def make_invite(self, offer: Offer) -> dict[str, Any]:
        """Mint an invite and return its row; raises as `do`, and `NoAddressError`."""
        # The addresses first: an invite that cannot be shown must not be open.
        self.terms.addresses()
        serial = self._book.mint(offer, self.terms.capacity_bytes())
        return self._invite_row(serial, offer)

    def _invite(self, words: dict[str, Any]) -> dict[str, Any]:
        now_ms = self._now_ms()
        space_bytes, duration_ms = _whole(words, "space_bytes"), _whole(words, "duration_ms")
        expires_ms = _whole(words, "expires_ms")
        if not (space_bytes and duration_ms and expires_ms):
            raise OwnerError("an invite needs some space, and some time to last and to be open")
        row = self.make_invite(
            Offer(
                space_bytes=space_bytes,
                duration_ms=duration_ms,
                created_at_ms=now_ms,
                expires_at_ms=now_ms + expires_ms,
                price=self._price(words),
            )
        )
        return row | self._warned()

    def _warned(self) -> dict[str, Any]:
        """Return a `warning` if more is promised than the disks can hold now."""
        promised_bytes, usable_bytes = self._book.promised_bytes(), self.terms.usable_bytes()
        if promised_bytes <= usable_bytes:
            return {}
        return {
            "warning": f"{format_size(promised_bytes)} are promised now by contracts and open "
            f"invites, but the volumes can hold {format_size(usable_bytes)} of shards: the last "
            "renters to store will be refused with NO_SPACE. Free space on the disks, add a "
            "volume, or withdraw an invite"
        }

    def _price(self, words: dict[str, Any]) -> Price:
        usual = self.terms.price
        stored = _whole(words, "stored_micros", optional=True)
        served = _whole(words, "served_micros", optional=True)
        currency = words.get("currency") or usual.currency
        if not isinstance(currency, str):
            raise OwnerError("a currency is a word, like EUR")
        if (stored or served) and not currency:
            raise OwnerError("a price needs a currency: add --currency EUR, or set price.currency")
        return Price(
            currency=currency,
            stored_micros=usual.stored_micros if stored is None else stored,
            served_micros=usual.served_micros if served is None else served,
        )

    def _invites(self, _words: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"invites": self.open_invites()}
        except NoAddressError:
            # Whoever cannot show them to anybody may still withdraw them.
            opened = self._book.open_invites()
            return {"invites": [{"invite": ""} | _offer_row(*one) for one in opened]}

    def _withdraw(self, words: dict[str, Any]) -> dict[str, Any]:
        known = [serial for serial, _ in self._book.open_invites()]
        serial = _chosen(str(words["serial"]), known, "open invite", "farmer invite list")
        self._book.withdraw(serial)
        return {"serial": str(serial)}

    def _contracts(self, _words: dict[str, Any]) -> dict[str, Any]:
        return {"contracts": [self._contract_row(*row) for row in self._book.contracts()]}

    def _contract(self, words: dict[str, Any]) -> dict[str, Any]:
        return self._shown(self._named(words))

    def _extend(self, words: dict[str, Any]) -> dict[str, Any]:
        chosen = self._named(words)
        space_bytes = _whole(words, "space_bytes", optional=True)
        now_bytes = self._contract_of(chosen).space_bytes
        if space_bytes is not None and space_bytes < now_bytes:
            raise OwnerError(
                f"the contract has {format_size(now_bytes)} already; it may get more, not less"
            )
        self._book.extend(
            chosen,
            _whole(words, "for_ms"),
            space_bytes,
            capacity_bytes=self.terms.capacity_bytes(),
        )
        return self._shown(chosen) | self._warned()

    def _end(self, words: dict[str, Any]) -> dict[str, Any]:
        chosen = self._named(words)
        had_ended = self._contract_of(chosen).until_ms <= self._now_ms()
        self._book.end(chosen)
        return self._shown(chosen) | {"had_ended": had_ended}

    def _recover(self, _words: dict[str, Any]) -> dict[str, Any]:
        if self._recovery is None:
            raise OwnerError("contracts are made again from the volumes, and those are not open")
        made = {contract.contract for contract in self._recovery()}
        rows = [row for row in self._book.contracts() if row[0].contract in made]
        return {"contracts": [self._contract_row(*row) for row in rows]}

    def _confirm_clock(self, _words: dict[str, Any]) -> dict[str, Any]:
        self._book.clock.confirm(self._now_ms())
        return {"now_ms": self._now_ms()}

    def _named(self, words: dict[str, Any]) -> ContractId:
        known: list[ContractId] = [contract.contract for contract, _ in self._book.contracts()]
        return _chosen(str(words["contract"]), known, "contract", "farmer contract list")

    def _contract_of(self, chosen: ContractId) -> Contract:
        return next(one for one, _ in self._book.contracts() if one.contract == chosen)

    def _shown(self, chosen: ContractId) -> dict[str, Any]:
        rows = self._book.contracts()
        row = next(row for row in rows if row[0].contract == chosen)
        return {"contract": self._contract_row(*row)}

    def _invite_row(self, serial: InviteSerial, offer: Offer) -> dict[str, Any]:
        link = InviteLink(
            farmer=self._signer.node_id,
            addresses=self.terms.addresses(),
            invite=make_invite(self._signer, serial, offer),
        )
        return {"invite": format_link(link)} | _offer_row(serial, offer)

    def _contract_row(self, contract: Contract, stage: ContractStage) -> dict[str, Any]:
        used = self._usage(contract.renter).total_bytes if self._usage is not None else None
        return {
            "contract": str(contract.contract),
            "renter": str(contract.renter),
            "stage": stage.name.lower(),
            "space_bytes": contract.space_bytes,
            "used_bytes": used,
            "from_ms": contract.from_ms,
            "until_ms": contract.until_ms,
            "revision": contract.revision,
            "price": _price_row(contract.price),
        }


def _chosen(text: str, known: Sequence[I], noun: str, listing: str) -> I:
    """Return the one of *known* that begins with *text*, hex of at least eight digits."""
    found = [one for one in known if str(one).startswith(text.lower())]
    if len(text) < PREFIX_DIGITS_MIN or len(found) > 1:
        raise OwnerError(f"{text!r} is too short to name one {noun}; see: {listing}")
    if not found:
        raise OwnerError(f"there is no {noun} {text!r}; see: {listing}")
    return found[0]


def _whole(words: dict[str, Any], name: str, *, optional: bool = False) -> Any:  # noqa: ANN401  # int, or None if *optional*
    """Return a whole number that a contract can have; raises ValueError, KeyError."""
    value = words.get(name) if optional else words[name]
    if value is None and optional:
        return None
    if type(value) is not int or not 0 <= value < _NUMBER_END:
        raise ValueError(f"{name} is no whole number below 2^62")
    return value


def _offer_row(serial: InviteSerial, offer: Offer) -> dict[str, Any]:
    return {
        "serial": str(serial),
        "space_bytes": offer.space_bytes,
        "duration_ms": offer.duration_ms,
        "expires_at_ms": offer.expires_at_ms,
        "price": _price_row(offer.price),
    }


def _price_row(price: Price) -> dict[str, Any]:
    return {
        "currency": price.currency,
        "stored_micros": price.stored_micros,
        "served_micros": price.served_micros,
    }
