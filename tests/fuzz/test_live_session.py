"""A renter that asks anything in any order, well or badly, against a model of what is right."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from farmer.audit.challenge import sample_leaves
from farmer.audit.proof import verify_sample
from farmer.model.audit import AuditEntry, AuditKind, Challenge, SampleProof
from farmer.model.ids import NodeId, ShardId
from farmer.model.shard import DeletionOutcome, ShardState, charge_bytes
from farmer.node.held import STEP_BYTES
from farmer.node.storing import ONE_STEP_BYTES
from farmer.protocol.limits import RATE_GRACE_S
from farmer.protocol.messages import Message
from farmer.protocol.opening import End, Refuse
from farmer.protocol.proofs import ProofItemReader
from farmer.protocol.questions import (
    Delete,
    Deleted,
    List,
    Listed,
    Ping,
    Pong,
    Stat,
    Stated,
    Undelete,
)
from farmer.protocol.refusals import Refusal, Refused
from farmer.protocol.transfers import Accept, Audit, Retrieve, Send, Store, Stored
from tests.fakes import shard_of
from tests.fuzz.live import LiveFarm
from tests.node.wires import OTHER, RENTER, Peer
from tests.vectors.cast import stream

SIZES = (0, 1, 4097, 65_536, 200_000, (1 << 20) + 77)
CONTENTS = tuple(stream(f"live {size}", size) for size in SIZES)
SHARDS = tuple(shard_of(content) for content in CONTENTS)
SMALL_BYTES_MAX = 1 << 20
FRAME_BYTES = 50_000
PEERS_MAX = 5
MEMORY_BYTES_MAX = 1 << 20
"""Unread and unsent bytes of one session, at most: a step of each and a frame."""

whichever = st.integers(0, len(CONTENTS) - 1)
peers = st.integers(0, PEERS_MAX - 1)


@dataclass
class Renter:
    """What one renter should have."""

    live: set[int] = field(default_factory=set)
    trash: set[int] = field(default_factory=set)
    leased: set[int] = field(default_factory=set)

    def state(self, number: int) -> ShardState | None:
        if number in self.live:
            return ShardState.LIVE
        return ShardState.TRASH if number in self.trash else None


@dataclass
class Caller:
    """One connection, and the store that it is in the middle of."""

    peer: Peer
    who: NodeId
    storing: int | None = None
    sent: int = 0
    waited_s: int = 0


class LiveSession(RuleBasedStateMachine):
    """Real sessions and engine; whatever is asked, the answer is the model's."""

    def __init__(self) -> None:
        super().__init__()
        self.live = LiveFarm()
        self.renters = {RENTER: Renter(), OTHER: Renter()}
        self.callers: list[Caller] = []

    def teardown(self) -> None:
        for caller in self.callers:
            caller.peer.leave()
        try:
            assert not len(self.live.sessions) and not len(self.live.tasks)
            assert self.live.farm.small_stores.inside_bytes == 0
            assert self.live.farm.proofs.inside_bytes == 0
            assert self.live.held_bytes == 0
        finally:
            self.live.close()

    @initialize(held=st.lists(whichever, max_size=4))
    def begin(self, held: list[int]) -> None:
        """Both renters are there, and hold something."""
        for who in (RENTER, OTHER, RENTER):
            self.connect(who, 70_000)
        for number, which in enumerate(held):
            self.store_whole(number, which)

    # Coming and going.

    @precondition(lambda self: len(self.callers) < PEERS_MAX)
    @rule(who=st.sampled_from([RENTER, OTHER]), slice_bytes=st.sampled_from([7, 900, 70_000]))
    def connect(self, who: NodeId, slice_bytes: int) -> None:
        peer = self.live.call(who)
        peer.slice_bytes = slice_bytes
        peer.hello()
        self.callers.append(Caller(peer, who))

    @precondition(lambda self: len(self.callers) > 2)
    @rule(number=peers)
    def leave(self, number: int) -> None:
        """Vanish, maybe in the middle of a store: a large one becomes a lease."""
        caller = self._any(number)
        caller.peer.leave()
        self._forget(caller)

    @precondition(lambda self: len(self.callers) > 2)
    @rule(number=peers, raw=st.binary(min_size=1, max_size=200))
    def garbage(self, number: int, raw: bytes) -> None:
        """Say what is no protocol: the farmer says why, or waits for more, or hangs up."""
        caller = self._any(number)
        # The body of this frame is longer than any may be, whatever came before.
        caller.peer.connection.receive = lambda _data: None  # type: ignore[method-assign]
        caller.peer.send_raw(raw + b"\x7f\xff\xff\xff" * 8)
        self.live.pass_s(1, caller.peer.pump)
        caller.peer.leave()
        self._forget(caller)
        self._waited(1)

    @rule(seconds=st.integers(1, 5))
    def wait(self, seconds: int) -> None:
        """Let a little time pass; in a store, more than half a minute is too slow."""
        self.live.pass_s(seconds, self._pump)
        self._waited(seconds)

    def _waited(self, seconds: int) -> None:
        """Count what has passed; who was waited for too long may have been hung up on."""
        for caller in tuple(self.callers):
            caller.waited_s += seconds if caller.storing is not None else 0
            if caller.peer.closed:
                assert caller.storing is not None and caller.waited_s >= RATE_GRACE_S
                self._forget(caller)

    # Storing.

    @precondition(lambda self: self._idle())
    @rule(number=peers, which=whichever)
    def begin_store(self, number: int, which: int) -> None:
        self._begin(self._resting(number), which)

    def _begin(self, caller: Caller, which: int) -> None:
        owned = self.renters[caller.who]
        caller.peer.send(Store(SHARDS[which], SIZES[which]))
        answer = caller.peer.answer()
        if any(one.storing == which and one.who == caller.who for one in self.callers):
            assert _refusal(answer) is Refusal.BUSY
        elif owned.state(which) is not None:
            assert isinstance(answer, Stored) and answer.receipt.shard == SHARDS[which]
            owned.trash.discard(which)
            owned.live.add(which)
        else:
            assert isinstance(answer, Accept), answer
            assert answer.offset == 0 or which in owned.leased
            owned.leased.discard(which)
            caller.storing, caller.sent, caller.waited_s = which, answer.offset, 0

    @precondition(lambda self: self._idle())
    @rule(number=peers, which=whichever)
    def store_whole(self, number: int, which: int) -> None:
        """Store a shard as it should be done, in one go."""
        caller = self._resting(number)
        self._begin(caller, which)
        if caller.storing is not None:
            self._end(caller, "well")

    @precondition(lambda self: self._storing())
    @rule(number=peers, part=st.floats(0.1, 1.0))
    def send_some(self, number: int, part: float) -> None:
        caller = self._pick(self._storing(), number)
        self._send(caller, int((SIZES[caller.storing or 0] - caller.sent) * part))

    @precondition(lambda self: self._storing())
    @rule(number=peers, how=st.sampled_from(["well", "well", "well", "short", "long", "wrong"]))
    def end_store(self, number: int, how: str) -> None:
        self._end(self._pick(self._storing(), number), how)

    def _end(self, caller: Caller, how: str) -> None:
        which = caller.storing
        assert which is not None
        left = SIZES[which] - caller.sent
        expected = None
        if how == "long":
            self._send(caller, left)
            caller.peer.send_data(b"x")
            expected = Refusal.WRONG_SIZE
        elif how == "wrong" and left:
            caller.peer.send_data(bytes([CONTENTS[which][caller.sent] ^ 1]))
            caller.sent += 1
            self._send(caller, left - 1)
            expected = Refusal.WRONG_HASH
        elif how == "short" and left:
            self._send(caller, left // 2)
            expected = Refusal.WRONG_SIZE
        else:
            self._send(caller, left)
        caller.peer.send(End())
        answer = caller.peer.answer()
        caller.storing = None
        if expected is not None:
            assert _refusal(answer) is expected, answer
            return
        assert isinstance(answer, Stored), answer
        assert answer.receipt.charge_bytes == charge_bytes(SIZES[which])
        self.renters[caller.who].live.add(which)

    # Asking.

    @precondition(lambda self: self._idle())
    @rule(number=peers, which=whichever, start=st.floats(0, 1.2), proved=st.booleans())
    def retrieve(self, number: int, which: int, start: float, *, proved: bool) -> None:
        caller = self._resting(number)
        size = SIZES[which]
        offset = int(size * start)
        length = (size - offset) // 2 if offset <= size else 5
        caller.peer.send(Retrieve(SHARDS[which], offset, length, proved))
        answer = caller.peer.answer()
        if self.renters[caller.who].state(which) is not ShardState.LIVE:
            assert _refusal(answer) is Refusal.NOT_FOUND, answer
        elif offset + length > size:
            assert _refusal(answer) is Refusal.BAD_RANGE, answer
        else:
            assert isinstance(answer, Send) and answer.size_bytes == size, answer
            assert answer.offset <= offset and bool(answer.nodes) <= proved
            caller.peer.pump()
            got = caller.peer.received()
            assert got == CONTENTS[which][answer.offset : answer.offset + answer.length]
            assert isinstance(caller.peer.answer(), End)

    @precondition(lambda self: self._idle())
    @rule(number=peers, wanted=st.lists(whichever, min_size=1, max_size=3))
    def audit(self, number: int, wanted: list[int]) -> None:
        caller = self._resting(number)
        entries = tuple(AuditEntry(SHARDS[which], SIZES[which], 2) for which in wanted)
        nonce = bytes(31) + bytes([number])
        challenge = Challenge(nonce, AuditKind.SAMPLE, entries)
        caller.peer.send(Audit(challenge))
        caller.peer.pump()
        items = ProofItemReader(challenge).feed(caller.peer.received())
        assert isinstance(caller.peer.answer(), End) and len(items) == len(wanted)
        for which, entry, item in zip(wanted, entries, items, strict=True):
            if self.renters[caller.who].state(which) is ShardState.LIVE:
                assert isinstance(item, SampleProof), item
                verify_sample(entry.shard, entry.size_bytes, nonce, 2, item)
                assert len(item.leaves) == len(sample_leaves(nonce, entry.shard, SIZES[which], 2))
            else:
                assert isinstance(item, Refused) and item.refusal is Refusal.NOT_FOUND

    @precondition(lambda self: self._idle())
    @rule(
        number=peers,
        asked=st.lists(
            st.tuples(
                st.sampled_from(["stat", "delete", "erase", "undelete", "list", "ping"]), whichever
            ),
            min_size=1,
            max_size=8,
        ),
    )
    def ask_ahead(self, number: int, asked: list[tuple[str, int]]) -> None:
        """Several small requests in one go; the answers come in their order."""
        caller = self._resting(number)
        caller.peer.send(*[_request(name, which) for name, which in asked])
        for name, which in asked:
            self._check(caller, name, which, caller.peer.answer())

    def _check(self, caller: Caller, name: str, which: int, answer: object) -> None:
        owned = self.renters[caller.who]
        state = owned.state(which)
        being_stored = any(one.storing == which and one.who == caller.who for one in self.callers)
        if name == "ping":
            assert isinstance(answer, Pong) and answer.token == which
        elif name == "list":
            assert isinstance(answer, Listed) and not answer.more
            assert [entry.shard for entry in answer.entries] == sorted(
                SHARDS[one] for one in owned.live | owned.trash
            )
        elif state is None and name in ("delete", "erase") and which in owned.leased:
            assert not being_stored
            assert isinstance(answer, Deleted) and answer.outcome is DeletionOutcome.ERASED
            owned.leased.discard(which)
        elif state is None:
            assert _refusal(answer) is Refusal.NOT_FOUND, (name, answer)
        elif name == "stat":
            assert isinstance(answer, Stated) and answer.state is state
            assert answer.size_bytes == SIZES[which]
        elif name == "undelete":
            assert isinstance(answer, Stated) and answer.state is ShardState.LIVE
            owned.trash.discard(which)
            owned.live.add(which)
        else:
            assert isinstance(answer, Deleted), answer
            owned.live.discard(which)
            owned.trash.discard(which)
            if name == "delete":
                owned.trash.add(which)

    # What is always true.

    @invariant()
    def nothing_leaks(self) -> None:
        assert len(self.live.sessions) == len(self.callers) == len(self.live.tasks)
        assert self.live.tasks.failures == 0
        storing = sum(
            SIZES[one.storing]
            for one in self.callers
            if one.storing is not None and ONE_STEP_BYTES < SIZES[one.storing] <= SMALL_BYTES_MAX
        )
        assert self.live.farm.small_stores.inside_bytes == storing
        assert self.live.farm.whole_stores.inside_bytes == 0
        assert self.live.farm.proofs.inside_bytes == 0
        assert self.live.farm.small_stores.waiting == self.live.farm.proofs.waiting == 0

    @invariant()
    def accounts_are_the_models(self) -> None:
        for who, owned in self.renters.items():
            usage = self.live.engine.usage(who)
            under_way = {one.storing for one in self.callers if one.who == who} - {None}
            assert usage.live_bytes == _charges(owned.live)
            assert usage.trash_bytes == _charges(owned.trash)
            assert usage.reserved_bytes == _charges(owned.leased | under_way)  # type: ignore[arg-type]
            assert usage.shards == len(owned.live) + len(owned.trash)

    @invariant()
    def memory_is_bounded(self) -> None:
        for caller in self.callers:
            waiting = caller.peer.session._connection.waiting_bytes
            assert waiting + caller.peer.wire.most_unsent <= MEMORY_BYTES_MAX

    # How it works.

    def _pump(self) -> None:
        for caller in self.callers:
            caller.peer.pump()

    def _any(self, number: int) -> Caller:
        return self._pick(self.callers, number)

    def _pick(self, callers: list[Caller], number: int) -> Caller:
        return callers[number % len(callers)]

    def _idle(self) -> list[Caller]:
        return [caller for caller in self.callers if caller.storing is None]

    def _resting(self, number: int) -> Caller:
        return self._pick(self._idle(), number)

    def _storing(self) -> list[Caller]:
        return [caller for caller in self.callers if caller.storing is not None]

    def _send(self, caller: Caller, size: int) -> None:
        assert caller.storing is not None
        data = CONTENTS[caller.storing][caller.sent : caller.sent + size]
        for at in range(0, len(data), FRAME_BYTES):
            caller.peer.send_data(data[at : at + FRAME_BYTES])
        caller.sent += len(data)

    def _forget(self, caller: Caller) -> None:
        self.callers.remove(caller)
        which = caller.storing
        if which is not None and SIZES[which] > SMALL_BYTES_MAX:
            # Whether it had taken a byte yet, only the farmer knows.
            (volume,) = self.live.engine._slots.opened()
            kept = (caller.who, SHARDS[which]) in volume.leases
            assert kept or caller.sent < 2 * STEP_BYTES, "a lease was lost"
            if kept:
                self.renters[caller.who].leased.add(which)


def _refusal(answer: object) -> Refusal:
    assert isinstance(answer, Refuse), answer
    assert not answer.final
    return answer.refused.refusal


def _request(name: str, which: int) -> Message:
    match name:
        case "stat":
            return Stat(SHARDS[which])
        case "undelete":
            return Undelete(SHARDS[which])
        case "list":
            return List(ShardId(bytes(32)), 1000)
        case "ping":
            return Ping(which)
        case _:
            return Delete(SHARDS[which], erase=name == "erase")


def _charges(numbers: set[int]) -> int:
    return sum(charge_bytes(SIZES[number]) for number in numbers)


TestLiveSession = pytest.mark.slow(LiveSession.TestCase)
TestLiveSession.settings = settings(
    settings.default,
    max_examples=60,
    stateful_step_count=50,
    deadline=None,
    # The shortest way to a fault takes minutes to find: Phase.shrink, for who looks for one.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
