"""Fixtures that the tests of several modules share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters import token_for
from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import Token
from tests.fakes.pve_schema import assert_contract
from tests.fakes.registry import Registry


@pytest.fixture(scope="session")
def nobody(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the configuration folder of somebody who is logged in nowhere."""
    folder = tmp_path_factory.mktemp("nobody")
    (folder / "config.json").write_text("{}")  # buildah wants the file of DOCKER_CONFIG to exist
    return folder


@pytest.fixture(autouse=True)
def _no_logins(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tests from the logins of whoever runs them."""
    # Not by REGISTRY_AUTH_FILE, which docker-registry takes for a part of its own configuration.
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.setenv(name, str(nobody))


@pytest.fixture
def pve(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pve]:
    """Serve a make-believe Proxmox VE; every request it gets has to fit the official API.

    Its version is 9.2.11, unless a test gives another as the fixture's parameter.
    """
    root = tmp_path / "pve"
    root.mkdir()
    with Pve(root, version=getattr(request, "param", "9.2.11")) as pve:
        yield pve
    assert_contract(pve)


@pytest.fixture
def registry() -> Iterator[Registry]:
    """Serve a registry on loopback that lets everybody in."""
    with Registry() as registry:
        yield registry


@pytest.fixture
def token(pve: Pve) -> Token:
    """Return a token of the make-believe Proxmox VE that may do all that a target does."""
    return token_for(pve)
