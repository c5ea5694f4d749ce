"""Metrics for Prometheus: what is true now, and what was ever counted.

What is watched, published and counted is read from the ledger at each scrape, so that a restart
changes nothing of it.  Every label's values are bounded by the configuration, whatever is asked of
syncd.  A scrape waits for the ledger alone, and for nothing that is somewhere else.

Source: https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import structlog
from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from syncd import __version__
from syncd.errors import LedgerError
from syncd.report.condition_metrics import condition_metrics
from syncd.report.process_metrics import ProcessMetrics
from syncd.report.registry_traffic import configured_registries
from syncd.report.space_metrics import Usage, space_metrics, storage_metrics
from syncd.report.total_metrics import job_metrics, total_metrics
from syncd.sync import Counted, Ledger, Reload, Running, conditions_now

log = structlog.stdlib.get_logger()

_RUNS = {
    "sweep": ("syncd_last_sweep_timestamp_seconds", "When the last sweep began."),
    "weekly": ("syncd_last_weekly_run_timestamp_seconds", "When the last weekly run began."),
}


@dataclass(frozen=True, slots=True)
class Load:
    """How many jobs of the daemon wait for their turn, and how many run."""

    waiting: int
    running: int


class Metrics:
    """What is told of one process.  Safe to use from several threads.

    `usage` is the space as it was found last; whoever looks sets it.
    """

    def __init__(self, running: Running, ledger: Ledger) -> None:
        self._running = running
        self._ledger = ledger
        self._process = ProcessMetrics()
        self._applied, self._rejected = time.time(), False
        self.usage = Usage()

    def reloaded(self, end: Reload) -> None:
        """Hear what became of a reload of the configuration."""
        self._rejected = end is Reload.REJECTED
        if not self._rejected:
            self._applied = time.time()
        self._ledger.tally.add(Counted.RELOADS, end)

    def exposition(self, load: Load) -> bytes:
        """Return all metrics in Prometheus' text format.  Blocking.

        Without its ledger syncd tells what it knows by itself, and that the ledger is not readable.
        """
        try:
            told = [*self._of_ledger(), _readable(True)]
        except LedgerError as exc:
            log.error("metrics without the ledger", error=str(exc))
            return self.without_ledger(load)
        return _text([*self._of_process(load), *told])

    def without_ledger(self, load: Load) -> bytes:
        """Return the metrics for which the ledger need not be asked, in the same format."""
        return _text([*self._of_process(load), _readable(False)])

    def _of_ledger(self) -> Iterator[Metric]:
        """Yield what the ledger tells; raise LedgerError."""
        config, figures = self._running.config, self._ledger.figures
        conditions = conditions_now(config, self._ledger.conditions.all())
        yield from condition_metrics(conditions, figures.templates())
        names = {target.name for target in config.target}
        storages = figures.storages()
        yield from storage_metrics({name: storages[name] for name in names & storages.keys()})
        yield job_metrics(self._ledger.totals.jobs())
        yield GaugeMetricFamily(
            "syncd_notifications_undelivered",
            "Notifications that some receiver does not have yet.",
            figures.undelivered(),
        )
        runs = figures.runs()
        if config.schedule.sweep is None:
            runs.pop("sweep", None)
        for run in runs.keys() & _RUNS.keys():
            yield GaugeMetricFamily(*_RUNS[run], runs[run].timestamp())

    def _of_process(self, load: Load) -> Iterator[Metric]:
        """Yield what is known without the ledger."""
        config = self._running.config
        info = GaugeMetricFamily("syncd_build_info", "The running version.", labels=("version",))
        info.add_metric((__version__,), 1)
        yield info
        yield GaugeMetricFamily(
            "syncd_jobs_waiting", "Jobs that wait for their turn.", load.waiting
        )
        yield GaugeMetricFamily("syncd_jobs_running", "Jobs that run.", load.running)
        yield GaugeMetricFamily(
            "syncd_config_last_reload_successful",
            "Whether the configuration's file was taken over when it was last read (1) or not.",
            not self._rejected,
        )
        yield GaugeMetricFamily(
            "syncd_config_last_reload_success_timestamp_seconds",
            "When a configuration was last taken over.",
            self._applied,
        )
        if config.schedule.sweep is not None:
            yield GaugeMetricFamily(
                "syncd_sweep_interval_seconds",
                "How often all that is watched is looked at, as it is configured.",
                config.schedule.sweep.total_seconds(),
            )
        yield from total_metrics(self._ledger.tally.totals(), configured_registries(config))
        yield from space_metrics(self.usage, config.state.cache_max)
        yield from self._process.collect()


class _Collected:
    """Metrics that were made already, as the library's encoder wants them."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _text(metrics: list[Metric]) -> bytes:
    return generate_latest(_Collected(metrics))


def _readable(value: bool) -> Metric:
    return GaugeMetricFamily(
        "syncd_ledger_readable", "Whether the ledger can be read (1) or not.", value
    )
