"""What a power cut tears and lets overtake is counted, and what a call returns is traced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from farmer.storage.files import Access
from tests.simulation.disk import SimDisk
from tests.simulation.nodes import BLOCK, Drive, Node

WRITES = 8
PIECES = 2
"""Blocks of each write."""


class _Listener:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.answers: list[object] = []
        self.befallen: Counter[str] = Counter()
        self.amid_a_call: Callable[[], None] = lambda: None

    def called(self, name: str, where: str, what: object = "") -> None:
        self.amid_a_call()

    def answered(self, what: object) -> None:
        self.answers.append(what)

    def struck(self, kind: str) -> None:
        raise AssertionError(kind)

    def befell(self, kind: str) -> None:
        self.befallen[kind] += 1

    def betrayed(self, *_: object) -> None:
        pass


def a_file(root: Path, seed: int) -> tuple[SimDisk, _Listener, int]:
    listener = _Listener()
    disk = SimDisk(root, Random(seed), listener, lambda _s: None)
    disk.add_drive("one", 1 << 20, can_punch=True)
    fd = disk.open(root / "one" / "file", Access.CREATE)
    disk.sync_directory(root / "one")
    return disk, listener, fd


def what_is_left(node: Node) -> list[Counter[int]]:
    """Return for each write how many of its sectors are there, by their byte, and are not (0)."""
    left = []
    for at in range(0, WRITES * PIECES * BLOCK, PIECES * BLOCK):
        raw = bytes(node.platter[at : at + PIECES * BLOCK]).ljust(PIECES * BLOCK, b"\0")
        left.append(Counter(raw[sector] for sector in range(0, len(raw), 512)))
    return left


def test_a_crash_counts_the_writes_that_it_tore_and_those_that_overtook(tmp_path: Path) -> None:
    """As the platter shows them; none is counted that is there as a whole, or not at all."""
    seen: Counter[str] = Counter()
    for seed in range(60):
        disk, listener, fd = a_file(tmp_path, seed)
        for number in range(WRITES):
            raw = bytes([number + 1]) * PIECES * BLOCK
            disk.pwritev(fd, [raw], number * PIECES * BLOCK)
        disk.crash()
        left = what_is_left(disk.drives["one"].nodes()[0])
        torn = [one for one in left if len(one) > 1]
        is_gone = [set(one) == {0} for one in left]
        has_overtaken = any(gone and not all(is_gone[at:]) for at, gone in enumerate(is_gone))
        told = listener.befallen
        assert told["torn write at 512"] + told["torn write at 4096"] == len(torn)
        assert told["torn write at 4096"] <= sum(one[0] * 512 == BLOCK for one in torn)
        assert told["reordered writes"] == has_overtaken
        seen += told
    assert {"torn write at 512", "torn write at 4096", "reordered writes"} <= set(seen)


def test_a_write_below_an_earlier_one_has_been_overtaken(tmp_path: Path) -> None:
    """Both are there, and the older bytes are what is read."""
    seen = set()
    for seed in range(60):
        disk, listener, fd = a_file(tmp_path, seed)
        for byte in (b"1", b"2"):
            disk.pwritev(fd, [byte * 512], 0)
        disk.crash()
        raw = bytes(disk.drives["one"].nodes()[0].platter)
        seen.add((raw[:1], listener.befallen["reordered writes"]))
    assert seen >= {(b"1", 1), (b"2", 0)}


def test_the_trace_has_what_a_read_returned(tmp_path: Path) -> None:
    """One flipped bit is another trace, though the calls are the same."""
    answers = []
    for byte in (b"a", b"b"):
        disk, listener, fd = a_file(tmp_path, 1)
        disk.pwritev(fd, [byte * BLOCK], 0)
        listener.answers.clear()
        disk.pread(fd, BLOCK, 0)
        disk.size(fd)
        answers.append(list(listener.answers))
    assert answers[0][0] != answers[1][0]
    assert answers[0][1:] == answers[1][1:] == [BLOCK]


@pytest.mark.parametrize("fault", ["lost", "misdirected", "EIO"])
def test_a_fault_that_is_due_amid_a_call_is_left_to_the_next_one(
    tmp_path: Path, fault: str
) -> None:
    """A call hands the baton on while it begins, and another strand may arm what it does then."""
    disk, listener, fd = a_file(tmp_path, 1)
    drive = disk.drives["one"]
    disk.pwritev(fd, [b"a" * BLOCK], 0)
    listener.amid_a_call = lambda: drive.armed.update(sync_data=fault)
    disk.sync_data(fd)
    assert drive.armed == {"sync_data": fault}
    assert drive.nodes()[0].platter == b"a" * BLOCK


def test_a_drive_that_was_over_its_quota_for_a_moment_says_so_afterwards() -> None:
    """Its index counts; what is given back before anybody looks does not help."""
    drive = Drive("one", 1 << 20, quota_bytes=10 * BLOCK, index_bytes=BLOCK)
    drive.take(9)
    assert drive.excess_bytes == 0
    drive.take(1)
    drive.used_bytes -= 5 * BLOCK
    drive.compare()
    assert drive.excess_bytes == BLOCK


def test_a_block_of_zeros_that_was_synced_is_taken_after_a_power_cut(tmp_path: Path) -> None:
    disk, _listener, fd = a_file(tmp_path, 0)
    disk.pwritev(fd, [bytes(BLOCK)], 0)
    disk.sync_data(fd)
    disk.crash()
    assert disk.drives["one"].used_bytes == BLOCK
