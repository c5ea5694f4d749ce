"""What a repository with mirrors does where bytes are wrong: whom it asks next, whom it blames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from syncd.oci import AnonymousAccess, Descriptor, Digest, MirrorLocation, Reference
from syncd.oci.registry import Registry as Client
from syncd.oci.registry.mirrored import LeftAlone, Mirror, MirroredRepository
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, sample
from tests.images import document

IMAGE = sample()
LAYER = Descriptor.parse(IMAGE.document["layers"][0], "a layer")


class Places:
    """Two mirrors, of the numbers 0 and 1, and their registry, 2; all have one image."""

    def __init__(self, registries: list[Registry]) -> None:
        self.registries = registries
        self._left_alone = LeftAlone()
        for place in registries:
            place.push(REPOSITORY, "latest", IMAGE)
        self.repository = self.of_another_job()

    def of_another_job(self) -> MirroredRepository:
        """Return the repository as another job has it."""
        *mirrors, source = self.registries
        return MirroredRepository(
            self._client(source),
            [
                Mirror(MirrorLocation.parse(f"http://{place.address}"), self._client(place))
                for place in mirrors
            ],
            self._left_alone,
            tags=True,
        )

    def asked(self, repository: MirroredRepository | None = None) -> int:
        """Ask for a layer; return the number of the place that gave it."""
        before = [len(place.requests) for place in self.registries]
        with closing((repository or self.repository).blob(LAYER)) as stream:
            assert stream.read(1)
        (nth,) = (n for n, one in enumerate(self.registries) if len(one.requests) > before[n])
        return nth

    @staticmethod
    def _client(place: Registry) -> Client:
        name = Reference.parse(f"{place.address}/{REPOSITORY}:latest")
        return Client(name, AnonymousAccess(place.address, plain_http=True))


@pytest.fixture
def places() -> Iterator[Places]:
    """Give the places, none of which is left alone."""
    with ExitStack() as stack:
        yield Places([stack.enter_context(Registry()) for _ in range(3)])


def test_one_after_the_other(places: Places) -> None:
    """Each that gave wrong bytes is asked no more, and the registry is asked at last."""
    repository = places.repository
    assert (places.asked(), repository.mistrust(0)) == (0, 1)
    assert (places.asked(), repository.mistrust(1)) == (1, 2)
    assert (places.asked(), repository.mistrust(2)) == (2, 2)


def test_no_more_than_known(places: Places) -> None:
    """Who was given the same wrong bytes as others blames nobody whom these asked since."""
    repository = places.repository
    places.asked()
    assert repository.mistrust(0) == 1
    assert places.asked() == 1
    assert repository.mistrust(0) == 1
    assert places.asked() == 1
    assert repository.mistrust() == 2


@pytest.mark.parametrize("lied", [True, False])
def test_settled(places: Places, lied: bool) -> None:
    """Who lied is left alone by all, and by nobody who did not; then all begins anew."""
    assert places.asked() == 0
    places.repository.mistrust()
    assert places.asked() == 1
    assert places.asked(places.of_another_job()) == 0
    places.repository.settle(lied=lied)
    assert places.asked(places.of_another_job()) == int(lied)
    assert places.asked() == int(lied)
    places.repository.settle(lied=True)
    assert places.asked() == int(lied)


def test_no_manifest(places: Places) -> None:
    """What a mirror has under a tag, and is no manifest, is not taken for one."""
    places.registries[0].push(REPOSITORY, "latest", document({"mediaType": "text/plain"}, {}))
    name = Reference.parse(f"registry.test/{REPOSITORY}:latest")
    assert Digest.of(places.repository.tagged(name)) == Digest.parse(IMAGE.digest)
    assert places.asked() == 1
