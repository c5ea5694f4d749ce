"""Git histories of a repository with four images, as pushes leave them.

Each history is a function that continues the repository's first commit, leaves HEAD at what is
pushed, and returns what the runner is told of before: commits, or zeros when there is none.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from images import plan

PLAN = Path(plan.__file__)
ON = "ARG {0}=localhost/{1}\nFROM ${{{0}}}\n"
DOCKERFILES = {
    "base": "FROM scratch\n",
    "nodejs": ON.format("BASE_IMAGE", "base:latest"),
    "python": ON.format("BASE_IMAGE", "base:latest"),
    "web": ON.format("NODEJS_IMAGE", "nodejs"),
}
ZEROS = "0" * 40


class Repository:
    """A checkout with the four images of DOCKERFILES and the plan in its first commit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        for name, dockerfile in DOCKERFILES.items():
            self.write(f"images/{name}/Dockerfile", dockerfile)
        for module in PLAN.parent.glob("*.py"):
            self.write(f"images/{module.name}", module.read_text())
        self.write("images/README.md", "images")
        self.first = self.commit()

    def git(self, *arguments: str) -> str:
        return git(self.folder, *arguments)

    def write(self, path: str, content: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def commit(self, *changed: str) -> str:
        for path in changed:
            self.write(path, f"{path} of another day\n" if "Dockerfile" not in path else "FROM x\n")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message=change")
        return self.git("rev-parse", "HEAD")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", folder, "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments],
        env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


History = Callable[[Repository], str]


def first_push(repository: Repository) -> str:
    repository.git("checkout", "--quiet", "-b", "mine")
    repository.commit("images/python/motd")
    return ZEROS


def never_built(repository: Repository) -> str:
    return f"{repository.first} {ZEROS}"


def one_change(repository: Repository) -> str:
    repository.commit("images/python/motd")
    return repository.first


def change_below_others(repository: Repository) -> str:
    repository.commit("images/nodejs/motd")
    return repository.first


def several_commits(repository: Repository) -> str:
    repository.commit("images/python/motd")
    repository.commit("README.md")
    repository.commit("images/web/page")
    return repository.first


def several_images(repository: Repository) -> str:
    repository.commit("images/python/motd", "images/nodejs/motd")
    return repository.first


def merge(repository: Repository) -> str:
    repository.git("checkout", "--quiet", "-b", "mine")
    repository.commit("images/web/page")
    repository.git("checkout", "--quiet", "main")
    before = repository.commit("README.md")
    repository.git("merge", "--quiet", "--no-ff", "mine")
    return before


def merge_of_main(repository: Repository) -> str:
    repository.git("checkout", "--quiet", "-b", "mine")
    before = repository.commit("images/web/page")
    repository.git("checkout", "--quiet", "main")
    repository.commit("images/python/motd")
    repository.git("checkout", "--quiet", "mine")
    repository.git("merge", "--quiet", "--no-ff", "main")
    return before


def force_push(repository: Repository) -> str:
    before = repository.commit("images/python/motd")
    repository.git("reset", "--quiet", "--hard", repository.first)
    repository.commit("images/web/page")
    return before


def force_push_of_a_lost_commit(repository: Repository) -> str:
    repository.commit("images/web/page")
    return "1" * 40


def rename_of_a_file(repository: Repository) -> str:
    before = repository.commit("images/python/motd")
    repository.git("mv", "images/python/motd", "images/web/motd")
    repository.commit()
    return before


def rename_of_an_image(repository: Repository) -> str:
    repository.git("mv", "images/python", "images/snake")
    repository.commit()
    return repository.first


def deleted_image(repository: Repository) -> str:
    shutil.rmtree(repository.folder / "images/python")
    repository.commit()
    return repository.first


def added_image(repository: Repository) -> str:
    repository.write("images/java/Dockerfile", ON.format("BASE_IMAGE", "base"))
    repository.commit()
    return repository.first


def outside(repository: Repository) -> str:
    repository.commit("README.md", "images/README.md", "syncd/images/base/file")
    return repository.first


def no_change(repository: Repository) -> str:
    repository.commit()
    return repository.first


def undone(repository: Repository) -> str:
    repository.commit("images/base/motd")
    repository.git("revert", "--no-edit", "HEAD")
    return repository.first


def undone_after_a_failed_build(repository: Repository) -> str:
    failed = repository.commit("images/nodejs/motd")
    repository.git("revert", "--no-edit", "HEAD")
    return f"{failed} {repository.first}"


def built_long_ago(repository: Repository) -> str:
    before = repository.commit("images/python/motd")
    repository.commit("images/web/page")
    return f"{before} {repository.first}"


def odd_names(repository: Repository) -> str:
    repository.commit("images/python/new\nline", "images/web/sp ace\tü")
    return repository.first
