"""Metrics of space: what the cache takes, what is published, and what is free where.

Looking costs time, and a target may give no answer for minutes, so none of it is asked at a scrape:
`Usage` is what somebody found a while ago.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import GaugeMetricFamily, Metric

from syncd.sync import StorageFigures
from syncd.targets import Space


@dataclass(frozen=True, slots=True)
class Usage:
    """Space as it was found: all in bytes.

    `cache` has what the parts of the state take, `state` the file system below the state, and
    `targets` the places of each target that could be asked.
    """

    cache: Mapping[str, int] = field(default_factory=dict)
    state: Space | None = None
    targets: Mapping[str, Sequence[Space]] = field(default_factory=dict)


def space_metrics(usage: Usage, cache_max: int) -> Iterator[Metric]:
    """Yield the metrics of what was found; `cache_max` is the bound of the state in bytes."""
    cache = GaugeMetricFamily(
        "syncd_cache_size_bytes", "What the parts of the state take.", labels=("part",)
    )
    for part, size in usage.cache.items():
        cache.add_metric((part,), size)
    yield cache
    yield GaugeMetricFamily("syncd_cache_limit_bytes", "What the state may take.", cache_max)
    if usage.state is not None:
        yield GaugeMetricFamily(
            "syncd_state_free_bytes", "What is free below state.directory.", usage.state.free
        )
        yield GaugeMetricFamily(
            "syncd_state_size_bytes",
            "The size of the file system below state.directory.",
            usage.state.total,
        )
    labels = ("target", "place")
    free = GaugeMetricFamily(
        "syncd_target_free_bytes", "What is free in a place of a target.", labels=labels
    )
    size_of = GaugeMetricFamily(
        "syncd_target_size_bytes", "The size of a place of a target.", labels=labels
    )
    for target, spaces in usage.targets.items():
        for space in spaces:
            free.add_metric((target, space.place), space.free)
            size_of.add_metric((target, space.place), space.total)
    yield from (free, size_of)


def storage_metrics(storages: Mapping[str, StorageFigures]) -> Iterator[Metric]:
    """Yield the metrics of what is published in each target, from the ledger's figures."""
    files = GaugeMetricFamily(
        "syncd_target_templates", "Templates that are published in a target.", labels=("target",)
    )
    size = GaugeMetricFamily(
        "syncd_target_template_bytes",
        "What the templates published in a target take.",
        labels=("target",),
    )
    for target, figures in storages.items():
        files.add_metric((target,), figures.files)
        size.add_metric((target,), figures.size)
    yield from (files, size)
