"""The workflow `release.yml`, run on a tag: wheel and package are built, attested and attached.

The job for arm64 is not run, since nothing here is of that architecture; of the tests, which the
workflow runs once more, only a few are.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.e2e.checkout import LEFT_OUT
from tests.e2e.command import CHECKOUT, run
from tests.e2e.github import GitHub, Run
from tests.e2e.registry import Registry

TAG, VERSION = "v1.2.3", "1.2.3"
NOTES = "\n### Added\n\n- What is new.\n\n"
FILES = {f"syncd-{VERSION}-py3-none-any.whl", f"syncd_{VERSION}_amd64.deb", "SHA256SUMS"}


@pytest.fixture(scope="module")
def github(scratch: Path, registry: Registry) -> GitHub:
    """Return a repository with this tree, whose changelog has a version that is tagged."""
    found = GitHub(scratch / "release", "Acme/syncd", registry)
    left_out = shutil.ignore_patterns(*LEFT_OUT, "_version.py")
    shutil.copytree(CHECKOUT, found.work, ignore=left_out, dirs_exist_ok=True)
    changelog = (found.work / "CHANGELOG.md").read_text()
    released = f"## [Unreleased]\n\n## [{VERSION}] - 2026-11-27\n{NOTES}## [1.2.2]"
    found.write("CHANGELOG.md", changelog.replace("## [Unreleased]", released))
    found.commit()
    found.git("tag", TAG)
    found.git("push", "--quiet", "origin", "HEAD:refs/heads/main", f"refs/tags/{TAG}")
    return found


@pytest.fixture(scope="module")
def released(github: GitHub) -> Run:
    """Run the workflow for the tag, with a few of the tests."""
    return github.run_workflow(
        "release.yml",
        "push",
        {"ref": f"refs/tags/{TAG}"},
        ["--matrix=runner:ubuntu-24.04", "--env=PYTEST_ADDOPTS=tests/test_release.py"],
    )


def test_run(released: Run) -> None:
    """The tests pass, and both jobs end well."""
    assert released.jobs == {"build": "success", "publish": "success"}, released.log[-4000:]
    assert re.search(r"\[100%\]", released.log)


def test_release(released: Run, github: GitHub) -> None:
    """The release has the changelog's section, wheel, package, and checksums that fit them."""
    folder = github.folder / "releases" / TAG
    assert (folder / "title").read_text() == f"syncd {VERSION}"
    assert (folder / "notes").read_text() == NOTES
    assert {file.name for file in (folder / "files").iterdir()} == FILES
    run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=folder / "files")


def test_version(released: Run, github: GitHub) -> None:
    """Wheel and package are of the tag's version."""
    files = github.folder / "releases" / TAG / "files"
    with ZipFile(files / f"syncd-{VERSION}-py3-none-any.whl") as wheel:
        metadata = wheel.read(f"syncd-{VERSION}.dist-info/METADATA").decode()
    assert f"\nVersion: {VERSION}\n" in metadata
    version = run("dpkg-deb", "--field", files / f"syncd_{VERSION}_amd64.deb", "Version")
    assert version == f"{VERSION}\n"


def test_attested(released: Run, github: GitHub) -> None:
    """What is attached was attested before, byte for byte."""
    files = github.folder / "releases" / TAG / "files"
    attested = (github.folder / "releases/attested").read_text().splitlines()
    assert sorted(attested) == sorted(
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  dist/{file.name}"
        for file in files.iterdir()
    )
