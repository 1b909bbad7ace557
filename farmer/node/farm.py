"""What every handler works with: the farmer as the serving side sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from twisted.internet.interfaces import IReactorTime

from farmer.identity.signing import Signer
from farmer.model.contract import FREE, GRACE_MS, Contract, ContractStage, Price
from farmer.model.ids import NodeId
from farmer.node.budget import AuditBudget
from farmer.node.gate import Gate
from farmer.node.ports import ContractBook, Disk, Meter, ShardStore
from farmer.protocol.limits import SMALL_BYTES_IN_FLIGHT_MAX
from farmer.storage.errors import ContractEndedError, NoContractError
from farmer.version import VERSION

SHARD_BYTES_DEFAULT: Final = 64 * 1024 * 1024
SOFTWARE: Final = f"farmer/{VERSION}"

PROOF_BYTES_IN_FLIGHT_MAX: Final = 8 * 1024 * 1024
"""Sample proofs being made, over all sessions: 1024 leaves are 4 MiB, a 4 GiB tree is 2.25 MiB."""

WHOLE_BYTES_IN_FLIGHT_MAX: Final = 8 * 1024 * 1024
"""Shards of at most 64 KiB being made durable, over all sessions: some hundred in one sync."""

FULL_AUDITS_MAX: Final = 2
"""Full audits read whole shards: more at once would keep all threads from the others."""


RESUMES_MAX: Final = 2
"""Unfinished stores being read again: a few bytes from a renter make us read up to 4 GiB."""


PARTS_BUDGET_BYTES_MIN: Final = 64 * 1024**3
PARTS_BUDGET_STORED_FACTOR: Final = 4
"""
What small parts of shards may make us read besides what is sent, like the budget for audits:
hundreds of thousands of single bytes a day.
"""

STRANGERS_MAX: Final = 2
"""Requests of strangers with a thread, or waiting for one: renters' work stands behind no more."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the owner may change while the farmer runs."""

    shard_bytes_max: int = SHARD_BYTES_DEFAULT
    price: Price = FREE


@dataclass(slots=True)
class Served:
    """What was done for renters since the start."""

    requests: int = 0
    """Answered, or given up."""
    moved_bytes: int = 0
    """Payload, in either direction."""
    took_s: float = 0.0
    """All of them together: in a second, how many were served at once."""


@dataclass(slots=True, kw_only=True)
class Farm:
    """Everything a request may need; `terms` and `draining` may change at any time."""

    signer: Signer
    store: ShardStore
    book: ContractBook
    disk: Disk
    meter: Meter
    clock: IReactorTime
    now_ms: Callable[[], int]
    terms: Terms = Terms()
    draining: bool = False
    served: Served = field(default_factory=Served)
    budget: AuditBudget = field(default_factory=AuditBudget)
    """What audits may have read."""
    resuming: AuditBudget = field(default_factory=AuditBudget)
    """What unfinished stores may have read again; as much, but apart from it."""
    parts: AuditBudget = field(
        default_factory=lambda: AuditBudget(PARTS_BUDGET_BYTES_MIN, PARTS_BUDGET_STORED_FACTOR)
    )
    """What retrieves of little may have read besides."""
    small_stores: Gate = field(default_factory=lambda: Gate(SMALL_BYTES_IN_FLIGHT_MAX))
    """Small shards of more than one step: from the promise of space on, at their whole size."""
    whole_stores: Gate = field(default_factory=lambda: Gate(WHOLE_BYTES_IN_FLIGHT_MAX))
    """Shards of one step, once all of it is here: their renters cannot hold it up."""
    proofs: Gate = field(default_factory=lambda: Gate(PROOF_BYTES_IN_FLIGHT_MAX))
    resumes: Gate = field(default_factory=lambda: Gate(RESUMES_MAX))
    full_audits: Gate = field(default_factory=lambda: Gate(FULL_AUDITS_MAX))
    strangers: Gate = field(default_factory=lambda: Gate(STRANGERS_MAX))

    def reading_contract(self, renter: NodeId) -> Contract:
        """
        Return the contract of a renter who may read and delete.  Blocking.

        Raises:
            NoContractError: none, or one that ended longer ago than the grace.

        """
        contract, stage = self.book.find(renter)
        if stage not in (ContractStage.ACTIVE, ContractStage.GRACE):
            raise NoContractError
        return contract

    def storing_contract(self, renter: NodeId) -> Contract:
        """
        Return the contract of a renter who may store.  Blocking.

        Raises:
            NoContractError, ContractEndedError.

        """
        contract, stage = self.book.find(renter)
        match stage:
            case ContractStage.ACTIVE:
                return contract
            case ContractStage.GRACE:
                raise ContractEndedError(contract.until_ms, contract.until_ms + GRACE_MS)
            case ContractStage.TRASH | ContractStage.GONE:
                raise NoContractError
