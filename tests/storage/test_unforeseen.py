"""Errors that nobody foresaw: the farmer goes on, and its owner can say what it was, and where."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from farmer.model.status import VolumeState
from farmer.storage import keeper
from farmer.storage import writer as writer_module
from farmer.storage.condition import PROOFS_WANTED, Seen
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.operations import Upkeep
from farmer.storage.transaction import Transaction
from tests.storage.bench import ALICE, Farm, noise

HERE = r"internal error: ZeroDivisionError\('division by zero'\) at test_unforeseen\.py:\d+$"


def broken(*_: object) -> None:
    1 / 0  # noqa: B018  # it is to fail


def test_a_volume_that_cannot_be_opened_says_where_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "open_volume", broken)
    with closing(Farm(tmp_path).engine) as engine:
        (status,) = engine.volumes()
    assert status.reason.startswith("cannot be used: internal error: ZeroDivisionError")
    assert "test_unforeseen.py" in status.reason


def test_work_that_breaks_in_the_writer_is_told_to_who_asked_and_nobody_hangs(
    tmp_path: Path,
) -> None:
    farm = Farm(tmp_path)

    def breaks(_: Transaction) -> None:
        broken()

    with closing(farm.engine) as engine:
        (volume,) = engine.opened()
        with pytest.raises(VolumeUnavailableError, match=HERE):
            volume.writer.submit(Upkeep(breaks)).result(20)
        (status,) = engine.volumes()
        assert "test_unforeseen.py" in status.reason
        with pytest.raises(VolumeUnavailableError):
            farm.store(noise(100))


def no_memory(*_: object) -> bool:
    raise MemoryError


def is_healthy_again(farm: Farm) -> bool:
    """Look after the volume for as long as it must prove itself."""
    (slot,), now = farm.engine._slots, [0.0]
    slot._around = replace(slot._around, monotonic_s=lambda: now[0])
    for _ in range(PROOFS_WANTED[Seen.BROKEN] + 2):
        now[0] += 6
        farm.engine.look_after_disks()
    (status,) = farm.engine.volumes()
    return status.state is VolumeState.HEALTHY


def test_a_writer_that_finds_no_memory_to_wait_for_work_ends_and_nobody_waits_for_it(
    tmp_path: Path,
) -> None:
    farm = Farm(tmp_path)
    kept = farm.store(noise(100)).shard
    with closing(farm.engine) as engine:
        writer = engine.opened()[0].writer
        upload = farm.begin(noise(102))
        upload.write(noise(102))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(writer._arrived, "wait", no_memory)
            farm.store(noise(101))
            assert writer._has_ended.wait(20)
        with pytest.raises(VolumeUnavailableError, match="want of memory"):
            upload.commit().result(20)
        assert writer.is_broken
        (status,) = engine.volumes()
        assert (status.state, status.reason) == (
            VolumeState.FAILING,
            "its writer has ended, for want of memory",
        )
        assert is_healthy_again(farm)
        farm.store(noise(102))
        assert farm.read(kept) == noise(100)
        assert engine.usage(ALICE).reserved_bytes == 0


@pytest.mark.parametrize("where", ["internal", "_leave", "_keys"])
def test_a_writer_that_finds_no_memory_to_say_what_broke_lets_nobody_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    farm = Farm(tmp_path)
    begun, may_go_on = Event(), Event()

    def breaks(_: Transaction) -> None:
        begun.set()
        may_go_on.wait(20)
        broken()

    there, calls = getattr(writer_module, where), []

    def once(*words: Any) -> Any:
        calls.append(where)
        if len(calls) == 1:
            raise MemoryError
        return there(*words)

    with closing(farm.engine) as engine:
        writer = engine.opened()[0].writer
        monkeypatch.setattr(writer_module, where, once)
        first = writer.submit(Upkeep(breaks))
        assert begun.wait(20)
        behind = [writer.submit(Upkeep(lambda _: None)) for _ in range(3)]
        may_go_on.set()
        for one in (first, *behind):
            with pytest.raises(VolumeUnavailableError):
                one.result(20)
        assert engine.volumes()[0].state is VolumeState.FAILING
        assert is_healthy_again(farm)
        farm.store(noise(100))
