"""The double of GitHub's API refuses what GitHub refuses, in GitHub's words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

import pytest
import requests

from tests.fakes.github import GitHub, GitHubToken, Webhook, text_of

PLACE = "repos/octo/web"


@pytest.fixture
def github() -> Iterator[GitHub]:
    """Give GitHub's API, with a webhook of a repository."""
    with GitHub(GitHubToken("ghp_right")) as double:
        double.set_up(PLACE, "http://127.0.0.1:9/webhooks/github")
        yield double


@pytest.fixture
def hook(github: GitHub) -> Webhook:
    """Give the webhook."""
    return github.places[PLACE][0]


def ask(
    github: GitHub,
    path: str,
    method: str = "GET",
    headers: Mapping[str, str | None] | None = None,
) -> requests.Response:
    """Ask as a good client does, but for some headers; None leaves one out."""
    good = {
        "Authorization": "Bearer ghp_right",
        "Accept": "application/vnd.github+json",
        "User-Agent": "test",
        "X-GitHub-Api-Version": "2022-11-28",
    }
    url = f"{github.url}/{path}"
    return requests.request(method, url, headers={**good, **(headers or {})}, timeout=10)


@pytest.mark.parametrize(
    ("headers", "status", "message"),
    [
        ({"Authorization": None}, 401, "Requires authentication"),
        ({"Authorization": "Bearer other"}, 401, "Bad credentials"),
        ({"Authorization": "Basic ghp_right"}, 401, "Bad credentials"),
        ({"User-Agent": ""}, 403, "User-Agent"),
        ({"Accept": "text/html"}, 415, "Must accept 'application/json'"),
        ({"X-GitHub-Api-Version": "2020-01-01"}, 400, "not a supported version"),
        ({"Authorization": "token ghp_right", "Accept": "*/*"}, 200, ""),
        ({"X-GitHub-Api-Version": None, "Accept": "application/json"}, 200, ""),
    ],
)
def test_headers(github: GitHub, headers: dict[str, str | None], status: int, message: str) -> None:
    """What a request needs in any case."""
    answer = ask(github, f"{PLACE}/hooks", headers=headers)
    assert answer.status_code == status
    assert status == 200 or message in answer.json()["message"]


def test_what_a_token_may(github: GitHub, hook: Webhook) -> None:
    """Without permission a classic token is told 404, and a fine-grained one 403."""
    attempt = github.failed(hook, "a")["id"]
    again = f"{PLACE}/hooks/{hook.id}/deliveries/{attempt}/attempts"
    github.token.writes = ()
    assert ask(github, f"{PLACE}/hooks").status_code == 200
    assert ask(github, again, "POST").status_code == 403
    github.token.classic = True
    assert ask(github, again, "POST").status_code == 404
    github.token.writes = (PLACE,)
    assert (ask(github, again, "POST").status_code, ask(github, again).status_code) == (202, 404)


def test_paths(github: GitHub, hook: Webhook) -> None:
    """No path ends in a slash, and what is not there is 404."""
    for path in (f"{PLACE}/hooks/", f"{PLACE}/hooks/9", "repos/octo/none/hooks", "orgs/octo/hooks"):
        assert ask(github, path).status_code == 404
    assert ask(github, f"repos/OCTO/Web/hooks/{hook.id}").json()["config"]["url"] == hook.url


def test_pages(github: GitHub, hook: Webhook) -> None:
    """A page has 30 entries, or as many as asked for up to 100, the newest first."""
    for number in range(130):
        github.attempted(hook, str(number))
    path = f"{PLACE}/hooks/{hook.id}/deliveries"
    assert len(ask(github, path).json()) == 30
    first = ask(github, f"{path}?per_page=500")
    assert [entry["guid"] for entry in first.json()] == [str(n) for n in range(129, 29, -1)]
    assert "cursor=" in first.links["next"]["url"]
    rest = ask(github, first.links["next"]["url"].removeprefix(f"{github.url}/"))
    assert (len(rest.json()), rest.links) == (30, {})


def test_three_days(github: GitHub, hook: Webhook) -> None:
    """What is older than three days is not seen, and not delivered again."""
    old = text_of(datetime.now(UTC) - timedelta(days=3, minutes=1))
    attempt = github.failed(hook, "a", delivered_at=old)["id"]
    path = f"{PLACE}/hooks/{hook.id}/deliveries"
    assert ask(github, path).json() == []
    assert ask(github, f"{path}/{attempt}/attempts", "POST").status_code == 404


def test_a_redelivery_is_an_entry(github: GitHub, hook: Webhook) -> None:
    """A redelivery has the GUID of the delivery, and an id of its own."""
    first = github.failed(hook, "a")
    hook.payloads["a"] = ({}, b"{}")
    assert github.deliver(hook, "a") == 502
    assert [entry["guid"] for entry in hook.deliveries] == ["a", "a"]
    assert hook.deliveries[0]["id"] != first["id"]
    assert hook.deliveries[0]["redelivery"]
