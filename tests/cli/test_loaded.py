"""What a command loads: only what it needs, because loading is most of a short command's time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from syncd.config.load import load_config
from syncd.sync.ledger import Ledger
from tests.fakes.registry import Registry
from tests.harness import configure

HEAVY = {"aiohttp", "apprise", "apscheduler", "oras", "prometheus_client", "proxmoxer", "requests"}


def run(*arguments: str) -> tuple[str, set[str]]:
    """Run Python; return what it printed, and the names of the modules that it loaded."""
    command = [sys.executable, "-X", "importtime", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in ended.stderr.splitlines() if line.startswith("import time:")]
    return ended.stdout, {line.rpartition("|")[2].strip() for line in lines}


@pytest.fixture
def config(tmp_path: Path, registry: Registry) -> Path:
    """Return a configuration whose ledger exists."""
    path = configure(tmp_path, registry)
    Ledger(load_config(path).state.directory / "ledger.sqlite").close()
    return path


def test_status(config: Path) -> None:
    """`syncd status` loads no HTTP server and no client of a registry or a cluster."""
    printed, loaded = run("-m", "syncd", "--config", str(config), "status", "--json")
    assert json.loads(printed) == {"conditions": [], "templates": [], "jobs": []}
    assert "sqlite3" in loaded
    assert loaded & HEAVY == set()


def test_sync_package() -> None:
    """The package `sync` loads no HTTP server and no client of a registry or a cluster."""
    _, loaded = run("-c", "import syncd.sync")
    assert "syncd.sync.views" in loaded
    assert loaded & HEAVY == set()
