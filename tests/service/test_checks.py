"""What `checks` finds out: owners, the clock, room, tokens."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from syncd.config.load import load_config
from syncd.errors import RegistryError, RegistryUnavailableError, SyncdError
from syncd.service.checks import _expiry, check_results
from syncd.service.github_checks import github_results
from syncd.targets.target import CheckResult
from tests.fakes.github import GitHub
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, configure, described, sample


def owners(config: Path) -> list[CheckResult]:
    """Return what a check says of the owners."""
    found = check_results(load_config(config))
    return [result for result in found if result.subject == "files of target local"]


async def published(folder: Path, registry: Registry) -> tuple[Path, Path]:
    """Publish an image; return the configuration and the published file."""
    async with Harness(folder, registry) as harness:
        registry.push(REPOSITORY, "latest", sample())
        await harness.bring()
        (path,) = harness.templates
        return harness.config, path


def test_one_file_for_two_tokens(tmp_path: Path, registry: Registry) -> None:
    """A file that is named for two tokens has the scopes of both, which nobody means."""
    registry.push(REPOSITORY, "latest", sample())
    (tmp_path / "read-token").write_text("a" * 32)
    (tmp_path / "read-token").chmod(0o600)
    for files, wrong in (
        (("read-token", "read-token"), "read token"),
        (("api-token", "read-token"), "create token"),
    ):
        lines = zip(("create", "read"), files, strict=True)
        server = "\n".join(f'{scope}_token_file = "{tmp_path}/{file}"' for scope, file in lines)
        found = check_results(load_config(configure(tmp_path, registry, server=server)))
        (told,) = [one for one in found if "scopes of both" in one.detail]
        assert (told.ok, told.subject) == (False, wrong)


async def test_good_owners(tmp_path: Path, registry: Registry) -> None:
    """A file as syncd publishes it is in order; before the first there is nothing to say."""
    async with Harness(tmp_path, registry) as harness:
        assert owners(harness.config) == []
    config, _ = await published(tmp_path, registry)
    (result,) = owners(config)
    assert (result.ok, result.detail) == (True, "1 belong to root or syncd")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        pytest.param(
            lambda path: os.chown(path, 65534, 65534),
            "belongs to the user 65534",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file away"),
        ),
        (lambda path: path.chmod(0o664), "may be written by others"),
        (lambda path: path.chmod(0o646), "may be written by others"),
        (lambda path: path.with_name("second").hardlink_to(path), "has a second name elsewhere"),
    ],
)
async def test_bad_owners(
    tmp_path: Path, registry: Registry, spoil: Callable[[Path], None], told: str
) -> None:
    """A published file that somebody else can change is told, with its path and the remedy."""
    config, path = await published(tmp_path, registry)
    spoil(path)
    (result,) = owners(config)
    assert not result.ok
    assert result.detail.startswith(f"{path} {told}")
    assert result.detail.endswith("delete these files, and syncd publishes them anew")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file away")
async def test_the_services_user(tmp_path: Path, registry: Registry) -> None:
    """The user who owns the state is the service's, whoever checks."""
    config, path = await published(tmp_path, registry)
    for changed in (tmp_path / "state", path):
        os.chown(changed, 12345, 12345)
    (result,) = owners(config)
    assert result.ok


def found(config: Path) -> dict[str, tuple[bool, str]]:
    """Return what a check says, by subject."""
    results = check_results(load_config(config))
    return {result.subject: (result.ok, result.detail) for result in results}


@pytest.mark.parametrize(
    ("ahead", "ok", "told"),
    [
        (0, True, "right within a minute"),
        (30, True, "right within a minute"),
        (3600, False, "s behind it; have timesyncd"),
        (-3600, False, "s ahead of it; have timesyncd"),
    ],
)
def test_clock(ahead: float, ok: bool, told: str, tmp_path: Path, registry: Registry) -> None:
    """A clock that is off by more than a minute is a fault, whoever is ahead."""
    registry.push(REPOSITORY, "latest", sample())
    registry.faults.ahead = ahead
    said = found(configure(tmp_path, registry))[f"clock, by {registry.address}"]
    assert (said[0], told in said[1]) == (ok, True)


def test_room(tmp_path: Path, registry: Registry) -> None:
    """A disk with less than the reserve is a fault, of the state and of a target."""
    registry.push(REPOSITORY, "latest", sample())
    more = 'reserve = "1PiB"'
    config = configure(tmp_path, registry, more=more)
    text = config.read_text().replace("[[registry]]", 'reserve = "1PiB"\n[[registry]]')
    config.write_text(text)
    said = found(config)
    assert (said["state"][0], "less than the reserve of" in said["state"][1]) == (False, True)
    assert "less than its reserve of" in said["target local"][1]
    assert not said["target local"][0]


def test_bad_ledger(tmp_path: Path, registry: Registry) -> None:
    """A ledger that cannot be read is a fault among the others, and no end of the check."""
    config = configure(tmp_path, registry)
    path = load_config(config).state.paths.ledger
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no ledger" * 1000)
    assert not found(config)["ledger"][0]


@pytest.mark.parametrize(
    ("end", "ok", "told"),
    [
        (None, True, "GitHub names no end"),
        (timedelta(days=30, hours=1), True, "in 30 days"),
        (timedelta(days=6), False, "renew it"),
        (timedelta(days=-1), False, "expired on"),
        (RegistryError("GitHub does not know the password"), False, "does not know"),
        (RegistryUnavailableError("no way"), True, "nobody tells when it ends: no way"),
    ],
)
def test_token(
    end: timedelta | SyncdError | None,
    ok: bool,
    told: str,
    *,
    tmp_path: Path,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The token of GHCR is a fault a week before it ends; what GitHub does not tell is none."""
    password = tmp_path / "password"
    password.write_text("a token")
    password.chmod(0o600)

    def expiry(token: str) -> datetime | None:
        assert token == "a token"
        if isinstance(end, SyncdError):
            raise end
        return None if end is None else datetime.now(UTC) + end

    monkeypatch.setattr("syncd.service.checks.token_expiry", expiry)
    table = f'[[registry]]\nhost = "ghcr.io"\nusername = "me"\npassword_file = "{password}"\n'
    config = load_config(configure(tmp_path, registry, more=table))
    assert list(_expiry(config)) == []  # nothing of it is watched
    image = config.image[0].model_copy(update={"repository": "ghcr.io/owner/image"})
    (result,) = _expiry(config.model_copy(update={"image": (image,)}))
    assert (result.ok, told in result.detail) == (ok, True), result


async def test_of_the_daemon(tmp_path: Path, registry: Registry) -> None:
    """The daemon looks at the configuration's file as it is now, and says where that differs."""
    registry.push(REPOSITORY, "latest", sample())
    async with Harness(tmp_path, registry) as harness:
        answer = await harness.ask("GET", "/api/v1/check")
        said = {one["subject"]: one for one in described(answer, "/api/v1/check")["results"]}
        assert "configuration" not in said
        assert said["target local"]["ok"]
        text = harness.config.read_text()
        harness.config.write_text(text.replace("[[image]]", '[[image]]\ntags = ["none"]'))
        answer = await harness.ask("GET", "/api/v1/check")
        said = {one["subject"]: one for one in described(answer, "/api/v1/check")["results"]}
        assert said["configuration"]["ok"]
        assert not said[f"image {harness.repository}:none"]["ok"]
        harness.config.write_text("nonsense = 1")
        answer = await harness.ask("GET", "/api/v1/check")
        first, *rest = described(answer, "/api/v1/check")["results"]
        assert (first["ok"], "nonsense" in first["detail"]) == (False, True)
        assert [one["ok"] for one in rest if one["subject"] == f"image {harness.latest}"] == [True]


def at_github(folder: Path, registry: Registry, github: GitHub, hook: str) -> Path:
    """Return a configuration whose webhook is at a GitHub."""
    token = folder / "github-token"
    token.write_text(github.token.text)
    token.chmod(0o600)
    table = f'[github]\ntoken_file = "{token}"\nhook = "{hook}"\napi = "{github.url}"\n'
    return configure(folder, registry, more=table)


def test_webhook(tmp_path: Path, registry: Registry) -> None:
    """A webhook is told with what it missed, and is at fault while its newest delivery failed."""
    subject = "webhook orgs/mieweb/hooks/501"
    with GitHub() as github:
        hook = github.set_up("orgs/mieweb", "https://syncd.example.org/webhooks/github")
        config = at_github(tmp_path, registry, github, "orgs/mieweb")
        where = "leads to syncd.example.org"
        assert found(config)[subject] == (
            True,
            f"{where}, and had nothing to deliver in three days",
        )
        github.failed(hook, "a")
        said = found(config)[subject]
        assert not said[0]
        assert said[1].startswith(f"{where}; 1 missed in three days; the newest delivery, at ")
        assert said[1].endswith("failed to connect")
        github.attempted(hook, "b")
        assert found(config)[subject] == (True, f"{where}; 1 missed in three days")
        github.attempted(hook, "a")
        assert found(config)[subject] == (True, f"{where}; nothing missed in three days")
        assert github.asked_again == []


def test_end_of_the_api_token(tmp_path: Path, registry: Registry) -> None:
    """The end of the token for GitHub's API is told, and is a fault a week before."""
    subject = "token of GitHub's API"
    with GitHub() as github:
        github.set_up("orgs/mieweb", "https://syncd.example.org/webhooks/github")
        config = at_github(tmp_path, registry, github, "orgs/mieweb")
        assert found(config)[subject] == (True, "GitHub names no end")
        for days, ok in ((30, True), (5, False), (-1, False)):
            end = datetime.now(UTC) + timedelta(days=days)
            github.ends = end.strftime("%Y-%m-%d %H:%M:%S UTC")
            assert found(config)[subject][0] is ok
        (tmp_path / "github-token").write_text("ghp_old")
        ok, detail = found(config)[subject]
        assert (ok, detail.startswith("GitHub does not know this token (401)")) == (False, True)


@pytest.mark.parametrize(
    ("hook", "token", "told"),
    [
        ("orgs/another", "github_pat_11ABCDEFG0123456789", "404 for orgs/another/hooks: Not Found"),
        ("orgs/mieweb", "ghp_old", "Bad credentials; the token was revoked"),
        ("orgs/mieweb", "two lines\nof text", "write the token alone into github.token_file"),
    ],
)
def test_bad_webhook(
    hook: str, token: str, told: str, *, tmp_path: Path, registry: Registry
) -> None:
    """A webhook that cannot be looked at is a fault, with the remedy and without the token."""
    with GitHub() as github:
        github.set_up("orgs/mieweb", "https://syncd.example.org/webhooks/github")
        config = at_github(tmp_path, registry, github, hook)
        (tmp_path / "github-token").write_text(token)
        (tmp_path / "github-token").chmod(0o604)
        said = found(config)
    ok, detail = said["deliveries missed while down"]
    assert (ok, told in detail, token in detail) == (False, True, False)
    assert "may be read or written by every user" in said[f"secret file {tmp_path}/github-token"][1]


def test_no_token_for_github(tmp_path: Path, registry: Registry) -> None:
    """Where images of ghcr.io are watched without a token, that is told, and is no fault."""
    config = load_config(configure(tmp_path, registry))
    assert list(github_results(config)) == []
    image = config.image[0].model_copy(update={"repository": "ghcr.io/owner/image"})
    (result,) = github_results(config.model_copy(update={"image": (image,)}))
    assert (result.ok, "not asked for again" in result.detail) == (True, True)
