"""The daemon: the services and their entrances, run until a signal ends them.

SIGUSR1 syncs everything watched, SIGHUP reloads the configuration (a bad one is rejected and the
old one stays), SIGTERM and SIGINT stop within 20 s; what was under way is resumed at the next
start, as after a crash.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import structlog
from aiohttp import web

from syncd import __version__
from syncd.config import Config, load_config
from syncd.convert import ConversionProcesses
from syncd.errors import ConfigError, SyncdError
from syncd.progress import Advance
from syncd.service.command_socket import command_socket
from syncd.service.daemon_lock import daemon_lock
from syncd.service.descriptors import http_limits, log_seldom, raised_limit
from syncd.service.live_config import LiveConfig
from syncd.service.measurements import Measurements
from syncd.service.messenger import Messenger
from syncd.service.missed_deliveries import MissedDeliveries
from syncd.service.process import forbid_dumps, return_memory
from syncd.service.schedule import Schedule
from syncd.service.services import Services, assemble
from syncd.service.systemd import inherited_socket, tell_systemd, watchdog
from syncd.service.upkeep import keep_in_order
from syncd.sync import Cause, Reload
from syncd.web import application, http_runner, members_group

log = structlog.stdlib.get_logger()

_STOP_AFTER = 15.0  # seconds in which running threads may find out that they are to stop
_STATUS = "Running"
_STATUS_REJECTED = "Running with the old configuration: the new one was rejected, see the log"


class Logged:
    """A progress told in the log: one event when a step of a job begins."""

    def begin(self, step: str, subject: str, total: int | None) -> Advance:
        """Log the step, and its size in bytes where that is known."""
        size = {} if total is None else {"size": total}
        log.info(step, subject=subject, **size)
        return lambda _: None


async def run(path: Path | None) -> None:
    """Run the daemon with the configuration at `path`; raise SyncdError when it cannot start."""
    forbid_dumps()
    return_memory()
    live = LiveConfig(load_config(path), path)
    with daemon_lock(live.config.state.paths.daemon_lock), _for_commands(live.config) as commands:
        await _serve(live, path, commands)


@contextmanager
def _for_commands(config: Config) -> Iterator[socket.socket | None]:
    """Give the socket for commands; without one that nobody configured, the daemon still serves."""
    with ExitStack() as stack:
        try:
            made = stack.enter_context(command_socket(config.socket, members_group()))
        except ConfigError as exc:
            if config.server.socket is not None:
                raise
            log.warning("commands work without the daemon", error=str(exc))
            made = None
        yield made


async def _serve(live: LiveConfig, path: Path | None, commands: socket.socket | None) -> None:
    """Serve until a signal ends it; `commands` is the bound socket that commands connect to."""
    services = assemble(live, lambda _: Logged(), ConversionProcesses())
    with services.logs.attached():
        await _run(live, path, services, commands)


async def _run(
    live: LiveConfig, path: Path | None, services: Services, commands: socket.socket | None
) -> None:
    """Run the services and their entrances until a signal ends them."""
    worker, schedule = services.worker, Schedule(services)
    messenger = Messenger(services, lambda: schedule.busy)
    limits = http_limits(raised_limit())
    runner = http_runner(application(services, limits), limits)
    stop = asyncio.Event()
    syncs: set[asyncio.Task[bool]] = set()

    def sync_everything() -> None:
        task = asyncio.ensure_future(schedule.everything(Cause.SIGNAL))
        syncs.add(task)
        task.add_done_callback(syncs.discard)

    loop = asyncio.get_running_loop()
    log_seldom(loop)
    loop.add_signal_handler(signal.SIGUSR1, sync_everything)
    loop.add_signal_handler(signal.SIGHUP, _reload, services)
    for ending in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(ending, stop.set)
    await runner.setup()
    try:
        address = await _listen(runner, live.config.server.listen)
        if commands is not None:
            await web.SockSite(runner, commands).start()
        starting = asyncio.create_task(_start(services, schedule))
        stopping = asyncio.create_task(stop.wait())
        # What the start waits for, such as the ledger, another process may hold for long.
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            resuming = await starting
            messenger.start()
            log.info("ready", version=__version__, listen=address, config=str(path or "embedded"))
            tell_systemd(f"READY=1\nSTATUS={_STATUS}")
            async with asyncio.TaskGroup() as group:
                keepers = [
                    group.create_task(watchdog()),
                    group.create_task(keep_in_order(services)),
                    group.create_task(Measurements(services).keep()),
                    group.create_task(MissedDeliveries(services).keep()),
                    group.create_task(services.hook_networks.keep()),
                ]
                await stopping
                for keeper in keepers:
                    keeper.cancel()
            resuming.cancel()
        starting.cancel()
        tell_systemd("STOPPING=1")
        log.info("stopping", busy=worker.busy)
        schedule.stop()
        await messenger.stop()
    finally:
        _end_process_after(_STOP_AFTER)
        await runner.cleanup()
        await services.close()


async def _start(services: Services, schedule: Schedule) -> asyncio.Task[None]:
    """Take up what the last process left; return the task that ends its replacements."""
    await services.engine.tidy()
    await services.worker.resume()
    resuming = asyncio.create_task(_resume_replacements(services))
    await schedule.start()
    return resuming


async def _resume_replacements(services: Services) -> None:
    """End the replacements that a process left, and remove old roots whose time is over."""
    await services.roots.resume()
    await services.roots.remove_due()


def _reload(services: Services) -> None:
    """Put the configuration's file in force; a bad file is logged, and the old one stays."""
    tell_systemd("RELOADING=1")
    try:
        services.live.reload()
        log.info("reloaded")
        services.metrics.reloaded(Reload.APPLIED)
        tell_systemd(f"READY=1\nSTATUS={_STATUS}")
    except SyncdError as exc:
        log.error("configuration rejected, the old one stays", error=str(exc))
        services.metrics.reloaded(Reload.REJECTED)
        tell_systemd(f"READY=1\nSTATUS={_STATUS_REJECTED}")


async def _listen(runner: web.AppRunner, address: str) -> str:
    """Listen on the socket that systemd hands over (sd_listen_fds(3)), or on `address`."""
    inherited = inherited_socket()
    if inherited is not None:
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


def _end_process_after(seconds: float) -> None:
    """End the process even if a thread waits on a silent peer; no state needs its goodbye."""
    timer = threading.Timer(seconds, os._exit, (0,))
    timer.daemon = True
    timer.start()
