"""Telling people and machines how jobs end: Apprise notifications and Prometheus metrics.

A notification that cannot be delivered is a warning in the log and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from syncd import __version__
from syncd.errors import SyncdError
from syncd.job import Outcome, Result, SyncJob
from syncd.settings import NotifySettings

log = structlog.stdlib.get_logger()

_PATIENCE = 60.0  # seconds for all services together
_TYPES = {Result.FAILED: "failure", Result.PUBLISHED: "success", Result.UNCHANGED: "info"}
"""Apprise's names of what a message means (`apprise.NotifyType`)."""


class Notices:
    """Counts every job's end, and tells those who asked for it.

    The metrics are its own, not the process's, so that several may live in one process.
    """

    def __init__(self, settings: Callable[[], NotifySettings]) -> None:
        self._settings = settings
        self._metrics = CollectorRegistry()
        info = Gauge(
            "syncd_build_info", "The running version.", ["version"], registry=self._metrics
        )
        info.labels(__version__).set(1)
        self._jobs = Counter(
            "syncd_jobs", "Jobs that ended.", ["cause", "result"], registry=self._metrics
        )
        self._ended = Gauge(
            "syncd_job_ended_timestamp_seconds",
            "When a job of this reference last ended so.",
            ["reference", "result"],
            registry=self._metrics,
        )
        self.deliveries = Counter(
            "syncd_deliveries", "Webhook deliveries.", ["answer"], registry=self._metrics
        )
        self.lanes = Gauge(
            "syncd_lanes", "References with a job that waits or runs.", registry=self._metrics
        )

    def metrics(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._metrics)

    async def ended(self, job: SyncJob, outcome: Outcome) -> None:
        """Count a job's end, and notify if that is wanted."""
        self._jobs.labels(job.cause, outcome.result).inc()
        self._ended.labels(str(job.reference), outcome.result).set_to_current_time()
        settings = self._settings()
        if outcome.result.value not in settings.on:
            return
        try:
            urls = settings.urls()
            async with asyncio.timeout(_PATIENCE):
                sent = not urls or await asyncio.to_thread(_send, urls, job, outcome)
        except SyncdError as exc:
            log.warning("notification not delivered", error=str(exc))
        except Exception as exc:  # noqa: BLE001 - a plugin of Apprise may raise anything
            log.warning("notification not delivered", error=type(exc).__name__)
        else:
            if not sent:
                log.warning("notification not delivered", services=len(urls))


def _send(urls: list[str], job: SyncJob, outcome: Outcome) -> bool:
    """Notify all services; return whether each took it.  Blocking."""
    import apprise  # only here: it takes its time, and most jobs tell nobody

    # Its lines hold URLs as they are, passwords and all.
    logging.getLogger("apprise").disabled = True
    sender = apprise.Apprise()
    added = [sender.add(url) for url in urls]
    sent = sender.notify(
        title=f"syncd: {job.reference} {outcome.result}",
        body=outcome.message,
        notify_type=apprise.NotifyType(_TYPES[outcome.result]),
    )
    return bool(sent) and all(added)
