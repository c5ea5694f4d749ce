"""What a process needs to run jobs, put together: for the daemon, and for the command line.

No entrance is among it, neither HTTP nor a clock, so that a command does not load their libraries.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from syncd.directory import DirectoryTarget
from syncd.job import Progress
from syncd.launch import Launch
from syncd.ledger import Ledger
from syncd.notify import Notices
from syncd.proxmox import ProxmoxTarget
from syncd.reference import Reference
from syncd.settings import Config, DirectoryTargetSettings
from syncd.sync import Sync
from syncd.template import Target
from syncd.worker import Worker


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts; they live in one event loop."""

    ledger: Ledger
    sync: Sync
    worker: Worker
    launch: Launch
    notices: Notices
    stopping: threading.Event

    async def close(self) -> None:
        """Stop all work and let the ledger go."""
        self.stopping.set()
        await self.worker.stop()
        self.ledger.close()


def assemble(config: Config, watch: Callable[[Reference], Progress]) -> Parts:
    """Put the parts together; call it inside the event loop."""
    ledger = Ledger(config.state.directory / "ledger.sqlite")
    stopping = threading.Event()
    sync = Sync(config, targets_of(config), ledger, stopping, watch)
    notices = Notices(lambda: sync.config.notify)
    worker = Worker(ledger, sync, config.worker.jobs, notices.ended)
    return Parts(ledger, sync, worker, Launch(sync, worker), notices, stopping)


def targets_of(config: Config) -> dict[str, Target]:
    """Return the configured targets by name."""
    return {
        settings.name: DirectoryTarget(settings)
        if isinstance(settings, DirectoryTargetSettings)
        else ProxmoxTarget(settings, config.state.directory)
        for settings in config.target
    }
