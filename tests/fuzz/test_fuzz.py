"""The kept inputs again, and a little of the campaign: `python -m tests.fuzz` is the whole one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz import runner
from tests.fuzz.decoders import ALL, target_of
from tests.fuzz.runner import CORPUS, Counts, corpus_of, guarded, run_many
from tests.fuzz.target import Target

EXECUTIONS = 1500


@pytest.fixture
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    target = target_of(request.param)
    yield target
    target.close()


@pytest.mark.parametrize("target", ALL, indirect=True)
def test_what_is_right_is_accepted(target: Target) -> None:
    """Every decoder takes most of its own first inputs, so the door is not simply shut."""
    seeds = target.seeds()
    assert sum(map(target.run, seeds)) >= len(seeds) / 2


@pytest.mark.parametrize("target", ALL, indirect=True)
def test_kept_inputs_find_nothing(target: Target) -> None:
    """Whatever once led somewhere new, or found a fault, is tried again and is harmless."""
    for data in corpus_of(target):
        target.run(data)


@pytest.mark.parametrize("target", ALL, indirect=True)
def test_changed_inputs_find_nothing(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few hundred changed inputs raise documented errors only, and nothing is misread."""
    monkeypatch.setattr(runner, "FAILURES", tmp_path)
    counts = run_many(target, min(EXECUTIONS, target.executions // 25), "suite")
    assert not counts.failures, counts.failures


def test_a_failing_input_is_written_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error that is not documented is noted with the input that raises it again."""

    class Broken(Target):
        name = "broken"

        def run(self, data: bytes) -> bool:
            return data[7] == 0

    monkeypatch.setattr(runner, "FAILURES", tmp_path)
    counts = Counts("broken")
    guarded(Broken(), b"short", counts, measured=False)

    (path,) = counts.failures.values()
    assert Path(path).read_bytes() == b"short"
    assert f"python -m tests.fuzz --replay {path}" in capsys.readouterr().out


def test_too_much_memory_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What allocates more than its input can be worth is noted."""

    class Greedy(Target):
        name = "greedy"

        def run(self, data: bytes) -> bool:
            return len(bytearray(1 << 24)) > 0

    monkeypatch.setattr(runner, "FAILURES", tmp_path)
    counts = Counts("greedy")
    guarded(Greedy(), b"", counts, measured=True)
    assert any("TooMuchError" in where for where in counts.failures)


def test_the_corpus_is_small_and_known() -> None:
    """Less than 1 MB in all, and every folder belongs to a decoder."""
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_000_000
    assert {path.parent.name for path in files} <= set(ALL)
