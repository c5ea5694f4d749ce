"""What HTTP needs of the process behind it; the service fulfils the protocol."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from syncd.events import BODY_MAX, Network
from syncd.report import Metrics
from syncd.sync import (
    Activity,
    ContainerCreator,
    Executors,
    JobLogs,
    Ledger,
    Reaper,
    RootReplacer,
    Running,
    SyncEngine,
    Verifier,
    Worker,
)
from syncd.targets import CheckResult


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds on connections and requests that nobody has authenticated yet."""

    body: int = BODY_MAX
    """Bytes of a request's body."""
    bodies: int = 64 << 20
    """Bytes of all bodies that are held at a time."""
    bodies_each: int = 32 << 20
    """Bytes of the bodies of one address; loopback has no bound of its own."""
    body_wait: float = 9.0
    """Seconds that a body waits while others take the room; this is no part of its own time."""
    body_start: float = 2.0
    """Seconds until the minimum rate of a body counts."""
    body_rate: int = 16 << 10
    """Bytes a second that a body brings at the least."""
    body_time: float = 9.0
    """Seconds for a whole body: GitHub gives up after 10."""
    connections: int = 256
    """Open connections; each may hold half a megabyte of headers and of what was not read yet."""
    connections_each: int = 64
    """Open connections of one address; loopback has no bound of its own."""
    headers: float = 5.0
    """Seconds until the first request of a connection has its headers."""
    idle: float = 15.0
    """Seconds between an answer and the headers of the next request of its connection."""
    answer: float = 20.0
    """Seconds in which a peer takes an answer that is ready."""
    readers: int = 4
    """Answers of the status page and of the metrics that are made and sent at a time."""
    listeners: int = 32
    """Streams of events at a time."""
    listeners_each: int = 8
    """Streams of one address; loopback has no bound of its own."""
    listening: float = 3600.0
    """Seconds after which a stream ends, and the listener has to show its token again."""
    pace: float = 0.5
    """Seconds between two tellings of a stream at the least."""
    keep_alive: float = 15.0
    """Seconds after which a stream without news gives a sign of life."""
    grace: float = 2.0
    """Seconds in which a stopping server still answers what it has accepted."""


class HookNetworks(Protocol):
    """From where GitHub says that it delivers."""

    @property
    def known(self) -> tuple[Network, ...] | None:
        """The networks that GitHub named last, or None while it has named none."""


class Backend(Protocol):
    """The services that requests are answered with."""

    @property
    def live(self) -> Running:
        """The running configuration."""

    @property
    def ledger(self) -> Ledger:
        """The ledger; ask it through the executors."""

    @property
    def executors(self) -> Executors:
        """Threads for blocking work."""

    @property
    def engine(self) -> SyncEngine:
        """What tells where an image lies."""

    @property
    def worker(self) -> Worker:
        """What runs jobs."""

    @property
    def containers(self) -> ContainerCreator:
        """What makes containers."""

    @property
    def roots(self) -> RootReplacer:
        """What puts newer images under containers."""

    @property
    def reaper(self) -> Reaper:
        """What deletes templates."""

    @property
    def verifier(self) -> Verifier:
        """What compares published files with the ledger."""

    @property
    def config_file(self) -> Path | None:
        """The configuration's file; None stands for the embedded default."""

    async def check(self) -> list[CheckResult]:
        """Return what of the service is usable and what is not."""

    @property
    def hook_networks(self) -> HookNetworks:
        """From where GitHub says that it delivers."""

    @property
    def metrics(self) -> Metrics:
        """What is counted."""

    @property
    def activity(self) -> Activity:
        """What jobs do just now."""

    @property
    def logs(self) -> JobLogs:
        """The logs of the jobs that run."""
