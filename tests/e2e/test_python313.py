"""The unit tests under Debian 13's own Python: the release that Proxmox VE 9 is built on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.command import CACHE, CHECKOUT, run
from tests.e2e.debian import debian_root

PACKAGES = ("ca-certificates", "git", "python3", "python3-venv", "zstd")

LEFT_OUT = (".venv", ".e2e", ".demo", ".git", ".*_cache", ".hypothesis", "__pycache__")

SCRIPT = """\
set -eu
cd /checkout
python3 -c 'import sys; assert sys.version_info[:2] == (3, 13), sys.version'
python3 -m venv .venv
.venv/bin/pip install --quiet --require-hashes -r requirements-dev.txt
.venv/bin/pip install --quiet --no-deps --no-build-isolation --editable .
.venv/bin/python -m pytest
"""


def test_unit_tests(tmp_path: Path) -> None:
    """What passes under Python 3.11 passes under Debian 13's Python as well."""
    root = tmp_path / "root"
    root.mkdir()
    run("tar", "-C", root, "-xpf", debian_root(PACKAGES))
    shutil.copytree(CHECKOUT, root / "checkout", ignore=shutil.ignore_patterns(*LEFT_OUT))
    pip_cache = CACHE / "pip"
    pip_cache.mkdir(exist_ok=True)
    said = run(
        *("systemd-nspawn", "--quiet", "--directory", root, "--as-pid2", "--register=no"),
        *("--keep-unit", "--console=pipe", "--resolv-conf=replace-host", "--timezone=off"),
        *_way_to_the_index(),
        *(f"--bind={pip_cache}:/var/cache/pip", "--setenv=PIP_CACHE_DIR=/var/cache/pip"),
        *("/bin/sh", "-c", SCRIPT),
        timeout=420,
    )
    assert " passed" in said.splitlines()[-1]


def _way_to_the_index() -> Iterator[str]:
    """Yield what gives the container this machine's own way to the package index.

    That is pip's configuration, the variables that name an index, a proxy or certificates, and
    the files and folders they name, at the same paths.
    """
    paths = {Path("/etc/pip.conf"), Path("/etc/xdg/pip"), Path("/etc/ssl/certs")}
    for name, value in os.environ.items():
        known = name.startswith("PIP_") or name.lower().endswith("_proxy")
        if known or name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
            yield f"--setenv={name}={value}"
            paths |= {Path(word) for word in value.split() if word.startswith("/")}
    for path in sorted(paths):
        if path.exists():
            yield f"--bind-ro={path.resolve()}:{path}"
