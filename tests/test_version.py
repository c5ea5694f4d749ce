"""The version is the tag's, and tells the commit where there is no tag; the wheel is complete."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
PACKED = ("syncd", "pyproject.toml", "README.md", "LICENSE")
NO_GIT = "0.1.0.dev0"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a copy of the tree without its history, as an archive of it would be unpacked."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in PACKED:
        left_out = shutil.ignore_patterns("__pycache__", "_version.py")
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=left_out)
        else:
            shutil.copy(ROOT / name, tree)
    shutil.copy(ROOT / ".gitignore", tree)
    return tree


def run(*command: str | Path, cwd: Path) -> str:
    """Run a program that no configuration of this machine's git reaches; return its output."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(
        command, cwd=cwd, env=variables | alone, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def git(tree: Path, *arguments: str) -> str:
    """Run git in the tree."""
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    return run("git", *who, *arguments, cwd=tree)


def built(tree: Path) -> tuple[str, set[str]]:
    """Build the wheel, offline; return the version that it tells when it runs, and its files."""
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", cwd=tree)
    (wheel,) = (tree / "dist").iterdir()
    unpacked = tree.parent / wheel.stem
    with ZipFile(wheel) as archive:
        archive.extractall(unpacked)
        files = set(archive.namelist())
    wheel.unlink()
    program = "import sys; sys.path.insert(0, '.'); import syncd; print(syncd.__version__)"
    version = run(sys.executable, "-c", program, cwd=unpacked)
    assert wheel.name.split("-")[1] == version
    return version, files


def test_without_git(tree: Path) -> None:
    """A tree without history can be built; the wheel has what the program reads (PEP 561 too)."""
    version, files = built(tree)
    assert version == NO_GIT
    tracked = {
        str(path.relative_to(tree))
        for path in (tree / "syncd").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"syncd/py.typed", "syncd/_version.py", "syncd/web/status.html"} <= tracked <= files


def test_from_tags(tree: Path) -> None:
    """A tag is the version; what comes after it, or before any, tells its commit."""
    git(tree, "init", "--quiet")
    git(tree, "add", ".")
    git(tree, "commit", "--quiet", "-m", "first")
    first = git(tree, "rev-parse", "HEAD")
    assert built(tree)[0].startswith(f"0.1.0.dev1+g{first[:7]}")
    git(tree, "tag", "v1.2.3")
    assert built(tree)[0] == "1.2.3"
    assert git(tree, "status", "--porcelain") == ""  # what a build writes is ignored
    git(tree, "commit", "--quiet", "--allow-empty", "-m", "second")
    second = git(tree, "rev-parse", "HEAD")
    assert built(tree)[0].startswith(f"1.2.4.dev1+g{second[:7]}")
    (tree / "README.md").write_text("changed")
    assert re.fullmatch(rf"1\.2\.4\.dev1\+g{second[:7]}\w*\.d\d{{8}}", built(tree)[0])


def test_never_installed(tree: Path) -> None:
    """A tree that was neither built nor installed has a version all the same."""
    assert run(sys.executable, "-c", "import syncd; print(syncd.__version__)", cwd=tree) == NO_GIT
