"""What `service.hook_networks` promises: GitHub's networks, kept while GitHub cannot be asked."""

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
from syncd.service.github_checks import address_results
from syncd.service.hook_networks import HookNetworks, learnt
from tests.clocks import HandClock
from tests.fakes.github import GitHub
from tests.fakes.registry import Registry
from tests.harness import Harness
from tests.waiting import until


@pytest.fixture
def github() -> Iterator[GitHub]:
    """Give GitHub's API."""
    with GitHub() as double:
        yield double


def networks_of(harness: Harness, github: GitHub, *sources: str) -> HookNetworks:
    """Return the networks of a process that takes deliveries from these sources."""
    server = harness.services.live.config.server
    harness.configure(
        github=GitHubSettings(api=github.url),
        server=server.model_copy(update={"hook_addresses": sources}),
    )
    return HookNetworks(harness.services.live, harness.services.executors, HandClock())


def known(networks: HookNetworks) -> list[str] | None:
    """Return what is known, as text."""
    return None if networks.known is None else [str(network) for network in networks.known]


async def test_learnt_and_kept(tmp_path: Path, registry: Registry, github: GitHub) -> None:
    """What GitHub names is known to the next process, too, before that has asked."""
    async with Harness(tmp_path, registry) as harness:
        networks = networks_of(harness, github, "github")
        assert known(networks) is None
        assert await networks.look() == 3600
        assert known(networks) == github.hook_networks
        assert known(networks_of(harness, github, "github")) == github.hook_networks
        github.hook_networks = ["140.82.112.0/20"]
        await networks.look()
        assert known(networks) == known(networks_of(harness, github, "github"))
        assert known(networks) == ["140.82.112.0/20"]
    assert github.requests == [("GET", "/meta")] * 2


async def test_a_github_at_fault(tmp_path: Path, registry: Registry, github: GitHub) -> None:
    """A GitHub that fails, or names no networks, is told, and takes nothing of what is known."""
    async with Harness(tmp_path, registry) as harness:
        networks = networks_of(harness, github, "github")
        await networks.look()
        before = known(networks)
        answers: list[tuple[int, dict[str, str], bytes]] = [
            (502, {}, b""),
            (403, {"Retry-After": "1800"}, b"{}"),
            (200, {}, b'{"hooks": []}'),
            (200, {}, b"[]"),
        ]
        for answer, wait in zip(answers, (300, 1800, 3600, 3600), strict=True):
            github.answers = [answer]
            with capture_logs() as logs:
                assert await networks.look() == wait
            assert [line["event"] for line in logs] == ["GitHub's networks are not learnt"]
            assert known(networks) == before


@pytest.mark.parametrize(
    "kept",
    [
        b"",
        b"{}",
        b"[]",
        b"[" * 100_000,
        b'{"hooks": ["192.30.252.0/22"]}',
        b'{"hooks": ["192.30.252.0/22"], "at": 7}',
        b'{"hooks": ["x"], "at": "2026-11-26T12:00:00+00:00"}',
        b"\xff",
    ],
)
async def test_a_damaged_file(
    kept: bytes, tmp_path: Path, registry: Registry, github: GitHub
) -> None:
    """A file that cannot be read is as good as none."""
    async with Harness(tmp_path, registry) as harness:
        harness.services.live.config.state.paths.hook_networks.write_bytes(kept)
        networks = networks_of(harness, github, "github")
        assert known(networks) is None
        await networks.look()
        assert known(networks) == github.hook_networks


async def test_only_where_it_is_wanted(tmp_path: Path, registry: Registry, github: GitHub) -> None:
    """GitHub is asked only where its networks count; a reload that wants them asks at once."""
    async with Harness(tmp_path, registry) as harness:
        networks = networks_of(harness, github, "10.0.0.0/8")
        keeper = asyncio.create_task(networks.keep())
        assert isinstance(networks._clock, HandClock)
        await networks._clock.run(hours=3)
        assert github.requests == []
        server = harness.services.live.config.server
        harness.configure(server=server.model_copy(update={"hook_addresses": ("github",)}))
        networks._apply(harness.services.live.config)
        await until(lambda: known(networks) == github.hook_networks)
        keeper.cancel()


async def test_a_disk_that_is_full(
    tmp_path: Path, registry: Registry, github: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be kept is known all the same, and told."""
    async with Harness(tmp_path, registry) as harness:
        networks = networks_of(harness, github, "github")
        harness.services.live.config.state.paths.hook_networks.mkdir()
        with capture_logs() as logs:
            await networks.look()
        assert known(networks) == github.hook_networks
        assert "is there already and is no file" in logs[-1]["error"]


async def test_check(tmp_path: Path, registry: Registry, github: GitHub) -> None:
    """A check tells what is let in, how old that is, and a proxy that hides everybody."""

    def said(**settings: Any) -> list[tuple[bool, str]]:
        config = harness.services.live.config
        server = config.server.model_copy(update={"proxies": ("127.0.0.1",)} | settings)
        found = address_results(config.model_copy(update={"server": server}), now)
        return [(result.ok, result.detail) for result in found]

    now = datetime.now(UTC)
    async with Harness(tmp_path, registry) as harness:
        networks = networks_of(harness, github, "github", "10.0.0.0/8")
        assert said(hook_addresses=()) == []
        own = "deliveries are taken from 1 networks of the configuration"
        assert said(hook_addresses=("10.0.0.0/8",)) == [(True, own)]
        unknown = "GitHub's are not known yet, and its deliveries are answered 503"
        assert said() == [(False, f"{own}; {unknown}")]
        await networks.look()
        kept = harness.services.live.config.state.paths.hook_networks
        for age, ok in ((timedelta(hours=1), True), (timedelta(days=3), False)):
            text = json.loads(kept.read_text()) | {"at": (now - age).isoformat()}
            kept.write_text(json.dumps(text))
            ((found, detail),) = said()
            assert (found, detail.startswith(f"{own}, and from 3 that GitHub named on")) == (
                ok,
                True,
            )
        for listen, hidden in (("127.0.0.1:1", True), ("[::1]:1", True), ("0.0.0.0:1", False)):
            told = said(proxies=(), listen=listen)[1:]
            assert bool(told) is hidden
        assert "server.proxies" in said(proxies=())[1][1]
        assert learnt(harness.services.live.config) is not None
