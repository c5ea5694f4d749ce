"""What a process needs to run jobs, put together: for the daemon, and for the command line.

No entrance is among it, neither HTTP nor a clock, so that a command does not load their libraries.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from syncd.config import Config, load_config
from syncd.convert import ConversionProcesses, convert
from syncd.errors import ConfigError, LedgerError, SyncdError
from syncd.oci import Reference
from syncd.progress import Progress
from syncd.report import Metrics
from syncd.service.checks import check_results
from syncd.service.hook_networks import HookNetworks
from syncd.service.live_config import LiveConfig
from syncd.service.repositories import Repositories
from syncd.sync import (
    LOOKS_PER_HOST,
    Activity,
    ConditionRecorder,
    ContainerCreator,
    Executors,
    JobLogs,
    Ledger,
    Outcome,
    Reaper,
    RootReplacer,
    Sweep,
    SyncEngine,
    SyncJob,
    Verifier,
    Worker,
)
from syncd.targets import CheckResult

_CHANGED = "the file is not what runs now; systemctl reload syncd puts it in force"

log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True)
class Services:
    """The services of one process; they live in one event loop."""

    live: LiveConfig
    ledger: Ledger
    executors: Executors
    conditions: ConditionRecorder
    engine: SyncEngine
    worker: Worker
    sweep: Sweep
    reaper: Reaper
    verifier: Verifier
    containers: ContainerCreator
    roots: RootReplacer
    metrics: Metrics
    activity: Activity
    logs: JobLogs
    stopping: threading.Event
    processes: ConversionProcesses | None
    hook_networks: HookNetworks

    @property
    def config_file(self) -> Path | None:
        """The configuration's file; None stands for the embedded default."""
        return self.live.path

    async def check(self) -> list[CheckResult]:
        """Return what `syncd check` tells, as this process sees it.

        The configuration's file is looked at as it is now, which may not be what runs.
        """
        return await self.executors.looking.run("check", self._checked)

    def _checked(self) -> list[CheckResult]:
        try:
            config = load_config(self.live.path)
        except ConfigError as exc:
            fault = CheckResult(False, "configuration", str(exc))
            return [fault, *check_results(self.live.config)]
        found = check_results(config)
        if config != self.live.config:
            found.insert(0, CheckResult(True, "configuration", _CHANGED))
        return found

    async def close(self) -> None:
        """Stop all work and let the ledger go."""
        self.stopping.set()
        await self.worker.stop()
        try:
            await self.executors.ledger(self.ledger.tally.write)
        except LedgerError as exc:
            log.warning("what was counted is lost", error=str(exc))
        for job in self.logs.jobs():  # of what was interrupted
            await keep_log(self.executors, self.ledger, self.logs, job)
        self.executors.close()
        if self.processes is not None:
            self.processes.close()
        self.ledger.close()


def assemble(
    live: LiveConfig,
    watch: Callable[[Reference], Progress],
    processes: ConversionProcesses | None = None,
) -> Services:
    """Put the services together; call it inside the event loop.

    Images are converted in `processes`, which are ended with the services, or in this process.
    """

    def apply(config: Config) -> None:
        executors.converting.resize(config.worker.jobs)
        worker.resize(_side_by_side(config))

    ledger = Ledger(live.config.state.paths.ledger)
    conditions = ConditionRecorder(live, ledger)
    executors = Executors(live.config.worker.jobs)
    stopping = threading.Event()
    activity, logs = Activity(), JobLogs()
    engine = SyncEngine(
        live,
        ledger,
        executors,
        open_repository=Repositories(live, ledger.tally).open,
        stopping=stopping,
        watch=lambda reference: activity.watch(reference, watch(reference)),
        conditions=conditions,
        convert=processes.convert if processes else convert,
    )
    sweep = Sweep(live, engine, executors, conditions)
    reaper = Reaper(live, ledger, executors, engine, conditions)
    verifier = Verifier(ledger, live, executors, stopping)
    metrics = Metrics(live, ledger)

    async def ended(job: SyncJob, _: Outcome) -> None:
        await keep_log(executors, ledger, logs, job.id)

    worker = Worker(ledger, executors, engine, _side_by_side(live.config), ended, activity=activity)
    live.on_change(apply)
    containers = ContainerCreator(live, ledger, engine, worker, executors)
    roots = RootReplacer(live, engine, containers, executors, ledger)
    return Services(
        live,
        ledger,
        executors,
        conditions,
        engine,
        worker,
        sweep,
        reaper,
        verifier,
        containers,
        roots,
        metrics,
        activity,
        logs,
        stopping,
        processes,
        HookNetworks(live, executors),
    )


async def keep_log(executors: Executors, ledger: Ledger, logs: JobLogs, job: str) -> None:
    """Have the ledger keep the lines of a job; a ledger that refuses is told in the log."""
    try:
        await executors.ledger(ledger.logs.add, job, logs.lines(job))
    except SyncdError as exc:
        log.warning("the log of a job is lost", id=job, error=str(exc))
    logs.drop(job)


def _side_by_side(config: Config) -> int:
    """Return how many jobs of a registry run at a time: most of them only look."""
    return max(config.worker.jobs, LOOKS_PER_HOST)
