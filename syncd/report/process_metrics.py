"""Metrics of the process itself, under the names that every Prometheus exporter gives them.

The library's own collector shows nothing under the unit as shipped: it wants the time of the boot
from /proc/stat, which `ProcSubset=pid` hides.  The same is here from what a process may always see
of itself.

Sources: proc_pid_stat(5) and
https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

_SELF = Path("/proc/self")
_TICKS = os.sysconf("SC_CLK_TCK")
# Positions behind the name in stat, which may contain anything.
_USER, _SYSTEM, _BEGAN, _VIRTUAL, _RESIDENT = 11, 12, 19, 20, 21


class ProcessMetrics:
    """The metrics of the running process; it remembers when the process began.

    What `/proc` does not show is left out.
    """

    def __init__(self) -> None:
        self._began: float | None = None

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        try:
            stat = (_SELF / "stat").read_text(errors="replace").rpartition(")")[2].split()
            descriptors = sum(1 for _ in (_SELF / "fd").iterdir())
        except OSError:
            return
        if self._began is None:  # once, since the clock may be set, and the process begins no more
            age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(stat[_BEGAN]) / _TICKS
            self._began = time.time() - age
        cpu = (int(stat[_USER]) + int(stat[_SYSTEM])) / _TICKS
        yield CounterMetricFamily(
            "process_cpu_seconds", "Total user and system CPU time spent in seconds.", cpu
        )
        for name, text, value in (
            ("open_fds", "Number of open file descriptors.", descriptors),
            (
                "max_fds",
                "Maximum number of open file descriptors.",
                resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            ),
            ("virtual_memory_bytes", "Virtual memory size in bytes.", int(stat[_VIRTUAL])),
            (
                "resident_memory_bytes",
                "Resident memory size in bytes.",
                int(stat[_RESIDENT]) * resource.getpagesize(),
            ),
            (
                "start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
                self._began,
            ),
        ):
            yield GaugeMetricFamily(f"process_{name}", text, value)
