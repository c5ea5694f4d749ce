"""Bytes of manifests and configs that jobs hold together: bounded, however many jobs there are.

A job holds the documents of its image from the time they are read until the image is published,
which may be hours.  Those of real images take some kilobytes and are not counted; those of hostile
ones take up to 4 MiB each.  A job that finds too much held holds nothing while it waits, and reads
its documents anew.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from syncd.oci import Image

_SMALL = 128 << 10  # bytes of an image's documents that are not counted
_LAYER = 1 << 10  # bytes of memory of a layer's descriptor and digests, about
_MOST = 16 << 20  # bytes that count at a time


class Documents:
    """Counts the documents that jobs hold.  Lives in one event loop."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._held = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def held(self, read: Callable[[], Awaitable[Image]]) -> AsyncIterator[Image]:
        """Give the image that `read` reads once its documents may be held; raise what it raises."""
        image = await read()
        found: Image | None = image
        size = self._size(image)
        del image
        if size and (self._waiting or self._held + size > self._most):
            found = None
            await self._wait(size)
        else:
            self._held += size
        try:
            yield found or await read()
        finally:
            found = None
            self._held -= size
            self._let_in()

    def _size(self, image: Image) -> int:
        """Return how many bytes of memory count."""
        size = len(image.manifest.raw) + len(image.raw_config) + _LAYER * len(image.layers)
        return min(size, self._most) if size > _SMALL else 0

    async def _wait(self, size: int) -> None:
        """Wait, behind those who wait longer, until `size` bytes count."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, place))
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._held -= size
            else:
                self._waiting.remove((size, place))
            self._let_in()
            raise

    def _let_in(self) -> None:
        """Count those who wait, as far as there is room."""
        while self._waiting and self._held + self._waiting[0][0] <= self._most:
            size, place = self._waiting.popleft()
            if not place.done():
                self._held += size
                place.set_result(None)
