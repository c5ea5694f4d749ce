"""What a repository with mirrors does where bytes are wrong: whom it asks next, whom it blames."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import cast

import pytest
import structlog

from syncd.errors import ImageError
from syncd.oci import (
    AnonymousAccess,
    Descriptor,
    Digest,
    MirrorLocation,
    Range,
    Reader,
    Reference,
    Repository,
)
from syncd.oci.registry import Registry as Client
from syncd.oci.registry.mirrored import LeftAlone, Mirror, MirroredRepository
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, sample
from tests.images import document

IMAGE = sample()
LAYER, OTHER = (Descriptor.parse(layer, "a layer") for layer in IMAGE.document["layers"][:2])


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

    def asked(
        self,
        repository: MirroredRepository | None = None,
        *,
        ranges: bool = False,
        offset: int = 0,
        layer: Descriptor = LAYER,
    ) -> int:
        """Ask for a layer, or a range of it; return the number of the place that gave it."""
        before = [len(place.requests) for place in self.registries]
        asked = repository or self.repository
        with closing(
            asked.ranges(layer, [Range(0, 1)]) if ranges else asked.blob(layer, offset)
        ) as stream:
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


@pytest.mark.parametrize("ranges", [True, False])
def test_one_after_the_other(places: Places, ranges: bool) -> None:
    """Each that gave wrong bytes is asked for them no more, and the registry is asked at last."""
    repository = places.repository
    for place, others in ((0, True), (1, True), (2, False)):
        assert places.asked(ranges=ranges) == place
        assert repository.mistrust(LAYER, whole=not ranges) is others


def test_nobody_gave(places: Places) -> None:
    """Nobody is to blame for bytes that nobody here gave."""
    assert not places.repository.mistrust(LAYER)
    assert places.asked() == 0


def test_other_bytes(places: Places) -> None:
    """Who gave wrong ranges is asked for the whole blob, and for others; and the reverse."""
    repository = places.repository
    places.asked(ranges=True)
    repository.mistrust(LAYER)
    assert (places.asked(ranges=True), places.asked(), places.asked(layer=OTHER)) == (1, 0, 0)
    repository.mistrust(LAYER, whole=True)
    assert (places.asked(), places.asked(layer=OTHER)) == (1, 0)
    assert places.asked(layer=OTHER, ranges=True) == 0


@pytest.mark.parametrize("whole", [True, False])
def test_vouched(places: Places, whole: bool) -> None:
    """Once others gave the right bytes, who lied is left alone by all, and nobody else."""
    repository = places.repository
    for _ in range(2):
        places.asked(ranges=not whole)
        repository.mistrust(LAYER, whole=whole)
    assert places.asked(ranges=not whole) == 2
    assert places.asked(places.of_another_job()) == 0
    repository.vouch(OTHER, whole=whole)
    repository.vouch(replace(LAYER, size=LAYER.size + 1), whole=whole)
    repository.vouch(LAYER, whole=not whole)
    assert places.asked(places.of_another_job()) == 0
    repository.vouch(LAYER, whole=whole)
    assert places.asked(places.of_another_job()) == 2


def test_nobody_gave_it_since(places: Places) -> None:
    """That a layer came right without others proves nothing: it was perhaps not read at all."""
    places.asked()
    places.repository.mistrust(LAYER, whole=True)
    places.repository.vouch(LAYER, whole=True)
    assert places.asked(places.of_another_job()) == 0


def test_settled(places: Places) -> None:
    """What one image said of a blob is no evidence once another one says something of it."""
    repository = places.repository
    places.asked()
    repository.mistrust(LAYER, whole=True)
    repository.settle()
    assert places.asked() == 0
    repository.vouch(LAYER, whole=True)
    assert places.asked(places.of_another_job()) == 0


def test_honest_beside_a_liar(places: Places) -> None:
    """Who gave another blob of the job is not blamed for what somebody else gave."""
    places.asked()
    places.registries[0].replace_blob(str(OTHER.digest), None)
    with closing(places.repository.blob(OTHER)):
        assert places.repository.mistrust(LAYER, whole=True)
    assert places.asked() == 1
    places.repository.vouch(LAYER, whole=True)
    assert places.asked(places.of_another_job()) == 1


def test_several_gave(places: Places) -> None:
    """Several that gave a blob together are asked once more, and then the first one no more."""
    repository = places.repository
    places.asked()
    assert broken_off(places) == 1
    assert repository.mistrust(LAYER, whole=True)
    assert places.asked() == 0
    assert broken_off(places) == 1
    assert repository.mistrust(LAYER, whole=True)
    assert places.asked() == 1
    repository.vouch(LAYER, whole=True)
    assert places.asked(places.of_another_job()) == 0


def broken_off(places: Places) -> int:
    """Ask for the rest of a layer, which the first mirror does not give; return who does."""
    places.registries[0].faults.refusals.append((404, {}, b""))
    before = [len(place.requests) for place in places.registries]
    places.repository.blob(LAYER, 1).close()
    return max(n for n, one in enumerate(places.registries) if len(one.requests) > before[n])


@pytest.mark.parametrize("offset", [1, 0])
def test_what_was_kept(places: Places, offset: int) -> None:
    """Who goes on with a blob that somebody began is asked for all of it before it is blamed."""
    repository = places.repository
    places.asked(offset=offset)
    assert repository.mistrust(LAYER, whole=True)
    assert places.asked() == int(not offset)
    repository.vouch(LAYER, whole=True)
    assert places.asked(places.of_another_job()) == int(not offset)


def test_late_answer(places: Places) -> None:
    """A stream that is opened late, by who is asked no more, leaves the next one to blame."""
    repository = places.repository
    places.asked()
    waits, goes_on = threading.Event(), threading.Event()
    inner = repository._mirrors[0].repository

    class Late:
        def blob(self, wanted: Descriptor, offset: int = 0) -> Reader:
            stream = inner.blob(wanted, offset)
            waits.set()
            goes_on.wait(10)
            return stream

    slow = Mirror(repository._mirrors[0].location, cast(Repository, Late()))
    repository._mirrors = (slow, *repository._mirrors[1:])
    late = threading.Thread(target=lambda: repository.blob(LAYER).close())
    late.start()
    assert waits.wait(10)
    repository.mistrust(LAYER, whole=True)
    assert places.asked() == 1
    goes_on.set()
    late.join()
    repository.mistrust(LAYER, whole=True)
    assert places.asked() == 2
    repository.vouch(LAYER, whole=True)
    assert places.asked(places.of_another_job()) == 2


def test_no_manifest(places: Places) -> None:
    """What a mirror has under a tag, and is no manifest, is not taken for one."""
    places.registries[0].push(REPOSITORY, "latest", document({"mediaType": "text/plain"}, {}))
    name = Reference.parse(f"registry.test/{REPOSITORY}:latest")
    with structlog.testing.capture_logs() as logs:
        assert Digest.of(places.repository.tagged(name)) == Digest.parse(IMAGE.digest)
    assert [entry["minutes"] for entry in logs if "minutes" in entry] == [5]  # it may be behind
    assert places.asked() == 1


def test_other_document(places: Places) -> None:
    """A mirror that has another document under a digest is left alone for an hour."""
    config = Descriptor.parse(IMAGE.document["config"], "a config")
    places.registries[0].replace_blob(str(config.digest), b"{}")
    with structlog.testing.capture_logs() as logs:
        assert Digest.of(places.repository.document(config)) == config.digest
    assert [entry["minutes"] for entry in logs if "minutes" in entry] == [60]


def test_no_manifest_anywhere(places: Places) -> None:
    """Whoever pushes what is no manifest keeps nobody off the mirrors."""
    for place in places.registries:
        place.push(REPOSITORY, "latest", document({"mediaType": "text/plain"}, {}))
    name = Reference.parse(f"registry.test/{REPOSITORY}:latest")
    with pytest.raises(ImageError, match="schema version"):
        places.repository.tagged(name)
    assert places.asked() == 0
