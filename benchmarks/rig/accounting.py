"""What a server and its children use: processor time and memory, from /proc."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
_GONE = (FileNotFoundError, ProcessLookupError)


def tree(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    children = defaultdict(list)
    for one, stat in _all():
        children[int(stat[1])].append(one)
    found = [pid]
    for one in found:
        found += children[one]
    return found


def alive_in_group(group: int) -> list[int]:
    """Return the processes of a group, without those that are dead and not yet buried."""
    return [one for one, stat in _all() if int(stat[2]) == group and stat[0] != "Z"]


def processor_s(pid: int) -> float:
    """Return the processor time of a process and its descendants, the ended ones too."""
    ticks = 0
    for one in tree(pid):
        with suppress(*_GONE):
            ticks += sum(map(int, _stat(one)[11:15]))
    return ticks / _TICKS_PER_S


def pss_bytes(pid: int) -> int:
    """Return the memory of a process and its descendants, each shared page once in the sum."""
    total = 0
    for one in tree(pid):
        with suppress(*_GONE):
            for line in (_PROC / str(one) / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def _all() -> Iterator[tuple[int, list[str]]]:
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            with suppress(*_GONE):
                yield int(entry.name), _stat(int(entry.name))


def _stat(pid: int) -> list[str]:
    """Return the fields from the state on (field 3 of proc(5)): a name may have blanks."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
