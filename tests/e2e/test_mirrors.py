"""A fleet behind one pull-through cache, Debian's docker-registry, costs the registry one pull."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.archives import file
from tests.e2e.daemon import Syncd
from tests.e2e.registry import Registry
from tests.images import image, layer

HOSTS = 4
READS = (1, 2)
"""How often the cache reads a blob at its source: distribution 2.8 once to pass it on to whoever
asks first, and once to keep it (registry/proxy/proxyblobstore.go, `ServeBlob`)."""
IMAGE = image(layer(file("a", b"0123456789" * 5000)), layer(file("b", b"b")))
LAYERS = {each["digest"] for each in IMAGE.document["layers"]}


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Registry]:
    """Provide the registry that has the image."""
    with Registry(tmp_path / "source") as running:
        running.push("fleet/image", "latest", IMAGE)
        yield running


@pytest.fixture
def cache(tmp_path: Path, source: Registry) -> Iterator[Registry]:
    """Provide its pull-through cache."""
    with Registry(tmp_path / "cache", cache_of=f"http://{source.address}") as running:
        yield running


def test_one_pull(source: Registry, cache: Registry, tmp_path: Path) -> None:
    """Each host makes the same template from the cache, which alone reads at the registry."""
    reference = f"{source.address}/fleet/image:latest"
    began, templates = source.mark(), []
    for host in range(HOSTS):
        folder = tmp_path / f"host{host}"
        with Syncd(folder, [reference], mirrors=[f"http://{cache.address}"]) as daemon:
            assert daemon.sync(reference)["outcome"] in ("published", "unchanged")
            (template,) = daemon.templates
            templates.append(template.read_bytes())
    assert templates == [templates[0]] * HOSTS
    read, passed_on = source.blobs(began), cache.blobs()
    assert {read.count(digest) in READS for digest in LAYERS} == {True}
    assert {passed_on.count(digest) for digest in LAYERS} == {HOSTS}


def test_cache_is_gone(source: Registry, cache: Registry, tmp_path: Path) -> None:
    """Without the cache the registry is asked, and the log tells of it once."""
    reference = f"{source.address}/fleet/image:latest"
    cache.stop()
    with Syncd(tmp_path / "host", [reference], mirrors=[f"http://{cache.address}"]) as daemon:
        assert daemon.sync(reference)["outcome"] in ("published", "unchanged")
        assert len(daemon.templates) == 1
        assert daemon.log.read_text().count("mirror passed over") == 1
