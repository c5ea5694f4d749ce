"""A release is built from a tag, by steps that can do little, and says what the changelog says."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
RELEASE: dict[Any, Any] = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
BUILD, PUBLISH = RELEASE["jobs"]["build"], RELEASE["jobs"]["publish"]


def step(job: dict[str, Any], word: str) -> dict[str, Any]:
    """Return the step of a job whose name or action begins with a word."""
    (found,) = (
        each
        for each in job["steps"]
        if each.get("name", "").startswith(word) or each.get("uses", "").startswith(word)
    )
    return dict(found)


def test_when() -> None:
    """Tags of versions release, and nothing else."""
    assert RELEASE[True] == {"push": {"tags": ["v[0-9]*"]}}  # YAML 1.1 reads `on` as True


def test_permissions() -> None:
    """What runs the project's code may read it alone; what writes and attests runs none of it."""
    assert RELEASE["permissions"] == {}
    assert BUILD["permissions"] == {"contents": "read"}
    assert PUBLISH["permissions"] == {
        "contents": "write",
        "id-token": "write",
        "attestations": "write",
    }
    assert "make" not in " ".join(each.get("run", "") for each in PUBLISH["steps"])
    assert PUBLISH["needs"] == "build"


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_pinned(workflow: Path) -> None:
    """Every action of others is pinned to a commit, with its version beside it."""
    for line in re.findall(r"uses: (.+)", workflow.read_text()):
        own = line.startswith("./")
        assert own or re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_built_and_attested() -> None:
    """What is attached is what was built, for both architectures, and attested before."""
    assert step(BUILD, "Build the wheel")["run"] == "make wheel deb"
    assert BUILD["strategy"]["matrix"]["runner"] == ["ubuntu-24.04", "ubuntu-24.04-arm"]
    assert step(BUILD, "actions/upload-artifact")["with"]["path"] == "dist/"
    assert step(PUBLISH, "actions/download-artifact")["with"]["path"] == "dist"
    attest = step(PUBLISH, "actions/attest-build-provenance")
    assert attest["with"] == {"subject-path": "dist/*"}
    publish = step(PUBLISH, "Publish")
    assert publish["run"].split()[-1] == "dist/*"
    assert PUBLISH["steps"].index(attest) < PUBLISH["steps"].index(publish)


CHANGELOG = (
    "# Changelog\n\n## [Unreleased]\n\n- new\n\n## [1.2.3] - 2026-11-27\n\n### Added\n\n- one\n\n"
)
OLDER = "## [1.2.2]\n\n- old\n"


@pytest.mark.parametrize(
    ("tag", "notes"),
    [("v1.2.3", "\n### Added\n\n- one\n\n"), ("v1.2.2", "\n- old\n"), ("v1.2", None)],
)
def test_notes(tag: str, notes: str | None, tmp_path: Path) -> None:
    """The notes are the changelog's section of the version; without one there is no release."""
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG + OLDER)
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist/a.whl").write_text("wheel")
    script = step(PUBLISH, "Take the notes")["run"]
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "GITHUB_REF_NAME": tag},
        capture_output=True,
        check=False,
    )
    assert (done.returncode == 0) == (notes is not None), done.stderr
    if notes is not None:
        assert (tmp_path / "notes.md").read_text() == notes
        assert (tmp_path / "dist/SHA256SUMS").read_text().endswith("  a.whl\n")


def test_build_requirements() -> None:
    """`make install` builds with the versions, and the hashes, that the tests were run with."""
    pins = (ROOT / "requirements-build.txt").read_text()
    known = (ROOT / "requirements-dev.txt").read_text()
    names = re.findall(r"^([a-z-]+==\S+)", pins, re.MULTILINE)
    assert {"hatchling", "hatch-vcs"} < {name.partition("==")[0] for name in names}
    for line in (*names, *re.findall(r"sha256:[0-9a-f]{64}", pins)):
        assert line in known, line
