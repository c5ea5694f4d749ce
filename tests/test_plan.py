"""Which images are built: `images/plan.py` on generated git histories, and its decisions alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from images import plan
from images.plan import Event, Image, PlanError
from tests import histories
from tests.histories import PLAN, History, Repository, git

EVERYTHING = [["base"], ["nodejs", "python"], ["web"]]


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


@pytest.mark.parametrize(
    ("history", "levels"),
    [
        (histories.first_push, EVERYTHING),
        (histories.never_built, EVERYTHING),
        (histories.one_change, [["python"]]),
        (histories.change_below_others, [["nodejs"], ["web"]]),
        (histories.several_commits, [["python", "web"]]),
        (histories.several_images, [["nodejs", "python"], ["web"]]),
        (histories.merge, [["web"]]),
        (histories.merge_of_main, [["python"]]),
        (histories.force_push, [["python", "web"]]),
        (histories.force_push_of_a_lost_commit, EVERYTHING),
        (histories.rename_of_a_file, [["python", "web"]]),
        (histories.rename_of_an_image, [["snake"]]),
        (histories.deleted_image, []),
        (histories.added_image, [["java"]]),
        (histories.outside, []),
        (histories.no_change, []),
        (histories.undone, []),
        (histories.undone_after_a_failed_build, [["nodejs"], ["web"]]),
        (histories.built_long_ago, [["python", "web"]]),
        (histories.odd_names, [["python", "web"]]),
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
    before = histories.one_change(repository)
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
    before = histories.change_below_others(repository)
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
