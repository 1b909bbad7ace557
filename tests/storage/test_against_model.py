"""Any sequence of operations, with restarts, kills and lost indexes, agrees with a dict."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from farmer.model.contract import TRASH_MS
from farmer.model.ids import NodeId, ShardId
from farmer.model.shard import ShardState, Usage, charge_bytes
from farmer.storage.directory import VolumeSettings
from farmer.storage.errors import NoSpaceError, ShardNotFoundError
from tests.storage.bench import ALICE, BOB, MIB, Farm, crash_copy, noise, shard_of
from tests.storage.recording import RecordingFiles

SIZES = st.sampled_from([0, 1, 4000, 5000, 70_000, 900_000, MIB + 1, 3 * MIB])
PEOPLE = st.sampled_from([ALICE, BOB])
Key = tuple[NodeId, ShardId]


@dataclass
class Known:
    data: bytes
    state: ShardState = ShardState.LIVE
    gone_at_ms: int = 0
    observed_ms: int = 0


class EngineMachine(RuleBasedStateMachine):
    @initialize(can_punch=st.booleans())
    def make(self, can_punch: bool) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="farm-"))
        self.files = RecordingFiles(can_punch=can_punch)
        self.farm = Farm(self.root, files=self.files)
        self.known: dict[Key, Known] = {}
        self.copies = 0

    def pick(self, number: int) -> Key:
        return sorted(self.known)[number % len(self.known)]

    @rule(renter=PEOPLE, size=SIZES, seed=st.integers(0, 6))
    def store(self, renter: NodeId, size: int, seed: int) -> None:
        data = noise(size, seed)
        try:
            stored = self.farm.store(data, renter)
        except NoSpaceError:
            free = self.farm.engine.free_bytes()
            assert free < charge_bytes(size) + 10_000
            return
        assert stored.state is ShardState.LIVE
        self.known[renter, shard_of(data)] = Known(data)

    @rule(size=SIZES, seed=st.integers(0, 6), cut=st.integers(0, 100))
    def break_off(self, size: int, seed: int, cut: int) -> None:
        data = noise(size, seed)
        if (ALICE, shard_of(data)) in self.known:
            return
        with contextlib.suppress(NoSpaceError):
            upload = self.farm.begin(data)
            upload.write(data[upload.offset :][: size * cut // 200])
            upload.abandon()

    @precondition(lambda self: self.known)
    @rule(number=st.integers(0, 1000), erase=st.booleans())
    def delete(self, number: int, erase: bool) -> None:
        key = self.pick(number)
        deletion = self.farm.delete(key[1], key[0], erase=erase)
        one = self.known[key]
        if erase:
            del self.known[key]
            return
        if one.state is not ShardState.TRASH:
            one.state = ShardState.TRASH
            one.gone_at_ms = self.farm.clocks.now_ms + TRASH_MS
            one.observed_ms = self.farm.clocks.observed_ms
        assert deletion.gone_at_ms == one.gone_at_ms

    @precondition(lambda self: self.known)
    @rule(number=st.integers(0, 1000))
    def undelete(self, number: int) -> None:
        key = self.pick(number)
        stored = self.farm.engine.undelete(*key).result(20)
        assert stored.state is ShardState.LIVE
        self.known[key].state = ShardState.LIVE

    @rule(days=st.sampled_from([0, 1, 3, 8]))
    def sweep(self, days: int) -> None:
        self.farm.clocks.pass_days(days)
        clocks = self.farm.clocks
        self.farm.sweep()
        for key, one in list(self.known.items()):
            over = one.observed_ms + TRASH_MS <= clocks.observed_ms
            if one.state is ShardState.TRASH and one.gone_at_ms <= clocks.now_ms and over:
                del self.known[key]

    @rule()
    def restart(self) -> None:
        self.farm.reopen()

    @rule()
    def lose_the_index(self) -> None:
        self.farm.engine.close()
        for path in self.farm.path.glob("index.sqlite*"):
            path.unlink()
        self.farm.open()

    @rule()
    def kill(self) -> None:
        """A copy taken while the engine runs is what a kill leaves behind."""
        self.copies += 1
        copy = self.root / f"copy{self.copies}"
        crash_copy(self.farm.path, copy)
        self.farm.engine.close()
        shutil.rmtree(self.farm.path)
        self.farm.settings = [VolumeSettings(copy, 64 * MIB)]
        self.farm.open()

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "farm"):
            return
        engine = self.farm.engine
        for renter in (ALICE, BOB):
            page = engine.page(renter, ShardId(bytes(32)), 1000)
            known = {shard: one for (who, shard), one in self.known.items() if who == renter}
            listed = {row.shard: row for row in page}
            expected = {shard: one.state for shard, one in known.items()}
            assert {shard: row.state for shard, row in listed.items()} == expected
            for shard, one in known.items():
                gone_at_ms = one.gone_at_ms if one.state is ShardState.TRASH else 0
                assert listed[shard].gone_at_ms == gone_at_ms
            self.check_usage(engine.usage(renter), known)
        status = engine.volumes()[0]
        taken = status.used_bytes + status.trash_bytes + status.reserved_bytes
        assert taken + status.allowance_bytes <= status.quota_bytes
        self.check_disk()

    def check_usage(self, usage: Usage, known: dict[ShardId, Known]) -> None:
        charges = [charge_bytes(len(one.data)) for one in known.values()]
        assert (usage.shards, usage.live_bytes + usage.trash_bytes) == (len(known), sum(charges))

    def check_disk(self) -> None:
        self.farm.engine.compare_with_disk()
        status = self.farm.engine.volumes()[0]
        assert status.allocated_bytes <= status.quota_bytes
        # Holes may cost a file one more block for its map of extents.
        files = len(list(self.farm.path.rglob("*.seg")))
        assert status.drift_bytes in range(0, files * 4096 + 1, 4096)

    @precondition(lambda self: self.known)
    @rule(number=st.integers(0, 1000))
    def read(self, number: int) -> None:
        key = self.pick(number)
        if self.known[key].state is ShardState.TRASH:
            with contextlib.suppress(ShardNotFoundError):
                self.farm.engine.open(*key)
                raise AssertionError("opened from the trash")
        else:
            assert self.farm.read(key[1], key[0]) == self.known[key].data

    def teardown(self) -> None:
        if not hasattr(self, "farm"):
            return
        for (renter, shard), one in self.known.items():
            if one.state is ShardState.LIVE:
                assert self.farm.read(shard, renter) == one.data
        self.farm.engine.close()
        shutil.rmtree(self.root)


TestEngine = EngineMachine.TestCase
TestEngine.settings = settings(
    max_examples=10,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
