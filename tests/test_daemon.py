"""What `syncd.daemon` promises: a process that starts, reloads and ends as service managers ask."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.deliveries import pushed, signed
from tests.fakes.registry import Registry
from tests.houses import REPOSITORY, TOKEN, configure, sample

# What systemd does: hand the socket over as descriptor 3, to the process that will run syncd.
HAND_OVER = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid()); "
    "os.execv(sys.executable, [sys.executable, '-m', 'syncd', *sys.argv[2:]])"
)


class Daemon:
    """`syncd run` as a process, with what it logs and what it tells its service manager."""

    def __init__(self, config: Path, address: str, manager: socket.socket) -> None:
        self.config = config
        self.url = f"http://{address}"
        self._manager = manager
        self.told: list[str] = []
        self.log = config.with_name("log")
        self.process: subprocess.Popen[bytes]

    def until_told(self, state: str) -> None:
        """Wait until the service manager is told this."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            told = self._manager.recv(4096).decode()
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
        deadline = time.monotonic() + 20
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
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    place = folder / "manager"
    place.unlink(missing_ok=True)
    manager.bind(str(place))
    manager.settimeout(20)
    with manager, socket.create_server(("127.0.0.1", 0)) as listening:
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


def test_signals(tmp_path: Path, registry: Registry) -> None:
    """SIGUSR1 syncs all, SIGHUP takes over a good configuration only, SIGTERM ends it cleanly."""
    config = configure(tmp_path, registry)
    registry.push(REPOSITORY, "latest", sample())
    with running(tmp_path, config, WATCHDOG_USEC="100000") as daemon:
        daemon.until_told("WATCHDOG=1")
        daemon.process.send_signal(signal.SIGUSR1)
        line = daemon.until_logged("published", 2)
        assert line["reference"].endswith(REPOSITORY)
        jobs = daemon.ask("/api/v1/jobs")["jobs"]
        assert {job["cause"] for job in jobs} == {"signal"}

        good = config.read_text()
        config.write_text(good.replace("[[image]]", '[[image]]\ntags = ["v9"]'))
        daemon.process.send_signal(signal.SIGHUP)
        daemon.until_logged("reloaded")
        daemon.until_told("RELOADING=1")
        daemon.until_told("READY=1")
        assert daemon.ask("/api/v1/images")["watched"][0]["tags"] == ["v9"]

        config.write_text("[nonsense]")
        daemon.process.send_signal(signal.SIGHUP)
        line = daemon.until_logged("configuration rejected, the old one stays")
        assert f"{config}:1: nonsense: there is no such key" in line["error"]
        daemon.until_told("READY=1")
        assert daemon.ask("/api/v1/images")["watched"][0]["tags"] == ["v9"]

        assert daemon.end() < 5
        daemon.until_told("STOPPING=1")
    assert list((tmp_path / "state" / "spool").iterdir()) == []


def test_stop_and_resume(tmp_path: Path, registry: Registry) -> None:
    """Work under way ends soon on SIGTERM, and is taken up again at the next start."""
    registry.push(REPOSITORY, "latest", sample())
    registry.faults.refusals = [(503, {"Retry-After": "50"}, b"")] * 50
    config = configure(tmp_path, registry)
    repository = f"{registry.address}/{REPOSITORY}"
    body = json.dumps(pushed(repository)).encode()
    with running(tmp_path, config) as daemon:
        accepted = daemon.ask("/webhooks/github", body, **signed(body))
        daemon.until_logged("started", 2)
        assert daemon.end() < 5
    assert daemon.lines("published") == []
    registry.faults.refusals.clear()
    config = configure(tmp_path, registry)
    with running(tmp_path, config) as daemon:
        daemon.until_logged("published", 2)
        job = daemon.ask(f"/api/v1/jobs/{accepted['jobs'][0]}")
        assert (job["reference"], job["outcome"]) == (repository, "published")
        assert daemon.end(signal.SIGINT) < 5


def test_socket_of_systemd(tmp_path: Path, registry: Registry) -> None:
    """A socket that is handed over is listened on, and what waited in it is answered."""
    with running(tmp_path, configure(tmp_path, registry), hand_over=True) as daemon:
        assert daemon.ask("/healthz")["status"] == "ok"
        assert daemon.lines("ready")[0]["listen"] == "systemd's socket"
        daemon.end()


def test_no_secret(tmp_path: Path, registry: Registry) -> None:
    """Without secrets the daemon runs, and says 503 where it would need them."""
    config = configure(tmp_path, registry)
    text = config.read_text().splitlines()
    config.write_text("\n".join(line for line in text if "_secret_file" not in line))
    with running(tmp_path, config) as daemon:
        with pytest.raises(urllib.error.HTTPError) as caught:
            daemon.ask("/webhooks/github", b"{}")
        with caught.value as answer:
            assert answer.status == 503
        assert daemon.ask("/readyz")["status"] == "ready"
        daemon.end()


def test_address_in_use(tmp_path: Path, registry: Registry) -> None:
    """An address that is taken is one sentence, and exit code 2."""
    config = configure(tmp_path, registry, server=f'listen = "{registry.address}"')
    ended = subprocess.run(
        [sys.executable, "-m", "syncd", "--config", config, "run"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert ended.returncode == 2
    assert f"server.listen = '{registry.address}' cannot be listened on" in ended.stderr
    assert "Traceback" not in ended.stderr
