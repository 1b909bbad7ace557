"""In which order cells are run, and who goes on when one fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers import run
from benchmarks.peers.job import Job, Target
from benchmarks.peers.peer import PeerError, Traits
from benchmarks.peers.run import Plan, Run, turned

MIB = 1024**2
PLAN = Plan((65536, 64 * MIB), (1, 16), 2, 0.1, 10 * MIB)


class FakePeer:
    """Serves nothing; may fail to be installed, or to start for the n-th time."""

    def __init__(self, name: str, installs: bool = True, starts: int = 99) -> None:
        self.traits = Traits(name, tls=False, syncs=False, does="nothing")
        self.installs = installs
        self.starts = starts

    def set_up(self, cache: Path) -> str:
        if not self.installs:
            raise PeerError("no such package")
        return "1.0"

    @contextmanager
    def serving(self, folder: Path) -> Iterator[Target]:
        assert not list(folder.iterdir())
        self.starts -= 1
        if self.starts < 0:
            raise PeerError("it ended at once")
        yield Target(self.traits.name, 1)


def run_all(tmp_path: Path, monkeypatch, peers: list[FakePeer]) -> tuple[list[Job], list[str]]:
    jobs: list[Job] = []
    told: list[str] = []

    def measured(job: Job) -> list[dict[str, object]]:
        jobs.append(job)
        return [{"what": "store"}]

    monkeypatch.setattr(run, "_measured", measured)
    monkeypatch.setattr(run, "level", lambda: None)
    monkeypatch.setattr(run, "OUT", tmp_path / "out")
    monkeypatch.setattr(run, "RESULT", tmp_path / "out" / "peers.json")
    work = tmp_path / "work"
    work.mkdir()
    one = Run(PLAN, work, told.append)
    one.measure(one.set_up(peers, tmp_path))
    assert not list(work.iterdir())
    return jobs, told


def test_each_turn_begins_with_another() -> None:
    """Nobody always comes first, and the order stays a circle."""
    assert [turned("abc", turn) for turn in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


def test_large_shards_go_one_at_a_time() -> None:
    """Sixteen of 64 MiB would measure memory."""
    assert PLAN.works() == [(65536, 1), (65536, 16), (64 * MIB, 1)]


def test_every_peer_does_every_cell_in_every_round(tmp_path, monkeypatch) -> None:
    """Cells alternate: one of each peer, then the next work."""
    jobs, _ = run_all(tmp_path, monkeypatch, [FakePeer("a"), FakePeer("b")])
    assert [job.target.dialect for job in jobs] == [*"ab", *"ba", *"ab", *"ba", *"ab", *"ba"]
    assert [(job.size_bytes, job.at_once) for job in jobs[::2]] == PLAN.works() * 2


def test_memory_is_supplied_before_each_cell_for_all_alike(tmp_path, monkeypatch) -> None:
    """As much as the cell may store, in its own folder."""
    supplied = []
    monkeypatch.setattr(run, "supply", lambda folder, size: supplied.append((folder.name, size)))
    jobs, _ = run_all(tmp_path, monkeypatch, [FakePeer("a"), FakePeer("b")])
    assert supplied == [("work", PLAN.bytes_max)] * len(jobs)


def test_who_cannot_be_installed_is_named_and_left_out(tmp_path, monkeypatch) -> None:
    """The others go on."""
    jobs, told = run_all(tmp_path, monkeypatch, [FakePeer("a"), FakePeer("b", installs=False)])
    assert {job.target.dialect for job in jobs} == {"a"}
    assert "b is left out: no such package" in told


def test_who_fails_on_the_way_is_left_out_from_there(tmp_path, monkeypatch) -> None:
    """What it did before stays; the others do all their cells."""
    jobs, told = run_all(tmp_path, monkeypatch, [FakePeer("a"), FakePeer("b", starts=2)])
    assert [job.target.dialect for job in jobs].count("a") == 6
    assert [job.target.dialect for job in jobs].count("b") == 2
    assert "b is left out: it ended at once" in told


def test_a_job_survives_being_written() -> None:
    """It passes to another process as text."""
    job = Job(Target("farmer", 7, invites=("one", "two")), "/there", 65536, 16, 1.5, 10)
    assert Job.from_json(job.to_json()) == job
