"""Errors that nobody foresaw: the farmer goes on, and its owner can say what it was, and where."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from farmer.storage import keeper
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.operations import Upkeep
from farmer.storage.transaction import Transaction
from tests.storage.bench import Farm, noise

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
