"""What `report.metrics` and the modules of its metrics promise."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from syncd import __version__
from syncd.oci.reference import Reference
from syncd.report.process_metrics import ProcessMetrics
from syncd.report.registry_traffic import RegistryTraffic, configured_registries
from syncd.sync.conditions import Failed, Gone, Lack, Place
from syncd.sync.job import Cause
from syncd.sync.tally import Counted
from tests.deliveries import pushed
from tests.fakes.registry import Registry
from tests.harness import ON_DEMAND, Harness, sample
from tests.metrics import scrape


async def test_restart(tmp_path: Path, registry: Registry) -> None:
    """After a restart every counter and every metric of what is watched is the same as before."""
    image = 'tags = ["latest", "gone", "re:^v"]'
    async with Harness(tmp_path, registry, image=image) as harness:
        for tag in ("latest", "v1"):
            registry.push(harness.repository.repository, tag, sample())
        registry.faults.heads.append((503, {}, b""))
        await _sync(harness)
        before = await scrape(harness)
    async with Harness(tmp_path, registry, image=image) as harness:
        after = await scrape(harness)
    assert after.counters() == before.counters()
    watched = [key for key in before.series if any(name == "reference" for name, _ in key[1])]
    assert len(watched) > 10
    for key in watched:
        assert after.series[key] == before.series[key], key
    assert before("syncd_jobs_total", cause="api", result="published", subject="image") == 2
    assert before("syncd_jobs_total", cause="api", result="failed", subject="image") == 1
    assert before("syncd_jobs_total", cause="api", result="failed", subject="repository") == 1
    host = registry.address
    assert before("syncd_registry_requests_total", registry=host, code="200") > 3
    assert before("syncd_registry_requests_total", registry=host, code="404") > 0
    assert before("syncd_fetched_bytes_total", registry=host) > 500
    requests = "syncd_registry_request_duration_seconds_count"
    codes = ("200", "404", "503")
    assert before("syncd_registry_requests_total", registry=host, code="503") == 1
    assert before("syncd_registry_wait_seconds_total", registry=host) > 0.1
    assert before(requests, registry=host) == sum(
        before("syncd_registry_requests_total", registry=host, code=code) for code in codes
    )


async def test_watched(tmp_path: Path, registry: Registry) -> None:
    """Each watched tag in each target: whether it fails, since when, and what is published."""
    at = datetime(2026, 11, 1, tzinfo=UTC)
    async with Harness(tmp_path, registry, image='tags = ["a", "b", "c"]') as harness:
        registry.push(harness.repository.repository, "a", sample())
        await harness.bring("a")
        place = {
            tag: Place(harness.repository.with_tag(tag), "local") for tag in ("b", "c", "other")
        }
        rows = harness.services.ledger.conditions
        rows.write([(place["b"], Failed("down", passing=True))], at)
        rows.write([(place["c"], Gone(Lack.TAG, "gone"))], at)
        rows.write([(place["other"], Failed("down", passing=True))], at)
        now = time.time()
        seen = await scrape(harness)
        (file,) = harness.templates
    labels = {
        tag: {"reference": f"{harness.repository}:{tag}", "target": "local"}
        for tag in ("a", "b", "c", "other")
    }
    assert [seen("syncd_failing", **labels[tag]) for tag in "abc"] == [0, 1, 0]
    assert [seen("syncd_absent", **labels[tag]) for tag in "abc"] == [0, 0, 1]
    since = "syncd_failing_since_timestamp_seconds"
    assert seen(since, **labels["b"]) == at.timestamp()
    assert not seen.has(since, **labels["a"])
    assert seen("syncd_last_check_timestamp_seconds", **labels["b"]) == at.timestamp()
    assert abs(seen("syncd_last_success_timestamp_seconds", **labels["a"]) - now) < 60
    assert not seen.has("syncd_last_success_timestamp_seconds", **labels["b"])
    assert abs(seen("syncd_template_created_timestamp_seconds", **labels["a"]) - now) < 60
    assert seen("syncd_template_size_bytes", **labels["a"]) == file.stat().st_size
    assert seen("syncd_target_templates", target="local") == 1
    assert seen("syncd_target_template_bytes", target="local") == file.stat().st_size
    assert ":other" not in seen.text


async def test_labels_are_bounded(tmp_path: Path, registry: Registry) -> None:
    """A reference, a registry or a code that the configuration does not name makes no label."""
    image = 'tags = ["latest"]'
    async with Harness(tmp_path, registry, image=image, server=ON_DEMAND) as harness:
        registry.push(harness.repository.repository, "unwatched", sample())
        answer = await harness.ask(
            "POST", "/api/v1/sync", json={"ref": f"{harness.repository}:unwatched"}
        )
        await harness.outcome((await answer.json())["jobs"][0]["id"])
        tally, config = harness.services.ledger.tally, harness.services.live.config
        strange = RegistryTraffic(tally, configured_registries(config), "strange.example.org")
        for code in (200, 200, 299, 999):
            strange.answered(code, 0.1)
        strange.answered(None, 1.0)
        strange.received(7)
        strange.waited(2.5)
        tally.add(Counted.FETCHED, "was.configured.example.org")
        tally.add(Counted.REQUESTS, "was.configured.example.org", "200")
        seen = await scrape(harness)
    assert "unwatched" not in seen.text
    assert "example.org" not in seen.text
    requests = "syncd_registry_requests_total"
    assert seen(requests, registry="other", code="200") == 2
    assert seen(requests, registry="other", code="other") == 2
    assert seen(requests, registry="other", code="none") == 1
    assert seen("syncd_fetched_bytes_total", registry="other") == 7
    assert seen("syncd_registry_wait_seconds_total", registry="other") == 2.5
    duration = "syncd_registry_request_duration_seconds"
    assert seen(f"{duration}_count", registry="other") == 4
    assert seen(f"{duration}_bucket", registry="other", le="0.05") == 0
    assert seen(f"{duration}_bucket", registry="other", le="0.1") == 4
    assert seen(f"{duration}_bucket", registry="other", le="+Inf") == 4


async def test_a_registry_that_is_configured_later(tmp_path: Path, registry: Registry) -> None:
    """A registry that a reload names has a label of its own from then on."""
    with Registry() as other:
        async with Harness(tmp_path, registry) as harness:
            text = harness.config.read_text()
            table = f'[[registry]]\nhost = "{other.address}"\nplain_http = true\n'
            harness.config.write_text(f"{text}{table}")
            harness.services.live.reload()
            reference = Reference.parse(f"{other.address}/o/n:latest")
            other.push("o/n", "latest", sample())
            await harness.services.engine.find(reference)
            seen = await scrape(harness)
    assert seen("syncd_registry_requests_total", registry=other.address, code="200") > 0


async def test_deliveries(tmp_path: Path, registry: Registry) -> None:
    """Each delivery is counted by what became of it."""
    async with Harness(tmp_path, registry) as harness:
        body = json.dumps(pushed(harness.repository.name)).encode()
        await harness.deliver(body, delivery="1")
        await harness.deliver(body, delivery="1")
        await harness.deliver(b"{}", "ping", delivery="2")
        await harness.deliver(b"{}", "star", delivery="3")
        status, _ = await harness.deliver(body, delivery="4", **{"X-Hub-Signature-256": "sha256=0"})
        assert status == 401
        server = harness.services.live.config.server
        harness.configure(server=server.model_copy(update={"webhook_secret_file": None}))
        assert (await harness.deliver(body, delivery="5"))[0] == 503
        seen = await scrape(harness)
    assert {
        result: seen("syncd_deliveries_total", result=result)
        for result in ("accepted", "repeated", "ignored", "refused", "failed")
    } == {"accepted": 1, "repeated": 1, "ignored": 2, "refused": 1, "failed": 1}


async def test_bytes_saved(tmp_path: Path, registry: Registry) -> None:
    """What a job need not fetch is counted, by what was there instead."""
    async with Harness(tmp_path, registry, image='tags = ["a", "b", "c"]') as harness:
        registry.push(harness.repository.repository, "a", sample("one"))
        await harness.bring("a")
        registry.push(harness.repository.repository, "b", sample("one"))
        await harness.bring("b")  # the very image: its file is taken again
        registry.push(harness.repository.repository, "c", sample("two"))
        await harness.bring("c")  # one layer is the same, and lies unpacked
        seen = await scrape(harness)
        totals = harness.services.ledger.tally.totals()
        layers = harness.services.ledger.templates()
    assert len(layers) == 3
    saved = {by: seen("syncd_saved_bytes_total", by=by) for by in ("template", "unpacked", "blob")}
    assert saved["unpacked"] > 0
    assert saved["template"] > saved["unpacked"]
    assert saved["blob"] == 0
    assert totals[Counted.STEP_SECONDS, ("pull", "sum")] > 0
    for step, times in {"resolve": 3, "read": 3, "pull": 2, "flatten": 2, "publish": 3}.items():
        assert seen("syncd_job_step_duration_seconds_count", step=step) == times, step


async def test_queue(tmp_path: Path, registry: Registry) -> None:
    """Jobs that wait and jobs that run are told apart."""
    async with Harness(tmp_path, registry) as harness:
        worker = harness.services.worker
        content = sample()
        go_on = threading.Event()
        registry.faults.stalls[content.document["layers"][1]["digest"]] = go_on
        registry.push(harness.repository.repository, "latest", content)
        await worker.submit([harness.latest], Cause.API)
        async with asyncio.timeout(20):
            while not worker.running:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.01)
        assert (worker.running, worker.waiting) == (1, 0)
        assert (worker.running, worker.waiting) == (1, 0)
        (second,) = await worker.submit([harness.latest], Cause.API)
        seen = await scrape(harness)
        go_on.set()
        await harness.outcome(second.id)
    assert (seen("syncd_jobs_running"), seen("syncd_jobs_waiting")) == (1, 1)


async def test_without_ledger(tmp_path: Path, registry: Registry) -> None:
    """Without its ledger syncd says so, tells the rest, and makes up no figures."""
    async with Harness(tmp_path, registry) as harness:
        seen = await scrape(harness)
        assert seen("syncd_ledger_readable") == 1
        assert "syncd_jobs_total" in seen.names
        harness.services.ledger._db.execute("DROP TABLE conditions")
        seen = await scrape(harness)
        assert seen("syncd_ledger_readable") == 0
        assert not {"syncd_jobs_total", "syncd_failing"} & seen.names
        assert seen("syncd_build_info", version=__version__) == 1
        assert "process_start_time_seconds" in seen.names


async def test_runs_and_configuration(tmp_path: Path, registry: Registry) -> None:
    """When the schedule's runs were, how often a sweep is due, and whether a reload was taken."""
    more = '[schedule]\nsweep = "30m"'
    async with Harness(tmp_path, registry, more=more) as harness:
        at = datetime(2026, 11, 1, tzinfo=UTC)
        harness.services.ledger.mark_run("sweep", at)
        harness.services.ledger.mark_run("weekly", at)
        seen = await scrape(harness)
        assert seen("syncd_last_sweep_timestamp_seconds") == at.timestamp()
        assert seen("syncd_last_weekly_run_timestamp_seconds") == at.timestamp()
        assert seen("syncd_sweep_interval_seconds") == 1800
        assert seen("syncd_cache_limit_bytes") == 20 << 30
        assert seen("syncd_config_last_reload_successful") == 1
        applied = "syncd_config_last_reload_success_timestamp_seconds"
        assert abs(seen(applied) - time.time()) < 60
        schedule = harness.services.live.config.schedule
        harness.configure(schedule=schedule.model_copy(update={"sweep": None}))
        seen = await scrape(harness)
        assert "syncd_last_sweep_timestamp_seconds" not in seen.names
        assert "syncd_sweep_interval_seconds" not in seen.names


def test_process() -> None:
    """The process tells its memory, descriptors, processor time and beginning, as exporters do."""
    metrics = ProcessMetrics()
    found = {metric.name: metric.samples[0].value for metric in metrics.collect()}
    assert abs(found["process_start_time_seconds"] - _began()) < 2
    assert abs(found["process_cpu_seconds"] - time.process_time()) < 1
    assert found["process_max_fds"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert found["process_resident_memory_bytes"] > 1 << 20
    assert found["process_virtual_memory_bytes"] > found["process_resident_memory_bytes"]
    before = found["process_open_fds"]
    with Path(os.devnull).open():
        found = {metric.name: metric.samples[0].value for metric in metrics.collect()}
    assert found["process_open_fds"] == before + 1


async def test_many(tmp_path: Path, registry: Registry) -> None:
    """A thousand watched tags are told in one scrape, each once, within a bound of bytes."""
    image = 'tags = ["re:^t"]'
    async with Harness(tmp_path, registry, image=image) as harness:
        places = [
            Place(harness.repository.with_tag(f"t{number:04}"), "local") for number in range(1000)
        ]
        now = datetime.now(UTC)
        failed = Failed("down", passing=True)
        harness.services.ledger.conditions.write(((place, failed) for place in places), now)
        seen = await scrape(harness)
    assert sum(name == "syncd_failing" for name, _ in seen.series) == 1000
    assert len(seen.text) < 2 << 20


def _began() -> float:
    """Return when this process began, by the time of the boot that the library goes by."""
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    (boot,) = re.findall(r"^btime (\d+)", Path("/proc/stat").read_text(), re.MULTILINE)
    return int(boot) + int(stat[19]) / os.sysconf("SC_CLK_TCK")


async def _sync(harness: Harness) -> None:
    """Sync everything watched, and wait for the end."""
    answer = await harness.ask("POST", "/api/v1/sync", json={})
    for job in (await answer.json())["jobs"]:
        await harness.outcome(job["id"])
