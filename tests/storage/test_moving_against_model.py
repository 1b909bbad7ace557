"""Two volumes emptied to and fro, among all other operations, kills and lost indexes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from farmer.model.ids import ShardId
from farmer.model.shard import ShardState
from farmer.storage.directory import VolumeSettings
from tests.storage.bench import ALICE, BOB, MIB, Farm, crash_copy
from tests.storage.recording import RecordingFiles
from tests.storage.test_against_model import EngineMachine, Key, Known
from tests.storage.test_moving import DRAIN


class MovingMachine(EngineMachine):
    @initialize(can_punch=st.booleans())
    def make(self, can_punch: bool) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="farm-"))
        self.files = RecordingFiles(can_punch=can_punch)
        self.farm = Farm(self.root, files=self.files, volumes=2)
        self.known: dict[Key, Known] = {}
        self.copies = 0

    @rule(count=st.integers(0, 12))
    def empty_the_fuller(self, count: int) -> None:
        """The other one takes shards again; *count* steps are done at once."""
        volumes = self.farm.engine._slots.opened()
        volumes.sort(key=lambda volume: volume.ground.account.total.shards)
        self.farm.engine.mover.cancel(volumes[0])
        self.farm.engine.mover.begin(volumes[1], DRAIN)
        self.go_on(count)

    @rule(count=st.integers(1, 12))
    def go_on_emptying(self, count: int) -> None:
        self.go_on(count)

    def go_on(self, count: int) -> None:
        for _ in range(count):
            self.farm.engine.mover.step()

    @rule()
    def lose_the_index(self) -> None:
        self.farm.engine.close()
        for volume in self.farm.settings:
            for path in volume.path.glob("index.sqlite*"):
                path.unlink()
        self.farm.open()

    @rule()
    def kill(self) -> None:
        """Copies taken while the engine runs are what a kill leaves behind."""
        self.copies += 1
        copies = []
        for number, volume in enumerate(self.farm.settings):
            copies.append(self.root / f"copy{self.copies}-{number}")
            crash_copy(volume.path, copies[-1])
        self.farm.engine.close()
        for volume in self.farm.settings:
            shutil.rmtree(volume.path)
        self.farm.settings = [VolumeSettings(copy, 64 * MIB) for copy in copies]
        self.farm.open()

    @invariant()
    def agrees(self) -> None:
        """Each shard is there once, in its state; each volume is within its quota."""
        if not hasattr(self, "farm"):
            return
        engine = self.farm.engine
        for renter in (ALICE, BOB):
            page = engine.page(renter, ShardId(bytes(32)), 1000)
            known = {shard: one for (who, shard), one in self.known.items() if who == renter}
            assert {row.shard: row.state for row in page} == {
                shard: one.state for shard, one in known.items()
            }
            for row in page:
                in_trash = row.state is ShardState.TRASH
                assert row.gone_at_ms == (known[row.shard].gone_at_ms if in_trash else 0)
            self.check_usage(engine.usage(renter), known)
        engine.compare_with_disk()
        for status in engine.volumes():
            taken = status.used_bytes + status.trash_bytes + status.reserved_bytes
            assert taken + status.allowance_bytes <= status.quota_bytes
            assert status.allocated_bytes <= status.quota_bytes
        assert sum(status.shards for status in engine.volumes()) == len(self.known)


TestMoving = MovingMachine.TestCase
TestMoving.settings = settings(
    max_examples=15,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
