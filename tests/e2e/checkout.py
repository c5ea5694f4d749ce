"""The checkout, in a Debian root or as a package, and programs that run there and use pip.

What runs inside reaches the package index the way this machine does; no index is named here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.command import CACHE, CHECKOUT, alone_with, run
from tests.e2e.debian import SUITE, debian_root

LEFT_OUT = (".venv", ".e2e", ".demo", ".git", "dist", ".*_cache", ".hypothesis", "__pycache__")


def unpack(packages: tuple[str, ...], root: Path, suite: str = SUITE) -> Path:
    """Make `root` a Debian, 13 or `suite`, with `packages` and the checkout as /checkout."""
    root.mkdir(parents=True)
    run("tar", "-C", root, "-xpf", debian_root(packages, suite))
    shutil.copytree(CHECKOUT, root / "checkout", ignore=shutil.ignore_patterns(*LEFT_OUT))
    return root


def package(folder: Path) -> Path:
    """Build the Debian package as `make deb` does; return a copy of it in `folder`."""
    made = CHECKOUT / "dist"
    with alone_with("dist"):
        for old in made.glob("syncd_*.deb"):
            old.unlink()
        run("make", "--quiet", "deb", cwd=CHECKOUT, timeout=600)
        (built,) = made.glob("syncd_*.deb")
        return Path(shutil.copy(built, folder))


def run_inside(root: Path, script: str, timeout: float) -> str:
    """Run a shell script in /checkout of a root that is not booted; return its standard output.

    Raise CommandError when it fails or takes longer than `timeout` seconds.
    """
    pip_cache = CACHE / "pip"
    pip_cache.mkdir(exist_ok=True)
    return run(
        *("systemd-nspawn", "--quiet", "--directory", root, "--as-pid2", "--register=no"),
        *("--keep-unit", "--console=pipe", "--resolv-conf=replace-host", "--timezone=off"),
        *_way_to_the_index(),
        *(f"--bind={pip_cache}:/var/cache/pip", "--setenv=PIP_CACHE_DIR=/var/cache/pip"),
        *("--chdir=/checkout", "/bin/sh", "-euc", script),
        timeout=timeout,
    )


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
