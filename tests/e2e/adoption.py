"""A repository that took this one's workflow and plan over, by the commands of docs/adopt.md."""

from __future__ import annotations

from pathlib import Path

from tests.documents import blocks
from tests.e2e.command import CHECKOUT, run
from tests.e2e.github import GitHub
from tests.e2e.registry import Registry

WORKFLOW = ".github/workflows/build-images.yml"


def adopted(folder: Path, name: str, registry: Registry) -> GitHub:
    """Make the repository `name` below `folder`, with one commit and what the page has it copy."""
    github = GitHub(folder, name, registry)
    github.write("README.md", "Images.\n")
    github.commit()
    (folder / "syncd").symlink_to(CHECKOUT)
    for block in blocks("sh"):
        if block.page.name == "adopt.md" and "cp ../syncd/images" in block.text:
            run("/bin/sh", "-euc", block.text, cwd=github.work)
    return github
