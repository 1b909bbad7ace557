"""What is answered for benchmarks: whether each could measure."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks import __main__ as every
from benchmarks import handshakes, load, small
from benchmarks.rig.entrance import DISK, answered
from benchmarks.rig.errors import MeasuringError

Began = list[str]

MEASURING = (*sorted(set(every.KNOWN) - {"hash_tree"}), "paired")
"""Those that write to a disk."""


@pytest.fixture
def began(monkeypatch: pytest.MonkeyPatch) -> Began:
    """Three benchmarks that measure nothing: the first fails, the second answers 3."""
    names: Began = []

    def fails(_words: Sequence[str]) -> int:
        names.append("load")
        raise MeasuringError("a connection was lost")

    def answers(name: str, code: int) -> Callable[[Sequence[str]], int]:
        def main(_words: Sequence[str]) -> int:
            names.append(name)
            return code

        return main

    monkeypatch.setattr(load, "main", fails)
    monkeypatch.setattr(small, "main", answers("small", 3))
    monkeypatch.setattr(handshakes, "main", answers("handshakes", 0))
    return names


def test_one_that_fails_says_why_and_answers_1(
    began: Began, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a line, not by a traceback."""
    assert answered(load.main, ()) == 1
    assert capsys.readouterr().err == "a connection was lost\n"


@pytest.mark.parametrize(
    ("names", "code"), [(("handshakes",), 0), (("load", "handshakes"), 1), (("small", "load"), 3)]
)
def test_the_worst_code_is_answered_for_several(
    began: Began, names: tuple[str, ...], code: int
) -> None:
    """One that fails does not stop those after it, nor do they hide it."""
    assert every.main(names) == code
    assert began == list(names)


def test_a_benchmark_that_is_none_is_named(
    began: Began, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is measured."""
    with pytest.raises(SystemExit, match="2"):
        every.main(("load", "lode"))
    assert "no such benchmark: lode" in capsys.readouterr().err
    assert not began


class PlaceAskedError(Exception):
    """Where it is to be measured; nothing is."""


@pytest.mark.parametrize("name", MEASURING)
def test_each_measures_on_the_disk_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Else on one that is no memory: nothing is durable there."""
    where = every.LONG.get(name, "paired.__main__" if name == "paired" else name)
    module = importlib.import_module(f"benchmarks.{where}")
    commit = ("HEAD",) if name == "paired" else ()

    def place(parent: Path) -> None:
        raise PlaceAskedError(parent)

    monkeypatch.setattr(module, "place", place)
    for words, disk in (((), DISK), (("--dir", str(tmp_path)), tmp_path)):
        with pytest.raises(PlaceAskedError) as asked:
            module.main((*commit, *words))
        assert asked.value.args == (disk,)


def test_a_disk_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is measured."""
    assert answered(load.main, ("--dir", str(tmp_path / "none"))) == 1
    assert capsys.readouterr().err == f"{tmp_path / 'none'}: No such file or directory\n"
