"""What `messenger` promises: a run is one message, and no message keeps a job waiting."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from syncd.oci.registry import client
from syncd.report import dead_mans_switch
from syncd.service.messenger import LONGEST, SETTLE, Messenger
from syncd.service.schedule import Schedule
from syncd.sync.job import GIVEN_UP, Cause, SyncJob
from syncd.sync.replacement import Replacement, ReplacementState
from syncd.targets.root_swap import RootSwap
from tests.archives import file
from tests.clocks import HandClock
from tests.fakes.receiver import PASSWORD, Receiver
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, sample
from tests.images import image, layer

DOWN = (503, {"Retry-After": "0"}, b"")
TAGS = 35


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as served:
        yield served


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the registry's client wait for nothing between its attempts."""
    monkeypatch.setattr(client, "backoff", lambda *_: 0.0)


def told_to(folder: Path, *urls: str, more: str = "") -> str:
    """Write the file of URLs; return the table of the configuration that names it."""
    (folder / "urls").write_text("\n".join(urls))
    return f'[notify]\nurls_file = "{folder}/urls"\n{more}'


class Told:
    """A harness with its clock, its schedule, and its messenger."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.clock = HandClock()
        self.clock.time = datetime.now(UTC)
        self.schedule = Schedule(harness.services, self.clock)
        self.messenger = Messenger(harness.services, lambda: self.schedule.busy, self.clock)

    async def swept(self) -> None:
        """Sweep, and wait until the jobs of it are done."""
        await self.schedule.sweep()
        await self.idle()

    async def retried(self) -> None:
        """Let the time of the next retry come."""
        at = self.harness.services.ledger.conditions.next_try()
        assert at is not None
        self.clock.time = max(self.clock.time, at + timedelta(seconds=1))
        await self.schedule.retry()
        await self.idle()

    async def idle(self) -> None:
        async with asyncio.timeout(20):
            while self.harness.services.worker.busy:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.005)

    async def quiet(self) -> None:
        """Let time pass until news are told and the messages are delivered, or were tried."""
        await self.clock.run(seconds=60 + 3 * SETTLE)
        async with asyncio.timeout(20):
            while self.is_delivering:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.005)
        await self.clock.settled()

    @property
    def is_delivering(self) -> bool:
        """Whether messages are being delivered, or are due."""
        messenger = self.messenger
        return messenger._delivering is not None or messenger._deliver_at <= self.clock.uptime()


@asynccontextmanager
async def telling(harness: Harness) -> AsyncIterator[Told]:
    told = Told(harness)
    told.messenger.start()
    try:
        yield told
    finally:
        await told.messenger.stop()


def many(registry: Registry) -> None:
    """Push one image under many tags."""
    for number in range(TAGS):
        registry.push(REPOSITORY, f"v{number}", sample())


def body(receiver: Receiver) -> str:
    message: str = receiver.heard[-1]["message"]
    return message


async def test_a_storm(tmp_path: Path, registry: Registry, receiver: Receiver) -> None:
    """A registry that is down is one message, and so are what lasts of it and its end."""
    many(registry)
    table = told_to(tmp_path, receiver.url, more='remind = "24h"')
    async with (
        Harness(tmp_path, registry, image='tags = ["re:^v"]', more=table) as harness,
        telling(harness) as told,
    ):
        await told.swept()
        await told.quiet()
        assert receiver.titles == [f"{TAGS} tags new"]

        registry.faults.refusals = [DOWN] * 10_000
        await told.swept()
        await told.retried()
        await told.quiet()
        assert receiver.titles[1:] == [f"{TAGS} tags failing"]
        assert receiver.heard[-1]["title"].startswith(f"syncd on {socket.gethostname()}: ")
        assert receiver.heard[-1]["type"] == "failure"
        first, second, *_, last = body(receiver).splitlines()
        assert first.startswith(f"failing: registry {registry.address} answers 503 for it")
        assert second.startswith(f"- {registry.address}/{REPOSITORY}: v0, v1, v2, v3,")
        assert second.endswith(", in local")
        assert "since 20" in second
        assert last.startswith("What to do: ")

        for _ in range(2):
            await told.swept()
            await told.quiet()
        assert len(receiver.heard) == 2

        told.clock.set(hours=24)
        await told.quiet()
        assert receiver.titles[2:] == [f"{TAGS} tags still failing"]
        assert receiver.heard[-1]["type"] == "warning"

        registry.faults.refusals = []
        await told.swept()
        await told.quiet()
        assert receiver.titles[3:] == [f"{TAGS} tags recovered"]
        assert receiver.heard[-1]["type"] == "success"
        assert body(receiver).startswith(f"recovered: {registry.address}/{REPOSITORY}: v0, v1")


async def test_a_blip(tmp_path: Path, registry: Registry, receiver: Receiver) -> None:
    """A failure that passes with the first retry, a minute later, is told to nobody."""
    registry.push(REPOSITORY, "latest", sample())
    async with (
        Harness(tmp_path, registry, more=told_to(tmp_path, receiver.url)) as harness,
        telling(harness) as told,
    ):
        await told.swept()
        await told.quiet()
        registry.faults.refusals = [DOWN] * 10_000
        await told.swept()
        await told.clock.run(seconds=2 * SETTLE)
        registry.faults.refusals = []
        await told.retried()
        await told.quiet()
        assert receiver.titles == [f"{harness.latest} new"]


async def test_updated(tmp_path: Path, registry: Registry, receiver: Receiver) -> None:
    """A newer image is told with its digest, once its job is done, and only once."""
    registry.push(REPOSITORY, "latest", sample("one"))
    async with (
        Harness(tmp_path, registry, more=told_to(tmp_path, receiver.url)) as harness,
        telling(harness) as told,
    ):
        await told.swept()
        await told.quiet()
        newer = sample("two")
        registry.push(REPOSITORY, "latest", newer)
        await told.swept()
        await told.quiet()
        await told.swept()
        await told.quiet()
        assert receiver.titles == [f"{harness.latest} new", f"{harness.latest} updated"]
        assert newer.digest.removeprefix("sha256:")[:12] in body(receiver)


async def test_an_image_for_no_container(
    tmp_path: Path, registry: Registry, receiver: Receiver
) -> None:
    """That no unprivileged container can be made of an image stands beside the image."""
    registry.push(REPOSITORY, "latest", image(layer(file("x", uid=197_609))))
    async with (
        Harness(tmp_path, registry, more=told_to(tmp_path, receiver.url)) as harness,
        telling(harness) as told,
    ):
        await told.swept()
        await told.quiet()
        assert receiver.titles == [f"{harness.latest} new"]
        assert receiver.heard[0]["type"] == "warning"
        assert body(receiver).splitlines()[1].startswith("- but no unprivileged container has the")


async def test_a_run_that_goes_on(tmp_path: Path, registry: Registry, receiver: Receiver) -> None:
    """News are not told while a run goes on, but after a quarter of an hour all the same."""
    registry.push(REPOSITORY, "latest", sample())
    async with (
        Harness(tmp_path, registry, more=told_to(tmp_path, receiver.url)) as harness,
        telling(harness) as told,
    ):
        going = asyncio.Event()
        told.schedule._begin("weekly", going.wait)  # type: ignore[arg-type] # it only lasts
        await told.clock.run(seconds=SETTLE)
        await told.swept()
        await told.clock.run(seconds=LONGEST - 4 * SETTLE)
        assert receiver.heard == []
        await told.clock.run(seconds=4 * SETTLE)
        await told.quiet()
        assert len(receiver.heard) == 1
        going.set()


async def test_a_receiver_that_hangs(
    tmp_path: Path, registry: Registry, receiver: Receiver
) -> None:
    """A receiver that hangs delays no job and no other receiver, and is told in the end."""
    receiver.open.clear()
    registry.push(REPOSITORY, "latest", sample("one"))
    with Receiver() as other:
        table = told_to(tmp_path, receiver.url, other.url)
        async with Harness(tmp_path, registry, more=table) as harness, telling(harness) as told:
            await told.swept()
            await told.clock.run(seconds=3 * SETTLE)
            for each in (receiver, other):
                assert await asyncio.to_thread(each.entered.acquire, timeout=20)
            registry.push(REPOSITORY, "latest", sample("two"))
            await told.swept()
            assert len(harness.templates) == 2
            async with asyncio.timeout(20):  # the messenger goes on, and does not go in circles
                await told.clock.run(seconds=3 * SETTLE)
            assert len(harness.services.ledger.notifications.undelivered()) == 2
            assert receiver.heard == []
            receiver.open.set()
            await told.quiet()
            assert receiver.titles == [f"{harness.latest} new", f"{harness.latest} updated"]
            assert other.titles == receiver.titles


async def test_a_process_that_died(tmp_path: Path, registry: Registry, receiver: Receiver) -> None:
    """What changed before a process died is told once by the next one."""
    registry.push(REPOSITORY, "latest", sample())
    table = told_to(tmp_path, receiver.url)
    async with Harness(tmp_path, registry, more=table) as harness, telling(harness) as told:
        await told.swept()
    assert receiver.heard == []
    for _ in range(2):
        async with Harness(tmp_path, registry, more=table) as harness, telling(harness) as told:
            await told.quiet()
    assert receiver.titles == [f"{harness.latest} new"]


async def test_kept_until_delivered(tmp_path: Path, registry: Registry, receiver: Receiver) -> None:
    """A message that nobody took is kept, with backoff, over restarts; no line names the URL."""
    registry.push(REPOSITORY, "latest", sample())
    table = told_to(tmp_path, receiver.url)
    receiver.status = 500
    with capture_logs() as logs:
        async with Harness(tmp_path, registry, more=table) as harness, telling(harness) as told:
            await told.swept()
            await told.quiet()
            (waiting,) = harness.services.ledger.notifications.undelivered()
            assert waiting.fault == "URL 1 (json) answers 500"
            state = [file.read_bytes() for file in (tmp_path / "state").rglob("ledger*")]
            assert any(b"latest new" in content for content in state)
            assert not any(PASSWORD.encode() in content for content in state)
            # After a minute, and after two more: so three attempts in four minutes.
            for _ in range(4):
                await told.quiet()
            (waiting,) = harness.services.ledger.notifications.undelivered()
            assert waiting.tries == 3
        receiver.status = 200
        async with Harness(tmp_path, registry, more=table) as harness, telling(harness) as told:
            told.clock.set(hours=1)
            await told.quiet()
            assert harness.services.ledger.notifications.undelivered() == []
    assert receiver.titles == [f"{harness.latest} new"]
    assert [line["event"] for line in logs].count("notification not delivered") == 3
    assert PASSWORD not in str(logs)


async def test_nobody_to_tell(tmp_path: Path, registry: Registry, receiver: Receiver) -> None:
    """Who is told from now on hears of what is failing, and not of what was published before."""
    registry.push(REPOSITORY, "latest", sample())
    async with (
        Harness(tmp_path, registry, image='tags = ["latest", "none"]') as harness,
        telling(harness) as told,
    ):
        await told.swept()
        await told.quiet()
        text = harness.config.read_text()
        harness.config.write_text(text + told_to(tmp_path, receiver.url))
        harness.services.live.reload()
        await told.quiet()
        none = harness.repository.with_tag("none")
        assert receiver.titles == [f"{none} failing"]
        assert "What to do: mend what is named above" in body(receiver)


async def test_per_image(tmp_path: Path, registry: Registry, receiver: Receiver) -> None:
    """An image may be told of otherwise than the others, or not at all."""
    registry.push(REPOSITORY, "latest", sample())
    registry.push("org/repo/other", "latest", sample("other"))
    other = f'[[image]]\nrepository = "{registry.address}/org/repo/other"\n'
    table = told_to(tmp_path, receiver.url)
    async with (
        Harness(tmp_path, registry, image="notify = []", more=other + table) as harness,
        telling(harness) as told,
    ):
        await told.swept()
        await told.quiet()
        assert receiver.titles == [f"{registry.address}/org/repo/other:latest new"]


async def test_given_up(tmp_path: Path, registry: Registry, receiver: Receiver) -> None:
    """A job that the daemon died of is told with what to do about it."""
    registry.push(REPOSITORY, "latest", sample())
    async with (
        Harness(tmp_path, registry, more=told_to(tmp_path, receiver.url)) as harness,
        telling(harness) as told,
    ):
        engine, job = harness.services.engine, SyncJob(harness.latest, Cause.WEBHOOK)
        await engine.give_up(job, GIVEN_UP)
        await told.quiet()
        assert receiver.titles == [f"{harness.latest} failing"]
        assert "the daemon died 3 times while this job ran" in body(receiver)


async def test_a_container_that_went_back(
    tmp_path: Path, registry: Registry, receiver: Receiver
) -> None:
    """A container that had to go back to its old root is told once; earlier ones are not."""
    swap = RootSwap(
        100, "n1", "a.b/c:d", "t", "m", "r", "mp0", "unused0", 1, "h", True, True, False, ""
    )
    back = Replacement("cluster", swap, reason="the container was not ready")
    async with Harness(tmp_path, registry, more=told_to(tmp_path, receiver.url)) as harness:
        rows = harness.services.ledger.replacements
        rows.put(back.end(ReplacementState.UNDONE))
        async with telling(harness) as told:
            await told.quiet()
            assert receiver.heard == []
            rows.put(replace(back, id="2").end(ReplacementState.UNDONE))
            for _ in range(2):
                await told.quiet()
            assert receiver.titles == ["container 100 not replaced"]


async def test_the_weekly_run(tmp_path: Path, registry: Registry, receiver: Receiver) -> None:
    """A summary of the weekly run is part of the run's message, where that is wanted."""
    registry.push(REPOSITORY, "latest", sample())
    table = told_to(tmp_path, receiver.url, more='on = ["updated", "weekly"]')
    async with Harness(tmp_path, registry, more=table) as harness, telling(harness) as told:
        harness.services.ledger.mark_run("weekly", datetime.now(UTC) - timedelta(days=7))
        await told.swept()
        await told.quiet()
        assert receiver.heard == []
        registry.push(REPOSITORY, "latest", sample("two"))
        await told.schedule.everything(Cause.SCHEDULE)
        harness.services.ledger.mark_run("weekly")
        await told.idle()
        await told.quiet()
        await told.quiet()
        assert receiver.titles == [f"{harness.latest} updated, weekly run done"]
        last = body(receiver).splitlines()[-1]
        assert last.startswith("weekly run: 1 in order, 0 failing; 2 published since ")


async def test_the_dead_mans_switch(tmp_path: Path, registry: Registry, receiver: Receiver) -> None:
    """The switch is pinged after each sweep that worked, and after no other."""
    (tmp_path / "ping").write_text(f"{receiver.ping_url}\n")
    table = f'[notify]\nping_url_file = "{tmp_path}/ping"\n'
    registry.push(REPOSITORY, "latest", sample())
    async with Harness(tmp_path, registry, more=table) as harness:
        schedule = Schedule(harness.services)

        async def sweep() -> None:
            await schedule.sweep()
            for run in list(schedule._runs.values()):
                await run

        await sweep()
        assert receiver.asked == [f"/ping/{PASSWORD}"]
        registry.faults.refusals = [DOWN] * 10_000
        await sweep()
        assert len(receiver.asked) == 1
        registry.faults.refusals = []
        await sweep()
        assert len(receiver.asked) == 2


async def test_a_switch_that_refuses(
    tmp_path: Path, registry: Registry, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A switch that cannot be pinged is a warning that does not name the URL."""
    monkeypatch.setattr(dead_mans_switch, "PAUSES", (0.0,))
    receiver.status = 404
    (tmp_path / "ping").write_text(receiver.ping_url)
    table = f'[notify]\nping_url_file = "{tmp_path}/ping"\n'
    async with Harness(tmp_path, registry, more=table) as harness:
        with capture_logs() as logs:
            await Schedule(harness.services).ping()
            (tmp_path / "ping").write_text(f"ftp://{PASSWORD}")
            await Schedule(harness.services).ping()
    warnings = [line["error"] for line in logs if line["event"] == "dead man's switch not reached"]
    assert warnings[0] == "it answers 404"
    assert "is none of HTTP" in warnings[1]
    assert PASSWORD not in str(logs)


async def test_a_stop(tmp_path: Path, registry: Registry, receiver: Receiver) -> None:
    """A message that is being delivered when the daemon stops is not delivered again."""
    receiver.open.clear()
    registry.push(REPOSITORY, "latest", sample())
    async with Harness(tmp_path, registry, more=told_to(tmp_path, receiver.url)) as harness:
        async with telling(harness) as told:
            await told.swept()
            await told.clock.run(seconds=3 * SETTLE)
            assert await asyncio.to_thread(receiver.entered.acquire, timeout=20)
            receiver.open.set()
        assert harness.services.ledger.notifications.undelivered() == []
        assert len(receiver.heard) == 1
