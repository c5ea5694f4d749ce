"""Metrics of what was ever counted: counters and histograms, from the totals.

A series that can be counted is there from the start, with 0, so that its first increase is seen
(https://prometheus.io/docs/practices/instrumentation/#avoid-missing-metrics).  A registry is a
label only as long as the configuration names it; all others are `other`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, product

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from syncd.sync import (
    BOUNDS,
    IMAGE,
    REPOSITORY,
    SUM,
    Cause,
    Counted,
    Ending,
    Handing,
    Instead,
    Reception,
    Redelivery,
    Reload,
    Result,
    Step,
)

OTHER = "other"
"""The label of every registry that the configuration does not name."""

Totals = Mapping[tuple[str, tuple[str, ...]], float]

_REGISTRY = "registry"


@dataclass(frozen=True, slots=True)
class _Counter:
    """A counter: what is counted, and the labels with the values that they can have.

    The values of a registry are those of the configuration, and those of `code` what came.
    """

    what: Counted
    name: str
    text: str
    labels: Mapping[str, Iterable[str]]


_COUNTERS = (
    _Counter(
        Counted.DELIVERIES,
        "syncd_deliveries",
        "Deliveries of webhooks, by what became of them.",
        {"result": Reception},
    ),
    _Counter(
        Counted.REDELIVERIES,
        "syncd_redeliveries",
        "Missed deliveries that GitHub was asked for again, by what became of that.",
        {"result": Redelivery},
    ),
    _Counter(
        Counted.DELIVERY_LOOKS,
        "syncd_missed_delivery_looks",
        "Looks for missed deliveries at GitHub, by how they ended.",
        {"result": Ending},
    ),
    _Counter(
        Counted.NOTIFICATIONS,
        "syncd_notification_attempts",
        "Attempts to hand a notification to all receivers, by what became of them.",
        {"result": Handing},
    ),
    _Counter(Counted.SWEEPS, "syncd_sweeps", "Sweeps, by how they ended.", {"result": Ending}),
    _Counter(
        Counted.RELOADS,
        "syncd_config_reloads",
        "Reloads of the configuration, by what became of them.",
        {"result": Reload},
    ),
    _Counter(
        Counted.SAVED,
        "syncd_saved_bytes",
        "Bytes of layers that were not fetched, by what was there instead.",
        {"by": Instead},
    ),
    _Counter(
        Counted.FETCHED,
        "syncd_fetched_bytes",
        "Bytes of documents and blobs that came from a registry.",
        {_REGISTRY: ()},
    ),
    _Counter(
        Counted.WAITED,
        "syncd_registry_wait_seconds",
        "Waits before requests, as a registry asked for them or to spare it.",
        {_REGISTRY: ()},
    ),
)
_HISTOGRAMS = (
    _Counter(
        Counted.STEP_SECONDS,
        "syncd_job_step_duration_seconds",
        "How long the steps of jobs took that ended without an error.",
        {"step": Step},
    ),
    _Counter(
        Counted.SWEEP_SECONDS,
        "syncd_sweep_duration_seconds",
        "How long sweeps took until every tag was looked at.",
        {},
    ),
    _Counter(
        Counted.REQUEST_SECONDS,
        "syncd_registry_request_duration_seconds",
        "How long the headers of a registry's answers took.",
        {_REGISTRY: ()},
    ),
)


def total_metrics(totals: Totals, registries: Collection[str]) -> Iterator[Metric]:
    """Yield counters and histograms; `registries` are the hosts that the configuration names."""
    hosts = (*sorted(registries), OTHER)
    for counter in _COUNTERS:
        family = CounterMetricFamily(counter.name, counter.text, labels=tuple(counter.labels))
        for labels in _possible(counter, hosts):
            family.add_metric(labels, totals.get((counter.what, labels), 0.0))
        yield family
    yield _requests(totals, hosts)
    for counter in _HISTOGRAMS:
        yield _histogram(counter, totals, hosts)


def job_metrics(jobs: Mapping[tuple[str, ...], float]) -> Metric:
    """Return the counter of jobs that ended, from the ledger's totals of them."""
    family = CounterMetricFamily(
        "syncd_jobs",
        "Jobs that ended: of one image, or of a repository, whose images have jobs of their own.",
        labels=("cause", "result", "subject"),
    )
    for labels in product(Cause, Result, (IMAGE, REPOSITORY)):
        family.add_metric(labels, jobs.get(labels, 0.0))
    return family


def _possible(counter: _Counter, hosts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    values = (hosts if name == _REGISTRY else known for name, known in counter.labels.items())
    yield from product(*values)


def _requests(totals: Totals, hosts: tuple[str, ...]) -> Metric:
    """Return the counter of requests, whose codes are those that came."""
    family = CounterMetricFamily(
        "syncd_registry_requests",
        "Requests to a registry, its token service and its blob store, by the code of the answer.",
        labels=(_REGISTRY, "code"),
    )
    for (what, labels), value in sorted(totals.items()):
        if what == Counted.REQUESTS and labels[0] in hosts:
            family.add_metric(labels, value)
    return family


def _histogram(counter: _Counter, totals: Totals, hosts: tuple[str, ...]) -> Metric:
    family = HistogramMetricFamily(counter.name, counter.text, labels=tuple(counter.labels))
    for labels in _possible(counter, hosts):
        each = (totals.get((counter.what, (*labels, str(bound))), 0.0) for bound in BOUNDS)
        buckets = [(_le(bound), upto) for bound, upto in zip(BOUNDS, accumulate(each), strict=True)]
        family.add_metric(labels, buckets, totals.get((counter.what, (*labels, SUM)), 0.0))
    return family


def _le(bound: float) -> str:
    return "+Inf" if bound == float("inf") else str(bound)
