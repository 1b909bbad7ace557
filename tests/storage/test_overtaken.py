"""What happens to a shard, or to a volume, while the house is working on it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from farmer.model.shard import ShardState
from farmer.storage.directory import VolumeSettings, VolumeSetupError, lock_volume
from farmer.storage.duty import Duty, Leaving
from farmer.storage.errors import ShardNotFoundError
from farmer.storage.files import OsFiles
from farmer.storage.mending import Mending
from farmer.storage.volume import Volume
from tests.storage.bench import ALICE, MIB, Farm, crash_copy, finished, noise
from tests.storage.rot import flip, rot, row_of, volume_of
from tests.storage.test_moving import DRAIN, Street
from tests.storage.test_scrub import scrub
from tests.waiting import wait_until


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    farm = Farm(tmp_path)
    yield farm
    farm.engine.close()


def amid_mending(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Have something done when the house has begun to write a damaged record anew."""
    start = Mending.start

    def late(mending: Mending) -> None:
        start(mending)
        act()

    monkeypatch.setattr(Mending, "start", late)


@pytest.mark.parametrize("size", [9000, 3 * MIB])
@pytest.mark.parametrize("erase", [True, False])
def test_what_is_deleted_while_it_is_mended_stays_deleted(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, *, erase: bool, size: int
) -> None:
    shard = farm.store(noise(size)).shard
    rot(farm, row_of(farm, shard), "header")
    amid_mending(monkeypatch, lambda: farm.delete(shard, erase=erase))
    scrub(farm)
    if erase:
        with pytest.raises(ShardNotFoundError):
            farm.engine.stat(ALICE, shard)
    else:
        assert farm.engine.stat(ALICE, shard).state is ShardState.TRASH
    assert farm.engine.usage(ALICE).reserved_bytes == 0


def test_what_is_purged_while_it_is_mended_stays_gone(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = farm.store(noise(9000)).shard
    rot(farm, row_of(farm, shard), "header")
    amid_mending(monkeypatch, lambda: farm.engine.purge(ALICE))
    scrub(farm)
    assert farm.engine.usage(ALICE).shards == 0
    assert farm.engine.usage(ALICE).reserved_bytes == 0


def test_a_volume_that_is_opened_anew_is_not_retired_as_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its account is empty for the moment: what it holds is not counted while it is closed."""
    street = Street(tmp_path)
    with closing(street.farm.engine) as engine:
        source = street.source
        engine.mover.begin(source, Duty(verb=Leaving.RETIRE, since_ms=1, remove=True))
        listed = engine.mover._volumes

        def volumes() -> list[Volume]:
            found = listed()
            monkeypatch.setattr(engine.mover, "_volumes", listed)
            engine._slots[0]._open_anew(source)
            return list(found)

        monkeypatch.setattr(engine.mover, "_volumes", volumes)
        assert finished(engine.mover) == []


class HookedFiles(OsFiles):
    """Does something once, after the sync of a large copy that says it is stored."""

    def __init__(self) -> None:
        self.act: Callable[[], object] | None = None

    def sync_data(self, fd: int) -> None:
        super().sync_data(fd)
        name = str(Path(f"/proc/self/fd/{fd}").readlink())
        if self.act and "volume1/staging" in name and os.pread(fd, 11, 0)[10:] == b"\x01":
            act, self.act = self.act, None
            act()


def test_a_large_copy_whose_target_is_opened_anew_is_not_given_up_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new opening has entered it, and keeps its file: the target has it, not both."""
    files = HookedFiles()
    street = Street(tmp_path, files=files)
    with closing(street.farm.engine) as engine:
        street.begin()
        target = street.target
        submit = target.writer.submit
        anew = threading.Thread(target=engine._slots[1]._open_anew, args=(target,), daemon=True)
        files.act = anew.start

        def submit_late(*what: Any) -> Future[Any]:
            if anew.ident is not None and threading.current_thread() is not anew:
                anew.join(20)
                assert not anew.is_alive()
            return submit(*what)

        monkeypatch.setattr(target.writer, "submit", submit_late)
        for _ in range(5):
            street.steps()
        assert files.act is None
        street.check_bytes()


@pytest.mark.parametrize("many", [255, 256])
def test_any_number_of_damaged_shards_may_be_left_by_a_forced_retire(
    tmp_path: Path, many: int
) -> None:
    farm = Farm(tmp_path, volumes=2)
    with closing(farm.engine) as engine:
        here, there = engine.opened()
        there.duty = DRAIN
        for number in range(many):
            farm.store(noise(20, number))
        there.duty = None
        for row in here.ground.index.some(None, 1000):
            here.quarantine(row)
        engine.mover.begin(here, Duty(verb=Leaving.RETIRE, since_ms=1, force=True))
        while engine.mover.step() is not None:
            pass
        assert finished(engine.mover) == [here]


class Gathering:
    """The index's lock for who wants nobody to look; counts who has come to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.came = 0

    def __enter__(self) -> None:
        self.came += 1
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_two_who_want_nobody_to_look_do_not_wait_for_each_other(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second comes while the first has one of the connections that both want all of."""
    index = volume_of(farm).ground.index
    take, gathering, taken = index._reader, Gathering(), []
    # Where the two would wait for ever, the index can be closed all the same.
    readers: SimpleQueue[Any] = SimpleQueue()
    for number in range(index._readers.qsize()):
        readers.put(number)

    def hold_still() -> None:
        with index.unmoved():
            pass

    def reader() -> Any:
        mine = take()
        taken.append(mine)
        if len(taken) == 1:
            second.start()
            wait_until(lambda: gathering.came == 2 or len(taken) > 1)
        return mine

    monkeypatch.setattr(index, "_readers", readers)
    monkeypatch.setattr(index, "_reader", reader)
    monkeypatch.setattr(index, "_gathering", gathering)
    first, second = (threading.Thread(target=hold_still, daemon=True) for _ in range(2))
    first.start()
    first.join(20)
    assert not first.is_alive()
    second.join(20)
    assert not second.is_alive()


def test_a_stored_shard_with_a_damaged_header_in_staging_is_kept(tmp_path: Path) -> None:
    """The index knows it; only with the index, too, would nobody know whose it is."""
    farm, data = Farm(tmp_path), noise(3 * MIB)
    shard = farm.store(data).shard
    crash_copy(farm.path, tmp_path / "copy")
    farm.engine.close()
    [part] = (tmp_path / "copy" / "staging").iterdir()
    flip(part, 60)
    farm.settings = [VolumeSettings(tmp_path / "copy", 64 * MIB)]
    farm.open()
    with closing(farm.engine):
        assert farm.read(shard) == data


def test_a_lock_that_fails_leaves_no_descriptor(tmp_path: Path) -> None:
    class NoLocks(OsFiles):
        def lock(self, fd: int) -> bool:
            raise OSError("no locks available")

    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(OSError, match="no locks"):
            lock_volume(tmp_path, NoLocks())
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    fd = lock_volume(tmp_path, OsFiles())
    with pytest.raises(VolumeSetupError):
        lock_volume(tmp_path, OsFiles())
    os.close(fd)
