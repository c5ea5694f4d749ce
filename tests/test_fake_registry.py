"""What the test double of a registry answers: the same as a real one, by one shared table."""

import gzip
import json
from collections.abc import Iterator

import pytest

from tests import registry_contract
from tests.fakes.registry import Registry
from tests.registry_contract import BASIC, BEARER, LOGIN, OPEN, Exchange, ask


def filled(registry: Registry) -> Registry:
    """Push what the table asks for."""
    for repository, tagged in registry_contract.CONTENT.items():
        for tag, content in tagged.items():
            registry.push(repository, tag, content)
    return registry


@pytest.fixture(scope="module")
def open_registry() -> Iterator[Registry]:
    with Registry() as registry:
        yield filled(registry)


@pytest.fixture(scope="module")
def closed_registry() -> Iterator[Registry]:
    with Registry(LOGIN) as registry:
        yield filled(registry)


@pytest.fixture(scope="module")
def bearer_registry() -> Iterator[Registry]:
    with Registry(scheme="bearer") as registry:
        yield filled(registry)


@pytest.mark.parametrize("exchange", OPEN.values(), ids=OPEN)
def test_open(open_registry: Registry, exchange: Exchange) -> None:
    """Without access control the double answers as the table says."""
    assert exchange.differences(open_registry.address) == {}


@pytest.mark.parametrize("exchange", BASIC.values(), ids=BASIC)
def test_basic(closed_registry: Registry, exchange: Exchange) -> None:
    """With a login the double answers as the table says."""
    assert exchange.differences(closed_registry.address) == {}


@pytest.mark.parametrize("exchange", BEARER.values(), ids=BEARER)
def test_bearer(bearer_registry: Registry, exchange: Exchange) -> None:
    """With tokens the double answers as the table says."""
    assert exchange.differences(bearer_registry.address) == {}


def test_malformed_digest_of_a_manifest(open_registry: Registry) -> None:
    """A manifest's reference that is neither a tag nor a digest is refused."""
    path = f"/v2/{registry_contract.APP}/manifests/sha256:0"
    status, _, body = ask(open_registry.address, "GET", path, {})
    assert (status, json.loads(body)["errors"][0]["code"]) == (400, "DIGEST_INVALID")


def test_gzip(open_registry: Registry) -> None:
    """Whoever allows gzip gets it, but not for a range nor for HEAD."""
    content = registry_contract.CONTENT[registry_contract.OTHER]["latest"]
    digest = content.document["layers"][0]["digest"]
    path = f"/v2/{registry_contract.OTHER}/blobs/{digest}"
    allowed = {"Accept-Encoding": "gzip, deflate"}
    _, headers, body = ask(open_registry.address, "GET", path, allowed)
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body) == content.blobs[digest]
    for method, more in (("HEAD", {}), ("GET", {"Range": "bytes=0-"})):
        _, headers, _ = ask(open_registry.address, method, path, allowed | more)
        assert "Content-Encoding" not in headers
        assert headers["Content-Length"] == str(len(content.blobs[digest]))
