"""What every benchmark shares: where it ran, how figures are shown and kept."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent
OUT = Path(os.environ.get("BENCHMARKS_OUT") or HERE / "out")
"""Where figures are kept, beside those that somebody has measured before or apart from them."""


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


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value below which this part of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def commit(folder: Path = HERE) -> str | None:
    """
    Return the short name of the commit that is checked out; None where git knows of none.

    It ends in `-dirty` if what was measured is not quite that commit.
    """
    words = ("git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*")
    try:
        told = subprocess.run(words, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return told.stdout.strip() or None


def report(name: str, figures: dict[str, object]) -> None:
    """Print the figures and keep them as NAME.json in `OUT`, with where and when."""
    document = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "figures": figures,
    }
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")
    width = max(map(len, figures))
    for key, value in figures.items():
        sys.stdout.write(f"{key:<{width}}  {value}\n")
