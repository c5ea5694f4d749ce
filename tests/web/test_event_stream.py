"""What `event_stream` promises: the truth as it changes, for a few listeners, and no queues."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import ClientResponse

from syncd.sync import activity
from syncd.sync.job import Cause, SyncJob
from syncd.web.backend import HttpLimits
from tests.fakes.registry import Registry
from tests.harness import TOKEN, Harness, sample
from tests.web.gates import Gate

QUICK = HttpLimits(pace=0.01, keep_alive=30.0)


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Give a gate, and open it in the end: a thread may wait there."""
    gate = Gate()
    yield gate
    gate.open.set()


@asynccontextmanager
async def listening(harness: Harness) -> AsyncIterator[ClientResponse]:
    """Open a stream of events."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with harness.client.get("/api/v1/events", headers=headers) as answer:
        yield answer


async def told(answer: ClientResponse) -> str:
    """Return what stands before the next blank line."""
    async with asyncio.timeout(10):
        return (await answer.content.readuntil(b"\n\n")).decode().rstrip()


async def event(answer: ClientResponse) -> tuple[str, Any]:
    """Return the name and the data of the next event."""
    name, _, data = (await told(answer)).partition("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def test_a_job(tmp_path: Path, registry: Registry, gate: Gate) -> None:
    """A listener gets a snapshot, then each change of a job, and how far it is."""
    async with (
        Harness(tmp_path, registry, watch=lambda _: gate, limits=QUICK) as harness,
        listening(harness) as answer,
    ):
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        assert await event(answer) == ("snapshot", {"jobs": []})
        registry.push(harness.repository.repository, "latest", sample())
        (job,) = await harness.services.worker.submit([harness.latest], Cause.API)
        states: set[str] = set()
        progress: dict[str, Any] = {}
        while not progress:
            name, data = await event(answer)
            if name == "job":
                assert data["id"] == job.id
                states.add(data["state"])
            else:
                assert name == "progress"
                progress = data[job.id]
        assert progress["step"] == "layer"
        assert states <= {"queued", "running"}
        async with listening(harness) as second:
            name, data = await event(second)
            assert (name, data["jobs"][0]["progress"]["step"]) == ("snapshot", "layer")
        gate.open.set()
        while True:
            name, data = await event(answer)
            if name == "job" and data["state"] == "done":
                break
        assert data["outcome"] == "published"
        assert data["progress"] is None


async def test_a_job_that_waits(tmp_path: Path, registry: Registry) -> None:
    """A listener hears of a job before it runs."""
    async with Harness(tmp_path, registry, limits=QUICK) as harness, listening(harness) as answer:
        await event(answer)
        await harness.services.worker.submit([harness.latest], Cause.WEBHOOK, settle=600)
        name, data = await event(answer)
        assert (name, data["state"]) == ("job", "queued")


async def test_sign_of_life(tmp_path: Path, registry: Registry) -> None:
    """Where nothing changes, a comment says that the stream is alive."""
    limits = HttpLimits(pace=0.01, keep_alive=0.02)
    async with Harness(tmp_path, registry, limits=limits) as harness, listening(harness) as answer:
        await event(answer)
        assert [await told(answer) for _ in range(2)] == [": alive", ": alive"]


async def test_end(tmp_path: Path, registry: Registry) -> None:
    """A stream ends after its time, and the listener has to show its token again."""
    limits = HttpLimits(pace=0.01, keep_alive=0.02, listening=0.1)
    async with Harness(tmp_path, registry, limits=limits) as harness, listening(harness) as answer:
        async with asyncio.timeout(10):
            assert (await answer.content.read()).startswith(b"event: snapshot\n")


async def test_behind(tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener that missed more than is remembered gets a snapshot again."""
    monkeypatch.setattr(activity, "CHANGES_MAX", 3)
    async with Harness(tmp_path, registry, limits=QUICK) as harness, listening(harness) as answer:
        assert await event(answer) == ("snapshot", {"jobs": []})
        jobs = [SyncJob(harness.repository.with_tag(f"t{n}"), Cause.API) for n in range(9)]
        harness.services.ledger.accept(jobs)
        for job in jobs:
            harness.services.activity.changed(job)
        name, data = await event(answer)
        assert name == "snapshot"
        assert [job["id"] for job in data["jobs"]] == [job.id for job in reversed(jobs)]


async def test_running_jobs_of_a_snapshot(tmp_path: Path, registry: Registry) -> None:
    """A job that runs is in the snapshot, however many newer ones there are."""
    async with Harness(tmp_path, registry, limits=QUICK) as harness:
        jobs = [SyncJob(harness.repository.with_tag(f"t{n}"), Cause.API) for n in range(300)]
        harness.services.ledger.accept(jobs)
        harness.services.ledger.start(jobs[0].id)
        async with listening(harness) as answer:
            _, data = await event(answer)
            assert [job["id"] for job in data["jobs"]] == [
                *(job.id for job in reversed(jobs[200:])),
                jobs[0].id,
            ]


async def test_only_so_many(tmp_path: Path, registry: Registry) -> None:
    """Who comes when all places are taken is told to come later; a place is given back."""
    limits = HttpLimits(listeners=2, pace=0.01, keep_alive=0.02)
    async with Harness(tmp_path, registry, limits=limits) as harness:
        async with listening(harness), listening(harness):
            refused = await harness.ask("GET", "/api/v1/events")
            assert refused.status == 503
            assert refused.headers["Retry-After"] == "10"
        async with asyncio.timeout(10):
            while True:
                async with listening(harness) as answer:
                    if answer.status == 200:
                        break


async def test_listener_goes(
    tmp_path: Path, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """A listener that goes away is no event of the log, and gives its place back."""
    limits = HttpLimits(listeners=1, pace=0.01, keep_alive=30.0)
    async with Harness(tmp_path, registry, limits=limits) as harness, asyncio.timeout(20):
        with structlog.testing.capture_logs() as logs:
            async with listening(harness) as answer:
                await event(answer)
                answer.close()
            runner = harness.client.server.runner
            assert runner is not None
            assert runner.server is not None
            # The server says nothing of a connection that it loses.
            while any(one.transport is not None for one in runner.server.connections):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            job = SyncJob(harness.latest, Cause.API)
            harness.services.ledger.accept([job])
            harness.services.activity.changed(job)
            while (await harness.ask("HEAD", "/api/v1/events")).status != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert logs == []
    assert caplog.records == []


async def test_stop(tmp_path: Path, registry: Registry) -> None:
    """A server that stops ends the streams at once, without waiting for its grace."""
    limits = HttpLimits(grace=30.0)
    async with Harness(tmp_path, registry, limits=limits) as harness, listening(harness) as answer:
        await event(answer)
        async with asyncio.timeout(10):
            await harness.client.server.close()
            assert await answer.content.read() == b""


async def test_slow_listener(tmp_path: Path, registry: Registry) -> None:
    """A listener that takes nothing loses its connection, and its place."""
    limits = HttpLimits(listeners=1, pace=0.01, keep_alive=0.02, answer=0.2)
    async with Harness(tmp_path, registry, limits=limits) as harness:
        jobs = [SyncJob(harness.repository.with_tag(f"t{n}" * 40), Cause.API) for n in range(90)]
        harness.services.ledger.accept(jobs)
        reader, writer = await asyncio.open_connection("127.0.0.1", harness.client.port, limit=1)
        writer.write(
            f"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {TOKEN}\r\n\r\n".encode()
        )
        await reader.readexactly(1)

        async def change() -> None:
            while True:
                for job in jobs:
                    harness.services.activity.changed(job)
                await asyncio.sleep(0.01)

        changing = asyncio.create_task(change())
        try:
            async with asyncio.timeout(20):
                # The server says nothing of a place that it gives back.
                while (await harness.ask("HEAD", "/api/v1/events")).status != 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        finally:
            changing.cancel()
            writer.close()
