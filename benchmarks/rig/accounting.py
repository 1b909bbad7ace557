"""What a process, or a server with its children, uses: processor time and memory."""

from __future__ import annotations

import os
import time
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
    return [one for one, stat in _all() if int(stat[2]) == group and stat[0] != b"Z"]


def processor_s(pid: int) -> float:
    """Return the processor time that all threads of a process have used so far, to the us."""
    # The clock of another process: clock_getcpuclockid(3), which Python does not have.
    return time.clock_gettime((~pid << 3) | 2)


def family_processor_s(pid: int) -> float:
    """Return the processor time of a process and its descendants, the ended ones too, to 10 ms."""
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


def memory_bytes(pid: int | str, field: str) -> int:
    """Return VmRSS (now) or VmHWM (peak) of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def reset_peak(pid: int | str) -> None:
    """Make VmHWM count from now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _all() -> Iterator[tuple[int, list[bytes]]]:
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            with suppress(*_GONE):
                yield int(entry.name), _stat(int(entry.name))


def _stat(pid: int) -> list[bytes]:
    """Return the fields from the state on (field 3 of proc(5)): a name may have any bytes."""
    return (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
