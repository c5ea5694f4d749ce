"""Layers as zstd:chunked, of which a weekly rebuild fetches only the new parts.

Beside each measure is, in turn, what the same image costs with gzip layers, which are whole.
"""

from __future__ import annotations

from rich.table import Table

from bench import podman
from bench.line import line_to
from bench.measure import FOLDER, RUNS, SYNCD, add, job_time, peak_memory, removed
from tests.e2e.daemon import Syncd
from tests.e2e.registry import Registry

GZIP, IMAGE = "bench/image", "bench/chunked"
"""The repositories of the two forms: each has the tags `tiny`, `first` and `rebuilt`."""


def by_parts(registry: Registry, table: Table) -> None:
    """Have the daemon sync the image and its rebuild."""
    times: dict[str, list[float]] = {name: [] for name in ("gzip", "gzip again", "first", "again")}
    served: dict[str, list[float]] = {name: [] for name in times}
    made: dict[str, bytes] = {}
    for _ in range(RUNS):
        for kind, repository in (("gzip", GZIP), ("first", IMAGE)):
            names = (kind, "gzip again" if kind == "gzip" else "again")
            folder = FOLDER / "parts"
            with Syncd(folder, [f"{registry.address}/{repository}:tiny"]) as daemon:
                for name, tag in zip(names, ("first", "rebuilt"), strict=True):
                    since = registry.mark()
                    times[name].append(job_time(daemon, f"{registry.address}/{repository}:{tag}"))
                    sizes = [one.size for one in registry.requests("GET", "/blobs/", since)]
                    served[name].append(sum(sizes) / 1e6)
                newest = max(daemon.templates, key=lambda path: path.stat().st_mtime_ns)
                made[kind] = newest.read_bytes()
            removed(folder)
    same = "identical" if made["gzip"] == made["first"] else "DIFFERENT"
    against = ("the gzip image", served["gzip again"])
    add(table, "weekly rebuild by parts: bytes", served["again"], against, "50", unit="MB")
    add(
        table, f"the same, wall ({same})", times["again"], ("its first sync", times["first"]), "2.5"
    )
    add(table, "the same", times["again"], ("the gzip rebuild", times["gzip again"]), "")
    against = ("the gzip image", times["gzip"])
    add(table, "first sync of zstd:chunked", times["first"], against, "1")
    seconds, megabytes = podman.rebuilt(registry, f"{registry.address}/{IMAGE}", RUNS)
    if seconds:
        against = ("podman's pull", megabytes)
        add(table, "by parts, beside podman: bytes", served["again"], against, "", unit="MB")
        against = ("podman's pull, no template", seconds)
        add(table, "the same, wall", times["again"], against, "")
    peaks = {
        name: [
            peak_of_sync(f"{registry.address}/{repository}", tag) for tag in ("first", "rebuilt")
        ]
        for name, repository in (("gzip", GZIP), ("chunked", IMAGE))
    }
    for nth, row in enumerate(("peak memory, first sync of zstd:chunked", "the same, by parts")):
        against = ("with gzip", [peaks["gzip"][nth]])
        add(table, row, [peaks["chunked"][nth]], against, "1", unit="MiB")


def through_a_line(registry: Registry, table: Table) -> None:
    """Have the daemon sync the rebuild through a line as an office has it."""
    times: dict[str, list[float]] = {GZIP: [], IMAGE: []}
    for _ in range(RUNS):
        for repository, found in times.items():
            folder = FOLDER / "line"
            watched = [f"{registry.address}/{repository}:{tag}" for tag in ("tiny", "first")]
            with (
                line_to(registry.address) as near,
                Syncd(folder, watched, hosts=[near]) as daemon,
            ):
                found.append(job_time(daemon, f"{near}/{repository}:rebuilt"))
            removed(folder)
    against = ("the gzip image", times[GZIP])
    add(table, "weekly rebuild, 100 Mbit/s and 20 ms", times[IMAGE], against, "10")


def peak_of_sync(repository: str, tag: str) -> float:
    """Return the peak memory in MiB of a sync, in a folder that its rebuild goes on with."""
    folder = FOLDER / "peak" / repository.rpartition("/")[2]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "syncd.toml").write_text(
        f'''[state]
directory = "{folder}/state"
[[registry]]
host = "{repository.partition("/")[0]}"
plain_http = true
[[image]]
repository = "{repository}"
tags = ["{tag}"]
[[target]]
name = "local"
type = "directory"
path = "{folder}/storage"
'''
    )
    return peak_memory(SYNCD, "--config", folder / "syncd.toml", "sync", f"{repository}:{tag}")
