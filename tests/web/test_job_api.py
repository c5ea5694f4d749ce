"""What `job_api` promises: jobs with progress and log, and an end or another try on request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from syncd.cli.logs import set_up_logs
from syncd.sync.job import Cause, SyncJob
from tests.fakes.registry import Registry
from tests.harness import Harness, described, sample
from tests.web.gates import Gate


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Give a gate, and open it in the end: a thread may wait there."""
    gate = Gate()
    yield gate
    gate.open.set()


async def begun(harness: Harness, registry: Registry, gate: Gate) -> str:
    """Begin a job of the watched tag that is held at its first byte; return its id."""
    registry.push(harness.repository.repository, "latest", sample())
    answer = await harness.ask("POST", "/api/v1/sync", json={"ref": str(harness.latest)})
    await gate.reached()
    (job,) = described(answer, "/api/v1/sync")["jobs"]
    return str(job["id"])


async def test_progress(tmp_path: Path, registry: Registry, gate: Gate) -> None:
    """A running job says which step it is at, and how many bytes of how many are done."""
    async with Harness(tmp_path, registry, watch=lambda _: gate) as harness:
        job = await begun(harness, registry, gate)
        answer = await harness.ask("GET", f"/api/v1/jobs/{job}")
        running = described(answer, "/api/v1/jobs/{id}")
        assert running["state"] == "running"
        answer = await harness.ask("GET", "/api/v1/jobs")
        listed = described(answer, "/api/v1/jobs")["jobs"][0]
        for progress in (running["progress"], listed["progress"]):  # another layer may have begun
            assert progress["step"] == "layer"
            assert 0 <= progress["done"] < progress["total"]
        gate.open.set()
        await harness.outcome(job)
        answer = await harness.ask("GET", f"/api/v1/jobs/{job}")
        assert described(answer, "/api/v1/jobs/{id}")["progress"] is None


async def test_log(tmp_path: Path, registry: Registry, gate: Gate) -> None:
    """A job shows the lines that were logged of it: while it runs, and afterwards."""
    set_up_logs("journal")
    try:
        async with Harness(tmp_path, registry, watch=lambda _: gate) as harness:
            with harness.services.logs.attached():
                job = await begun(harness, registry, gate)
                answer = await harness.ask("GET", f"/api/v1/jobs/{job}")
                running = described(answer, "/api/v1/jobs/{id}")["log"]
                assert [line["text"] for line in running] == ["started cause=api"]
                gate.open.set()
                await harness.outcome(job)
                while harness.services.worker.busy:  # noqa: ASYNC110 - it ends without a word
                    await asyncio.sleep(0.005)
                assert harness.services.logs.jobs() == []
                answer = await harness.ask("GET", f"/api/v1/jobs/{job}")
                done = described(answer, "/api/v1/jobs/{id}")["log"]
                assert done[0] == running[0]
                assert done[-1]["text"].startswith("published message=")
    finally:
        structlog.reset_defaults()
        logging.basicConfig(force=True)


async def test_cancel(tmp_path: Path, registry: Registry, gate: Gate) -> None:
    """A cancelled job is over when the answer comes, and its tag can be asked for again."""
    async with Harness(tmp_path, registry, watch=lambda _: gate) as harness:
        job = await begun(harness, registry, gate)
        path = f"/api/v1/jobs/{job}"
        answer = await harness.ask("POST", f"{path}/cancel")
        ended = described(answer, "/api/v1/jobs/{id}/cancel")
        assert (ended["state"], ended["outcome"]) == ("done", "cancelled")
        answer = await harness.ask("POST", f"{path}/cancel")
        assert answer.status == 409
        assert "ended" in described(answer, "/api/v1/jobs/{id}/cancel")["error"]
        gate.open.set()
        answer = await harness.ask("POST", f"{path}/retry")
        assert answer.status == 202
        again = described(answer, "/api/v1/jobs/{id}/retry")
        assert (again["reference"], again["cause"]) == (ended["reference"], "api")
        assert again["id"] != job
        assert (await harness.outcome(again["id"])).volumes


async def test_job_of_a_command(tmp_path: Path, registry: Registry) -> None:
    """A job of another process cannot be cancelled here, and the answer says where."""
    async with Harness(tmp_path, registry) as harness:
        job = SyncJob(harness.latest, Cause.CLI)
        harness.services.ledger.accept([job])
        answer = await harness.ask("POST", f"/api/v1/jobs/{job.id}/cancel")
        assert answer.status == 409
        assert "another process" in described(answer, "/api/v1/jobs/{id}/cancel")["error"]


@pytest.mark.parametrize("act", ["cancel", "retry"])
async def test_unknown_job(act: str, tmp_path: Path, registry: Registry) -> None:
    """What nobody knows is 404."""
    async with Harness(tmp_path, registry) as harness:
        answer = await harness.ask("POST", f"/api/v1/jobs/nonsense/{act}")
        assert answer.status == 404
        assert "no such job" in described(answer, f"/api/v1/jobs/{{id}}/{act}")["error"]
