"""Debian root file systems, made by mmdebstrap from the mirror that this machine itself uses.

No mirror is named here: it is read from apt's sources, in either of the two forms of
sources.list(5), so that the tests run wherever `apt-get install` does.
"""

from __future__ import annotations

import hashlib
import platform
import re
from pathlib import Path

from tests.e2e.command import CACHE, CommandError, making, run

SUITE = "trixie"

_ONE_LINE = re.compile(r"^deb\s+(?:\[[^]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<rest>.+)$")


def mirror(sources: Path = Path("/etc/apt")) -> str:
    """Return the URI of the Debian archive among apt's sources below `sources`.

    The archive is where this release's own suite has a component `main`.  Others publish under
    such names too, so a URI that ends in `/debian`, as the mirrors' do, goes first.  Raise
    CommandError when there is none.
    """
    found = []
    for file in [sources / "sources.list", *sorted((sources / "sources.list.d").glob("*"))]:
        if file.is_file():
            entries = _deb822(file) if file.suffix == ".sources" else _one_line(file)
            found += [
                uri
                for uri, suites, components in entries
                if release() in suites and "main" in components
            ]
    if not found:
        raise CommandError(f"no Debian archive for {release()} among the apt sources of {sources}")
    return min(found, key=lambda uri: not uri.rstrip("/").endswith("/debian"))


def release() -> str:
    """Return the code name of the release that this machine runs."""
    return platform.freedesktop_os_release()["VERSION_CODENAME"]


def debian_root(
    packages: tuple[str, ...], suite: str = SUITE, options: tuple[str, ...] = ()
) -> Path:
    """Return the tar of a minimal Debian, 13 or `suite`, made once for each set of arguments.

    `options` are mmdebstrap's.
    """
    name = hashlib.sha256(",".join((*packages, *options)).encode()).hexdigest()[:12]
    tar = CACHE / f"{suite}-{name}.tar"
    with making(tar) as missing:
        if missing:
            growing = tar.with_name(f"growing-{tar.name}")
            growing.unlink(missing_ok=True)  # a program that outlived its test may still write it
            include = (f"--include={','.join(packages)}",) if packages else ()
            how = ("--variant=minbase", *options, *include)
            run("mmdebstrap", *how, suite, growing, mirror(), timeout=600)
            growing.rename(tar)
    return tar


def _one_line(file: Path) -> list[tuple[str, list[str], list[str]]]:
    found = (_ONE_LINE.match(line.strip()) for line in file.read_text().splitlines())
    return [(entry["uri"], [entry["suite"]], entry["rest"].split()) for entry in found if entry]


def _deb822(file: Path) -> list[tuple[str, list[str], list[str]]]:
    entries = []
    for stanza in re.split(r"\n\s*\n", file.read_text()):
        text = "\n".join(line for line in stanza.splitlines() if not line.startswith("#"))
        fields = {
            name.lower(): value.split()
            for name, value in re.findall(r"^([\w-]+):((?:.*)(?:\n[ \t].*)*)", text, re.MULTILINE)
        }
        if "deb" in fields.get("types", []) and fields.get("enabled", ["yes"]) != ["no"]:
            suites, components = fields.get("suites", []), fields.get("components", [])
            entries += [(uri, suites, components) for uri in fields.get("uris", [])]
    return entries
