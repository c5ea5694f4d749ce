"""Run every measure and print a table: `python -m bench`, as root, about five minutes.

Each figure is a median over several runs, taken in turn with what it is compared with, so that a
machine whose speed drifts drifts under both.  Nothing here passes or fails.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import image, limit
from tests import images
from tests.e2e.command import CACHE, run
from tests.e2e.debian import debian_root
from tests.e2e.registry import Registry

RUNS = 5
PACKAGES = ("systemd-sysv", "sssd", "openssh-server", "python3", "nodejs", "git", "g++", "vim")
SYNCD = Path(sys.executable).with_name("syncd")
FOLDER = CACHE / "bench"

console = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """Measure and print."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    os.chdir(FOLDER)
    table = Table("measure", "syncd", "compared with", "theirs", "ratio", box=None)
    with Registry(FOLDER / "registry") as registry:
        push(registry)
        first(registry, table)
        later(registry, table)
    memory(table)
    console.print(table)
    shutil.rmtree(FOLDER)


def push(registry: Registry) -> None:
    """Make the images and put them into the registry."""
    console.print("making the images from a Debian 13 root file system ...")
    root = debian_root(PACKAGES)
    layers = image.stack(root)
    layout = images.write_layout(
        FOLDER / "layout",
        {
            "first": images.image(*layers),
            "topped": images.image(*layers, image.small_layer()),
            "rebuilt": images.image(*image.rebuilt(root)),
        },
    )
    for tag in ("first", "topped", "rebuilt"):
        run("skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:{tag}",
            f"docker://{registry.address}/bench/image:{tag}")  # fmt: skip
    size = sum(len(layer.plain) for layer in layers)
    console.print(f"{len(layers)} gzip layers, {size >> 20} MiB of tar; level 3; {RUNS} runs each")


def first(registry: Registry, table: Table) -> None:
    """Registry to template, against the pipeline of peers and against the libraries alone."""
    reference = f"{registry.address}/bench/image:first"
    ours, theirs, least = [], [], []
    for _ in range(RUNS):
        ours.append(timed(lambda: convert(reference)))
        theirs.append(timed(lambda: pipeline(reference)))
        least.append(limit.seconds(FOLDER / "layout", "first") / (os.cpu_count() or 1))
    add(table, "registry to template", ours, "skopeo + umoci + tar | zstd -3 -T0", theirs)
    add(table, "the same", ours, "cpu of the libraries alone / cores", least)


def later(registry: Registry, table: Table) -> None:
    """Do what comes after the first conversion: nothing new, a new top layer, a weekly rebuild."""
    repository = f"{registry.address}/bench/image"
    ours: dict[str, list[float]] = {"first": [], "unchanged": [], "topped": [], "rebuilt": []}
    theirs = []
    for _ in range(RUNS):
        shutil.rmtree("syncd-state", ignore_errors=True)
        shutil.rmtree("syncd-storage", ignore_errors=True)
        Path("syncd.toml").write_text(settings(registry.address))
        ours["first"].append(timed(lambda: sync(f"{repository}:first")))
        ours["unchanged"].append(timed(lambda: sync(f"{repository}:first")))
        ours["topped"].append(timed(lambda: sync(f"{repository}:topped")))
        ours["rebuilt"].append(timed(lambda: sync(f"{repository}:rebuilt")))
        theirs.append(timed(lambda: pipeline(f"{repository}:topped")))
    add(table, "a small layer more", ours["topped"], "the pipeline", theirs)
    add(table, "weekly rebuild, 2 % changed", ours["rebuilt"], "our own first sync", ours["first"])
    add(table, "unchanged, with process start", ours["unchanged"], "a process that only starts",
        [timed(lambda: run(SYNCD, "--version")) for _ in range(RUNS)])  # fmt: skip


def memory(table: Table) -> None:
    """Peak memory of a conversion of the 550 MiB image, and of one of 10 GiB."""
    huge = images.write_layout(
        FOLDER / "huge", {"huge": images.image(image.hollow_layer(10 << 30))}
    )
    small = peak(f"oci:{FOLDER / 'layout'}:first")
    large = peak(f"oci:{huge}:huge")
    table.add_row("peak memory, 550 MiB image", f"{small:.0f} MiB", "an image of one 10 GiB file",
                  f"{large:.0f} MiB", f"{large / small:.2f}")  # fmt: skip


def convert(reference: str) -> None:
    run(SYNCD, "convert", "--plain-http", "--json", reference, "ours.tar.zst")


def sync(reference: str) -> None:
    run(SYNCD, "--config", "syncd.toml", "sync", "--json", reference)


def settings(address: str) -> str:
    return (
        '[state]\ndirectory = "syncd-state"\n'
        f'[[registry]]\nhost = "{address}"\nplain_http = true\n'
        '[[target]]\nname = "local"\ntype = "directory"\npath = "syncd-storage"\n'
    )


def pipeline(reference: str) -> None:
    """Do the job with the peers, as root, as an administrator would write it."""
    for leftover in ("peer", "bundle"):
        shutil.rmtree(leftover, ignore_errors=True)
    run("skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{reference}", "oci:peer:x")
    run("umoci", "unpack", "--image", "peer:x", "bundle")
    run("sh", "-c", "tar -C bundle/rootfs -cf - . | zstd -q -3 -T0 -f -o peer.tar.zst")


def peak(source: str) -> float:
    """Return the peak memory of one conversion in MiB."""
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    said = run(sys.executable, "-c", code, SYNCD, "convert", "--json", source, "peak.tar.zst")
    return int(said) / 1024


def timed(act: Callable[[], object]) -> float:
    """Return how long an act takes, in seconds."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def add(table: Table, measure: str, ours: list[float], other: str, theirs: list[float]) -> None:
    mine, their = statistics.median(ours), statistics.median(theirs)
    ratio = f"{their / mine:.2f}"
    table.add_row(measure, f"{mine:.2f} s", other, f"{their:.2f} s", ratio)
    console.print(f"{measure}: {mine:.2f} s, {other}: {their:.2f} s, ratio {ratio}")


if __name__ == "__main__":
    try:
        main()
    except subprocess.SubprocessError as exc:
        sys.exit(str(exc))
