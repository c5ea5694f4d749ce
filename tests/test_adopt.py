"""`docs/adopt.md` followed to the letter, on a repository laid out as opensource-server is.

The lines are those of its Dockerfiles that name images, as its main branch had them in 2026
(https://github.com/mieweb/opensource-server/tree/main/images).  That the workflow runs in a
repository that adopted it is shown by `tests/e2e/test_workflow.py`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import ROOT, blocks

THEIRS = {
    "agent": "FROM nodejs\nCOPY ./images/agent/nginx.logrotate /etc/logrotate.d/nginx\n"
    "COPY --from=builder /dist/opensource-agent_*.deb /tmp/debs/\n",
    "base": "# syntax=docker/dockerfile:1\nFROM debian:13 AS builder\nFROM scratch\n"
    "COPY --from=builder /rootfs /\n",
    "builder": "# syntax=docker/dockerfile:1\nFROM debian:13 AS build\nCOPY . /usr/src/x\n"
    "FROM scratch\nCOPY --from=build /usr/src/x/dist /dist\n",
    "cloud": "FROM golang:1.24-trixie AS minio\nFROM debian:13 AS libsqld\nFROM nodejs\n"
    "COPY --from=minio /out/minio /usr/local/bin/minio\n",
    "docker": "# syntax=docker/dockerfile:1\nFROM base\n",
    "docs": "FROM base\nCOPY --from=builder /dist/opensource-docs_*.deb /tmp/debs/\n",
    "manager": "FROM agent\nCOPY --from=builder /dist/opensource-docs_*.deb /tmp/debs/\n",
    "nodejs": "# syntax=docker/dockerfile:1\n"
    "FROM ghcr.io/mieweb/opensource-server/base:latest AS base\n",
    "proxmox-ve": "FROM debian:13\nCOPY pve-install-repo.sources /etc/apt/sources.list.d/\n",
}
COPYING, *REWRITING = [block.text for block in blocks("sh") if block.page.name == "adopt.md"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a checkout of theirs, with one of this repository beside it."""
    (tmp_path / "syncd").symlink_to(ROOT)
    folder = tmp_path / "opensource-server"
    for name, dockerfile in THEIRS.items():
        (folder / "images" / name).mkdir(parents=True)
        (folder / "images" / name / "Dockerfile").write_text(dockerfile)
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    url = "https://github.com/mieweb/opensource-server.git"
    for words in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "--all"],
        ["commit", "--quiet", "--message=Theirs"],
        ["remote", "add", "origin", url],
    ):
        subprocess.run(["git", *who, *words], cwd=folder, check=True)
    return folder


def shell(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run a block of the page."""
    return subprocess.run(
        ["/bin/sh", "-euc", text], cwd=folder, capture_output=True, text=True, check=False
    )


def test_refused_as_it_is(repository: Path) -> None:
    """After copying, the plan says what in their Dockerfiles it cannot see, and where."""
    done = shell(repository, COPYING)
    assert done.returncode == 1
    assert done.stderr.startswith("plan: images/agent/Dockerfile:1: nodejs is the Docker Hub's")


def test_adopted(repository: Path) -> None:
    """After the page's commands the plan has every image, on what it builds on in their bake."""
    shell(repository, COPYING)
    for text in REWRITING:
        done = shell(repository, text)
        assert done.returncode == 0, done.stderr
    planned = subprocess.run(
        [sys.executable, "-m", "images.plan"], cwd=repository, capture_output=True, check=True
    )
    levels = json.loads(planned.stdout)["levels"]
    on = {
        image["name"]: {parent["name"]: parent["is_base"] for parent in image["parents"]}
        for level in levels
        for image in level
    }
    assert on == {
        "base": {},
        "builder": {},
        "proxmox-ve": {},
        "docker": {"base": True},
        "docs": {"base": True, "builder": False},
        "nodejs": {"base": True},
        "agent": {"nodejs": True, "builder": False},
        "cloud": {"nodejs": True},
        "docker-nodejs": {"nodejs": True},
        "manager": {"agent": True, "builder": False},
    }
    assert len(levels) == 4
    whole = {image["name"] for level in levels for image in level if image["context"] == "."}
    assert whole == {"agent", "builder", "docs", "manager"}
    base = (repository / "images/base/Dockerfile").read_text()
    assert base == THEIRS["base"]


def test_what_is_copied(repository: Path) -> None:
    """What the page copies is all that the workflows use of this repository."""
    shell(repository, COPYING)
    for workflow in ("build-images.yml", "build-level.yml"):
        copied = repository / ".github/workflows" / workflow
        assert copied.read_text() == (ROOT / ".github/workflows" / workflow).read_text()
    for file in ("images/.grype.yaml", "images/findings.toml", "images/findings.py"):
        assert (repository / file).exists()
    report = repository / "report.json"
    report.write_text('{"matches": []}')
    done = shell(repository, "python3 -m images.findings report.json")
    assert done.stdout == "No critical findings.\n"
