"""The lab: many faults at random instants, and after each one the same invariant.

`SYNCD_LAB` multiplies the number of trials (1 by default; 5 gives 200 kills and 150 cuts), and
`SYNCD_LAB_SEED` chooses the instants.  `-rP` shows how many trials the time sufficed for.
docs/reliability.md says what each fault has to leave.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.command import files_below
from tests.e2e.conftest import Image
from tests.e2e.daemon import Syncd
from tests.e2e.registry import Registry
from tests.e2e.relay import Relay

TIMES = int(os.environ.get("SYNCD_LAB", "1"))
SEED = int(os.environ.get("SYNCD_LAB_SEED", "13"))
KILLS, CUTS = 40 * TIMES, 30 * TIMES
PATIENCE = 60.0 * TIMES  # seconds after which no further trial of a test begins
FEWEST = 5  # trials without which a test has shown nothing
DONE = ("published", "unchanged")  # the look that a start begins with may have come first
SPAN = 1.0  # seconds after a push within which the daemon is killed: a job of this image is shorter


def assert_holds(daemon: Syncd, pushed: Image) -> None:
    """Fail unless the daemon is well, its ledger opens, and storage holds the template alone."""
    assert daemon.ask("GET", "/healthz").status == 200
    assert daemon.run("status", "--json").returncode == 0
    assert files_below(daemon.storage) == {f"template/cache/{pushed.template_name}"}
    assert files_below(daemon.spool) == set()


def trials(what: str, number: int) -> Iterator[int]:
    """Yield the trials, as many as there is time for, and print how many were made; all held."""
    end, made = time.monotonic() + PATIENCE, 0
    for trial in range(number):
        if time.monotonic() > end and made >= FEWEST:
            break
        yield trial
        made += 1
    print(f"{what}: {made} of {number} planned were made, and all held")


def forget(daemon: Syncd) -> bytes:
    """Remove the template, so that the next job has to publish it; return its bytes."""
    (template,) = daemon.templates
    content = template.read_bytes()
    template.unlink()
    return content


def test_kills(small: Image, registry: Registry, tmp_path: Path) -> None:
    """Killed at any instant, the daemon ends each accepted job, and shows whole templates only."""
    reference = f"{registry.address}/lab/killed:latest"
    instants = random.Random(SEED)
    with Syncd(tmp_path / "syncd", [reference]) as daemon:
        pushed = small.push(reference)
        assert daemon.sync(reference)["outcome"] in DONE
        for trial in trials("kills", KILLS):
            whole = forget(daemon)
            job = daemon.push_event(reference)
            time.sleep(instants.uniform(0, SPAN))
            daemon.kill()
            visible = [file.read_bytes() for file in daemon.templates]
            assert visible in ([], [whole]), f"kill {trial}: a template is visible in part"
            daemon.start()
            ended = daemon.finished(job)
            assert ended["outcome"] in DONE, f"kill {trial}: {ended}"
            assert_holds(daemon, pushed)


def test_cuts(small: Image, registry: Registry, tmp_path: Path) -> None:
    """Cut off at any byte of an answer, a connection costs no job and no half template."""
    instants = random.Random(SEED)
    largest = max(layer["size"] for layer in small.layout.manifest["layers"])
    for trial in trials("cuts", CUTS):
        relay = Relay(registry.address, cuts=[instants.randrange(1, largest)])
        reference = f"{relay.address}/lab/cut{trial}:latest"
        folder = tmp_path / f"syncd{trial}"
        with relay.open(), Syncd(folder, [reference]) as daemon:
            pushed = small.push(f"{registry.address}/lab/cut{trial}:latest")
            job = daemon.sync(reference)
            assert job["outcome"] in DONE, f"cut {trial}: {job}"
            assert relay.cuts_left == 0, f"cut {trial} struck no connection"
            assert daemon.run("status", "--json").returncode == 0
            (template,) = daemon.templates
            assert template.name.endswith(pushed.template_name.rpartition("_")[2])


@pytest.mark.parametrize("days", [-2, 2, 400])
def test_clock(small: Image, registry: Registry, tmp_path: Path, days: int) -> None:
    """After a clock that stepped between two starts, the current template stays published."""
    reference = f"{registry.address}/lab/clock{days}:latest"
    with Syncd(tmp_path / "syncd", [reference]) as daemon:
        pushed = small.push(reference)
        assert daemon.sync(reference)["outcome"] in DONE
        daemon.stop()
        with pytest.MonkeyPatch.context() as environment:
            library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
            environment.setenv("LD_PRELOAD", library)
            environment.setenv("FAKETIME", f"{days:+d}d")
            environment.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            daemon.start()
        assert daemon.sync(reference)["outcome"] == "unchanged"
        assert_holds(daemon, pushed)
