"""Images that ask for all memory, given to a daemon within the memory that its unit gives it.

The image is a few kilobytes large and implies two million folders (`tests.convert.hungry`).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.convert import hungry
from tests.e2e.cgroup import MemoryBound
from tests.e2e.command import files_below
from tests.e2e.conftest import Image
from tests.e2e.daemon import Syncd
from tests.e2e.image import Layout
from tests.e2e.registry import Registry

MEMORY_MAX = 512 << 20  # of systemd/syncd.service
DEATHS = 3


@pytest.fixture(scope="module")
def poison(scratch: Path, registry: Registry) -> list[str]:
    """Push two images that ask for all memory; return their references."""
    references = []
    for number, scale in enumerate((1.0, 0.99)):
        folder = scratch / f"poison{number}"
        hungry.build("implied", scale, folder)
        references.append(f"{registry.address}/acme/poison{number}:latest")
        Layout(folder).push(references[-1])
    return references


def test_within_the_bound(poison: list[str], tmp_path: Path) -> None:
    """With the default bounds such images are refused, two at a time, and nothing is killed."""
    with (
        MemoryBound(MEMORY_MAX) as group,
        Syncd(tmp_path / "syncd", poison, within=group.entering) as daemon,
    ):
        jobs = daemon.request_sync(poison).body["jobs"]
        for job in jobs:
            ended = daemon.finished(job["id"])
            assert ended["outcome"] == "failed"
            assert "raise limits.memory" in ended["message"]
        assert group.kills == 0


def test_beyond_the_bound(
    poison: list[str], small: Image, registry: Registry, tmp_path: Path
) -> None:
    """Where somebody raised the bound beyond the unit's, a conversion dies alone.

    The daemon goes on and serves the images beside it; after three deaths the image is given up.
    """
    with (
        MemoryBound(MEMORY_MAX) as group,
        Syncd(
            tmp_path / "syncd",
            [f"{registry.address}/poison/none:latest"],
            within=group.entering,
            more=["[limits]", 'memory = "8GiB"'],
        ) as daemon,
    ):
        before = daemon.pid
        for death in range(1, DEATHS + 1):
            pushed = small.push(f"{registry.address}/poison/beside{death}:latest")
            (bad,) = daemon.request_sync(poison[:1]).body["jobs"]
            (good,) = daemon.request_sync([pushed.reference]).body["jobs"]
            assert daemon.finished(good["id"])["outcome"] == "published"
            ended = daemon.finished(bad["id"])
            assert ended["outcome"] == "failed"
            assert "was killed (SIGKILL), most likely since memory ran out" in ended["message"]
            assert ("given up" in ended["message"]) is (death == DEATHS)
            assert group.kills == death
            assert daemon.pid == before
            assert daemon.ask("GET", "/healthz").status == 200
            assert len(daemon.templates) == death
            assert files_below(daemon.spool) == set()
        assert daemon.run("status", "--json").returncode == 0
