"""Run every measure and print a table: `python -m bench`, as root, about a quarter of an hour.

The peers' pipeline is `skopeo copy`, `umoci unpack` and `tar | zstd -3 -T0`.  Each figure is a
median over several runs, taken in turn with what it is compared with, so that a machine whose speed
drifts drifts under both.  Nothing here passes or fails.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import Request, urlopen

from rich.table import Table

from bench import image, limit, parts
from bench.measure import FOLDER, RUNS, SYNCD, add, console, job_time, peak_memory, removed, timed
from syncd.cli.logs import set_up_logs
from syncd.config.settings import Config
from syncd.oci.reference import Reference
from syncd.progress import Silence
from syncd.service import LiveConfig, assemble
from syncd.service.schedule import Schedule
from syncd.sync.job import Cause
from tests import images
from tests.e2e.command import run
from tests.e2e.daemon import Syncd
from tests.e2e.debian import debian_root
from tests.e2e.registry import Registry
from tests.e2e.trixie import CHUNKED, Trixie

TAGS = 1000
PACKAGES = ("systemd-sysv", "sssd", "openssh-server", "python3", "nodejs", "git", "g++", "vim")


def main() -> None:
    """Measure and print."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    os.chdir(FOLDER)
    table = Table("measure", "syncd", "compared with", "theirs", "ratio", "to reach", box=None)
    with Registry(FOLDER / "registry") as registry:
        push(registry)
        first(registry, table)
        single(registry, table)
        later(registry, table)
        parts.by_parts(registry, table)
        parts.through_a_line(registry, table)
        tag(registry, TAGS)
        asyncio.run(sweep(registry.address, table))
    memory(table)
    console.print(table)
    shutil.rmtree(FOLDER)


def push(registry: Registry) -> None:
    """Make the images and put them into the registry."""
    console.print("making the images from a Debian 13 root file system ...")
    root = debian_root(PACKAGES)
    layers = image.stack(root)
    images.write_layout(
        FOLDER / "layout",
        {
            "first": images.image(*layers),
            "single": images.image(*image.stack(root, layers=1)),
            "topped": images.image(*layers, image.small_layer()),
            "rebuilt": images.image(*image.rebuilt(root)),
            "tiny": images.image(image.small_layer()),
        },
    )
    for name in ("first", "single", "topped", "rebuilt", "tiny"):
        push_one(name, f"{registry.address}/bench/image:{name}")
    console.print("recompressing them as zstd:chunked with Debian 13's skopeo ...")
    trixie = Trixie()
    trixie.empty()
    for name in ("first", "rebuilt"):
        reference = f"{registry.address}/{parts.IMAGE}:{name}"
        trixie.push(FOLDER / "layout", name, reference, *CHUNKED)
    trixie.push(FOLDER / "layout", "tiny", f"{registry.address}/{parts.IMAGE}:tiny")
    trixie.empty()
    size = sum(len(layer.plain) for layer in layers)
    console.print(f"{len(layers)} gzip layers, {size >> 20} MiB of tar; level 3; {RUNS} runs each")


def push_one(name: str, reference: str) -> None:
    source = f"oci:{FOLDER / 'layout'}:{name}"
    run("skopeo", "copy", "-q", "--dest-tls-verify=false", source, f"docker://{reference}")


def first(registry: Registry, table: Table) -> None:
    """Registry to template, against the pipeline of peers and against the libraries alone."""
    ours, theirs, least = list[float](), list[float](), list[float]()
    for _ in range(RUNS):
        pair(f"{registry.address}/bench/image:first", ours, theirs)
        least.append(limit.seconds(FOLDER / "layout", "first") / (os.cpu_count() or 1))
    add(table, "registry to template", ours, ("the pipeline", theirs), "4.5")
    add(table, "the same", ours, ("libraries' cpu / cores", least), "0.77")
    sizes = [Path(made).stat().st_size / 1e6 for made in ("ours.tar.zst", "peer.tar.zst")]
    add(table, "size of it", [sizes[0]], ("the pipeline's", [sizes[1]]), "", unit="MB")


def single(registry: Registry, table: Table) -> None:
    """Do the same where one layer holds everything."""
    ours, theirs = list[float](), list[float]()
    for _ in range(RUNS):
        pair(f"{registry.address}/bench/image:single", ours, theirs)
    add(table, "an image of one layer", ours, ("the pipeline", theirs), "")


def later(registry: Registry, table: Table) -> None:
    """Do what the daemon does: a first sync, nothing new, a new top layer, a weekly rebuild."""
    repository = f"{registry.address}/bench/image"
    ours: dict[str, list[float]] = {"first": [], "unchanged": [], "topped": [], "rebuilt": []}
    theirs = []
    for nth in range(RUNS):
        with Syncd(FOLDER / f"daemon{nth}", [f"{repository}:tiny"]) as daemon:
            for name, times in ours.items():
                wanted = "first" if name == "unchanged" else name
                times.append(job_time(daemon, f"{repository}:{wanted}"))
        removed(FOLDER / f"daemon{nth}")
        clean()
        theirs.append(timed(lambda: pipeline(f"{repository}:topped")))
    add(table, "first sync of the daemon", ours["first"], ("the pipeline", theirs), "")
    add(table, "a small layer more", ours["topped"], ("the pipeline", theirs), "10")
    add(
        table,
        "weekly rebuild, 2 % changed",
        ours["rebuilt"],
        ("the first sync", ours["first"]),
        "2",
    )
    add(table, "unchanged", ours["unchanged"], ("the bound", [0.05]), "1")


async def sweep(address: str, table: Table) -> None:
    """Look at a thousand unchanged tags."""
    reference = Reference.parse(f"{address}/bench/many")
    set_up_logs(level=logging.CRITICAL)
    services = assemble(LiveConfig(settings(reference)), lambda _: Silence())
    schedule = Schedule(services)
    (job,) = await services.worker.submit([reference], Cause.CLI)
    await services.worker.finished(job)
    jobs = len(services.ledger.jobs(2 * TAGS))
    ours = []
    for _ in range(RUNS):
        began = time.perf_counter()
        await schedule.sweep()
        ours.append(time.perf_counter() - began)
    assert len(services.ledger.jobs(2 * TAGS)) == jobs > TAGS
    await services.close()
    add(table, f"sweep of {TAGS} unchanged tags", ours, ("the bound", [5.0]), "1")


def tag(registry: Registry, count: int) -> None:
    """Give a tiny image so many tags: one blob, pushed once, and a manifest under each name."""
    push_one("tiny", f"{registry.address}/bench/many:0")
    url = f"http://{registry.address}/v2/bench/many/manifests"
    kind = "application/vnd.oci.image.manifest.v1+json"
    with urlopen(Request(f"{url}/0", headers={"Accept": kind})) as answer:
        manifest = answer.read()
    for nth in range(1, count):
        headers = {"Content-Type": kind}
        urlopen(Request(f"{url}/{nth}", manifest, headers, method="PUT")).close()


def memory(table: Table) -> None:
    """Peak memory of a conversion of the 550 MiB image, and of one of 10 GiB."""
    small = peak(f"oci:{FOLDER / 'layout'}:first")
    large = peak(f"oci:{image.large_layout(FOLDER / 'large', 10 << 30)}")
    against = ("a 10 GiB image", [large])
    add(table, "peak memory, 550 MiB image", [small], against, "0.8 to 1.2", unit="MiB")


def pair(reference: str, ours: list[float], theirs: list[float]) -> None:
    """Time one conversion, and the pipeline."""
    clean()
    ours.append(timed(lambda: convert(reference)))
    theirs.append(timed(lambda: pipeline(reference)))


def convert(reference: str) -> None:
    run(SYNCD, "convert", "--plain-http", "--json", reference, "ours.tar.zst")


def settings(watched: Reference) -> Config:
    """Return a configuration that watches every tag of a repository."""
    return Config.model_validate(
        {
            "state": {"directory": "sweep-state"},
            "registry": [{"host": watched.registry, "plain_http": True}],
            "image": [{"repository": watched.name, "tags": ["re:."], "keep": 1000}],
            "target": [{"name": "local", "type": "directory", "path": "sweep-storage"}],
        }
    )


def pipeline(reference: str) -> None:
    """Do the job with the peers, as root, as an administrator would write it."""
    run("skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{reference}", "oci:peer:x")
    run("umoci", "unpack", "--image", "peer:x", "bundle")
    run("sh", "-c", "tar -C bundle/rootfs -cf - . | zstd -q -3 -T0 -f -o peer.tar.zst")


def clean() -> None:
    """Remove what the last runs made, so that no clock runs while it goes."""
    for leftover in (Path("ours.tar.zst"), Path("peer.tar.zst")):
        leftover.unlink(missing_ok=True)
    shutil.rmtree("peer", ignore_errors=True)
    removed(Path("bundle"))


def peak(source: str) -> float:
    """Return the peak memory of one conversion in MiB."""
    return peak_memory(SYNCD, "convert", "--json", source, "peak.tar.zst")


if __name__ == "__main__":
    try:
        main()
    except subprocess.SubprocessError as exc:
        sys.exit(str(exc))
