"""
Renters, each with its own idea of what the farmer owes it.

A renter knows for each of its shards in which states it may be.  A request widens that when
it is sent (the crash may come at any moment); an answer narrows it again.  Whatever the farmer
says or shows outside of it is a violation: an acknowledged shard that is lost, a deleted one
that is back, wrong bytes, a proof that fails, a refusal without a cause.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from farmer.audit.full import FullDigest
from farmer.audit.proof import ProofError, verify_sample
from farmer.audit.ranges import RangeVerifier
from farmer.model.audit import AuditEntry, AuditKind, Challenge
from farmer.model.contract import Contract
from farmer.model.ids import NodeId, ShardId
from farmer.model.shard import DeletionOutcome, ShardState, charge_bytes, leaf_count
from farmer.protocol.connection import DataReceived, Event
from farmer.protocol.opening import End, Hello, Refuse, Welcome
from farmer.protocol.proofs import FullProof, ProofItemReader
from farmer.protocol.questions import (
    ContractShown,
    Delete,
    Deleted,
    List,
    Listed,
    Ping,
    Pong,
    Redeem,
    ShowContract,
    Stat,
    Stated,
    Undelete,
)
from farmer.protocol.refusals import Refusal, Refused
from farmer.protocol.transfers import Accept, Audit, Retrieve, Send, Store, Stored
from tests.simulation.held import Held, Is, ViolationError
from tests.simulation.network import Line
from tests.simulation.shards import Content, draw

if TYPE_CHECKING:
    from tests.simulation.world import World

DAY_S = 86_400.0
TRASH_S = 7 * DAY_S
GONE_S = 21 * DAY_S

Talk = Generator[None, Event, str]
"""A request being made: it is sent what the farmer answers, and returns how it ended."""


_STATES = {ShardState.LIVE: Is.LIVE, ShardState.TRASH: Is.TRASH, ShardState.QUARANTINED: Is.LIVE}

_NOTHING_DONE = frozenset(
    {Refusal.CONTRACT_FULL, Refusal.TOO_MANY, Refusal.BUSY, Refusal.NO_CONTRACT,
     Refusal.CONTRACT_ENDED, Refusal.SHARD_TOO_LARGE}
)  # fmt: skip


@dataclass
class Renter:
    """One renter."""

    number: int
    node: NodeId
    world: World
    held: dict[ShardId, Held] = field(default_factory=dict)
    prying: dict[Line, ShardId] = field(default_factory=dict)
    """Shards of others that are asked for: stored meanwhile, one would be ours."""
    contract: Contract | None = None
    """As it was last shown."""
    may_be_gone: bool = False
    """Whether its contract may have ended, or was never answered."""
    ended_s: float | None = None
    """Running time at which the contract was first over by the farmer's wall clock."""
    lines: list[Line] = field(default_factory=list)
    is_unsure: bool = False
    """Whether a redeem was asked for and never answered: the contract may have grown."""
    tried: set[bytes] = field(default_factory=set)
    """Invites that it has sent, and that were not refused."""

    @property
    def rng(self) -> Random:
        return self.world.rng

    # Requests.

    def hello(self, line: Line) -> Talk:
        line.send(Hello(1, 1, "simulated"))
        answer = yield
        if isinstance(answer, Refuse):
            return self.refused("hello", answer.refused, None)
        self.expect(isinstance(answer, Welcome), f"HELLO was answered by {answer}")
        return "ok"

    def redeem(self, line: Line, invite: bytes, spent_by: list[Renter]) -> Talk:
        """*spent_by* is shared by all who know the invite: who was told that it is theirs."""
        before, was_unsure = self.contract, self.is_unsure
        self.is_unsure = True
        was_tried = invite in self.tried
        self.tried.add(invite)
        line.send(Redeem(invite))
        answer = yield
        if isinstance(answer, Refuse):
            why = answer.refused.refusal
            if not was_tried and why is not Refusal.UNAVAILABLE:
                self.tried.discard(invite)
            self.is_unsure = was_unsure or why is Refusal.UNAVAILABLE
            if why is Refusal.INVITE_SPENT and (spent_by != [self] or self.may_be_gone):
                return "spent"
            if why is Refusal.INVITE_EXPIRED and self.world.invites_may_expire:
                return "expired"
            return self.refused("redeem", answer.refused, None, busy=True)
        self.expect(isinstance(answer, ContractShown), f"REDEEM was answered by {answer}")
        self.expect(not spent_by or spent_by == [self], "an invite was spent by two renters")
        first = not spent_by
        if first:
            spent_by.append(self)
        self._see_contract(answer, grown=True)
        self.is_unsure = False
        if before is not None and first and not self.may_be_gone:
            self.expect(
                answer.contract.contract == before.contract
                # Redeemed before a crash that lost the answer, it has grown already.
                and (answer.contract.revision > before.revision or was_tried)
                and answer.contract.revision >= before.revision
                and answer.contract.space_bytes >= before.space_bytes
                and answer.contract.until_ms >= before.until_ms,
                "a renewal took something away",
            )
        if self.ended_s is not None and self.world.run_s - self.ended_s >= GONE_S:
            for held in self.held.values():
                held.may.add(Is.ABSENT)
        self.may_be_gone = False
        if answer.contract.until_ms > self.world.now_ms():
            # An invite redeemed again shows the contract as it is, and that may have ended.
            self.ended_s = None
        return "changed" if first else "ok"

    def show(self, line: Line) -> Talk:
        line.send(ShowContract())
        answer = yield
        if isinstance(answer, Refuse):
            return self.refused("contract", answer.refused, None)
        self.expect(isinstance(answer, ContractShown), f"CONTRACT was answered by {answer}")
        self._see_contract(answer, grown=self.is_unsure)
        return "ok"

    def store(  # noqa: C901, PLR0915  # a whole conversation
        self, line: Line, wanted: Content, how: str
    ) -> Talk:
        """
        Store something.

        *how*: well, wrong (other bytes), short (too few), silent (none, then gone), or broken
        off (half of them, then gone).
        """
        held = self.held.get(wanted.shard)
        if held is None:
            held = self.held[wanted.shard] = Held(wanted, {Is.ABSENT})
        held.user = line
        before = set(held.may)
        was_away = self.world.is_a_volume_away
        if how == "well":
            held.may.add(Is.LIVE)
        elif Is.TRASH in before:
            # Begun, it is taken out of the trash before a byte is asked for.
            held.may.add(Is.LIVE)
        faults = self.world.faults
        line.send(Store(wanted.shard, len(wanted.data)))
        answer = yield
        # A record that cannot be read just now is replaced.
        is_struck = self.world.faults > faults
        old = list(held.harms) if isinstance(answer, Accept) else []
        is_resumed = isinstance(answer, Accept) and answer.offset > 0
        if isinstance(answer, Accept):
            self.expect(
                before != {Is.LIVE}
                or held.may_be_damaged
                or is_struck
                or was_away
                or self.world.is_a_volume_away,
                f"{held} is wanted again, though acknowledged",
            )
            if how == "silent":
                held.may = before
                self.world.drop(line)
                return "left"
            data = wanted.data[answer.offset :]
            if how == "broken off":
                held.may = before
                line.send_data(data[: min(len(data) // 2, 256 * 1024)])
                line.hangs_up = True
                return "left"
            if how == "wrong" and data:
                data = bytes([data[0] ^ 1]) + data[1:]
                held.was_begun_wrongly = True
            if how == "short":
                data = data[:-1]
            for at in range(0, len(data), 256 * 1024):
                line.send_data(data[at : at + 256 * 1024])
            line.send(End())
            answer = yield
            goes_on_wrongly = is_resumed and held.was_begun_wrongly
            if isinstance(answer, Refuse) and (how != "well" or goes_on_wrongly):
                held.may = before
                if answer.refused.refusal in {Refusal.WRONG_HASH, Refusal.WRONG_SIZE}:
                    return "turned down"
            self.expect(
                not isinstance(answer, Stored) or how == "well" or not wanted.data,
                f"{how} bytes were taken for {held}",
            )
        if isinstance(answer, Refuse):
            if answer.refused.refusal in _NOTHING_DONE:
                held.may = before
            return self.refused("store", answer.refused, held, busy=True, room=True)
        self.expect(isinstance(answer, Stored), f"STORE was answered by {answer}")
        receipt = answer.receipt
        self.expect(
            (receipt.shard, receipt.size_bytes, receipt.renter, receipt.charge_bytes)
            == (held.shard, held.size_bytes, self.node, charge_bytes(held.size_bytes)),
            f"a receipt for something else than {held}",
        )
        changed = before != {Is.LIVE}
        held.may = {Is.LIVE}
        held.was_written_anew(old, partly=is_resumed)
        return "changed" if changed else "ok"

    def retrieve(self, line: Line, held: Held, *, proved: bool) -> Talk:
        held.user = line
        size = held.size_bytes
        offset = int(self.rng.random() * size) if self.rng.random() < 0.4 else 0
        length = int(self.rng.random() * (size - offset + 1)) if offset else size
        line.send(Retrieve(held.shard, offset, length, proved))
        answer = yield
        if isinstance(answer, Refuse):
            return self._not_served("retrieve", answer.refused, held, (offset, offset + length))
        self.expect(isinstance(answer, Send), f"RETRIEVE was answered by {answer}")
        self.expect(answer.size_bytes == size, f"{held} has another size")
        self.expect(
            answer.offset <= offset and answer.offset + answer.length >= offset + length,
            f"another range of {held}",
        )
        got = bytearray()
        while not isinstance(event := (yield), End):
            if isinstance(event, Refuse):
                self._right(held, answer.offset, got)
                asked = (answer.offset, answer.offset + answer.length)
                return self._not_served("retrieve", event.refused, held, asked)
            assert isinstance(event, DataReceived), event
            got += event.data
        self.expect(len(got) == answer.length, f"a part of {held} is missing")
        self._right(held, answer.offset, got)
        if proved:
            verifier = RangeVerifier(held.shard, size, answer.offset, len(got), answer.nodes)
            try:
                verifier.update(bytes(got))
                verifier.finish()
            except ProofError as error:
                raise ViolationError(f"the proof of a range of {held} fails: {error}") from error
        self.is_in(held, Is.LIVE, "is served")
        return "ok"

    def audit(self, line: Line, some: list[Held], *, full: bool) -> Talk:
        for held in some:
            held.user = line
        nonce = self.rng.randbytes(32)
        entries = tuple(
            AuditEntry(
                held.shard,
                held.size_bytes,
                0 if full else 1 + int(self.rng.random() * min(4, leaf_count(held.size_bytes))),
            )
            for held in some
        )
        challenge = Challenge(nonce, AuditKind.FULL if full else AuditKind.SAMPLE, entries)
        reader = ProofItemReader(challenge)
        line.send(Audit(challenge))
        items: list[Any] = []
        while not isinstance(event := (yield), End):
            if isinstance(event, Refuse):
                return self.refused("audit", event.refused, some[0])
            assert isinstance(event, DataReceived), event
            items += reader.feed(event.data)
        reader.end()
        ended = "ok"
        for held, entry, item in zip(some, entries, items, strict=True):
            if isinstance(item, Refused):
                # One full audit of a renter at a time: beside one that crawls another gives up.
                if item.refusal is Refusal.BUSY and full and self.world.has_trouble:
                    ended = "busy"
                else:
                    ended = self._not_served("audit", item, held, None)
                continue
            self._judge(held, entry, item, nonce)
            self.is_in(held, Is.LIVE, "is proved")
        return ended

    def stat(self, line: Line, held: Held) -> Talk:
        held.user = line
        line.send(Stat(held.shard))
        answer = yield
        if isinstance(answer, Refuse):
            if answer.refused.refusal is Refusal.NOT_FOUND:
                self.is_in(held, Is.ABSENT, "is not found")
                return "absent"
            return self.refused("stat", answer.refused, held)
        self.expect(isinstance(answer, Stated), f"STAT was answered by {answer}")
        self.see(answer, held)
        return "ok"

    def list(self, line: Line) -> Talk:
        """Page through everything; only what nobody touches meanwhile is compared."""
        quiet = {shard: held for shard, held in self.held.items() if held.user is None}
        for held in quiet.values():
            held.user = line
        after, seen = ShardId(bytes(32)), set()
        limit = self.rng.choice((1, 3, 50, 1000))
        limit = max(limit, len(self.held) // 6 + 1)
        while True:
            line.send(List(after, limit))
            answer = yield
            if isinstance(answer, Refuse):
                return self.refused("list", answer.refused, None)
            self.expect(isinstance(answer, Listed), f"LIST was answered by {answer}")
            for entry in answer.entries:
                self.expect(after < entry.shard, "a list is not in order")
                after = entry.shard
                self.expect(after in self.held, "a foreign shard is listed")
                seen.add(after)
                if after in quiet:
                    self.see(entry, quiet[after])
            if not answer.more:
                break
            self.expect(bool(answer.entries), "an empty page that goes on")
        for shard, held in quiet.items():
            if shard not in seen:
                self.is_in(held, Is.ABSENT, "is not listed")
        return "ok"

    def delete(self, line: Line, held: Held, *, erase: bool) -> Talk:
        held.user = line
        before = set(held.may)
        if Is.TRASH not in before:
            held.trashed_s = self.world.run_s
        held.may.add(Is.ABSENT if erase else Is.TRASH)
        if before == {Is.ABSENT}:
            held.may = before
        line.send(Delete(held.shard, erase))
        answer = yield
        if isinstance(answer, Refuse):
            why = answer.refused.refusal
            if why is Refusal.NOT_FOUND:
                held.may = before
                self.is_in(held, Is.ABSENT, "cannot be deleted, for it is not found")
                return "absent"
            if why in _NOTHING_DONE:
                held.may = before
            return self.refused("delete", answer.refused, held)
        self.expect(isinstance(answer, Deleted), f"DELETE was answered by {answer}")
        if answer.outcome is DeletionOutcome.TRASHED:
            self.expect(not erase, f"{held} was to be erased")
            self.expect(before != {Is.ABSENT}, f"{held} was deleted, though it was gone")
            held.may = {Is.TRASH}
        else:
            self.expect(erase or Is.ABSENT in before, f"{held} was erased, though only given up")
            held.may = {Is.ABSENT}
        return "changed"

    def undelete(self, line: Line, held: Held) -> Talk:
        held.user = line
        before = set(held.may)
        if Is.TRASH in before:
            held.may.add(Is.LIVE)
        line.send(Undelete(held.shard))
        answer = yield
        if isinstance(answer, Refuse):
            why = answer.refused.refusal
            if why is Refusal.NOT_FOUND:
                held.may = before
                self.is_in(held, Is.ABSENT, "cannot be taken out of the trash")
                return "absent"
            if why in _NOTHING_DONE:
                held.may = before
            return self.refused("undelete", answer.refused, held)
        self.expect(isinstance(answer, Stated), f"UNDELETE was answered by {answer}")
        self.expect(before != {Is.ABSENT}, f"{held} is back, though it was gone")
        held.may = {Is.LIVE}
        return "changed" if before == {Is.TRASH} else "ok"

    def pry(self, line: Line, other: Held, verb: str) -> Talk:
        """Ask for a shard of somebody else."""
        if verb == "stat":
            line.send(Stat(other.shard))
        elif verb == "delete":
            line.send(Delete(other.shard, True))
        else:
            line.send(Retrieve(other.shard, 0, other.size_bytes, False))
        self.prying[line] = other.shard
        answer = yield
        del self.prying[line]
        self.expect(isinstance(answer, Refuse), "a foreign shard is visible")
        if answer.refused.refusal is not Refusal.NOT_FOUND:
            return self.refused("pry", answer.refused, None)
        return "absent"

    def ping(self, line: Line) -> Talk:
        line.send(Ping(7))
        answer = yield
        self.expect(isinstance(answer, Pong), f"PING was answered by {answer}")
        return "ok"

    # What answers mean.

    def see(self, entry: Stated, held: Held) -> None:
        """Compare what the farmer says of a shard with what it may be."""
        self.expect(entry.size_bytes == held.size_bytes, f"{held} has another size")
        if entry.state is ShardState.QUARANTINED:
            self.expect(held.may_be_damaged, f"{held} is in quarantine without a cause")
        self.is_in(held, _STATES[entry.state], f"is said to be {entry.state.name}")

    def expired(self, held: Held) -> bool:
        """Say whether time may have taken a shard away."""
        run_s = self.world.run_s
        if self.ended_s is not None and run_s - self.ended_s >= GONE_S:
            return True
        return Is.TRASH in held.may and run_s - held.trashed_s >= TRASH_S

    def lost(self, line: Line) -> None:
        """Let go of what was asked on a line that is over and no longer served."""
        self.prying.pop(line, None)
        for held in self.held.values():
            if held.user is line:
                held.user = None

    def is_in(self, held: Held, state: Is, what: str) -> None:
        if held.is_hurt:
            # A write that was betrayed may be seen or not, from one start to the next.
            held.may |= {state, Is.ABSENT}
            return
        if state is Is.ABSENT and self.expired(held):
            held.may = {Is.ABSENT}
            return
        if state not in held.may:
            raise ViolationError(f"renter {self.number}: {held} {what}")
        held.may = {state}

    def _not_served(
        self, verb: str, refused: Refused, held: Held, asked: tuple[int, int] | None
    ) -> str:
        """*asked* is a range of bytes; an audit wants a shard that is not known to be damaged."""
        why = refused.refusal
        if why is Refusal.NOT_FOUND:
            if held.may == {Is.LIVE} or (Is.LIVE in held.may and len(held.may) == 1):
                self.is_in(held, Is.ABSENT, f"is not found by {verb}")
            if not held.is_hurt:
                held.may = held.may - {Is.LIVE} or {Is.ABSENT}
            return "absent"
        if why is Refusal.CORRUPT:
            excused = held.may_be_damaged if asked is None else held.is_bad_between(*asked)
            self.expect(excused, f"{held} is called damaged without a cause")
            self.world.reported += 1
            return "corrupt"
        return self.refused(verb, refused, held)

    def refused(
        self,
        verb: str,
        refused: Refused,
        held: Held | None,
        *,
        busy: bool = False,
        room: bool = False,
    ) -> str:
        why = refused.refusal
        if why in {Refusal.NO_CONTRACT, Refusal.CONTRACT_ENDED}:
            excused = self.may_be_gone or self.contract is None or self.ended_s is not None
            excused = excused or self.world.clock_was_wrong
        elif why is Refusal.UNAVAILABLE:
            excused = self.world.has_trouble or (verb == "store" and self.world.takes_nothing)
        elif why in {Refusal.NO_SPACE, Refusal.CONTRACT_FULL, Refusal.TOO_MANY}:
            # What a crash or a fault leaves half done may need room for a while, too.
            excused = room or why is Refusal.NO_SPACE
        elif why is Refusal.BUSY:
            excused = busy
        elif why is Refusal.TOO_SLOW:
            excused = self.world.network_was_slow
        elif why is Refusal.CORRUPT:
            excused = held is not None and held.may_be_damaged
        else:
            excused = False
        if not excused:
            raise ViolationError(f"renter {self.number}: {verb} of {held} refused by {refused}")
        return why.name

    def _see_contract(self, shown: ContractShown, *, grown: bool) -> None:
        new, old = shown.contract, self.contract
        self.expect(new.renter == self.node, "a contract of somebody else")
        if old is not None and not self.may_be_gone and not grown:
            self.expect(new == old, "the contract has changed by itself")
        self.contract = new

    def _right(self, held: Held, offset: int, got: bytes | bytearray) -> None:
        if held.content.data[offset : offset + len(got)] != got:
            raise ViolationError(f"wrong bytes of {held} were served")

    def _judge(self, held: Held, entry: AuditEntry, item: Any, nonce: bytes) -> None:
        if isinstance(item, FullProof):
            digest = FullDigest(nonce, held.shard)
            digest.update(held.content.data)
            if item.digest != digest.finish():
                raise ViolationError(f"a full audit of {held} is wrong")
            return
        try:
            verify_sample(held.shard, held.size_bytes, nonce, entry.samples, item)
        except ProofError as error:
            raise ViolationError(f"an audit of {held} fails: {error}") from error

    def expect(self, is_so: bool, otherwise: str) -> None:
        if not is_so:
            raise ViolationError(f"renter {self.number}: {otherwise}")


def new_content(renter: Renter) -> Content:
    """Return something that the renter does not hold for certain, if that is easy."""
    wanted = draw(renter.rng)
    for _ in range(3):
        held = renter.held.get(wanted.shard)
        if held is None or (Is.LIVE not in held.may and held.user is None):
            return wanted
        wanted = draw(renter.rng)
    return wanted
