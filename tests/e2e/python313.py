"""The unit tests under Debian 13's own Python: the release that Proxmox VE 9 is built on.

By `make python313`: they take as long again as in `make check`, and GitHub runs them under each
Python on every change.  `make e2e` has the package under that Python, installed on Debian 13.
"""

from __future__ import annotations

from pathlib import Path

from tests.e2e import checkout

PACKAGES = ("ca-certificates", "git", "python3", "python3-venv", "zstd")

SCRIPT = """\
python3 -c 'import sys; assert sys.version_info[:2] == (3, 13), sys.version'
python3 -m venv .venv
.venv/bin/pip install --quiet --require-hashes -r requirements-dev.txt
.venv/bin/pip install --quiet --no-deps --no-build-isolation --editable .
.venv/bin/python -m pytest --numprocesses=auto
"""


def test_unit_tests(tmp_path: Path) -> None:
    """What passes under Python 3.11 passes under Debian 13's Python as well."""
    root = checkout.unpack(PACKAGES, tmp_path / "root")
    said = checkout.run_inside(root, SCRIPT, timeout=3600)
    assert " passed" in said.splitlines()[-1]
