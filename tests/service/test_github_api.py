"""What `service.github_api` promises: bounded, patient, and careful with the token."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from syncd.config.github_settings import GitHubSettings
from syncd.errors import ConfigError, GitHubError, GitHubUnavailableError
from syncd.service import github_api
from syncd.service.github_api import PAGES, GitHubApi
from tests.fakes.certificate import Certificate
from tests.fakes.github import GitHub, Webhook

PLACE = "orgs/mieweb"
URL = "https://syncd.example.org/webhooks/github"
SINCE = datetime.now(UTC) - timedelta(days=3)


@pytest.fixture
def github() -> Iterator[GitHub]:
    """Give GitHub's API, with a webhook of an organization."""
    with GitHub() as double:
        double.set_up(PLACE, URL)
        yield double


@pytest.fixture
def hook(github: GitHub) -> Webhook:
    """Give the webhook."""
    return github.places[PLACE][0]


async def asked(github: GitHub, what: str, *arguments: Any, token: str | None = "") -> Any:
    """Ask the API for something, with the right token or another one."""
    settings = GitHubSettings(api=github.url)
    shown = github.token.text if token == "" else token
    async with GitHubApi.open(settings, shown) as api:
        return await getattr(api, what)(*arguments)


async def test_hooks(github: GitHub, hook: Webhook) -> None:
    """The webhooks of a place are listed, and one is found by its id."""
    (listed,) = await asked(github, "hooks", PLACE)
    assert (listed.id, listed.url) == (hook.id, URL)
    assert await asked(github, "hook", f"{PLACE}/hooks/{hook.id}") == listed


async def test_pages(github: GitHub, hook: Webhook) -> None:
    """All pages are read, until one ends before the time that is asked for."""
    for number in range(250):
        github.attempted(hook, f"g-{number}")
    path = f"{PLACE}/hooks/{hook.id}"
    attempts = await asked(github, "attempts", path, SINCE)
    assert [each.guid for each in attempts] == [f"g-{number}" for number in reversed(range(250))]
    assert len(github.requests) == 3
    for old in hook.deliveries[150:]:
        old["delivered_at"] = "2020-01-01T00:00:00Z"
    github.requests.clear()
    await asked(github, "attempts", path, datetime.now(UTC) - timedelta(days=1))
    assert len(github.requests) == 2


async def test_endless_pages(github: GitHub, hook: Webhook) -> None:
    """A list that never ends is left after so many pages."""
    link = {"Link": f'<{github.url}/{PLACE}/hooks/{hook.id}/deliveries?cursor=again>; rel="next"'}
    github.answers = [(200, link, b"[]")] * (PAGES + 5)
    assert await asked(github, "attempts", f"{PLACE}/hooks/{hook.id}", SINCE) == []
    assert len(github.requests) == PAGES


async def test_the_token_stays_with_its_host(github: GitHub, hook: Webhook) -> None:
    """Neither a link to a next page nor a redirect leads the token to another host."""
    with GitHub() as other:
        github.answers = [(200, {"Link": f'<{other.url}/steal?cursor=1>; rel="next"'}, b"[]")]
        await asked(github, "attempts", f"{PLACE}/hooks/{hook.id}", SINCE)
        for status in (301, 302, 307, 308):
            github.answers = [(status, {"Location": f"{other.url}/steal"}, b"{}")]
            with pytest.raises(GitHubError, match=r"write its new name into github\.hook"):
                await asked(github, "hooks", PLACE)
        assert other.requests == []
    assert {path for _, path in github.requests} == {
        f"/{PLACE}/hooks",
        f"/{PLACE}/hooks/{hook.id}/deliveries",
    }


async def test_asking_again(github: GitHub, hook: Webhook) -> None:
    """A delivery is asked for by the id of an attempt; what GitHub does not have is a fault."""
    attempt = github.failed(hook, "a")["id"]
    await asked(github, "ask_again", f"{PLACE}/hooks/{hook.id}", attempt)
    assert github.asked_again == [attempt]
    with pytest.raises(GitHubError, match=r"404 for .*/deliveries/7/attempts: Not Found"):
        await asked(github, "ask_again", f"{PLACE}/hooks/{hook.id}", 7)


async def test_networks(github: GitHub) -> None:
    """The networks of deliveries are told without a token."""
    networks = await asked(github, "networks", token=None)
    assert [str(network) for network in networks] == github.hook_networks


@pytest.mark.parametrize(
    ("token", "classic", "told"),
    [
        (None, False, "401 for orgs/mieweb/hooks: Requires authentication; .*make another one"),
        ("ghp_old", False, "401 for orgs/mieweb/hooks: Bad credentials; .*make another one"),
        (
            "",
            False,
            "403 for .*: Resource not accessible .*the permission Webhooks, read and write",
        ),
        ("", True, "404 for .*: Not Found; is the name right.*admin:org_hook"),
    ],
)
async def test_tokens(github: GitHub, token: str | None, classic: bool, told: str) -> None:
    """A token that is none, is old, or may not do it is told apart, with the remedy; no wait."""
    github.token.reads, github.token.classic = (), classic
    with pytest.raises(GitHubError, match=told) as caught:
        await asked(github, "hooks", PLACE, token=token)
    assert not caught.value.temporary


def limited(status: int, message: str = "", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Return an answer that asks for a wait."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, named, json.dumps({"message": message}).encode()


@pytest.mark.parametrize(
    ("answer", "wait"),
    [
        (limited(403, "secondary", Retry_After="7"), 7),
        (limited(429, "secondary", Retry_After="999999"), 3600),
        (limited(503, "later", Retry_After="0"), 1),
        (limited(403, "primary", X_RateLimit_Remaining="0", X_RateLimit_Reset="1400"), 400),
        (limited(429, "primary", X_RateLimit_Remaining="0", X_RateLimit_Reset="900"), 1),
        (limited(403, "primary", X_RateLimit_Remaining="0", X_RateLimit_Reset="soon"), 60),
        (limited(403, "You have exceeded a secondary rate limit"), 60),
        (limited(429, ""), 60),
        (limited(429, "", Retry_After="Fri, 27 Nov 2026 00:00:00 GMT"), 60),
        (limited(500, ""), 0),
        (limited(502, ""), 0),
    ],
)
async def test_waits(
    github: GitHub, answer: Any, wait: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GitHub is taken at its word when it asks for a wait, for an hour at most."""
    github.answers = [answer]
    async with GitHubApi.open(GitHubSettings(api=github.url), github.token.text) as api:
        api._now = lambda: 1000.0
        with pytest.raises(GitHubUnavailableError) as caught:
            await api.hooks(PLACE)
    assert caught.value.retry_after == wait
    assert len(github.requests) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 100_000, b"\xff", b"{}", b"7", b"null"])
async def test_nonsense(github: GitHub, body: bytes) -> None:
    """An answer that is no list is a fault that is told, and nothing worse."""
    github.answers = [(200, {}, body)]
    with pytest.raises(GitHubError):
        await asked(github, "hooks", PLACE)


async def test_too_long(github: GitHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an endless answer only so much is read."""
    monkeypatch.setattr(github_api, "_ANSWER_MAX", 1000)
    github.answers = [(200, {}, b"[" + b" " * 1000 + b"]")]
    with pytest.raises(GitHubUnavailableError, match="cannot be asked: ValueError"):
        await asked(github, "hooks", PLACE)


async def test_a_bomb(github: GitHub) -> None:
    """Nothing is inflated: an answer that is coded all the same is not JSON."""
    github.answers = [(200, {"Content-Encoding": "gzip"}, b"\x1f\x8b\x08\x00")]
    with pytest.raises(GitHubError, match="not JSON"):
        await asked(github, "hooks", PLACE)


async def test_a_drip(github: GitHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that comes byte by byte has so much time as a whole."""
    monkeypatch.setattr(github_api, "_PATIENCE", 0.3)
    github.drips = True
    with pytest.raises(GitHubUnavailableError, match=r"no whole answer within 0\.3 s"):
        await asked(github, "hooks", PLACE)


async def test_nobody_there(github: GitHub) -> None:
    """An API that cannot be reached is told, and may be reached later."""
    settings = GitHubSettings(api="http://127.0.0.1:9")
    async with GitHubApi.open(settings, "t") as api:
        with pytest.raises(GitHubUnavailableError, match=r"127\.0\.0\.1:9 cannot be asked"):
            await api.hooks(PLACE)


async def test_the_token_is_not_told(github: GitHub) -> None:
    """A fault that quotes the token does not show it."""
    github.answers = [limited(400, f"what is {github.token.text}?\x1b[2J" + "x" * 500)]
    with pytest.raises(GitHubError) as caught:
        await asked(github, "hooks", PLACE)
    assert github.token.text not in str(caught.value)
    assert "what is (the token)?" in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 300


async def test_the_environment(
    github: GitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy of the environment is used, and nothing of ~/.netrc is sent."""
    (tmp_path / ".netrc").write_text("default login me password other\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    await asked(github, "hooks", PLACE)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(GitHubUnavailableError):
        await asked(github, "hooks", PLACE)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    await asked(github, "hooks", PLACE)


async def test_certificates(github: GitHub, tmp_path: Path) -> None:
    """A certificate of a private CA is trusted by `ca_file`, and by nothing else."""
    certificate = Certificate.make(tmp_path)
    github.encrypt(certificate)
    url = github.url
    for settings, told in (
        (GitHubSettings(api=url), "certificate of .* is not trusted; set github.ca_file"),
        (GitHubSettings(api=url, ca_file=tmp_path / "none"), "ca_file .*/none cannot be used"),
    ):
        with pytest.raises((GitHubError, ConfigError), match=told):
            async with GitHubApi.open(settings, github.token.text) as api:
                await api.hooks(PLACE)
    settings = GitHubSettings(api=url, ca_file=certificate.file)
    async with GitHubApi.open(settings, github.token.text) as api:
        assert len(await api.hooks(PLACE)) == 1
