"""A service on loopback: Apprise's `json://` posts to it, and a dead man's switch asks it.

It answers what tests ask for, hangs, trickles or does not end, and writes down what it hears.
"""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

PASSWORD = "hunter2"


class Receiver:
    """The service.  `heard` are the messages, `asked` the paths of GET requests."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.status = 200
        self.open = threading.Event()
        """While this is not set, the service takes requests and gives no answer."""
        self.open.set()
        self.trickles = False
        """Whether answers go on for ever, a byte now and then: each wait for a byte is short."""
        self.endless = False
        """Whether answers go on for ever, as fast as they are read."""
        self.entered = threading.Semaphore(0)
        """Released once for each request, before its answer."""
        self._ended = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                heard = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._answer(receiver.heard, heard)

            def do_GET(self) -> None:
                self._answer(receiver.asked, self.path)

            def _answer(self, taken: list[Any], what: object) -> None:
                receiver.entered.release()
                receiver.open.wait(30)
                if receiver.trickles or receiver.endless:
                    self._go_on()
                    return
                status = receiver.status
                if status < 300:
                    taken.append(what)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def _go_on(self) -> None:
                self.send_response(200)
                self.end_headers()
                with suppress(OSError):
                    while receiver.trickles or receiver.endless:
                        self.wfile.write(b"." if receiver.trickles else b"." * 65536)
                        if receiver.trickles:
                            receiver._ended.wait(0.05)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.open.set()
        self.trickles = self.endless = False
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def cut_off(self) -> None:
        """Answer from now on; what was asked until now stays without an answer."""
        self.open = threading.Event()
        self.open.set()

    @property
    def url(self) -> str:
        """The URL by which Apprise tells it, and waits for it; it carries a password."""
        return f"json://user:{PASSWORD}@127.0.0.1:{self.port}/?rto=60"

    @property
    def ping_url(self) -> str:
        """The URL of a dead man's switch; its path is a secret."""
        return f"http://127.0.0.1:{self.port}/ping/{PASSWORD}"

    @property
    def titles(self) -> list[str]:
        """The titles of the messages, without the host's name."""
        return [heard["title"].partition(": ")[2] for heard in self.heard]
