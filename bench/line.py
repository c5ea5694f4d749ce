"""A line between the daemon and its registry: so many bytes a second, and a time for each way.

A relay of TCP in a process of its own.  Answers of all connections share the line; a connection has
at most as much under way as such a line holds, as TCP's window would see to.  Opening a connection
takes a round trip.  What TCP does beyond that (its slow start, losses) is not imitated, which
favours whoever opens few connections and long ones.

    python -m bench.line UPSTREAM      # prints the address that it listens on
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

RATE = 100e6 / 8
"""Bytes a second."""
ROUND_TRIP = 0.020
"""Seconds."""
_PIECE = 16 << 10  # bytes that go over the line together
_WINDOW = int(RATE * ROUND_TRIP)  # bytes of a connection that are under way at most


@contextmanager
def line_to(upstream: str) -> Iterator[str]:
    """Lay a line to an address; give the address of its near end."""
    argv = [sys.executable, "-m", "bench.line", upstream]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as relay:
        assert relay.stdout is not None
        try:
            yield relay.stdout.readline().strip()
        finally:
            relay.terminate()


class _Line:
    """One direction; it is busy until `free`."""

    def __init__(self) -> None:
        self.free = 0.0

    def arrival(self, amount: int) -> float:
        """Send so many bytes off; return when the last of them arrives."""
        self.free = max(self.free, time.monotonic()) + amount / RATE
        return self.free + ROUND_TRIP / 2


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: _Line) -> None:
    under_way = asyncio.Queue[tuple[float, bytes]](_WINDOW // _PIECE)

    async def deliver() -> None:
        while True:
            arrival, data = await under_way.get()
            await asyncio.sleep(arrival - time.monotonic())
            if not data:
                break
            writer.write(data)
            await writer.drain()
        writer.close()

    delivering = asyncio.create_task(deliver())
    with suppress(ConnectionError):
        while data := await reader.read(_PIECE):
            await under_way.put((line.arrival(len(data)), data))
    await under_way.put((line.arrival(0), b""))
    with suppress(ConnectionError):
        await delivering


async def _relay(upstream: str) -> None:
    host, _, port = upstream.rpartition(":")
    there, back = _Line(), _Line()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(ROUND_TRIP)
        source, sink = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_pass_on(reader, sink, there), _pass_on(source, writer, back))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    near = server.sockets[0].getsockname()[1]
    sys.stdout.write(f"127.0.0.1:{near}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_relay(sys.argv[1]))
