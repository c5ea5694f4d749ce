"""Metrics, alerts and dashboard, judged by Debian's promtool and a Prometheus that scrapes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.command import CHECKOUT, run, wait_for
from tests.e2e.conftest import Image
from tests.e2e.daemon import Syncd
from tests.e2e.machine import Disk
from tests.e2e.prometheus import Prometheus
from tests.e2e.registry import Registry
from tests.metrics import Scrape

ALERTS = CHECKOUT / "config/prometheus/alerts.yml"
DASHBOARD = CHECKOUT / "config/grafana/syncd.json"


@pytest.fixture(scope="module")
def watching(scratch: Path, registry: Registry, small: Image) -> Iterator[Syncd]:
    """Run a daemon that has published one image, and has failed with another.

    It has a disk of its own: how full the machine's is decides of two alerts.
    """
    watched = [f"{registry.address}/watched/{name}:latest" for name in ("there", "missing")]
    small.push(watched[0])
    with (
        Disk(scratch / "monitored", "512m") as disk,
        Syncd(disk.folder / "syncd", watched) as daemon,
    ):
        yield daemon


@pytest.fixture(scope="module")
def prometheus(scratch: Path, watching: Syncd) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes the daemon."""
    with Prometheus(scratch / "prometheus", watching.port, ALERTS) as running:
        yield running


def test_exposition(watching: Syncd) -> None:
    """The checker has nothing to say of names, units, types and help texts."""
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=watching.metrics(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_alerts() -> None:
    """The alerts are right, and fire when they should and only then."""
    run("promtool", "check", "rules", ALERTS)
    run("promtool", "test", "rules", ALERTS.with_name("alerts.test.yml"))


def test_scraped(prometheus: Prometheus, watching: Syncd, registry: Registry) -> None:
    """Prometheus sees what was published and what fails, and evaluates every alert."""
    there, missing = (f"{registry.address}/watched/{name}:latest" for name in ("there", "missing"))
    assert prometheus.value(f'syncd_failing{{reference="{there}"}}') == 0
    assert prometheus.value(f'syncd_failing{{reference="{missing}"}}') == 1
    (template,) = watching.templates
    size = prometheus.value(f'syncd_template_size_bytes{{reference="{there}"}}')
    assert size == template.stat().st_size
    assert prometheus.value('sum(syncd_jobs_total{result="failed", subject="image"})') == 1
    wait_for(
        "an alert of the failing tag",
        lambda: any(rule["state"] == "pending" for rule in prometheus.rules()),
        timeout=30,
    )
    rules = prometheus.rules()
    assert {rule["name"] for rule in rules if rule["state"] != "inactive"} == {"SyncdTagFailing"}
    assert {rule["health"] for rule in rules} == {"ok"}


def test_restart(prometheus: Prometheus, watching: Syncd) -> None:
    """Prometheus sees no counter go back when the daemon is restarted."""
    before = Scrape(watching.metrics())
    watching.stop()
    watching.start()
    after = Scrape(watching.metrics())
    for series, value in before.counters().items():
        assert after.series[series] >= value, series
    began = 'process_start_time_seconds{job="syncd"}'
    now = after("process_start_time_seconds")
    wait_for("the new process", lambda: prometheus.value(began) == now, timeout=30)
    for name in {name for name, _ in after.counters()}:
        assert prometheus.query(name), name
        assert prometheus.query(f"resets({name}[5m]) > 0") == [], name


def test_dashboard(prometheus: Prometheus) -> None:
    """Prometheus answers every panel's expression."""
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", ())]
    expressions += [each["expr"] for each in dashboard["annotations"]["list"]]
    assert len(expressions) > 20
    for expression in expressions:
        prometheus.query(expression.replace("$instance", ".*").replace("$__rate_interval", "1m"))


def test_examples_of_the_docs(tmp_path: Path) -> None:
    """The pieces of a Prometheus' configuration in docs/monitor.md are right."""
    blocks = (CHECKOUT / "docs/monitor.md").read_text().split("```yaml\n")[1:]
    pieces = [yaml.safe_load(block.partition("```")[0]) for block in blocks]
    for piece in pieces:
        if "scrape_configs" in piece:
            file = tmp_path / "prometheus.yml"
            file.write_text(yaml.safe_dump(piece))
            run("promtool", "check", "config", "--syntax-only", file)
        elif isinstance(piece, list):
            file = tmp_path / "rules.yml"
            file.write_text(yaml.safe_dump({"groups": [{"name": "mine", "rules": piece}]}))
            run("promtool", "check", "rules", file)
