"""System calls that fail under a running daemon: strace answers for the kernel.

Every trial pushes an image that is new, so that its job fetches, converts, publishes and writes
down.  Either one call of each thread fails, or all of them do for a while, as with a disk that is
full.  A delivery may be refused then, which is its sender's to repeat; one that was accepted ends.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.daemon import Answer, Job, Syncd, package_event
from tests.e2e.lab import (
    DONE,
    SEED,
    TIMES,
    assert_sound,
    assert_told,
    image_of,
    payload,
    payload_of,
)
from tests.e2e.registry import Registry
from tests.e2e.strace import Fault, injected

LASTS = 3.0  # seconds of a fault that meets all calls, at the most
LATEST = 4  # a fault that meets one call of each thread meets its Nth, N being at most this
ENDS = 120.0  # seconds for a job after the fault: the ledger is tried again after 30 at the latest
FAULTS = {
    "flush": ("fsync,fdatasync", "EIO"),
    "full": ("write,pwrite64,writev,pwritev", "ENOSPC"),
    "write": ("pwrite64,pwritev", "EIO"),
    "read": ("pread64,preadv", "EIO"),
    "rename": ("rename,renameat,renameat2,link,linkat", "EIO"),
    "open": ("openat", "EMFILE"),
    "make": ("mkdir,mkdirat,symlink,symlinkat", "ENOSPC"),
    "copy": ("copy_file_range,sendfile,splice", "EIO"),
    "remove": ("unlink,unlinkat,rmdir", "EIO"),
    "list": ("getdents64", "EIO"),
    "stat": ("statfs,fstatfs", "EIO"),
    "start": ("clone,clone3,fork,vfork", "EAGAIN"),
}
DELIVERIES = 20
PATIENCE_OF_GITHUB = 10.0
SLOW = 8.0  # what is well below that, on a machine that does other things beside


class Onlooker:
    """Looks all the time at what readers of the storage see, and keeps each state of each file."""

    def __init__(self, daemon: Syncd) -> None:
        self.seen: dict[str, set[bytes]] = {}
        self._daemon = daemon
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Onlooker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._look_once()

    def _look(self) -> None:
        while not self._over.wait(0.01):
            self._look_once()

    def _look_once(self) -> None:
        for file in self._daemon.templates:
            with suppress(FileNotFoundError):
                self.seen.setdefault(file.name, set()).add(file.read_bytes())


@pytest.fixture(scope="module")
def daemon(scratch: Path, registry: Registry) -> Iterator[Syncd]:
    """Run one daemon for all trials: what a fault costs it for good, later trials show."""
    watched = [f"{registry.address}/lab/calls:latest"]
    with Syncd(scratch / "calls", watched, server=['settle = "0s"']) as running:
        yield running


def trials(name: str) -> list[str]:
    """Return strace's expressions of which calls fail: an early one, a late one, all."""
    instants = random.Random(f"{SEED} {name}")
    single = [str(instants.randint(1, LATEST)) for _ in range(2 * TIMES)]
    return ["1", *single, *["1+"] * TIMES]


@pytest.mark.parametrize("name", FAULTS)
def test_calls(name: str, daemon: Syncd, registry: Registry, tmp_path: Path) -> None:
    """Whatever call fails, accepted jobs end, no template shows in part, and the next is done."""
    names, error = FAULTS[name]
    met, mark = 0, daemon.log.stat().st_size
    for template in daemon.templates:
        template.unlink()
    for number, when in enumerate(trials(name)):
        content = payload(f"{name} {number}")
        reference = registry.push("lab/calls", "latest", image_of(content))
        before = {file.name for file in daemon.templates}
        fault = Fault(names, f"error={error}", when)
        with Onlooker(daemon) as onlooker:
            with injected(daemon.pid, fault, tmp_path / f"strace{number}") as faults:
                job = delivered(daemon, reference)
                end = time.monotonic() + LASTS
                while job and time.monotonic() < end and not is_done(daemon, job):
                    time.sleep(0.02)
                assert daemon.ask("GET", "/healthz").status == 200, fault
            met += faults.count
            if job is not None:
                ended = daemon.finished(job, ENDS)
                if ended["outcome"] not in DONE:
                    assert_told(ended)
                    (reason,) = reasons(daemon)
                    assert reason in ended["message"], fault
            again = daemon.sync(reference)
        assert again["outcome"] in DONE, f"{fault}: {again}"
        (new,) = [file for file in daemon.templates if file.name not in before]
        assert payload_of(new.read_bytes()) == content, fault
        assert onlooker.seen[new.name] == {new.read_bytes()}, f"{fault}: a template shows in part"
        new.unlink()
        assert_sound(daemon)
    assert b"Traceback" not in daemon.log.read_bytes()[mark:]
    print(f"{name}: {met} calls met {error} in {number + 1} trials, and all held")
    assert met


def delivered(daemon: Syncd, reference: str) -> str | None:
    """Deliver a push; return its job, or None where the daemon says that it cannot take it now."""
    answer = daemon.deliver(package_event(reference))
    if answer.status == 503:
        return None
    assert answer.status == 202, answer
    job: str = answer.body["jobs"][0]
    return job


def is_done(daemon: Syncd, job: str) -> bool:
    """Tell whether a job is over, as far as the daemon can say now."""
    answer = daemon.ask("GET", f"/api/v1/jobs/{job}", headers=daemon.bearer)
    assert answer.status in (200, 503), answer
    return bool(answer.body.get("state") == "done")


def reasons(daemon: Syncd) -> list[str]:
    """Return why conditions are failing."""
    answer = daemon.ask("GET", "/api/v1/images", headers=daemon.bearer)
    conditions: list[dict[str, Any]] = answer.body["conditions"]
    return [each["reason"] for each in conditions if each["status"] == "failing"]


def test_slow_flushes(daemon: Syncd, registry: Registry, tmp_path: Path) -> None:
    """While each flush takes a second, deliveries are answered in time and the daemon is well."""
    for template in daemon.templates:
        template.unlink()
    content = payload("slow flushes")
    reference = registry.push("lab/calls", "latest", image_of(content))
    body = package_event(reference)

    def timed() -> tuple[float, Answer]:
        began = time.monotonic()
        answer = daemon.deliver(body)
        return time.monotonic() - began, answer

    fault = Fault("fsync,fdatasync", "delay_enter=1s")
    with (
        injected(daemon.pid, fault, tmp_path / "strace") as faults,
        ThreadPoolExecutor(DELIVERIES) as senders,
    ):
        waiting = [senders.submit(timed) for _ in range(DELIVERIES)]
        healthy = []
        while not all(each.done() for each in waiting):
            began = time.monotonic()
            assert daemon.ask("GET", "/healthz").status == 200
            healthy.append(time.monotonic() - began)
            time.sleep(0.05)
    answers = [each.result() for each in waiting]
    assert faults.count
    assert {answer.status for _, answer in answers} == {202}
    slowest = max(seconds for seconds, _ in answers)
    print(f"{DELIVERIES} deliveries took {slowest:.1f} s at most, /healthz {max(healthy):.2f} s")
    assert slowest < SLOW < PATIENCE_OF_GITHUB
    assert max(healthy) < 1
    ends: list[Job] = [
        daemon.finished(job, ENDS) for _, answer in answers for job in answer.body["jobs"]
    ]
    assert {job["outcome"] for job in ends} <= set(DONE)
    (template,) = daemon.templates
    assert payload_of(template.read_bytes()) == content
    template.unlink()
    assert_sound(daemon)
