"""Which images are built: `images/plan.py` on generated git histories, and its decisions alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from images import plan
from images.plan import Event, Image, PlanError

PLAN = Path(plan.__file__)
ON = "ARG {0}=localhost/{1}\nFROM ${{{0}}}\n"
DOCKERFILES = {
    "base": "FROM scratch\n",
    "nodejs": ON.format("BASE_IMAGE", "base:latest"),
    "python": ON.format("BASE_IMAGE", "base:latest"),
    "web": ON.format("NODEJS_IMAGE", "nodejs"),
}
EVERYTHING = [["base"], ["nodejs", "python"], ["web"]]
ZEROS = "0" * 40


class Repository:
    """A checkout with the four images of DOCKERFILES and plan.py in its first commit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        for name, dockerfile in DOCKERFILES.items():
            self.write(f"images/{name}/Dockerfile", dockerfile)
        self.write("images/plan.py", PLAN.read_text())
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


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def run_plan(folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run plan.py of a checkout as a runner does: all it is told is in the environment."""
    return subprocess.run(
        [sys.executable, folder / "images" / "plan.py"],
        env={"PATH": os.environ["PATH"], "GITHUB_REPOSITORY": "Acme/Images", **env},
        capture_output=True,
        text=True,
        check=False,
    )


def names(made: dict[str, Any]) -> list[list[str]]:
    return [[image["name"] for image in level] for level in made["levels"]]


History = Callable[[Repository], str]
"""Makes a history after the first commit, leaves HEAD at what was pushed, returns `before`."""


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


@pytest.mark.parametrize(
    ("history", "levels"),
    [
        (first_push, EVERYTHING),
        (never_built, EVERYTHING),
        (one_change, [["python"]]),
        (change_below_others, [["nodejs"], ["web"]]),
        (several_commits, [["python", "web"]]),
        (several_images, [["nodejs", "python"], ["web"]]),
        (merge, [["web"]]),
        (merge_of_main, [["python"]]),
        (force_push, [["python", "web"]]),
        (force_push_of_a_lost_commit, EVERYTHING),
        (rename_of_a_file, [["python", "web"]]),
        (rename_of_an_image, [["snake"]]),
        (deleted_image, []),
        (added_image, [["java"]]),
        (outside, []),
        (no_change, []),
        (undone, []),
        (undone_after_a_failed_build, [["nodejs"], ["web"]]),
        (built_long_ago, [["python", "web"]]),
        (odd_names, [["python", "web"]]),
    ],
)
def test_push(repository: Repository, history: History, levels: list[list[str]]) -> None:
    """A push builds what differs from what was built before, and what builds on that."""
    before = history(repository)
    head = repository.git("rev-parse", "HEAD")
    done = run_plan(
        repository.folder,
        GITHUB_EVENT_NAME="push",
        GITHUB_REF="refs/heads/mine",
        GITHUB_SHA=head,
        BEFORE=before,
    )
    assert done.returncode == 0, done.stderr
    assert names(json.loads(done.stdout)) == levels


@pytest.mark.parametrize(
    ("event", "ref", "image", "levels"),
    [
        ("schedule", "refs/heads/main", "", EVERYTHING),
        ("workflow_dispatch", "refs/heads/main", "", EVERYTHING),
        ("workflow_dispatch", "refs/heads/main", "nodejs", [["nodejs"]]),
        ("push", "refs/tags/v1.0", "", EVERYTHING),
        ("push", "refs/tags/release/v1.0", "", EVERYTHING),
    ],
)
def test_other_events(
    repository: Repository, event: str, ref: str, image: str, levels: list[list[str]]
) -> None:
    """The schedule, a tag and a hand build everything, or the one image that was asked for."""
    done = run_plan(
        repository.folder,
        GITHUB_EVENT_NAME=event,
        GITHUB_REF=ref,
        GITHUB_SHA=repository.first,
        BEFORE=repository.first,
        IMAGE=image,
    )
    assert names(json.loads(done.stdout)) == levels


@pytest.mark.parametrize(
    ("depth", "origin_has_before", "levels"),
    [(1, True, [["python"]]), (2, True, [["python"]]), (1, False, EVERYTHING)],
)
def test_shallow_clone(
    repository: Repository,
    tmp_path: Path,
    depth: int,
    origin_has_before: bool,
    levels: list[list[str]],
) -> None:
    """A shallow clone fetches the commit it compares with, and builds everything if it cannot."""
    before = one_change(repository)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", f"--depth={depth}", repository.folder.as_uri(), str(clone))
    if not origin_has_before:
        git(clone, "remote", "set-url", "origin", str(tmp_path / "gone"))
    done = run_plan(clone, GITHUB_EVENT_NAME="push", GITHUB_REF="refs/heads/main", BEFORE=before)
    assert names(json.loads(done.stdout)) == levels


def test_outputs(repository: Repository, tmp_path: Path) -> None:
    """A runner gets each level as one line of JSON, empty ones too, after what was there."""
    file = tmp_path / "output"
    file.write_text("earlier=1\n")
    before = change_below_others(repository)
    sha = repository.git("rev-parse", "HEAD")
    run_plan(
        repository.folder,
        GITHUB_EVENT_NAME="push",
        GITHUB_REF="refs/heads/main",
        BEFORE=before,
        GITHUB_OUTPUT=str(file),
    )
    found = dict(line.split("=", 1) for line in file.read_text().splitlines())
    assert list(found) == ["earlier", *(f"level-{n}" for n in range(plan.LEVELS))]
    assert [json.loads(found[f"level-{n}"]) for n in range(2, plan.LEVELS)] == [[], []]
    (nodejs,), (web,) = json.loads(found["level-0"]), json.loads(found["level-1"])
    ours = "ghcr.io/acme/images"
    assert nodejs["tags"] == [f"{ours}/nodejs:{tag}" for tag in (sha, "main", "latest")]
    assert nodejs["parents"] == [
        {"argument": "BASE_IMAGE", "references": [f"{ours}/base:main", f"{ours}/base:latest"]}
    ]
    assert web["parents"] == [{"argument": "NODEJS_IMAGE", "references": [f"{ours}/nodejs:{sha}"]}]


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("refs/heads/main", ["main", "latest"]),
        ("refs/heads/mine", ["mine"]),
        ("refs/heads/feature/login", ["feature-login"]),
        ("refs/heads/a_b.c-d", ["a_b.c-d"]),
        ("refs/heads/latest", ["branch-latest"]),
        ("refs/heads/Fix#12", ["Fix-12-dd5354fb"]),
        ("refs/heads/fix@12", ["fix-12-b49e3634"]),
        ("refs/heads/-dash", ["branch--dash"]),
        ("refs/heads/" + "a" * 40, ["branch-" + "a" * 40]),
        ("refs/heads/" + "x" * 300, ["x" * 112 + "-0d4e2ca9"]),
        ("refs/tags/v1.2.3", ["v1.2.3"]),
        ("refs/tags/release/2026.10", ["release-2026.10"]),
        ("refs/tags/v1+a", ["v1-a-e064177f"]),
        ("refs/tags/main", ["tag-main"]),
        ("refs/tags/latest", ["tag-latest"]),
        ("refs/tags/é", ["tag---4a99557e"]),
    ],
)
def test_tags(ref: str, expected: list[str]) -> None:
    """The commit is always a tag, the ref's name made valid, `latest` on main alone."""
    found = plan.tags(Event("push", ref, "c0ffee"))
    assert found == ["c0ffee", *expected]
    assert all(len(tag) <= 128 for tag in found)


@pytest.mark.parametrize(
    ("dockerfile", "parents"),
    [
        ("FROM debian:13\n", {}),
        ("FROM docker.io/library/base\n", {}),
        ("ARG B=localhost/base\nFROM $B\n", {"B": "base"}),
        ("ARG B=localhost/base:latest\nFROM ${B} AS mine\nFROM mine\n", {"B": "base"}),
        ('arg X=1 B="localhost/base@sha256:0"\nfrom --platform=linux/amd64 ${B}\n', {"B": "base"}),
        ("# FROM localhost/base\nFROM \\\n  scratch\n", {}),
        ("FROM scratch\nARG B=localhost/base\nFROM $B\n", {}),
        ("ARG B=localhost/base\nFROM debian\n", {}),
        ("ARG B=docker.io/library/base\nFROM $B\n", {}),
        ("ARG A=localhost/a\nARG B=localhost/b\nFROM $A AS a\nFROM $B\n", {"A": "a", "B": "b"}),
    ],
)
def test_parents(dockerfile: str, parents: dict[str, str]) -> None:
    """An image builds on the neighbours whose reference is the default of a FROM's argument."""
    assert plan.parse_image("mine", dockerfile).parents == parents


@pytest.mark.parametrize(
    ("name", "dockerfile", "said"),
    [
        ("mine", "FROM localhost/base\n", "images/mine/Dockerfile: 'FROM localhost/base'"),
        ("mine", "FROM x\nCOPY --from=localhost/base /a /b\n", "COPY --from=localhost/base /a /b"),
        ("Mine", "FROM scratch\n", "images/Mine: registries want lower-case names"),
    ],
)
def test_unusable_dockerfile(name: str, dockerfile: str, said: str) -> None:
    """What the workflow could not build as it was meant is refused, with the place."""
    with pytest.raises(PlanError, match=said.replace("(", r"\(")):
        plan.parse_image(name, dockerfile)


@pytest.mark.parametrize(
    ("parents", "said"),
    [
        ({"a": "b", "b": "a", "c": ""}, "in a circle: a, b"),
        ({"a": "a"}, "in a circle: a"),
        (
            {"a": "gone"},
            "images/a/Dockerfile builds on localhost/gone, but there is no images/gone",
        ),
        ({"a": "", "b": "a", "c": "b", "d": "c", "e": "d"}, "images/e ends a chain of more than 4"),
    ],
)
def test_impossible_images(parents: dict[str, str], said: str) -> None:
    """Images that cannot be built in order are refused, whatever was changed."""
    images = {name: Image(name, {"ON": on} if on else {}) for name, on in parents.items()}
    with pytest.raises(PlanError, match=said):
        plan.plan(Event("push", "refs/heads/main", "c", ("b",)), images, set(), "ghcr.io/o/n")


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"GITHUB_EVENT_NAME": "pull_request"}, "no plan for the event 'pull_request'"),
        ({"IMAGE": "perl"}, "no image 'perl'; there are base, nodejs, python, web"),
        ({"GITHUB_SHA": "2" * 40}, f"'{'2' * 40}' is no commit of "),
    ],
)
def test_faults(repository: Repository, env: dict[str, str], said: str) -> None:
    """A fault is one sentence on standard error and exit status 1, and no plan."""
    done = run_plan(repository.folder, **env)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("plan: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_images_here() -> None:
    """The repository's own images make a plan, in which nodejs comes after base."""
    images = plan.read_images(PLAN.parent)
    order = [name for level in plan.levels(images, images) for name in level]
    assert order.index("base") < order.index("nodejs")
