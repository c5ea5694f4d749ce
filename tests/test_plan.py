"""Which images are built: `images.plan` on generated git histories, and its decisions alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images import plan
from images.folder import Image, PlanError, parse_image, read_images
from images.tags import Event, tags
from tests import histories
from tests.histories import PLAN, History, Repository, git

EVERYTHING = [["base"], ["nodejs", "python"], ["web"]]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def run_plan(folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the plan of a checkout as a runner does: all it is told is in the environment."""
    return subprocess.run(
        [sys.executable, "-m", "images.plan"],
        cwd=folder,
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
    (base,), (built,) = nodejs["parents"], web["parents"]
    assert base == {
        "context": "localhost/base:latest",
        "name": "base",
        "repository": f"{ours}/base",
        "built": False,
        "is_base": True,
        "tags": ["main", "latest"],
    }
    assert built == {
        "context": "localhost/nodejs",
        "name": "nodejs",
        "repository": f"{ours}/nodejs",
        "built": True,
        "is_base": True,
        "tags": [sha],
    }


def test_nobody_knows_what_was_built(repository: Repository) -> None:
    """When GitHub could not be asked for the last build, everything is built."""
    repository.git("branch", "unknown")
    done = run_plan(
        repository.folder,
        GITHUB_EVENT_NAME="push",
        GITHUB_REF="refs/heads/main",
        BEFORE=f"{repository.first} unknown",
    )
    assert names(json.loads(done.stdout)) == EVERYTHING


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("refs/heads/main", ["main", "latest"]),
        ("refs/heads/mine", ["mine"]),
        ("refs/heads/feature/login", ["feature--login"]),
        ("refs/heads/a/b", ["a--b"]),
        ("refs/heads/a-b", ["a-b"]),
        ("refs/heads/a--b", ["a--b--90827a2e"]),
        ("refs/heads/a/-b", ["a---b"]),
        ("refs/heads/a-/b", ["a---b--032873cd"]),
        ("refs/heads/branch-latest", ["branch-latest--fdf67ef0"]),
        ("refs/heads/fix-12--b49e3634", ["fix-12--b49e3634--7d24bd8b"]),
        ("refs/heads/a_b.c-d", ["a_b.c-d"]),
        ("refs/heads/latest", ["branch-latest"]),
        ("refs/heads/Fix#12", ["Fix-12--dd5354fb"]),
        ("refs/heads/fix@12", ["fix-12--b49e3634"]),
        ("refs/heads/-dash", ["branch--dash"]),
        ("refs/heads/" + "a" * 40, ["branch-" + "a" * 40]),
        ("refs/heads/" + "x" * 300, ["x" * 111 + "--0d4e2ca9"]),
        ("refs/heads/pr-12", ["branch-pr-12"]),
        ("refs/tags/pr-12", ["tag-pr-12"]),
        ("refs/heads/12-fix", ["12-fix"]),
        ("refs/heads/sha256-" + "a" * 64, ["branch-sha256-" + "a" * 64]),
        (f"refs/tags/sha256-{'a' * 64}.sig", [f"tag-sha256-{'a' * 64}.sig"]),
        ("refs/heads/bad\udcff", ["bad---69f5f0e0"]),
        ("refs/tags/v1.2.3", ["v1.2.3"]),
        ("refs/tags/release/2026.10", ["release--2026.10"]),
        ("refs/tags/v1+a", ["v1-a--e064177f"]),
        ("refs/tags/main", ["tag-main"]),
        ("refs/tags/latest", ["tag-latest"]),
        ("refs/tags/é", ["tag----4a99557e"]),
    ],
)
def test_tags(ref: str, expected: list[str]) -> None:
    """The commit is always a tag, the ref's name made valid, `latest` on main alone."""
    found = tags(Event("push", ref, "c0ffee"), {"v1.2.3"})
    assert found == ["c0ffee", *expected]
    assert all(len(tag) <= 128 for tag in found)


NAMES = st.text("ab/-.v1#", min_size=1, max_size=8) | st.sampled_from(
    [
        *("latest", "main", "branch-latest", "tag-latest", "tag-main", "branch-v1", "v1", "pr-1"),
        *("branch-pr-1", "a/b", "a-b", "a--b", "a#b", "a@b", "a" * 40, "b" * 129, "b" * 130),
    ]
)


@given(names=st.lists(NAMES, unique=True, min_size=2, max_size=12), git_tags=st.sets(NAMES))
def test_no_two_refs_share_a_tag(names: list[str], git_tags: set[str]) -> None:
    """Of all branches, git tags and pull requests, no two ever move the same tag."""
    refs = [*(f"refs/heads/{one}" for one in names), *(f"refs/tags/{one}" for one in git_tags)]
    refs += ["refs/pull/1/merge"]
    moved = [set(tags(Event("push", ref, "c"), git_tags)) - {"c", "latest"} for ref in refs]
    assert all(len(one) == 1 for one in moved)
    assert len(set().union(*moved)) == len(refs)


def test_names_made_into_others_names() -> None:
    """What is made of one branch's name, pushed as a branch itself, is another tag."""
    seen: set[str] = set()
    for first in ("a/b", "a#b", "latest", "v1", "x" * 300, "-dash", "pr-1"):
        name = first
        for _ in range(4):
            made = tags(Event("push", f"refs/heads/{name}", "c"), ())[1]
            assert made not in seen
            seen.add(made)
            name = made if made != name else f"{made}-"


NEIGHBOURS = ["mine", "base", "builder"]
OURS = "ghcr.io/acme/images"


@pytest.mark.parametrize("name", ["v1", "v1.2", "1.2.3", "v1.0-rc1", "stable", "release/one"])
def test_branch_and_tag_of_one_name(name: str) -> None:
    """A branch yields to a git tag of its name, and to a version before there is such a tag."""
    git_tags = {"stable", "release/one"}
    own = name.replace("/", "--")
    assert tags(Event("push", f"refs/tags/{name}", "c"), git_tags) == ["c", own]
    assert tags(Event("push", f"refs/heads/{name}", "c"), git_tags) == ["c", f"branch-{own}"]


def test_git_tags_are_read(repository: Repository) -> None:
    """The checkout tells which git tags a branch has to yield to, whatever these are called."""
    for name in ("mine", "no\u00a0break", os.fsdecode(b"bad\xff")):
        repository.git("tag", name)
    done = run_plan(repository.folder, GITHUB_REF="refs/heads/mine", IMAGE="base")
    ((base,),) = json.loads(done.stdout)["levels"]
    assert base["tags"][1:] == [f"{OURS}/base:branch-mine"]
    done = run_plan(repository.folder, GITHUB_REF="refs/heads/no\u00a0break", IMAGE="base")
    ((base,),) = json.loads(done.stdout)["levels"]
    assert base["tags"][1] == f"{OURS}/base:branch-no-break--2bfad041"


@pytest.mark.parametrize(
    ("latest_from", "event", "ref", "expected"),
    [
        ("main", "push", "refs/heads/main", ["main", "latest"]),
        ("main", "release", "refs/tags/v1", ["v1"]),
        ("release", "push", "refs/heads/main", ["main"]),
        ("release", "schedule", "refs/heads/main", ["main"]),
        ("release", "push", "refs/tags/v1", ["v1"]),
        ("release", "release", "refs/tags/v1", ["v1", "latest"]),
    ],
)
def test_whose_is_latest(latest_from: str, event: str, ref: str, expected: list[str]) -> None:
    """`latest` is what main builds, or what is released, by one setting."""
    assert tags(Event(event, ref, "c", latest_from=latest_from), ()) == ["c", *expected]


@pytest.mark.parametrize(
    ("latest_from", "levels"), [("", []), ("main", []), ("release", EVERYTHING)]
)
def test_release(repository: Repository, latest_from: str, levels: list[list[str]]) -> None:
    """A release builds everything where it is the latest; else its git tag has built it."""
    done = run_plan(
        repository.folder,
        GITHUB_EVENT_NAME="release",
        GITHUB_REF="refs/tags/v1",
        LATEST_FROM=latest_from,
    )
    assert names(json.loads(done.stdout)) == levels


@pytest.mark.parametrize(
    ("history", "push", "levels"),
    [
        (histories.change_below_others, "true", [["nodejs"], ["web"]]),
        (histories.change_below_others, "false", [["nodejs"]]),
        (histories.several_images, "false", [["nodejs", "python"]]),
        (histories.force_push_of_a_lost_commit, "true", EVERYTHING),
        (histories.force_push_of_a_lost_commit, "false", [["base"]]),
        (histories.outside, "true", []),
    ],
)
def test_pull_request(
    repository: Repository, history: History, push: str, levels: list[list[str]]
) -> None:
    """A pull request builds what differs from its base; unpushed, nothing on what it changes."""
    before = history(repository)
    done = run_plan(
        repository.folder,
        GITHUB_EVENT_NAME="pull_request",
        GITHUB_REF="refs/pull/12/merge",
        GITHUB_BASE_REF="stable",
        BEFORE=before,
        PUSH=push,
    )
    made = json.loads(done.stdout)
    assert names(made) == levels
    for image in [image for level in made["levels"] for image in level]:
        assert image["tags"] == [f"{OURS}/{image['name']}:pr-12"]
        assert image["push"] == (push == "true")
        for one in image["parents"]:
            assert one["tags"] == (["pr-12"] if one["built"] else ["stable", "latest"])


@pytest.mark.parametrize(
    ("dockerfile", "parents"),
    [
        ("FROM debian:13\n", {}),
        ("FROM docker.io/library/base\n", {}),
        ("FROM mine:1\n", {}),
        ("FROM ghcr.io/acme/imagesque/base\n", {}),
        ("FROM ghcr.io/else/images/base@sha256:0\n", {}),
        (f"FROM {OURS}/retired@sha256:0\n", {}),
        ("FROM localhost/base\n", {"localhost/base": "base"}),
        (
            "ARG B=localhost/base:latest\nFROM ${B} AS mine\nFROM mine\n",
            {"localhost/base:latest": "base"},
        ),
        (f"FROM {OURS}/base:latest\n", {f"{OURS}/base:latest": "base"}),
        (f"ARG B={OURS}/base@sha256:0\nFROM $B\n", {f"{OURS}/base@sha256:0": "base"}),
        (f"FROM {OURS}/base:v1@sha256:0\n", {f"{OURS}/base:v1@sha256:0": "base"}),
        (
            f"FROM localhost/base\n"
            f"COPY --from={OURS}/builder a b\n"
            f"RUN --mount=from={OURS}/base true\n",
            {"localhost/base": "base", f"{OURS}/builder": "builder", f"{OURS}/base": "base"},
        ),
        ("FROM localhost/base AS base\nFROM base\n", {"localhost/base": "base"}),
    ],
)
def test_parents(dockerfile: str, parents: dict[str, str]) -> None:
    """An image builds on each neighbour it uses, locally named or by this repository's registry."""
    assert parse_image("mine", dockerfile, NEIGHBOURS, OURS).parents == parents


@pytest.mark.parametrize(
    ("name", "dockerfile", "said"),
    [
        ("Mine", "FROM scratch\n", "images/Mine: registries want lower-case names"),
        (
            "mine",
            "FROM ghcr.io/Acme/Images/base\n",
            "images/mine/Dockerfile:1: ghcr.io/Acme/Images/base: registries take lower case only: "
            "write ghcr.io/acme/images/base",
        ),
        (
            "mine",
            "FROM ghcr.io/OWNER/REPO/base:latest\n",
            "lower case only: write ghcr.io/owner/repo/base, and no OWNER",
        ),
        (
            "mine",
            "FROM x\nFROM base:13\n",
            "images/mine/Dockerfile:2: base:13 is the Docker Hub's, not images/base: "
            "write localhost/base, or docker.io/library/base:13",
        ),
        (
            "mine",
            "FROM ghcr.io/else/images/base:1\n",
            "another owner's, not images/base: write localhost/base",
        ),
        (
            "mine",
            "FROM localhost/gone\n",
            "builds on localhost/gone, but there is no other images/gone",
        ),
        (
            "mine",
            f"FROM {OURS}/gone:1\n",
            f"builds on {OURS}/gone:1, but there is no other images/gone",
        ),
        (
            "mine",
            "FROM localhost/mine\n",
            "builds on localhost/mine, but there is no other images/mine",
        ),
        (
            "mine",
            "FROM x\nONBUILD COPY --from=localhost/base a b\n",
            "Dockerfile:2: localhost/base cannot be replaced by this run's build in ONBUILD",
        ),
        ("mine", f"# syntax={OURS}/builder\nFROM x\n", "this run's build in SYNTAX"),
        (
            "mine",
            "ARG B\nFROM $B\n",
            "images/mine/Dockerfile:2: FROM $B names what only a build would know",
        ),
        (
            "mine",
            "# context: ../../..\nFROM x\n",
            "images/mine/Dockerfile: its context .. is outside the repository",
        ),
        ("mine", "# context: /\nFROM x\n", "its context / is outside the repository"),
    ],
)
def test_unusable_dockerfile(name: str, dockerfile: str, said: str) -> None:
    """What would be built otherwise than meant is refused, with the place and a way out."""
    with pytest.raises(PlanError) as caught:
        parse_image(name, dockerfile, NEIGHBOURS, OURS)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("context", "seen", "changed"),
    [
        ("", "images/mine", {"images/mine/a"}),
        ("..", "images", {"images/mine/a", "images/base/a", "images/a"}),
        ("../..", ".", {"images/mine/a", "images/base/a", "images/a", "docs/a"}),
        ("../../docs", "docs", {"images/mine/a", "docs/a"}),
    ],
)
def test_context(context: str, seen: str, changed: set[str]) -> None:
    """A change anywhere in the folder that a build sees is a change of the image."""
    text = f"# context: {context}\nFROM x\n" if context else "FROM x\n"
    image = parse_image("mine", text, NEIGHBOURS, OURS)
    assert image.context == seen
    for path in ("images/mine/a", "images/base/a", "images/a", "docs/a"):
        assert ("mine" in plan.changed_images({path}, {"mine": image})) == (path in changed)


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/Acme/Images",
        "https://github.com/Acme/Images.git",
        "git@github.com:Acme/Images.git",
    ],
)
def test_origin(repository: Repository, url: str) -> None:
    """On a developer's machine the remote tells which registry is the repository's own."""
    repository.write("images/python/Dockerfile", f"FROM {OURS}/base:latest\n")
    repository.commit()
    repository.git("remote", "add", "origin", url)
    done = run_plan(repository.folder, GITHUB_REPOSITORY="")
    assert names(json.loads(done.stdout)) == EVERYTHING


@pytest.mark.parametrize(
    ("parents", "said"),
    [
        ({"a": "b", "b": "a", "c": ""}, "in a circle: a, b"),
        ({"a": "a"}, "in a circle: a"),
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
        ({"GITHUB_EVENT_NAME": "fork"}, "no plan for the event 'fork'"),
        ({"LATEST_FROM": "tags"}, "LATEST_FROM is 'tags': set main or release"),
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
    images = read_images(PLAN.parent, OURS)
    order = [name for level in plan.levels(images, images) for name in level]
    assert order.index("base") < order.index("nodejs")
