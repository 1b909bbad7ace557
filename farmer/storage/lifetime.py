"""
When a contract moves on: a plan from times and stages, carried out elsewhere.

    ACTIVE --end--> GRACE --14 d--> TRASH --7 d--> GONE

Grace and trash must last their length twice: on the wall clock since the contract's end, and
in the time that the farmer was seen to run since the stage began.  So a clock that was wrong,
or a machine that was off, takes no day of it away.  The end itself goes by the wall clock
alone: it is the date that was agreed, and destroys nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from farmer.model.contract import GRACE_MS, TRASH_MS, Contract, ContractStage
from farmer.model.ids import ContractId


@dataclass(frozen=True, slots=True)
class HeldContract:
    """A contract and where it stands."""

    contract: Contract
    stage: ContractStage
    since_observed_ms: int
    """What the farmer's observed running time was when the stage began."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A contract and the stage that it moves to."""

    contract: ContractId
    to: ContractStage


@dataclass(frozen=True, slots=True)
class _Term:
    """How long a stage lasts, where it ends after the contract's end, and what follows."""

    length_ms: int
    ends_after_ms: int
    then: ContractStage


_TERMS: Final = {
    ContractStage.GRACE: _Term(GRACE_MS, GRACE_MS, ContractStage.TRASH),
    ContractStage.TRASH: _Term(TRASH_MS, GRACE_MS + TRASH_MS, ContractStage.GONE),
}


def plan_transitions(
    held: Iterable[HeldContract], now_ms: int, observed_ms: int
) -> Iterator[Transition]:
    """Return what has to move now; one stage at a time, so that each one lasts."""
    for one in held:
        to = _next_stage(one, now_ms, observed_ms)
        if to is not one.stage:
            yield Transition(one.contract.contract, to)


def stage_at(held: HeldContract, now_ms: int) -> ContractStage:
    """
    Return the stage as it counts now, between two sweeps.

    A contract that has just ended takes no more stores, and one that was renewed, or whose
    end the clock had wrong, is active; only a sweep goes further.
    """
    if held.stage is ContractStage.GONE:
        return held.stage
    if now_ms < held.contract.until_ms:
        return ContractStage.ACTIVE
    return max(held.stage, ContractStage.GRACE)


def _next_stage(held: HeldContract, now_ms: int, observed_ms: int) -> ContractStage:
    stage = stage_at(held, now_ms)
    term = _TERMS.get(held.stage)
    if term is None or stage is not held.stage:
        return stage
    over = now_ms >= held.contract.until_ms + term.ends_after_ms
    lasted = observed_ms - held.since_observed_ms >= term.length_ms
    return term.then if over and lasted else stage
