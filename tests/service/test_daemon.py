"""What `daemon` promises: a process that starts, reloads and ends as service managers ask."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
from contextlib import closing
from pathlib import Path

import pytest

from syncd.config.load import load_config
from syncd.service import daemon as daemon_module
from syncd.service.live_config import LiveConfig
from syncd.sync.ledger import Ledger
from syncd.sync.worker import Worker
from tests.daemons import PATIENCE, running
from tests.deliveries import pushed, signed
from tests.fakes.receiver import Receiver
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, configure, sample


def test_signals(tmp_path: Path, registry: Registry) -> None:
    """SIGUSR1 syncs all, SIGHUP takes over a good configuration only, SIGTERM ends it cleanly."""
    config = configure(tmp_path, registry)
    registry.push(REPOSITORY, "latest", sample())
    with running(tmp_path, config, WATCHDOG_USEC="100000") as daemon:
        daemon.until_told("WATCHDOG=1")
        daemon.until_logged("published")  # the start looks at what is unknown
        registry.push(REPOSITORY, "latest", sample("newer"))
        daemon.process.send_signal(signal.SIGUSR1)
        line = daemon.until_logged("published", 3)
        assert line["reference"].endswith(REPOSITORY)
        jobs = daemon.ask("/api/v1/jobs")["jobs"]
        assert {job["cause"] for job in jobs} <= {"signal", "sweep"}
        assert "signal" in {job["cause"] for job in jobs}

        good = config.read_text()
        config.write_text(good.replace("[[image]]", '[[image]]\ntags = ["v9"]'))
        daemon.process.send_signal(signal.SIGHUP)
        daemon.until_logged("reloaded")
        daemon.until_told("RELOADING=1")
        daemon.until_told("READY=1")
        assert daemon.ask("/api/v1/images")["watched"][0]["tags"] == ["v9"]
        assert daemon.metrics()("syncd_config_last_reload_successful") == 1

        config.write_text("[nonsense]")
        daemon.process.send_signal(signal.SIGHUP)
        line = daemon.until_logged("configuration rejected, the old one stays")
        assert f"{config}:1: nonsense: there is no such key" in line["error"]
        daemon.until_told("READY=1")
        assert daemon.ask("/api/v1/images")["watched"][0]["tags"] == ["v9"]
        metrics = daemon.metrics()
        assert metrics("syncd_config_last_reload_successful") == 0
        assert metrics("syncd_config_reloads_total", result="applied") == 1
        assert metrics("syncd_config_reloads_total", result="rejected") == 1

        config.write_text("a = " + "[" * 100_000)
        daemon.process.send_signal(signal.SIGHUP)
        line = daemon.until_logged("configuration rejected, the old one stays", 2)
        assert "nested too deeply" in line["error"]
        assert "Traceback" not in daemon.log.read_text()

        assert daemon.end() < 5
        daemon.until_told("STOPPING=1")
    assert list((tmp_path / "state" / "spool").iterdir()) == []


def test_told_though_it_died(tmp_path: Path, registry: Registry) -> None:
    """A daemon that is killed before it tells of a run has the next one tell of it, once."""
    registry.push(REPOSITORY, "latest", sample())
    table = f'[notify]\nurls_file = "{tmp_path}/urls"\n'
    with Receiver() as receiver:
        (tmp_path / "urls").write_text(receiver.url)
        with running(tmp_path, configure(tmp_path, registry, more=table)) as daemon:
            daemon.until_logged("published")
            daemon.process.kill()
        with running(tmp_path, configure(tmp_path, registry, more=table)) as daemon:
            assert receiver.entered.acquire(timeout=PATIENCE)
            daemon.end()
        with running(tmp_path, configure(tmp_path, registry, more=table)) as daemon:
            daemon.end()
        assert receiver.titles == [f"{registry.address}/{REPOSITORY}:latest new"]


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
        daemon.until_logged("published")
        while (job := daemon.ask(f"/api/v1/jobs/{accepted['jobs'][0]}"))["state"] != "done":
            time.sleep(0.01)
        assert (job["reference"], job["outcome"]) == (repository, "published")
        assert daemon.end(signal.SIGINT) < 5


def test_stop_beside_a_silent_registry(tmp_path: Path, registry: Registry) -> None:
    """A thread that waits for a registry keeps the process for fifteen seconds after SIGTERM."""
    config = configure(tmp_path, registry)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        config.write_text(config.read_text().replace(registry.address, address))
        with running(tmp_path, config) as daemon:
            connection, _ = silent.accept()
            with connection:
                assert connection.recv(4).startswith(b"HEAD")
                assert daemon.end() < 19


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


def test_scratch_folder_is_a_file(tmp_path: Path, registry: Registry) -> None:
    """A file where the scratch folder must be is one sentence, and no traceback."""
    config = configure(tmp_path, registry, server='listen = "127.0.0.1:0"')
    (tmp_path / "state").mkdir(exist_ok=True)
    (tmp_path / "state" / "spool").write_text("in the way")
    ended = subprocess.run(
        [sys.executable, "-m", "syncd", "--config", config, "run"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert ended.returncode == 1
    assert f"the scratch folder {tmp_path}/state/spool cannot be used" in ended.stderr
    assert "Traceback" not in ended.stderr


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


def test_one_daemon_for_a_state(tmp_path: Path, registry: Registry) -> None:
    """A second daemon does not start, and says who holds the state; after a crash one does."""
    config = configure(tmp_path, registry)
    with running(tmp_path, config) as daemon:
        pid = daemon.process.pid
        second = subprocess.run(
            [sys.executable, "-m", "syncd", "--config", str(config), "run"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert second.returncode == 2
        assert (
            f"a daemon with process id {pid} uses the state {tmp_path / 'state'}" in second.stderr
        )
        assert daemon.process.poll() is None
        daemon.process.kill()
        daemon.process.wait(20)
    with running(tmp_path, configure(tmp_path, registry)):
        pass


def test_ended_while_the_ledger_is_held(tmp_path: Path, registry: Registry) -> None:
    """A daemon that waits for another process to let the ledger go ends at once all the same."""
    config = configure(tmp_path, registry, server='listen = "127.0.0.1:0"')
    path = tmp_path / "state" / "ledger.sqlite"
    Ledger(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with subprocess.Popen(
            [sys.executable, "-m", "syncd", "--config", config, "run"], stderr=subprocess.PIPE
        ) as daemon:
            lock = re.compile(rf" {daemon.pid} \S+:{path.stat().st_ino} ")
            while not lock.search(Path("/proc/locks").read_text()):
                assert daemon.poll() is None
                time.sleep(0.01)
            daemon.terminate()
            # Without the signal, the ledger is waited for half a minute.
            assert daemon.wait(20) == 128 + signal.SIGTERM


async def test_ended_while_it_starts(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that does not come to its end keeps no signal waiting."""

    async def resume(_: Worker) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    monkeypatch.setattr(Worker, "resume", resume)
    monkeypatch.setattr(daemon_module, "_end_process_after", lambda _: None)
    config = configure(tmp_path, registry, server='listen = "127.0.0.1:0"')
    async with asyncio.timeout(20):
        await daemon_module._serve(LiveConfig(load_config(config), config), config, None)
