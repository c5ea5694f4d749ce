"""podman as a peer: it pulls zstd:chunked layers by parts, too, into a storage of its own.

It unpacks files and makes no template, so it does less.  Debian 13 has a version that can.
"""

from __future__ import annotations

from bench.measure import console, timed
from tests.e2e.command import CommandError
from tests.e2e.registry import Registry
from tests.e2e.trixie import Trixie

PACKAGES = ("podman", "netavark", "ca-certificates", "crun")
_STORAGE = """\
[storage]
driver = "overlay"
runroot = "/srv/run"
graphroot = "/srv/storage"
[storage.options]
pull_options = {enable_partial_images = "true"}
"""
"""Source: containers-storage.conf(5)."""


def rebuilt(registry: Registry, repository: str, runs: int) -> tuple[list[float], list[float]]:
    """Pull the image, and then its rebuild; return the seconds and megabytes of the latter.

    A run that podman does not finish is left out: 5.4 fails now and then to find a folder that
    another layer brings ("copy content to ...: openat2 ...: no such file or directory").
    """
    trixie = Trixie(PACKAGES)
    (trixie.root / "etc/containers/storage.conf").write_text(_STORAGE)
    pull = ("podman", "pull", "--quiet", "--tls-verify=false")
    times, served = list[float](), list[float]()
    for _ in range(runs):
        trixie.empty()
        try:
            trixie.run(*pull, f"{repository}:first")
            since = registry.mark()
            times.append(timed(lambda: trixie.run(*pull, f"{repository}:rebuilt")))
        except CommandError as exc:
            console.print(f"podman failed: {str(exc).strip().splitlines()[-1]}")
            continue
        served.append(sum(one.size for one in registry.requests("GET", "/blobs/", since)) / 1e6)
    trixie.empty()
    return times, served
