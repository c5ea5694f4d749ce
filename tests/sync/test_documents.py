"""What `sync.documents` promises: what jobs hold is bounded, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from syncd.errors import RegistryUnavailableError
from syncd.oci.image import read_image
from syncd.oci.layout import Layout
from syncd.oci.manifest import Image
from syncd.sync.documents import Documents
from tests.archives import file
from tests.images import image, layer, write_layout
from tests.templates import AMD64

MIB = 1 << 20


class Reading:
    """An image whose config takes so many bytes, and how often it was read."""

    def __init__(self, sample: Image, size: int) -> None:
        self._sample = sample
        self._size = size
        self.times = 0

    async def read(self) -> Image:
        """Read the image."""
        self.times += 1
        return replace(self._sample, raw_config=bytes(self._size))


@pytest.fixture
def sample(tmp_path: Path) -> Image:
    """Return an image of small documents."""
    layout = Layout(write_layout(tmp_path, {"": image(layer(file("a")))}))
    return read_image(layout, layout.find(), AMD64)


def images() -> int:
    """Count the images of large configs that are in memory."""
    gc.collect()
    return sum(isinstance(one, Image) and len(one.raw_config) > MIB for one in gc.get_objects())


@asynccontextmanager
async def job(documents: Documents, reading: Reading) -> AsyncIterator[asyncio.Task[None]]:
    """Have a job hold an image until the context ends; it may wait for long."""
    over = asyncio.Event()

    async def hold() -> None:
        async with documents.held(reading.read) as held:
            await over.wait()
            assert held.raw_config

    task = asyncio.create_task(hold())
    for _ in range(9):
        await asyncio.sleep(0)
    try:
        yield task
    finally:
        over.set()
        await asyncio.wait([task], timeout=1)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_bound(sample: Image) -> None:
    """Who finds too much held holds nothing while it waits, and reads its documents anew."""
    documents = Documents(5 * MIB)
    readings = [Reading(sample, 2 * MIB) for _ in range(4)]
    async with AsyncExitStack() as held:
        for reading in readings[:2]:
            await held.enter_async_context(job(documents, reading))
        async with AsyncExitStack() as waiting:
            for reading in readings[2:]:
                await waiting.enter_async_context(job(documents, reading))
            assert images() == 2
            assert [reading.times for reading in readings] == [1, 1, 1, 1]
            await held.aclose()
            for _ in range(9):
                await asyncio.sleep(0)
            assert images() == 2
            assert [reading.times for reading in readings] == [1, 1, 2, 2]
    assert images() == 0


async def test_small_ones(sample: Image) -> None:
    """Documents of a usual size never wait."""
    documents = Documents(3 * MIB)
    large = (Reading(sample, size * MIB) for size in (3, 2))
    async with job(documents, next(large)), job(documents, next(large)) as waiting:
        small = Reading(sample, 100_000)
        async with asyncio.timeout(5), documents.held(small.read):
            assert small.times == 1
        waiting.cancel()


async def test_beyond_the_bound(sample: Image) -> None:
    """Documents that are larger than the bound wait until nothing else is held."""
    documents, large = Documents(MIB), Reading(sample, 4 * MIB)
    async with AsyncExitStack() as held:
        await held.enter_async_context(job(documents, Reading(sample, MIB // 2)))
        async with job(documents, large):
            assert large.times == 1
            await held.aclose()
            for _ in range(9):
                await asyncio.sleep(0)
            assert large.times == 2


async def test_who_gives_up(sample: Image) -> None:
    """A job that is cancelled while it waits, or fails, keeps no place."""
    documents = Documents(3 * MIB)
    async with AsyncExitStack() as held:
        await held.enter_async_context(job(documents, Reading(sample, 3 * MIB)))
        async with job(documents, Reading(sample, 2 * MIB)) as task:
            task.cancel()
        async with job(documents, Reading(sample, 2 * MIB)) as task:
            await held.aclose()
            task.cancel()  # its turn has come, and it has not noticed
    with pytest.raises(RegistryUnavailableError):
        async with documents.held(Reading(sample, 3 * MIB).read):
            raise RegistryUnavailableError("the line broke")
    async with asyncio.timeout(5), documents.held(Reading(sample, 3 * MIB).read) as found:
        assert len(found.raw_config) == 3 * MIB
