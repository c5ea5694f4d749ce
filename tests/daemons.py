"""`syncd run` as a process of its own, with what it logs and what it tells its service manager."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from tests.harness import TOKEN
from tests.metrics import Scrape

PATIENCE = 60.0  # seconds for what takes one on an idle machine

# What systemd does: hand the socket over as descriptor 3, to the process that will run syncd.
HAND_OVER = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid()); "
    "os.execv(sys.executable, [sys.executable, '-m', 'syncd', *sys.argv[2:]])"
)


class Manager:
    """The service manager: it reads at once what it is told, as systemd does."""

    def __init__(self, place: Path) -> None:
        place.unlink(missing_ok=True)
        self._place = str(place)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._place)
        self._reader = threading.Thread(target=self._read)
        self.told: queue.SimpleQueue[str] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", self._place)
        self._reader.join()
        self._socket.close()

    def _read(self) -> None:
        while told := self._socket.recv(4096):
            self.told.put(told.decode())


class Daemon:
    """`syncd run` as a process, with what it logs and what it tells its service manager."""

    def __init__(self, config: Path, address: str, manager: Manager) -> None:
        self.config = config
        self.url = f"http://{address}"
        self._manager = manager
        self.told: list[str] = []
        self.log = config.with_name("log")
        self.process: subprocess.Popen[bytes]

    def until_told(self, state: str) -> None:
        """Wait until the service manager is told this."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            told = self._manager.told.get(timeout=PATIENCE)
            self.told.append(told)
            if state in told.splitlines():
                return
        raise AssertionError(f"{state!r} is not among {self.told}")

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return the log's lines of one event."""
        lines = map(json.loads, self.log.read_text().splitlines())
        return [line for line in lines if line["event"] == event]

    def until_logged(self, event: str, times: int = 1) -> dict[str, Any]:
        """Wait until the log has an event so often; return its last line."""
        deadline = time.monotonic() + PATIENCE
        while len(found := self.lines(event)) < times:
            assert time.monotonic() < deadline, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.01)
        return found[-1]

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> Any:
        """Make a request; return the answer's JSON."""
        headers = {"Authorization": f"Bearer {TOKEN}", **headers}
        request = urllib.request.Request(f"{self.url}{path}", body, headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def metrics(self) -> Scrape:
        """Return the metrics as they are now."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            return Scrape(answer.read().decode())

    def end(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Send a signal and wait for the end; return how many seconds it took."""
        begun = time.monotonic()
        self.process.send_signal(number)
        assert self.process.wait(20) == 0, self.log.read_text()
        return time.monotonic() - begun


@contextmanager
def running(
    folder: Path, config: Path, *, hand_over: bool = False, **environment: str
) -> Iterator[Daemon]:
    """Run the daemon until it has said that it is ready, and end it afterwards."""
    place = folder / "manager"
    with Manager(place) as manager, socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        daemon = Daemon(config, address, manager)
        arguments = ["--config", str(config), "run", "--log", "json"]
        if hand_over:
            start = [sys.executable, "-c", HAND_OVER, str(listening.fileno()), *arguments]
            environment |= {"LISTEN_FDS": "1"}
        else:
            listening.close()
            text = config.read_text()
            config.write_text(text.replace("[server]", f'[server]\nlisten = "{address}"', 1))
            start = [sys.executable, "-m", "syncd", *arguments]
        with daemon.log.open("ab") as log:
            daemon.process = subprocess.Popen(
                start,
                stderr=log,
                env={**os.environ, "NOTIFY_SOCKET": str(place), **environment},
                pass_fds=(listening.fileno(),) if hand_over else (),
            )
        try:
            daemon.until_told("READY=1")
            yield daemon
        finally:
            if daemon.process.poll() is None:
                daemon.process.kill()
            daemon.process.wait(20)
