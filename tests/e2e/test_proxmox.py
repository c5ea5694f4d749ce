"""From a real registry into the double of a Proxmox VE cluster, by `syncd` as a process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters import TOKEN, names_on, token_for, uploads
from tests.e2e.command import attempt, run
from tests.e2e.conftest import Image
from tests.e2e.daemon import SYNCD
from tests.fakes.pve import Pve
from tests.fakes.pve_schema import assert_contract

CONFIG = """\
[state]
directory = "{folder}/state"
[[registry]]
host = "{registry}"
plain_http = true
[[image]]
repository = "{repository}"
tags = ["latest"]
[[target]]
name = "cluster"
type = "proxmox"
endpoints = ["https://127.0.0.1:{port}"]
token_id = "{token}"
token_secret_file = "{folder}/secret"
ca_file = "{ca}"
storage = "local"
"""


@pytest.fixture(params=["9.2.11", "8.4.5"])
def pve(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pve]:
    """Serve a cluster of each version."""
    root = tmp_path / "pve"
    root.mkdir()
    with Pve(root, version=request.param) as serving:
        yield serving
    assert_contract(serving)


def test_synced(pve: Pve, small: Image, tmp_path: Path) -> None:
    """An image gets to every node under the web UI's name, once; `check` and `resolve` see it."""
    repository = small.reference.rpartition(":")[0]
    (tmp_path / "secret").write_text(token_for(pve).secret)
    (tmp_path / "secret").chmod(0o600)
    config = tmp_path / "syncd.toml"
    config.write_text(
        CONFIG.format(
            folder=tmp_path,
            registry=repository.partition("/")[0],
            repository=repository,
            port=pve.port,
            token=TOKEN,
            ca=pve.certificate.file,
        )
    )
    run(SYNCD, "--config", config, "check")
    run(SYNCD, "--config", config, "sync")
    name = small.template_name
    if pve.cluster.version.startswith("9"):
        name = name.removesuffix(".zst")
    assert [names_on(pve, "local", node) for node in ("pve1", "pve2")] == [[name]] * 2
    run(SYNCD, "--config", config, "sync")
    assert len(uploads(pve)) == 2
    resolved = run(SYNCD, "--config", config, "resolve", small.reference)
    assert f"local:vztmpl/{name}" in resolved
    status = json.loads(run(SYNCD, "--config", config, "status", "--json"))
    assert name in json.dumps(status)
    pve.cluster.tokens[TOKEN].acl["/storage"] = frozenset({"Datastore.Audit"})
    denied = attempt(SYNCD, "--config", config, "check")
    assert denied.returncode == 1
    assert "pveum" in denied.stdout + denied.stderr
