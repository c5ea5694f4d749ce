"""Kills, cut connections and clocks that step: at random instants, and then the same invariant.

`tests.e2e.lab` says how many trials there are, and docs/reliability.md what each has to leave.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Image
from tests.e2e.daemon import Syncd
from tests.e2e.lab import DONE, SEED, TIMES, assert_sound, image_of, payload, payload_of, trials
from tests.e2e.registry import Registry
from tests.e2e.relay import Relay

KILLS, CUTS = 40 * TIMES, 30 * TIMES
SIZE = 2_000_000  # bytes of what the image of a kill holds
AT_ONCE = ['settle = "0s"']  # a job begins with its delivery: an instant strikes what it does


def test_kills(registry: Registry, tmp_path: Path) -> None:
    """Killed at any instant, the daemon ends each accepted job, and shows whole templates only."""
    reference = registry.push("lab/killed", "latest", image_of(payload("no kill", SIZE)))
    instants = random.Random(SEED)
    struck = made = 0
    with Syncd(tmp_path / "syncd", [reference], server=AT_ONCE) as daemon:
        span = lasted(daemon, registry, reference)
        for trial in trials("kills", KILLS):
            for template in daemon.templates:
                template.unlink()
            content = payload(f"kill {trial}", SIZE)
            registry.push("lab/killed", "latest", image_of(content))
            mark = daemon.log.stat().st_size
            job = daemon.push_event(reference)
            time.sleep(instants.uniform(0, span))
            daemon.kill()
            events = daemon.log.read_bytes()[mark:]
            struck += b"started" in events and b"published" not in events
            made += 1
            seen = [file.read_bytes() for file in daemon.templates if file.name[0] != "."]
            assert all(payload_of(template) == content for template in seen), f"kill {trial}"
            daemon.start()
            ended = daemon.finished(job)
            assert ended["outcome"] in DONE, f"kill {trial}: {ended}"
            (template,) = daemon.templates
            assert payload_of(template.read_bytes()) == content, f"kill {trial}"
            assert_sound(daemon, template.name)
        print(f"kills: {struck} of {made} struck a job that ran")
    assert struck > made // 4


def lasted(daemon: Syncd, registry: Registry, reference: str) -> float:
    """Return how many seconds the job of a new image takes."""
    registry.push("lab/killed", "latest", image_of(payload("timed", SIZE)))
    began = time.monotonic()
    assert daemon.sync(reference)["outcome"] == "published"
    return time.monotonic() - began


def test_cuts(registry: Registry, tmp_path: Path) -> None:
    """Cut off at any byte of an answer, a connection costs no job and no half template."""
    instants = random.Random(SEED)
    relay = Relay(registry.address)
    reference = f"{relay.address}/lab/cut:latest"
    with relay.open(), Syncd(tmp_path / "syncd", [reference], server=AT_ONCE) as daemon:
        for trial in trials("cuts", CUTS):
            content = payload(f"cut {trial}", SIZE)
            registry.push("lab/cut", "latest", image_of(content))
            relay.cut_in(instants.randrange(SIZE))
            job = daemon.sync(reference)
            assert job["outcome"] in DONE, f"cut {trial}: {job}"
            assert not relay.will_cut, f"cut {trial} struck no connection"
            (template,) = daemon.templates
            assert payload_of(template.read_bytes()) == content, f"cut {trial}"
            template.unlink()
        assert_sound(daemon)


@pytest.mark.parametrize("days", [-2, 2, 400])
def test_clock(small: Image, registry: Registry, tmp_path: Path, days: int) -> None:
    """After a clock that stepped between two starts, the current template stays published."""
    reference = f"{registry.address}/lab/clock{days}:latest"
    with Syncd(tmp_path / "syncd", [reference], server=AT_ONCE) as daemon:
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
        assert_sound(daemon, pushed.template_name)
