"""The daemon: the parts and their entrances, run until a signal ends them.

SIGUSR1 syncs everything watched, SIGHUP reloads the configuration (a bad one is rejected and the
old one stays), SIGTERM and SIGINT stop within 20 s; what was under way is resumed at the next
start, as after a crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from pathlib import Path

import structlog
from aiohttp import web

from syncd import __version__
from syncd.api import Api
from syncd.config import load
from syncd.errors import ConfigError, SyncdError
from syncd.event import BODY_MAX
from syncd.job import Advance, Cause
from syncd.parts import Parts, assemble, targets_of
from syncd.schedule import Schedule
from syncd.webhook import Webhook

log = structlog.stdlib.get_logger()

_STOP_AFTER = 15.0  # seconds in which running threads may find out that they are to stop
_STATUS = "Running"
_STATUS_REJECTED = "Running with the old configuration: the new one was rejected, see the log"
_FIRST_SOCKET = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START


class Logged:
    """A progress told in the log: one event when a step of a job begins."""

    def begin(self, step: str, subject: str, total: int | None) -> Advance:
        """Log the step and its size in bytes."""
        log.info(step, subject=subject, size=total)
        return lambda _: None


def application(parts: Parts) -> web.Application:
    """Return everything that is answered over HTTP."""
    sync, worker, ledger, notices = parts.sync, parts.worker, parts.ledger, parts.notices
    api = Api(sync, worker, parts.launch, ledger, notices)
    webhook = Webhook(lambda: sync.config, worker, ledger, notices)
    app = web.Application(client_max_size=BODY_MAX, middlewares=[api.guard])
    app.add_routes([*webhook.routes(), *api.routes()])
    return app


async def run(path: Path | None) -> None:
    """Run the daemon with the configuration at `path`; raise SyncdError when it cannot start."""
    parts = assemble(load(path), lambda _: Logged())
    sync, worker, ledger = parts.sync, parts.worker, parts.ledger
    schedule = Schedule(sync, worker, ledger)
    runner = web.AppRunner(application(parts), access_log=None, handle_signals=False)
    stop = asyncio.Event()

    def reload() -> None:
        _tell_systemd("RELOADING=1")
        try:
            config = load(path)
            sync.targets, sync.config = targets_of(config), config
            schedule.apply(config)
            log.info("reloaded")
            _tell_systemd(f"READY=1\nSTATUS={_STATUS}")
        except SyncdError as exc:
            log.error("configuration rejected, the old one stays", error=str(exc))
            _tell_systemd(f"READY=1\nSTATUS={_STATUS_REJECTED}")

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, schedule.everything, Cause.SIGNAL)
    loop.add_signal_handler(signal.SIGHUP, reload)
    for ending in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(ending, stop.set)
    await runner.setup()
    try:
        address = await _listen(runner, sync.config.server.listen)
        sync.tidy()
        ledger.expire()
        worker.resume()
        schedule.start()
        log.info("ready", version=__version__, listen=address, config=str(path or "embedded"))
        _tell_systemd(f"READY=1\nSTATUS={_STATUS}")
        async with asyncio.TaskGroup() as group:
            watchdog = group.create_task(_watchdog())
            await stop.wait()
            watchdog.cancel()
        _tell_systemd("STOPPING=1")
        log.info("stopping", busy=worker.busy)
        schedule.stop()
    finally:
        _end_process_after(_STOP_AFTER)
        await runner.cleanup()
        await parts.close()


async def _listen(runner: web.AppRunner, address: str) -> str:
    """Listen on the socket that systemd hands over (sd_listen_fds(3)), or on `address`."""
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS") == "1":
        inherited = socket.socket(fileno=_FIRST_SOCKET)
        inherited.setblocking(False)
        await web.SockSite(runner, inherited).start()
        return "systemd's socket"
    host, _, port = address.rpartition(":")
    try:
        await web.TCPSite(runner, host.strip("[]"), int(port)).start()
    except OSError as exc:
        raise ConfigError(
            f"server.listen = {address!r} cannot be listened on: {exc.strerror}",
            hint="choose a free address and port",
        ) from exc
    return address


async def _watchdog() -> None:
    """Tell systemd that the loop runs, twice in each of its spans (sd_watchdog_enabled(3))."""
    span = int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6
    while span:
        _tell_systemd("WATCHDOG=1")
        await asyncio.sleep(span)


def _tell_systemd(state: str) -> None:
    """Send a state to the service manager, if there is one (sd_notify(3))."""
    place = os.environ.get("NOTIFY_SOCKET")
    if not place:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(state.encode(), place.replace("@", "\0", 1))


def _end_process_after(seconds: float) -> None:
    """End the process even if a thread waits on a silent peer; no state needs its goodbye."""
    timer = threading.Timer(seconds, os._exit, (0,))
    timer.daemon = True
    timer.start()
