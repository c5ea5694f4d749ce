"""Raw connections to a Harness's server: what no HTTP client sends, and when no client sends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import pytest

from tests.harness import Harness


@dataclass
class Peer:
    """One connection, seen from its peer."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, text: str | bytes) -> None:
        """Send bytes, or text in Latin-1; a lone line feed is sent as the end of a line of HTTP."""
        if isinstance(text, str):
            text = text.replace("\n", "\r\n").encode("latin-1")
        self.writer.write(text)

    async def head(self, within: float = 10) -> str:
        """Return the next answer's status line and headers."""
        async with asyncio.timeout(within):
            return (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")

    async def status(self, within: float = 10) -> int:
        """Return the next answer's status."""
        return int((await self.head(within)).split()[1])

    async def closed(self, within: float) -> bool:
        """Tell whether the server closes the connection in time, whatever it sends before."""
        try:
            async with asyncio.timeout(within):
                while await self.reader.read(1 << 16):
                    pass
        except ConnectionError:
            pass
        except TimeoutError:
            return False
        return True


@asynccontextmanager
async def peer(harness: Harness, address: str = "127.0.0.1") -> AsyncIterator[Peer]:
    """Connect to the harness's server, from an address of loopback."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", harness.client.port, local_addr=(address, 0)
    )
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def as_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count each address of loopback as an address of its own, as those of other hosts count."""
    for module in ("bodies", "clients", "connections"):
        monkeypatch.setattr(f"syncd.web.{module}.address_of", str, raising=False)
