"""Metrics of what is watched: how each tag stands in each target, and what is published of it.

They are made from the conditions and templates of the ledger, so that a restart changes none.  The
labels are what the configuration watches; a reference that somebody only asked for makes none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric

from syncd.sync import Condition, Lack, Status, TemplateFigures

_LABELS = ("reference", "target")


def condition_metrics(
    conditions: Iterable[Condition], templates: Mapping[tuple[str, str, str], TemplateFigures]
) -> Iterator[Metric]:
    """Yield the metrics of what is watched.

    `templates` has what is published by reference, target and digest of the tag.
    """
    failing = _gauge("syncd_failing", "Whether a watched tag is failing in a target (1) or not.")
    since = _gauge(
        "syncd_failing_since_timestamp_seconds", "Since when a watched tag is failing in a target."
    )
    absent = _gauge(
        "syncd_absent",
        "Whether the registry lacks a watched tag, or the target its file (1), or not.",
    )
    succeeded = _gauge(
        "syncd_last_success_timestamp_seconds",
        "When a target was last seen to hold what a watched tag means.",
    )
    checked = _gauge("syncd_last_check_timestamp_seconds", "When a watched tag was last looked at.")
    created = _gauge(
        "syncd_template_created_timestamp_seconds",
        "When the published template of a watched tag was made.",
    )
    size = _gauge("syncd_template_size_bytes", "The published template of a watched tag.")
    for condition in conditions:
        if condition.lack is Lack.WATCH:
            continue
        place = (str(condition.place.reference), condition.place.target)
        failing.add_metric(place, condition.status is Status.FAILING)
        absent.add_metric(place, condition.status is Status.ABSENT)
        checked.add_metric(place, condition.checked.timestamp())
        if condition.status is Status.FAILING:
            since.add_metric(place, condition.since.timestamp())
        if condition.updated is not None:
            succeeded.add_metric(place, condition.updated.timestamp())
        if (template := templates.get((*place, str(condition.digest)))) is not None:
            created.add_metric(place, template.created.timestamp())
            size.add_metric(place, template.size)
    yield from (failing, since, absent, succeeded, checked, created, size)


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=_LABELS)
