"""The alerts and the dashboard name what syncd exports, and a person can read them."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from syncd.service.measurements import Measurements
from syncd.sync.conditions import Failed, Place
from tests import promql
from tests.fakes.registry import Registry
from tests.harness import Harness, sample
from tests.metrics import Scrape, scrape

ROOT = Path(__file__).parents[1]
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "config/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
TESTS: list[dict[str, Any]] = yaml.safe_load(
    (ROOT / "config/prometheus/alerts.test.yml").read_text()
)["tests"]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "config/grafana/syncd.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
PROMETHEUS = {"up"}
"""What Prometheus itself writes down of each scrape."""
TARGET = {"job", "instance"}
"""The labels that Prometheus gives to all that it scrapes."""


@pytest.fixture
async def exported(tmp_path: Path, registry: Registry) -> Scrape:
    """Return what a daemon exports that has published, failed, and looked at its space."""
    async with Harness(tmp_path, registry, image='tags = ["latest", "v1"]') as harness:
        registry.push(harness.repository.repository, "latest", sample())
        await harness.bring()
        place = Place(harness.repository.with_tag("v1"), "local")
        failed = Failed("down", passing=True)
        harness.services.ledger.conditions.write([(place, failed)], datetime.now(UTC))
        for run in ("sweep", "weekly"):
            harness.services.ledger.mark_run(run)
        await asyncio.gather(*Measurements(harness.services).look())
        return await scrape(harness)


def expressions() -> dict[str, str]:
    """Return every expression of the alerts and of the dashboard, by where it stands."""
    found = {rule["alert"]: rule["expr"] for rule in RULES}
    for panel in PANELS:
        for target in panel["targets"]:
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        found[annotation["name"]] = annotation["expr"]
    return found


async def test_only_what_is_exported(exported: Scrape) -> None:
    """Every metric and label that an alert or a panel names is exported."""
    labels: dict[str, set[str]] = {}
    for name, pairs in exported.series:
        labels.setdefault(name, set()).update(label for label, _ in pairs)
    every = {"le"} | TARGET | set().union(*labels.values())
    for where, expression in expressions().items():
        named = promql.metrics(expression)
        assert named, where
        assert named - PROMETHEUS <= set(labels), where
        for metric, selected in promql.selected_labels(expression).items():
            assert selected <= TARGET | labels.get(metric, set()), where
        assert promql.grouped_labels(expression) <= every, where
    for series in (each["series"] for test in TESTS for each in test["input_series"]):
        (metric,) = promql.metrics(series)
        assert metric in PROMETHEUS | set(labels), series
        assert promql.selected_labels(series)[metric] <= TARGET | labels.get(metric, set()), series


async def test_nothing_is_exported_in_vain(exported: Scrape) -> None:
    """Every metric of syncd's own has a panel, an alert, or words in docs/monitor.md."""
    text = (ROOT / "docs/monitor.md").read_text() + str(expressions())
    for name, family in exported.families.items():
        exported_as = f"{name}_total" if family.type == "counter" else name
        assert exported_as in text, exported_as
    named = set(re.findall(r"`((?:syncd|process)_[a-z_]+)[`{]", text))
    assert named <= exported.names, named - exported.names


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alerts(rule: dict[str, Any]) -> None:
    """Each alert says what is wrong and what to do, how urgent it is, and has a test that fires."""
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert set(rule["annotations"]) == {"summary", "description"}
    fired = [
        case
        for test in TESTS
        for case in test["alert_rule_test"]
        if case["alertname"] == rule["alert"] and case["exp_alerts"]
    ]
    assert fired
    assert f"`{rule['alert']}`" in (ROOT / "docs/monitor.md").read_text()


def test_panels() -> None:
    """Each panel says what it shows, and no two lie over each other or beyond the page's edge."""
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    places = [(panel["title"], panel["gridPos"]) for panel in DASHBOARD["panels"]]
    for title, place in places:
        assert place["x"] + place["w"] <= 24, title
    for (one, a), (other, b) in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below, (one, other)


def test_failures_first() -> None:
    """What fails is seen first, without scrolling."""
    first = min(PANELS, key=lambda panel: (panel["gridPos"]["y"], panel["gridPos"]["x"]))
    assert promql.metrics(first["targets"][0]["expr"]) == {"syncd_failing"}
    (table,) = [panel for panel in PANELS if panel["title"].startswith("Failing now")]
    assert table["gridPos"]["y"] < 8


@pytest.mark.parametrize(
    ("expression", "named"),
    [
        ("up == 0", {"up"}),
        ('rate(a_total{job="x}(", b=~"c"}[5m]) > 3 * b', {"a_total", "b"}),
        ("sum without (c, d) (a) unless ignoring (e) on_b > 8 * 86400", {"a", "on_b"}),
        ("histogram_quantile(0.95, sum by (le) (rate(a_bucket[1h])))", {"a_bucket"}),
        ("time() - a:b and on (instance) absent(c)", {"a:b", "c"}),
    ],
)
def test_reading_of_expressions(expression: str, named: set[str]) -> None:
    """The names in an expression are its metrics: no function, label, string or word among them."""
    assert promql.metrics(expression) == named
