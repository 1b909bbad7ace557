"""
`process_*` of ours, where /proc shows processes and nothing else (`ProcSubset=pid` of our units).

There prometheus_client says none of them: it wants to read in /proc/stat when the machine began.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

PROC: Final = Path("/proc")

_START_AT: Final = 19
"""In ticks since the machine began; counted from what follows the name, as proc(5) does not."""


def tell_of_process(registry: CollectorRegistry, proc: Path = PROC) -> None:
    """Have *registry* tell of this process, unless `ProcessCollector` does so."""
    if not (proc / "stat").exists() and (proc / "self" / "stat").exists():
        registry.register(OwnProcess(proc / "self"))


class OwnProcess(Collector):
    """The families of prometheus_client's `ProcessCollector`, from the process's own directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        fields = (directory / "stat").read_bytes().rpartition(b")")[2].split()
        after_boot_s = int(fields[_START_AT]) / os.sysconf("SC_CLK_TCK")
        booted_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        self._started_s = booted_s + after_boot_s

    def collect(self) -> Iterator[Metric]:
        """Yield them as they are now; none while no more files can be opened."""
        with suppress(OSError):
            yield from self._measured()

    def _measured(self) -> list[Metric]:
        pages, resident_pages = map(int, (self._directory / "statm").read_text().split()[:2])
        page_bytes = resource.getpagesize()
        open_fds = sum(1 for _ in (self._directory / "fd").iterdir())
        max_fds, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        started = "Start time of the process since unix epoch in seconds."
        used = "Total user and system CPU time spent in seconds."
        return [
            _gauge("virtual_memory_bytes", "Virtual memory size in bytes.", pages * page_bytes),
            _gauge(
                "resident_memory_bytes",
                "Resident memory size in bytes.",
                resident_pages * page_bytes,
            ),
            _gauge("start_time_seconds", started, self._started_s),
            _gauge("open_fds", "Number of open file descriptors.", open_fds),
            _gauge("max_fds", "Maximum number of open file descriptors.", max_fds),
            CounterMetricFamily("process_cpu_seconds_total", used, value=time.process_time()),
        ]


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"process_{name}", text, value=value)
