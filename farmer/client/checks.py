"""What a farmer signs and answers, held against what was asked: nothing is taken on trust."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from farmer.client.errors import FarmerBrokeProtocolError
from farmer.client.terms import less_than_offered
from farmer.identity.signing import contract_is_valid, node_id_of_key, receipt_is_valid
from farmer.model.contract import Contract, Offer, Receipt
from farmer.model.ids import NodeId, ShardId
from farmer.model.shard import SHARD_BYTES_MAX, charge_bytes
from farmer.protocol.questions import ContractShown, Listed, Pong, Stated


@dataclass(frozen=True, slots=True)
class Checks:
    """
    Checks for one farmer and one renter.

    Each method returns what it was given; it raises `FarmerBrokeProtocolError` if that is
    not an honest answer.
    """

    farmer: NodeId
    renter: NodeId

    def contract(self, shown: ContractShown) -> ContractShown:
        """Check a contract: between us two, and signed."""
        contract = shown.contract
        if node_id_of_key(contract.farmer_key) != self.farmer or contract.renter != self.renter:
            raise FarmerBrokeProtocolError("the farmer showed a contract of somebody else")
        if not contract_is_valid(contract, shown.signature):
            raise FarmerBrokeProtocolError("the farmer's signature under the contract is wrong")
        return shown

    def redeemed(self, shown: ContractShown, offer: Offer) -> ContractShown:
        """Check what an invite gave as `contract` does, and that it is no less than the offer."""
        if lacking := less_than_offered(self.contract(shown).contract, offer):
            raise FarmerBrokeProtocolError(
                f"the farmer's contract has {lacking} than its invite, and was not taken: if you"
                " redeemed that before, it may have ended since or have another price, else ask"
                " the farmer why; renter join --anyway takes it as it is"
            )
        return shown

    def receipt(self, receipt: Receipt, shard: ShardId, size_bytes: int) -> Receipt:
        """Check a receipt: by this farmer, for us, for this shard, and signed."""
        if node_id_of_key(receipt.farmer_key) != self.farmer or receipt.renter != self.renter:
            raise FarmerBrokeProtocolError("the farmer gave a receipt of somebody else")
        if (receipt.shard, receipt.size_bytes) != (shard, size_bytes):
            raise FarmerBrokeProtocolError("the farmer gave a receipt for another shard")
        if receipt.charge_bytes != charge_bytes(size_bytes):
            raise FarmerBrokeProtocolError("the farmer's receipt charges another sum than agreed")
        if not receipt_is_valid(receipt):
            raise FarmerBrokeProtocolError("the farmer's signature under the receipt is wrong")
        return receipt

    def stated(self, stated: Stated, shard: ShardId) -> Stated:
        """Check that the answer is about the shard that was asked for, and possible."""
        if stated.shard != shard:
            raise FarmerBrokeProtocolError("the farmer spoke of another shard")
        _check_size(stated)
        return stated

    def page(self, listed: Listed, after: ShardId, limit: int) -> Listed:
        """Check a page: ascending from the last one, not too long, and not promising for ever."""
        ids = [after, *(entry.shard for entry in listed.entries)]
        ascending = all(one < other for one, other in pairwise(ids))
        if not ascending or len(listed.entries) > limit:
            raise FarmerBrokeProtocolError("the farmer's list is out of order or too long")
        for entry in listed.entries:
            _check_size(entry)
        if listed.more and not listed.entries:
            raise FarmerBrokeProtocolError("the farmer's list promises more and has nothing")
        return listed

    def pong(self, pong: Pong, token: int) -> Pong:
        """Check that it answers this ping."""
        if pong.token != token:
            raise FarmerBrokeProtocolError("the farmer answered another ping")
        return pong


def check_promise(receipt: Receipt, agreed: Contract, before: Contract | None = None) -> None:
    """
    Check that a receipt is under the contract that the farmer showed, and until its end.

    The one that it showed *before* it was asked for the shard will do, too: another program may
    have renewed the contract since.
    """
    if _keeps(receipt, agreed) or (before is not None and _keeps(receipt, before)):
        return
    is_same = receipt.contract == agreed.contract
    what = "ends before the contract" if is_same else "is under another contract than the one"
    raise FarmerBrokeProtocolError(
        f"the farmer's receipt {what} that it showed last, and was not kept; renter contract shows"
        " the one that it has now, to which receipts are held from then on"
    )


def _keeps(receipt: Receipt, agreed: Contract) -> bool:
    return receipt.contract == agreed.contract and receipt.until_ms >= agreed.until_ms


def _check_size(stated: Stated) -> None:
    if stated.size_bytes > SHARD_BYTES_MAX:
        raise FarmerBrokeProtocolError("the farmer spoke of a shard larger than any can be")
