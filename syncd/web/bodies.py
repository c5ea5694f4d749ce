"""The bodies of requests: read by whoever wants one, within bounds on bytes and time.

Bodies count by the bytes that are held, not by the bytes that are announced: a peer that announces
much and sends little takes nobody's room.  Nobody reads a body that nobody wants.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import StreamReader, web

from syncd.web.backend import HttpLimits
from syncd.web.connections import go_on
from syncd.web.peers import LOOPBACK, address_of

_AGAIN = 10  # seconds until a refused peer may try again


@dataclass(eq=False, slots=True)
class _Held:
    """What one request holds; `address` is what its peer counts as."""

    address: str
    size: int = 0


class Bodies:
    """Every body that is held, over all connections.  Lives in one event loop."""

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._held: list[_Held] = []  # in the order in which their reading began
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def read(self, request: web.Request) -> AsyncIterator[bytes]:
        """Read a request's body; its room is taken until the context ends.

        Raise the HTTPError that says why it was not read: 400 for a body that does not follow its
        Transfer-Encoding, 408 for a slow one, 413 for a large one, 503 when others took the room.
        """
        self._check(request.content_length or 0)
        held = _Held(address_of(request.remote))
        self._held.append(held)
        try:
            await go_on(request)
            yield await self._whole(request.content, held)
        finally:
            self._held.remove(held)
            self._freed.set()

    async def _whole(self, content: StreamReader, held: _Held) -> bytes:
        limits, clock = self._limits, asyncio.get_running_loop().time
        begun = clock()  # moved on by what is waited for room
        chunks: list[bytes] = []
        while True:
            due = min(limits.body_start + held.size / limits.body_rate, limits.body_time)
            try:
                async with asyncio.timeout_at(begun + due):
                    chunk = await content.readany()
            except TimeoutError as exc:
                raise web.HTTPRequestTimeout(reason="the body did not arrive in time") from exc
            except web.RequestPayloadError as exc:
                reason = "the body does not follow its Transfer-Encoding"
                raise web.HTTPBadRequest(reason=reason) from exc
            if not chunk:
                return b"".join(chunks)
            self._check(held.size + len(chunk))
            waiting = clock()
            await self._take(held, len(chunk))
            begun += clock() - waiting
            chunks.append(chunk)

    def _check(self, size: int) -> None:
        if size > self._limits.body:
            raise web.HTTPRequestEntityTooLarge(self._limits.body, size)

    async def _take(self, held: _Held, size: int) -> None:
        """Take room for further bytes of a body."""
        try:
            async with asyncio.timeout(self._limits.body_wait):
                while not self._fits(held, size):
                    self._freed.clear()
                    await self._freed.wait()
        except TimeoutError as exc:
            raise web.HTTPServiceUnavailable(
                reason="the bodies of other requests take all the room",
                headers={"Retry-After": str(_AGAIN)},
            ) from exc
        held.size += size

    def _fits(self, held: _Held, size: int) -> bool:
        """Tell whether there is room, of all and of this address.

        The body whose reading began first may take all; the others leave room for one whole body,
        so that never all of them wait for each other.
        """
        limits = self._limits
        return self._room(held, limits.bodies, lambda _: True) >= size and (
            held.address == LOOPBACK
            or self._room(held, limits.bodies_each, lambda each: each.address == held.address)
            >= size
        )

    def _room(self, held: _Held, bound: int, counts: Callable[[_Held], bool]) -> int:
        """Return how many bytes are free for a body, among those that count."""
        among = [each for each in self._held if counts(each)]
        reserve = 0 if among[0] is held else self._limits.body
        return bound - reserve - sum(each.size for each in among)


BODIES = web.AppKey("bodies", Bodies)
"""Where an application keeps the bodies of its requests."""
