"""What every benchmark shares: where it ran, how figures are shown and kept."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

OUT = Path(__file__).parent / "out"


def machine() -> dict[str, object]:
    """Describe the machine without naming it."""
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def spread(values: Sequence[float]) -> str:
    """Return median [least..most]."""
    return f"{statistics.median(values):.4g} [{min(values):.4g}..{max(values):.4g}]"


def report(name: str, figures: dict[str, object]) -> None:
    """Print the figures and keep them as benchmarks/out/NAME.json."""
    OUT.mkdir(exist_ok=True)
    (OUT / f"{name}.json").write_text(
        json.dumps({"machine": machine(), "figures": figures}, indent=2) + "\n"
    )
    width = max(map(len, figures))
    for key, value in figures.items():
        sys.stdout.write(f"{key:<{width}}  {value}\n")


def memory_bytes(pid: int | str, field: str) -> int:
    """Return VmRSS (now) or VmHWM (peak) of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def reset_peak(pid: int | str) -> None:
    """Make VmHWM count from now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
