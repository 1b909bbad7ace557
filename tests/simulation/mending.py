"""A renter who asks what is damaged, and sends it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farmer.model.shard import BLOCK_BYTES, BadBlocks
from farmer.protocol.opening import End, Refuse
from farmer.protocol.refusals import Refusal
from farmer.protocol.repairs import BadBlocksNamed, Examine, Repair
from farmer.protocol.transfers import Stored
from tests.simulation.held import Held, Is
from tests.simulation.network import Line

if TYPE_CHECKING:
    from tests.simulation.renters import Renter, Talk


def examine(renter: Renter, line: Line, held: Held) -> Talk:
    """Ask which blocks of a shard are damaged."""
    held.user = line
    line.send(Examine(held.shard))
    answer = yield
    if isinstance(answer, Refuse):
        return _refused(renter, "examine", answer, held)
    renter.expect(isinstance(answer, BadBlocksNamed), f"EXAMINE was answered by {answer}")
    _compare(renter, held, answer.bad)
    return "ok"


def repair(renter: Renter, line: Line, held: Held, *, wrongly: bool) -> Talk:
    """Send the damaged blocks again; *wrongly*: other bytes, which must be refused."""
    held.user = line
    # Found intact it is not written anew, and that may be a record in a wrong place.
    old = [harm for harm in held.harms if not harm.whole]
    line.send(Repair(held.shard))
    answer = yield
    if isinstance(answer, Refuse):
        return _refused(renter, "repair", answer, held)
    wrongly = wrongly and isinstance(answer, BadBlocksNamed)
    if isinstance(answer, BadBlocksNamed):
        old = list(held.harms)
        _compare(renter, held, answer.bad)
        data = _bytes_of(held, answer.bad)
        if wrongly:
            data = bytes([data[0] ^ 1]) + data[1:]
        for at in range(0, len(data), 256 * 1024):
            line.send_data(data[at : at + 256 * 1024])
        held.may_be_mended |= not wrongly
        line.send(End())
        answer = yield
    if isinstance(answer, Refuse):
        if wrongly and answer.refused.refusal is Refusal.WRONG_HASH:
            return "turned down"
        return _refused(renter, "repair", answer, held)
    renter.expect(isinstance(answer, Stored), f"REPAIR was answered by {answer}")
    renter.expect(not wrongly, f"wrong bytes were taken for {held}")
    renter.expect(answer.receipt.shard == held.shard, f"a receipt for something else than {held}")
    held.may = {Is.LIVE}
    held.was_written_anew(old)
    return "changed" if old else "ok"


def _compare(renter: Renter, held: Held, bad: BadBlocks) -> None:
    """No more is called damaged than is, and what is damaged is found."""
    renter.expect(bad.size_bytes == held.size_bytes, f"{held} has another size")
    renter.expect(
        held.is_told(set(bad.blocks)),
        f"blocks {sorted(bad.blocks)} of {held} are called damaged, {sorted(held.bad)} are",
    )


def _bytes_of(held: Held, bad: BadBlocks) -> bytes:
    data = held.content.data
    return b"".join(data[block * BLOCK_BYTES :][:BLOCK_BYTES] for block in bad.blocks)


def _refused(renter: Renter, verb: str, answer: Refuse, held: Held) -> str:
    why = answer.refused.refusal
    if why is Refusal.NOT_FOUND:
        if Is.TRASH not in held.may:
            renter.is_in(held, Is.ABSENT, f"is not found by {verb}")
        return "absent"
    if why in {Refusal.AUDIT_BUDGET, Refusal.TOO_MANY, Refusal.CONTRACT_FULL, Refusal.BUSY}:
        return why.name
    return renter.refused(verb, answer.refused, held, room=True)
