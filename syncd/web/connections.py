"""The connections of peers, before anybody is known: how many there are, and for how long.

aiohttp is told here what it would do otherwise:

- It inflates bodies, in the event loop, before a handler sees the request.  Here no body is ever
  inflated: a signature is over raw bytes, and a coded body is refused.
- It answers `Expect` before anything has looked at the request (RFC 9110, 10.1.1).  Here
  `100 Continue` is sent when somebody begins to read the body, and to nobody else.
- It logs a malformed request with a traceback, and answers with what it could not read.
- When it stops, it closes each connection that it has accepted and not yet read from.  GitHub never
  sends a delivery again, so such a connection is answered first, for a bounded time.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog
from aiohttp import HttpVersion11, StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy

from syncd.web.backend import HttpLimits
from syncd.web.browsers import PROTECTION
from syncd.web.peers import LOOPBACK, Seldom, address_of

log = structlog.stdlib.get_logger()

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

CODED = "the body has a Content-Encoding; send it as it is"

_LINGERING = 1.0  # seconds in which a body that no handler read is discarded
_HANDLERS_END = 2.0  # seconds in which handlers that run at the end of the grace may end
_TURNS = 4  # of the loop, until asyncio has made a connection of what it accepted, and read from it
_UNREAD = 32 << 10  # bytes that are read ahead of a connection's handler
_HEADERS = 64  # header lines of a request
_MALFORMED_LOGGED = 10  # a minute
# Where aiohttp begins to quote what it could not read: a path or a header may have a secret in it.
_QUOTED = re.compile(r"bytearray\(|b?['\"]")
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 10\r\n"
    b"Content-Length: 0\r\n\r\n"
)


class Connection(web.RequestHandler):
    """One connection, which knows how many requests it brought and how many are answered."""

    __slots__ = ("_deadline", "_table", "address", "answered", "asked", "expected")

    def __init__(self, table: Connections, **options: object) -> None:
        super().__init__(table, **options)  # type: ignore[arg-type]  # as the runner has them
        self._table = table
        self._deadline: asyncio.TimerHandle | None = None
        self.address = LOOPBACK
        self.asked = 0
        self.answered = 0
        self.expected = ""  # what the request under way says in `Expect`

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return self.asked > self.answered

    @property
    def owed(self) -> bool:
        """Whether an answer is expected: a request is under way, or the first has yet to come."""
        return self.transport is not None and (self.answered == 0 or self.busy)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many connections, and wait for headers for a bounded time."""
        peer = transport.get_extra_info("peername")
        self.address = address_of(peer[0] if isinstance(peer, tuple) else None)
        super().connection_made(transport)
        if not self._table.admit(self):
            if self.transport is not None:
                self.transport.write(_FULL)
            self.force_close()
            return
        self._deadline = self._loop.call_later(self._table.limits.headers, self._no_headers)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Expect nothing more."""
        super().connection_lost(exc)
        if self._deadline is not None:
            self._deadline.cancel()
        self._table.forget(self)

    def begun(self, message: RawRequestMessage) -> RawRequestMessage:
        """Count a request whose headers are read; return its head without `Expect`."""
        self.asked += 1
        self.expected = ""
        if "Expect" not in message.headers:
            return message
        if message.version >= HttpVersion11:
            self.expected = message.headers["Expect"].strip().lower()
        headers = CIMultiDict(message.headers)
        del headers["Expect"]
        return message._replace(headers=CIMultiDictProxy(headers))

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer, and count it; a peer that does not take it in time loses it."""
        async with taken(request, self._table.limits.answer):
            result = await super().finish_response(request, resp, start_time)
        self.answered += 1
        return result

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a malformed request, in one line of the log; leave faults of syncd to aiohttp.

        A peer that goes away while its request is read or answered is no event.
        """
        if status >= 500 and not isinstance(exc, ConnectionError):
            return super().handle_error(request, status, exc, message)
        if status < 500 and (passed_over := self._table.malformed()) is not None:
            words = _QUOTED.split(message or "", maxsplit=1)[0].split()
            # A path may have a sender's secret in it.
            reason = " ".join(word for word in words if "/" not in word).rstrip(" :")
            log.info(
                "malformed request", peer=request.remote, error=f"{reason:.100}", also=passed_over
            )
        text = "the request is malformed\n"
        response = web.Response(status=status, text=text, headers=PROTECTION)
        response.force_close()
        return response

    def _no_headers(self) -> None:
        if self.asked == 0:
            self.force_close()


class Connections(web.Server):
    """The open connections of one application."""

    def __init__(self, handler: Handler, limits: HttpLimits, **options: object) -> None:
        super().__init__(handler, **options)  # type: ignore[arg-type]  # as the runner has them
        self.limits = limits
        self.malformed = Seldom(_MALFORMED_LOGGED)
        self._open: dict[Connection, None] = {}  # the oldest first
        self._lost = asyncio.Event()
        self._full = Seldom()

    def __call__(self) -> Connection:
        """Return the protocol of a connection that was just accepted."""
        return Connection(self, loop=self._loop, **self._kwargs)

    def admit(self, connection: Connection) -> bool:
        """Take a connection in; where there are too many, the oldest idle one goes in its stead.

        Return False when none is idle: then the new one has to go.
        """
        self._open[connection] = None
        each = [other for other in self._open if other.address == connection.address]
        if connection.address != LOOPBACK and len(each) > self.limits.connections_each:
            among = each
        elif len(self._open) > self.limits.connections:
            among = [*self._open]
        else:
            return True
        if (passed_over := self._full()) is not None:
            log.warning(
                "too many connections",
                peer=connection.address,
                open=len(self._open) - 1,
                of_peer=len(each) - 1,
                also=passed_over,
            )
        idle = next(other for other in among if not other.busy)
        self.forget(idle)
        if idle is connection:
            return False
        idle.force_close()
        return True

    def forget(self, connection: Connection) -> None:
        """Count a connection no more."""
        self._open.pop(connection, None)
        self._lost.set()

    async def settle(self) -> None:
        """Wait until no connection expects an answer, for the grace at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.limits.grace):
                while any(connection.owed for connection in self._open):
                    self._lost.clear()
                    await self._lost.wait()


class Runner(web.AppRunner):
    """Serve an application; its `cleanup` answers what was accepted, and closes then.

    `end_streams` ends the answers that would go on for ever.
    """

    def __init__(
        self,
        app: web.Application,
        limits: HttpLimits,
        end_streams: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(
            app,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=_HANDLERS_END,
            auto_decompress=False,
            lingering_time=_LINGERING,
            keepalive_timeout=limits.idle,
            read_bufsize=_UNREAD,
            max_headers=_HEADERS,
        )
        self._limits = limits
        self._end_streams = end_streams
        self._stopping = False
        app.on_response_prepare.append(self._say_close)

    async def cleanup(self) -> None:
        """Accept no more, answer what was accepted for the grace at most, and close.

        What nobody accepted stays with the kernel: the next process gets it, where the listening
        socket is systemd's.  A connection that had its answer and is idle is not waited for.
        """
        self._stopping = True
        self._end_streams()
        loop = asyncio.get_running_loop()
        for site in self.sites:
            if isinstance(server := site._server, asyncio.Server):
                for listening in server.sockets:
                    loop.remove_reader(listening.fileno())
        for _ in range(_TURNS):  # asyncio drops what it accepted just before a server is closed
            await asyncio.sleep(0)
        for site in self.sites:
            await site.stop()
        if isinstance(self.server, Connections):
            await self.server.settle()
        await super().cleanup()

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()

        def request(
            message: RawRequestMessage,
            payload: StreamReader,
            protocol: web.RequestHandler,
            writer: AbstractStreamWriter,
            task: asyncio.Task[None],
        ) -> web.BaseRequest:
            if isinstance(protocol, Connection):
                message = protocol.begun(message)
            return made.request_factory(message, payload, protocol, writer, task)

        return Connections(
            made.request_handler, self._limits, request_factory=request, **made._kwargs
        )

    async def _say_close(self, _: web.Request, response: web.StreamResponse) -> None:
        """Have a peer open its next connection to the next process (RFC 9112, 9.6)."""
        if self._stopping:
            response.headers["Connection"] = "close"
            response.force_close()


@contextlib.asynccontextmanager
async def taken(request: web.BaseRequest, within: float) -> AsyncIterator[None]:
    """Send an answer in this context; a peer that does not take it in time loses the connection."""
    try:
        async with asyncio.timeout(within):
            yield
    except TimeoutError as exc:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the peer does not take its answer") from exc


def is_gone(request: web.BaseRequest) -> bool:
    """Tell whether the peer of a request has gone, so that no answer reaches it."""
    return request.transport is None or request.transport.is_closing()


def unmet(request: web.Request) -> bool:
    """Tell whether a request expects what nobody here can do (RFC 9110, 10.1.1)."""
    return isinstance(request.protocol, Connection) and request.protocol.expected not in (
        "",
        "100-continue",
    )


async def go_on(request: web.Request) -> None:
    """Have the peer send a body that it holds back until it is told that the body is wanted."""
    if isinstance(request.protocol, Connection) and request.protocol.expected:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer is yet to come


def coded(request: web.Request) -> bool:
    """Tell whether a body is encoded (RFC 9110, 8.4): nobody here decodes one."""
    return request.headers.get("Content-Encoding", "").strip().lower() not in ("", "identity")
