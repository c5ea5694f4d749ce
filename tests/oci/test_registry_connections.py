"""What `oci.registry` promises of connections: kept for whoever asks next, but not for long."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from syncd.config.settings import RegistrySettings
from syncd.oci.reference import Reference
from syncd.oci.registry import Logins, Registry, connections
from tests.fakes.registry import Registry as Fake
from tests.oci.test_registry import IMAGE, REPOSITORY, latest

OTHER = "org/other"


@pytest.fixture
def fake() -> Iterator[Fake]:
    with Fake() as registry:
        for repository in (REPOSITORY, OTHER):
            registry.push(repository, "latest", IMAGE)
        yield registry


def look(host: str, logins: Logins, repository: str = REPOSITORY) -> None:
    """Resolve a tag as one look of a sweep does."""
    reference = Reference(host, repository, "latest")
    settings = RegistrySettings(host=host, plain_http=True)
    found = Registry(reference, settings, logins=logins).resolve(reference)
    assert str(found.digest) == IMAGE.digest


def test_looks_share_a_connection(fake: Fake) -> None:
    """Looks at tags of one host, in whatever repository, use one connection after each other."""
    logins = Logins()
    for repository in (REPOSITORY, OTHER, REPOSITORY):
        look(fake.address, logins, repository)
    settings = RegistrySettings(host=fake.address, plain_http=True)
    assert Registry(latest(fake), settings, logins=logins).tags() == ["latest"]
    assert (fake.connections, len(fake.requests)) == (1, 4)


def test_idle_connection(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that lay idle for half a minute is not used again: it may be dead silently."""
    logins, now = Logins(), [1000.0]
    monkeypatch.setattr(connections, "time", SimpleNamespace(monotonic=lambda: now[0]))
    look(fake.address, logins)
    now[0] += 29
    look(fake.address, logins)
    assert fake.connections == 1
    now[0] += 31
    look(fake.address, logins)
    assert fake.connections == 2


def test_proxy_of_the_environment(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each host is reached through the proxy that the environment names for it, or directly."""
    logins = Logins()
    with Fake() as proxy:
        proxy.push(REPOSITORY, "latest", IMAGE)
        monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        look(fake.address, logins)
        assert (len(fake.requests), len(proxy.requests)) == (1, 0)
        look("registry.invalid", logins)
        look(fake.address, logins)
        assert (len(fake.requests), len(proxy.requests)) == (2, 1)
