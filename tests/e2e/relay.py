"""A bad line to a registry: a TCP relay that breaks connections off in the middle of an answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

_CHUNK = 64 << 10


class Relay:
    """Passes connections to `upstream` on; what `address` names while the relay is `open`.

    Each of `cuts` is a number of bytes after which one connection's answers break off; when all
    are used up the line is good, until `cut_in` is called.  `passed` counts the bytes of all
    answers that went through.
    """

    def __init__(self, upstream: str, cuts: Sequence[int] = ()) -> None:
        host, _, port = upstream.rpartition(":")
        self._upstream = (host, int(port))
        self._cuts = [*cuts]
        self._cut_at: int | None = None
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.passed = 0

    @property
    def cuts_left(self) -> int:
        """How many connections will still be broken."""
        return len(self._cuts)

    def cut_in(self, amount: int) -> None:
        """Break the connection that brings the byte which comes after so many from now on."""
        with self._lock:
            self._cut_at = self.passed + amount

    @property
    def will_cut(self) -> bool:
        """Whether the byte that `cut_in` waits for has not come yet."""
        return self._cut_at is not None

    @contextmanager
    def open(self) -> Iterator[None]:
        """Relay until the context is left."""
        acceptor = threading.Thread(target=self._accept)
        acceptor.start()
        try:
            yield
        finally:
            # A listener that is merely closed leaves accept() waiting.
            self._listener.shutdown(socket.SHUT_RDWR)
            acceptor.join()
            self._listener.close()

    def _accept(self) -> None:
        threads = []
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threads.append(threading.Thread(target=self._serve, args=(client,)))
                threads[-1].start()
        for thread in threads:
            thread.join()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._upstream) as server:
            questions = threading.Thread(target=self._pass, args=(client, server))
            questions.start()
            self._pass_answers(server, client)
            for end in (client, server):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            questions.join()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def _pass_answers(self, server: socket.socket, client: socket.socket) -> None:
        passed = 0
        with suppress(OSError):
            while data := server.recv(_CHUNK):
                client.sendall(data)
                passed += len(data)
                with self._lock:
                    self.passed += len(data)
                    if self._cut_at is not None and self.passed > self._cut_at:
                        self._cut_at = None
                        return
                    if self._cuts and passed >= self._cuts[0]:
                        del self._cuts[0]
                        return
