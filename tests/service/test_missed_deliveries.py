"""What `service.missed_deliveries` promises: what GitHub failed to deliver comes after all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from syncd.config.github_settings import GitHubSettings
from syncd.service.missed_deliveries import ASKED_MAX, MissedDeliveries
from syncd.sync.job import Result
from tests.clocks import HandClock
from tests.deliveries import pushed, signed
from tests.fakes.github import GitHub, Webhook, text_of
from tests.fakes.registry import Registry
from tests.harness import Harness, sample
from tests.metrics import scrape
from tests.waiting import until

ORG = "orgs/mieweb"
ELSEWHERE = "https://elsewhere.example.org/webhooks/github"
IMAGE = '[[image]]\nrepository = "ghcr.io/mieweb/opensource-server/base"\ntargets = ["local"]\n'


@pytest.fixture
def github() -> Iterator[GitHub]:
    """Give GitHub's API."""
    with GitHub() as double:
        yield double


class House:
    """A daemon's parts on a GitHub, whose waits are written down and take no time."""

    def __init__(self, harness: Harness, github: GitHub, **settings: Any) -> None:
        file = harness.folder / "github-token"
        file.write_text(f"{github.token.text}\n")
        file.chmod(0o600)
        given = {"token_file": file, "api": github.url, "hook": ORG} | settings
        harness.configure(github=GitHubSettings(**given))
        self.pauses: list[float] = []
        self.clock = HandClock()
        self.clock.time = datetime.now(UTC)
        self.missed = MissedDeliveries(harness.services, self.clock, self._pause)

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


def leading_to(harness: Harness, github: GitHub, place: str = ORG) -> Webhook:
    """Set up a webhook that leads to the harness."""
    return github.set_up(place, str(harness.client.make_url("/webhooks/github")))


async def test_a_push_missed_while_down(tmp_path: Path, registry: Registry, github: GitHub) -> None:
    """What GitHub could not deliver is delivered after all, and becomes a template."""
    async with Harness(tmp_path, registry) as harness:
        hook, house = leading_to(harness, github), House(harness, github)
        registry.push(harness.repository.repository, "latest", sample())
        body = json.dumps(pushed(harness.repository.name)).encode()
        hook.payloads["a-b-c"] = (signed(body, delivery="a-b-c"), body)
        first = github.failed(hook, "a-b-c", delivered_at=text_of(house.clock.time))
        with capture_logs() as logs:
            assert await house.missed.look() == 3600
            await until(lambda: bool(harness.services.ledger.seen("a-b-c")))
        assert github.asked_again == [first["id"]]
        (told,) = [line for line in logs if line["event"] == "delivery asked for again"]
        assert (told["delivery"], told["failed"]) == ("a-b-c", "failed to connect")
        (job,) = harness.services.ledger.seen("a-b-c") or []
        assert (await harness.outcome(job)).result is Result.PUBLISHED
        await house.missed.look()
        assert github.asked_again == [first["id"]]
        seen = await scrape(harness)
        assert seen("syncd_redeliveries_total", result="asked") == 1
        assert seen("syncd_missed_delivery_looks_total", result="completed") == 2


async def test_asked_for_once(tmp_path: Path, registry: Registry, github: GitHub) -> None:
    """A delivery that fails again is not asked for again, also not by another process."""
    async with Harness(tmp_path, registry) as harness:
        hook = leading_to(harness, github)
        github.failed(hook, "a")
        await House(harness, github).missed.look()
        github.failed(hook, "a", redelivery=True)
        await House(harness, github).missed.look()
    async with Harness(tmp_path, registry) as harness:
        await House(harness, github).missed.look()
    assert len(github.asked_again) == 1


async def test_what_came_another_way(tmp_path: Path, registry: Registry, github: GitHub) -> None:
    """What syncd took, though GitHub heard no answer, and what a person had redelivered, is not."""
    async with Harness(tmp_path, registry, server='settle = "1h"') as harness:
        hook, house = leading_to(harness, github), House(harness, github)
        body = json.dumps(pushed(harness.repository.name)).encode()
        assert (await harness.deliver(body, delivery="taken"))[0] == 202
        github.attempted(hook, "taken", "timed out", 504)
        github.failed(hook, "by-a-person")
        github.attempted(hook, "by-a-person", redelivery=True)
        await house.missed.look()
    assert github.asked_again == []


async def test_bounds(tmp_path: Path, registry: Registry, github: GitHub) -> None:
    """Of very many a hundred are asked for, the oldest first and one a second; then the others."""
    async with Harness(tmp_path, registry) as harness:
        hook = leading_to(harness, github)
        second = leading_to(harness, github, "repos/mieweb/one")
        house = House(harness, github, hook=[ORG, "repos/mieweb/one"])
        for number in range(20):
            github.failed(second, f"s-{number}", delivered_at=text_of(house.clock.time))
        for number in range(ASKED_MAX - 10):
            ago = timedelta(minutes=ASKED_MAX - number)
            github.failed(hook, f"g-{number}", delivered_at=text_of(house.clock.time - ago))
        ids = [entry["id"] for each in (hook, second) for entry in each.deliveries[::-1]]
        ids[-20:] = sorted(ids[-20:], reverse=True)  # of one second, as GitHub lists them
        await house.missed.look()
        assert github.asked_again == ids[:ASKED_MAX]
        assert house.pauses == [1.0] * ASKED_MAX
        await house.missed.look()
        assert github.asked_again == ids


async def test_a_hook_and_another(tmp_path: Path, registry: Registry, github: GitHub) -> None:
    """A delivery of two webhooks is asked for once; a webhook that is gone hides no other."""
    async with Harness(tmp_path, registry) as harness:
        first = leading_to(harness, github)
        second = leading_to(harness, github, "repos/mieweb/one")
        github.failed(first, "same")
        github.failed(second, "same")
        github.failed(second, "other")
        hook = ["orgs/gone", f"{ORG}/hooks/99", ORG, f"repos/mieweb/one/hooks/{second.id}"]
        with capture_logs() as logs:
            await House(harness, github, hook=hook).missed.look()
    assert len(github.asked_again) == 2
    (told,) = [line for line in logs if line["log_level"] == "warning"]
    assert "404 for orgs/gone/hooks" in told["error"]


async def test_found_by_the_images(tmp_path: Path, registry: Registry, github: GitHub) -> None:
    """Without `hook` webhooks are looked for where the images of ghcr.io come from."""
    image = f'targets = ["local"]\n{IMAGE}'
    async with Harness(tmp_path, registry, image=image) as harness:
        hook = leading_to(harness, github, "repos/mieweb/opensource-server")
        github.failed(hook, "a")
        with capture_logs() as logs:
            await House(harness, github, hook=()).missed.look()
    assert [line["event"] for line in logs] == ["delivery asked for again"]
    assert len(github.asked_again) == 1
    assert {path for _, path in github.requests[:2]} == {
        "/orgs/mieweb/hooks",
        "/repos/mieweb/opensource-server/hooks",
    }


@pytest.mark.parametrize("names", [(), ("127.0.0.1",), ("another.example.org",)])
async def test_whose_webhook(
    names: tuple[str, ...], tmp_path: Path, registry: Registry, github: GitHub
) -> None:
    """Of webhooks that lead to several hosts only those to `server.names` are this syncd's."""
    async with Harness(tmp_path, registry) as harness:
        server = harness.services.live.config.server.model_copy(update={"names": names})
        harness.configure(server=server)
        github.failed(leading_to(harness, github), "ours")
        github.failed(github.set_up(ORG, ELSEWHERE), "theirs")
        github.set_up(ORG, "https://ci.example.org/hook")
        with capture_logs() as logs:
            await House(harness, github).missed.look()
    assert len(github.asked_again) == ("127.0.0.1" in names)
    errors = [line["error"] for line in logs if line["log_level"] == "warning"]
    if not names:
        assert "several hosts: 127.0.0.1, elsewhere.example.org" in errors[0]
    elif "127.0.0.1" not in names:
        assert "no webhook at GitHub is known to lead to syncd" in errors[0]
    else:
        assert errors == []


async def test_very_many_webhooks(tmp_path: Path, registry: Registry, github: GitHub) -> None:
    """Of very many webhooks that lead here a few are looked at."""
    async with Harness(tmp_path, registry) as harness:
        for _ in range(150):
            leading_to(harness, github)
        await House(harness, github).missed.look()
    assert len([path for _, path in github.requests if path.endswith("/deliveries")]) == 20


async def test_without_a_token(tmp_path: Path, registry: Registry, github: GitHub) -> None:
    """Without a token GitHub is asked nothing, and nothing is told."""
    async with Harness(tmp_path, registry) as harness:
        with capture_logs() as logs:
            await House(harness, github, token_file=None).missed.look()
        seen = await scrape(harness)
        assert seen("syncd_missed_delivery_looks_total", result="completed") == 0
    assert (github.requests, logs) == ([], [])


async def test_a_github_at_fault(tmp_path: Path, registry: Registry, github: GitHub) -> None:
    """A GitHub at fault is told and asked again later, each time after a longer wait."""
    async with Harness(tmp_path, registry) as harness:
        hook, house = leading_to(harness, github), House(harness, github)
        github.failed(hook, "a")
        github.answers = [(502, {}, b"")] * 6
        with capture_logs() as logs:
            waits = [await house.missed.look() for _ in range(6)]
        assert waits == [300, 600, 1200, 2400, 3600, 3600]
        assert {line["event"] for line in logs} == {"deliveries missed are not known"}
        assert await house.missed.look() == 3600
        github.answers = [(502, {}, b"")]
        assert await house.missed.look() == 300
        seen = await scrape(harness)
        assert seen("syncd_missed_delivery_looks_total", result="broken_off") == 7
    assert len(github.asked_again) == 1


async def test_a_wait_in_the_midst(tmp_path: Path, registry: Registry, github: GitHub) -> None:
    """A limit that is met in the midst ends the look; after the wait the rest is asked for."""
    async with Harness(tmp_path, registry) as harness:
        hook, house = leading_to(harness, github), House(harness, github)
        for guid in "abc":
            github.failed(hook, guid)
        real = house.missed._pause

        async def pause(seconds: float) -> None:
            await real(seconds)
            if len(house.pauses) == 2:
                github.answers = [(403, {"Retry-After": "1800"}, b"{}")]

        house.missed._pause = pause
        assert await house.missed.look() == 1800
        assert len(github.asked_again) == 2
        assert await house.missed.look() == 3600
    assert len(set(github.asked_again)) == 3
    assert len(github.asked_again) == 4


async def test_a_token_that_may_only_read(
    tmp_path: Path, registry: Registry, github: GitHub
) -> None:
    """A token that may not write is told after a few attempts, and nothing counts as asked for."""
    async with Harness(tmp_path, registry) as harness:
        hook, house = leading_to(harness, github), House(harness, github)
        github.token.writes = ()
        for number in range(9):
            github.failed(hook, f"g-{number}")
        with capture_logs() as logs:
            assert await house.missed.look() == 3600
        assert len(github.asked_again) == 3
        assert "read and write" in logs[-1]["error"]
        seen = await scrape(harness)
        assert seen("syncd_redeliveries_total", result="refused") == 3
        github.token.writes = (ORG,)
        await house.missed.look()
    assert len(github.asked_again) == 12


async def test_one_that_github_refuses(tmp_path: Path, registry: Registry, github: GitHub) -> None:
    """A delivery that GitHub does not have any more keeps none of the others back."""
    async with Harness(tmp_path, registry) as harness:
        hook, house = leading_to(harness, github), House(harness, github)
        for guid in "abc":
            github.failed(hook, guid)
        real = house.missed._pause

        async def pause(seconds: float) -> None:
            await real(seconds)
            github.answers = [(404, {}, b"{}")] if len(house.pauses) == 1 else []

        house.missed._pause = pause
        await house.missed.look()
    assert len(github.asked_again) == 3


async def test_when(tmp_path: Path, registry: Registry, github: GitHub) -> None:
    """Half a minute after the start, then as often as the sweep, also after a suspension."""
    async with Harness(tmp_path, registry) as harness:
        leading_to(harness, github)
        house = House(harness, github)
        looks: list[float] = []

        async def look() -> float:
            looks.append(house.clock.uptime())
            return 3600.0

        house.missed.look = look  # type: ignore[method-assign] # what it does is tested above
        keeper, begun = asyncio.create_task(house.missed.keep()), house.clock.uptime()
        await house.clock.run(seconds=29)
        assert looks == []
        await house.clock.run(seconds=2)
        assert looks == [begun + 30]
        await house.clock.run(minutes=59)
        assert len(looks) == 1
        house.clock.suspend(days=2)
        await house.clock.run(minutes=1)
        assert len(looks) == 2
        keeper.cancel()


async def test_reloads(tmp_path: Path, registry: Registry, github: GitHub) -> None:
    """A reload that changes `[github]` looks at once, but not before GitHub wants to be asked."""
    async with Harness(tmp_path, registry) as harness:
        hook, live = leading_to(harness, github), harness.services.live
        house = House(harness, github)
        keeper = asyncio.create_task(house.missed.keep())

        async def reload(**github_settings: Any) -> int:
            config = live.config
            changed = config.github.model_copy(update=github_settings)
            house.missed._apply(config.model_copy(update={"github": changed}))
            for _ in range(5):
                await house.clock.settled()
            return len(github.requests)

        github.answers = [(429, {"Retry-After": "900"}, b"{}")]
        await house.clock.run(seconds=31)
        await until(lambda: house.missed._asking._rest > 0)
        assert await reload(hook=(ORG,)) == 1
        assert await reload(hook=(f"{ORG}/hooks/{hook.id}",)) == 1
        await house.clock.run(seconds=901)
        await until(lambda: len(github.requests) >= 3)
        keeper.cancel()
