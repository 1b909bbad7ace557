"""A disk that does not answer at the start is passed over, and never holds the start up."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from farmer.identity.keys import Identity
from farmer.model.ids import NodeId
from farmer.running import register, volumes
from farmer.running.answering import answer_of
from farmer.running.home import Home
from farmer.running.making import Unmade, make_volumes
from farmer.running.stores import open_stores
from farmer.settings.schema import Settings, VolumeSettings
from farmer.storage.directory import MARKER_NAME, VolumeSetupError
from farmer.units import Space

MIB = 1 << 20
NOW_MS = 1_700_000_000_000


class Gate:
    """A disk that hangs while it is shut."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self.asked = 0

    def wait(self) -> None:
        self.asked += 1
        self._open.wait(60)

    def let_go(self) -> None:
        self._open.set()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    monkeypatch.setattr(answer_of, "__defaults__", (0.3,))
    made = Gate()
    yield made
    made.let_go()


def answer_with_error(monkeypatch: pytest.MonkeyPatch, number: int, *sick: Path) -> None:
    """Let what is asked of these paths fail, as a disk does that is there and broken."""
    real = volumes.filesystem_bytes

    def size(path: Path) -> int:
        if path in sick:
            raise OSError(number, os.strerror(number), str(path))
        return real(path)

    monkeypatch.setattr(volumes, "filesystem_bytes", size)


def fail(error: Exception) -> int:
    raise error


def test_when_a_volume_was_made_is_not_awaited_for_ever(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(volumes, "read_marker", lambda *_words: gate.wait())
    assert volumes.made_at_ms(tmp_path, NodeId(bytes(32))) == 0
    assert gate.asked == 1


def test_an_answer_is_passed_on() -> None:
    assert answer_of(lambda: 5, 60.0) == 5
    with pytest.raises(OSError, match="gone"):
        answer_of(lambda: fail(OSError("gone")), 60.0)
    with pytest.raises(TimeoutError, match="its own"):
        answer_of(lambda: fail(TimeoutError("its own")), 60.0)


def test_silence_is_none(gate: Gate) -> None:
    def ask() -> int:
        gate.wait()
        return 5

    assert answer_of(ask) is None
    assert gate.asked == 1


def test_a_known_volume_of_a_silent_disk_is_planned_with_nothing_free(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home.at(tmp_path)
    sick, well = tmp_path / "sick", tmp_path / "well"
    for path in (sick, well):
        path.mkdir()
        (path / MARKER_NAME).touch()
    register.remember(home, [(sick, 300 * MIB), (well, 200 * MIB)])
    real = volumes.filesystem_bytes

    def size(path: Path) -> int:
        if path == sick:
            gate.wait()
        return real(path)

    monkeypatch.setattr(volumes, "filesystem_bytes", size)
    asked = tuple(VolumeSettings(path=str(path), quota=Space(400 * MIB)) for path in (sick, well))
    first, second = volumes.plan_volumes(home, Settings(version=1, volumes=asked))
    assert (first.quota_bytes, first.is_guess, first.new) == (300 * MIB, True, False)
    assert first.keep_free_bytes == volumes.NOTHING_FREE_BYTES
    assert (second.quota_bytes, second.is_guess) == (400 * MIB, False)

    first, second = volumes.plan_volumes(home, Settings(version=1, volumes=asked), {sick})
    assert (first.is_guess, second.is_guess, gate.asked) == (True, False, 1), "not asked again"

    volumes.remember(home, [first, second])
    assert register.quotas(home) == {str(sick): 300 * MIB, str(well): 400 * MIB}


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EACCES])
def test_a_known_volume_whose_disk_answers_with_an_error_is_planned_as_a_silent_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It stops its volume, not the farmer."""
    home = Home.at(tmp_path / "home")
    home.make()
    sick, well = tmp_path / "sick", tmp_path / "well"
    register.remember(home, [(sick, 300 * MIB), (home.volume, 70 * MIB)])
    answer_with_error(monkeypatch, number, sick, home.volume)
    asked = tuple(VolumeSettings(path=str(path), quota=Space(400 * MIB)) for path in (sick, well))
    first, second = volumes.plan_volumes(home, Settings(version=1, volumes=asked))
    assert (first.quota_bytes, first.is_guess, first.new) == (300 * MIB, True, False)
    assert (first.keep_free_bytes, first.why_not) == (volumes.NOTHING_FREE_BYTES, "")
    assert (second.quota_bytes, second.is_guess) == (400 * MIB, False)
    [plan] = volumes.plan_volumes(home, Settings(version=1))
    assert (plan.quota_bytes, plan.is_guess, plan.new) == (70 * MIB, True, False)


def test_a_volume_that_was_never_made_is_refused_where_the_disk_answers_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the start and by the owner's commands; the error and its place are named."""
    home, path = Home.at(tmp_path / "home"), tmp_path / "sick"
    home.make()
    identity = Identity.load_or_create(home.identity)
    answer_with_error(monkeypatch, errno.EACCES, path)
    asked = (VolumeSettings(path=str(path), quota=Space(400 * MIB)),)
    [plan] = volumes.plan_volumes(home, Settings(version=1, volumes=asked))
    said = f"{path}: {os.strerror(errno.EACCES)}. No volume was made there yet"
    with pytest.raises(VolumeSetupError, match=said):
        Unmade(home, identity, lambda: NOW_MS).make(plan)
    with pytest.raises(VolumeSetupError, match=said):
        make_volumes(home, identity, [plan], NOW_MS)
    assert not path.exists()


def test_a_start_goes_on_without_a_disk_that_answers_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home.at(tmp_path / "home")
    home.make()
    sick, well = tmp_path / "sick", tmp_path / "well"
    asked = tuple(VolumeSettings(path=str(path), quota=Space(400 * MIB)) for path in (sick, well))
    settings = Settings(version=1, volumes=asked)
    open_stores(home, settings, lambda: NOW_MS, print).close()
    answer_with_error(monkeypatch, errno.EIO, sick)
    stores = open_stores(home, settings, lambda: NOW_MS, print)
    assert stores.silent == {sick}, "to be asked again"
    assert stores.engine.volume_at(well) is not None
    stores.close()


@pytest.mark.parametrize(
    ("quota", "planned_bytes"), [(Space(400 * MIB), 400 * MIB), (Space(percent=80.0), 64 * MIB)]
)
def test_a_new_volume_of_a_silent_disk_is_planned_too(
    tmp_path: Path,
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
    quota: Space,
    planned_bytes: int,
) -> None:
    monkeypatch.setattr(volumes, "filesystem_bytes", lambda _path: gate.wait())
    home, asked = Home.at(tmp_path), VolumeSettings(path=str(tmp_path / "sick"), quota=quota)
    [plan] = volumes.plan_volumes(home, Settings(version=1, volumes=(asked,)))
    assert (plan.is_guess, plan.new, plan.quota_bytes) == (True, True, planned_bytes)
    assert plan.keep_free_bytes == volumes.NOTHING_FREE_BYTES
    [plan] = volumes.plan_volumes(home, Settings(version=1))
    assert (plan.is_guess, plan.new, plan.quota_bytes) == (True, True, 64 * MIB)
    [doubt] = volumes.doubts([plan])
    assert "does not answer" in doubt
    volumes.remember(home, [plan])
    assert not register.quotas(home)


def test_the_register_does_not_wait_for_what_is_silent(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home.at(tmp_path)
    sick, left_out = tmp_path / "sick", tmp_path / "left-out"
    register.remember(home, [(sick, 300 * MIB), (left_out, 200 * MIB)])

    def hang(_path: Path) -> str:
        gate.wait()
        return ""

    monkeypatch.setattr(register, "volume_id", hang)
    [known] = register.not_among(home, [sick], silent={sick})
    assert (known.path, known.held, known.was_used) == (left_out, None, True)
    assert gate.asked == 1, "what is known to be silent is not asked"
    assert [one.path for one in register.not_among(home, [sick])] == [left_out]
