"""Debian's docker-registry by the table that the double is held to, and syncd with its tokens.

No daemon: the commands of a person at a terminal, with a configuration of their own.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.command import attempt
from tests.e2e.daemon import SYNCD
from tests.e2e.registry import Registry
from tests.e2e.token_service import SERVICE, TokenService
from tests.registry_contract import APP, BASIC, BEARER, CONTENT, LOGIN, OPEN, Exchange

USER, PASSWORD = "robot", "correct horse"
SETTINGS = """\
[state]
directory = "{folder}/state"
[[registry]]
host = "{host}"
plain_http = {plain_http}
username = "{user}"
password_file = "{folder}/password"
[[image]]
repository = "{host}/{name}"
tags = ["index"]
[[target]]
name = "local"
type = "directory"
path = "{folder}/storage"
"""


def filled(registry: Registry) -> Registry:
    """Push what the table asks for."""
    for repository, tagged in CONTENT.items():
        for tag, content in tagged.items():
            registry.push(repository, tag, content)
    return registry


@pytest.fixture(scope="module")
def open_registry(scratch: Path) -> Iterator[Registry]:
    with Registry(scratch / "contract-open") as registry:
        yield filled(registry)


@pytest.fixture(scope="module")
def closed_registry(scratch: Path) -> Iterator[Registry]:
    with Registry(scratch / "contract-closed", *LOGIN) as registry:
        yield filled(registry)


@pytest.fixture(scope="module")
def bearer_registry(scratch: Path) -> Iterator[Registry]:
    with (
        TokenService(scratch / "contract-tokens") as tokens,
        Registry(scratch / "contract-bearer", tokens=tokens) as registry,
    ):
        yield filled(registry)


@pytest.fixture(scope="module")
def tokens(scratch: Path) -> Iterator[TokenService]:
    """Run a token service that wants a password."""
    with TokenService(scratch / "tokens", USER, PASSWORD) as running:
        yield running


@pytest.fixture(scope="module")
def private_registry(scratch: Path, tokens: TokenService) -> Iterator[Registry]:
    with Registry(scratch / "private", tokens=tokens) as registry:
        yield filled(registry)


@pytest.mark.parametrize("exchange", OPEN.values(), ids=OPEN)
def test_open(open_registry: Registry, exchange: Exchange) -> None:
    """Without access control docker-registry answers as the table says."""
    assert exchange.differences(open_registry.address) == {}


@pytest.mark.parametrize("exchange", BASIC.values(), ids=BASIC)
def test_basic(closed_registry: Registry, exchange: Exchange) -> None:
    """With a login docker-registry answers as the table says."""
    assert exchange.differences(closed_registry.address) == {}


@pytest.mark.parametrize("exchange", BEARER.values(), ids=BEARER)
def test_bearer(bearer_registry: Registry, exchange: Exchange) -> None:
    """With tokens docker-registry answers as the table says."""
    assert exchange.differences(bearer_registry.address) == {}


def syncd(
    folder: Path, registry: Registry, password: str, *arguments: str, plain_http: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command of syncd as a user of the registry who knows this password."""
    storage = folder / "storage"
    storage.mkdir(exist_ok=True)
    (folder / "password").write_text(password)
    (folder / "password").chmod(0o600)
    config = folder / "syncd.toml"
    config.write_text(
        SETTINGS.format(
            folder=folder,
            host=registry.address,
            name=APP,
            user=USER,
            plain_http=str(plain_http).lower(),
        )
    )
    return attempt(SYNCD, "--config", config, *arguments, cwd=folder)


def test_convert_with_tokens(
    tmp_path: Path, private_registry: Registry, tokens: TokenService
) -> None:
    """An image is pulled and converted with tokens for its registry's service and repository."""
    reference, before = f"{private_registry.address}/{APP}:index", len(tokens.asked)
    arguments = ("convert", "--plain-http", reference, "out.tar.zst")
    done = syncd(tmp_path, private_registry, PASSWORD, *arguments, plain_http=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.tar.zst").stat().st_size
    asked = tokens.asked[before:]
    assert asked
    for query in asked:
        assert query == {"service": [SERVICE], "scope": [f"repository:{APP}:pull"]}


def test_resolve_with_tokens(tmp_path: Path, private_registry: Registry) -> None:
    """A reference is resolved, fetched on request, and found from then on."""
    reference = f"{private_registry.address}/{APP}:index"
    pulled = syncd(tmp_path, private_registry, PASSWORD, "resolve", "--pull", reference)
    assert pulled.returncode == 0, pulled.stderr
    found = syncd(tmp_path, private_registry, PASSWORD, "resolve", reference)
    assert found.returncode == 0, found.stderr
    assert found.stdout == pulled.stdout
    (template,) = (tmp_path / "storage" / "template" / "cache").iterdir()
    assert template.name in found.stdout


@pytest.mark.parametrize("command", ["convert", "resolve"])
def test_wrong_password(tmp_path: Path, private_registry: Registry, command: str) -> None:
    """A wrong password is refused with a sentence that names registry and setting, not itself."""
    reference = f"{private_registry.address}/{APP}:index"
    more = ("out.tar.zst",) if command == "convert" else ()
    refused = syncd(tmp_path, private_registry, "wrong horse", command, reference, *more)
    assert refused.returncode == 1
    words = " ".join(refused.stderr.split())
    assert f"registry {private_registry.address} denies" in words
    assert "the credentials are not accepted" in words
    assert "username and password_file of [[registry]]" in words
    assert "wrong horse" not in refused.stdout + refused.stderr
    assert not (tmp_path / "out.tar.zst").exists()
