"""Decide which images to build, in which order, on what, and under which tags.

An image is a folder `images/NAME` with a Dockerfile; nothing else lists the images.  It builds on
a neighbour when a global `ARG` with the default `localhost/NEIGHBOUR` stands in one of its `FROM`s:
so it builds on a developer's machine as it is, and the workflow gives the neighbour's digest.

In doubt about what changed, everything is built: an image too many costs minutes, one too few
distributes what is no longer in the repository.  The decisions do no I/O; `read_images` reads the
Dockerfiles, `Git` is the one door to the history.  Standard library only, for a bare runner, or:

    python3 images/plan.py --event push --ref refs/heads/mine --before main
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WEEKLY = "0 23 * * 0"
"""When everything is built anew, in cron's words and UTC; the workflow's trigger says the same."""

LEVELS = 4
"""How long a chain of images may be: GitHub cannot make jobs, so the workflow has one per level."""

MAIN = "main"
"""The branch whose images are `latest`."""

_NO_COMMIT = "0" * 40
_LOCAL = "localhost/"
_LONGEST_TAG = 128


class PlanError(Exception):
    """There is no plan; the message says in one sentence where the fault is and what to do."""


@dataclass(frozen=True)
class Image:
    """An image: its name, and the neighbours it builds on by the build argument that names each."""

    name: str
    parents: Mapping[str, str]


@dataclass(frozen=True)
class Event:
    """What started the workflow, in the words of GitHub's contexts.

    `before` holds the commits that the branch may have been built from, zeros when there is none;
    `image` is the one that was asked for by hand, if one was.
    """

    name: str
    ref: str
    sha: str
    before: Sequence[str] = ()
    image: str = ""

    @property
    def branch(self) -> str:
        """The branch's name, or nothing."""
        return self._below("refs/heads/")

    @property
    def tag(self) -> str:
        """The git tag's name, or nothing."""
        return self._below("refs/tags/")

    @property
    def is_first(self) -> bool:
        """Whether a push is to a branch from which nothing has been built."""
        return not self.before or _NO_COMMIT in self.before

    def _below(self, prefix: str) -> str:
        return self.ref.removeprefix(prefix) if self.ref.startswith(prefix) else ""


def parse_image(name: str, dockerfile: str) -> Image:
    """Return the image that a Dockerfile describes.

    Raise PlanError for a name that no registry takes, and where a neighbour is used in a way that
    the workflow could not redirect.
    """
    if not re.fullmatch("[a-z0-9]+([._-][a-z0-9]+)*", name):
        raise PlanError(f"images/{name}: registries want lower-case names; rename the folder")
    lines = re.sub(r"^\s*#.*\n?", "", dockerfile, flags=re.MULTILINE)
    defaults: dict[str, str] = {}
    parents: dict[str, str] = {}
    stages_began = False
    for line in re.sub(r"\\\s*\n", " ", lines).splitlines():
        instruction, *words = line.split() or [""]
        if instruction.upper() == "ARG" and not stages_began:
            pairs = (word.partition("=") for word in words)
            defaults |= {key: value.strip("\"'") for key, _, value in pairs}
        elif instruction.upper() == "FROM":
            stages_began = True
            source = next(word for word in words if not word.startswith("--"))
            argument = source.strip("${}") if source.startswith("$") else ""
            reference = defaults.get(argument, "") if argument else source
            if reference.startswith(_LOCAL):
                if not argument:
                    raise _not_an_argument(name, f"FROM {reference}")
                parents[argument] = re.split("[:@]", reference.removeprefix(_LOCAL))[0]
        elif any(word.startswith(f"--from={_LOCAL}") for word in words):
            raise _not_an_argument(name, line.strip())
    return Image(name, parents)


def _not_an_argument(name: str, line: str) -> PlanError:
    return PlanError(
        f"images/{name}/Dockerfile: {line!r} always means the developer's own build: write a "
        f"global ARG with that default and FROM the ARG, so that the workflow can give its build"
    )


def levels(images: Mapping[str, Image], chosen: Collection[str]) -> list[list[str]]:
    """Return the chosen images' names in levels: each builds on earlier levels' images only.

    Raise PlanError for an image that is not there, a circle, or more than LEVELS levels.
    """
    waiting = set(chosen)
    found: list[list[str]] = []
    for name in sorted(waiting):
        for parent in images[name].parents.values():
            if parent not in images:
                raise PlanError(
                    f"images/{name}/Dockerfile builds on {_LOCAL}{parent}, but there is no "
                    f"images/{parent}: build on another image, or remove images/{name} too"
                )
    while waiting:
        ready = sorted(n for n in waiting if waiting.isdisjoint(images[n].parents.values()))
        if not ready:
            raise PlanError(f"these build on each other in a circle: {', '.join(sorted(waiting))}")
        found.append(ready)
        waiting.difference_update(ready)
    if len(found) > LEVELS:
        raise PlanError(
            f"images/{found[LEVELS][0]} ends a chain of more than {LEVELS} images: build on an "
            f"earlier one, or add a level to build-images.yml and raise LEVELS in plan.py"
        )
    return found


def with_descendants(images: Mapping[str, Image], changed: Collection[str]) -> set[str]:
    """Return those of `changed` that still exist, and every image that builds on one of them."""
    found, before = set(images).intersection(changed), set[str]()
    while found != before:
        before = set(found)
        found |= {n for n, image in images.items() if not before.isdisjoint(image.parents.values())}
    return found


def choose(
    event: Event, images: Mapping[str, Image], changed: Collection[str] | None
) -> tuple[set[str], str]:
    """Return the names of the images to build, and why.

    `changed` holds the images that a push to an existing branch changed; None says that nobody
    knows.  Raise PlanError for an event or an image that is not known.
    """
    everything = set(images)
    if event.name == "schedule":
        return everything, "every image is built anew each week"
    if event.name == "workflow_dispatch":
        if not event.image:
            return everything, "every image was asked for"
        if event.image not in images:
            raise PlanError(f"no image {event.image!r}; there are {', '.join(sorted(images))}")
        return {event.image}, f"{event.image} was asked for"
    if event.name != "push":
        raise PlanError(f"no plan for the event {event.name!r}: see the workflow's triggers")
    if event.tag:
        return everything, f"{event.tag} is a tag"
    if event.is_first:
        return everything, f"nothing has been built from {event.branch} yet"
    if changed is None:
        return everything, "the commit built before is not to be had, so anything may have changed"
    if not (chosen := with_descendants(images, changed)):
        return set(), "no image changed"
    return chosen, f"changed: {', '.join(sorted(changed))}, and what builds on it"


def changed_images(paths: Collection[str]) -> set[str]:
    """Return the names of the folders below `images/` in which some of the paths lie."""
    parts = (path.split("/") for path in paths)
    return {part[1] for part in parts if part[0] == "images" and len(part) > 2}


def tags(event: Event) -> list[str]:
    """Return the tags that an image built for the event gets: the commit's first, always."""
    found = [event.sha]
    if event.branch:
        found.append(_valid("branch", event.branch))
    if event.tag:
        found.append(_valid("tag", event.tag))
    if event.branch == MAIN:
        found.append("latest")
    return found


def _valid(kind: str, name: str) -> str:
    """Turn the name of a branch or tag into a tag as the distribution specification wants it.

    `/` becomes `-`, as everywhere.  What else must change is made up for by a piece of the name's
    digest, since `v1+a` and `v1@a` are two names.  What would take another ref's tag says what it
    is: a branch called `latest`, a tag called `main`, anything that looks like a commit.

    Grammar: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests
    """
    plain = name.replace("/", "-")
    valid = re.sub(r"[^A-Za-z0-9_.-]", "-", plain)
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    if valid != plain or len(valid) > _LONGEST_TAG - len("branch-"):
        valid = f"{valid[: _LONGEST_TAG - len('branch--') - len(digest)]}-{digest}"
    taken = valid == "latest" or (valid == MAIN and (kind, name) != ("branch", MAIN))
    if taken or re.fullmatch("[0-9a-f]{40}", valid) or valid[0] in ".-":
        valid = f"{kind}-{valid}"
    return valid


def plan(
    event: Event, images: Mapping[str, Image], changed: Collection[str] | None, repository: str
) -> dict[str, Any]:
    """Return the whole plan, ready for JSON: the reason, and the levels' images with their tags.

    `repository` is where the images' own repositories lie, such as `ghcr.io/owner/name`.  Of what
    an image builds on, the first of the `references` that exists is meant: the one that this run
    builds, or else the newest of the same branch or tag, or else the latest.
    """
    levels(images, images)
    chosen, reason = choose(event, images, changed)
    own = tags(event)
    earlier = list(dict.fromkeys([*own[1:], "latest"]))

    def references(name: str, tags: Sequence[str]) -> list[str]:
        return [f"{repository}/{name}:{tag}" for tag in tags]

    def entry(name: str) -> dict[str, Any]:
        parents = [
            {"argument": key, "references": references(to, own[:1] if to in chosen else earlier)}
            for key, to in sorted(images[name].parents.items())
        ]
        return {"name": name, "tags": references(name, own), "parents": parents}

    return {
        "reason": reason,
        "levels": [[entry(name) for name in level] for level in levels(images, chosen)],
    }


def outputs(made: Mapping[str, Any]) -> str:
    """Return the plan as GITHUB_OUTPUT wants it: each `level-N` as a JSON list on one line."""
    filled = [*made["levels"], *([[]] * (LEVELS - len(made["levels"])))]
    return "".join(f"level-{number}={json.dumps(level)}\n" for number, level in enumerate(filled))


def read_images(folder: Path) -> dict[str, Image]:
    """Return the images below `folder`, by name."""
    return {
        file.parent.name: parse_image(file.parent.name, file.read_text(encoding="utf-8"))
        for file in sorted(folder.glob("*/Dockerfile"))
    }


@dataclass(frozen=True)
class Git:
    """The history of a checkout."""

    checkout: Path

    def commit(self, revision: str) -> str:
        """Return the full hash of a revision; raise PlanError when there is none."""
        found = self._run("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
        if found.returncode:
            raise PlanError(f"{revision!r} is no commit of {self.checkout}")
        return found.stdout.strip()

    def changed_paths(self, before: str, after: str) -> set[str] | None:
        """Return the paths that differ between two commits, both names of a renamed file.

        None when `before` is neither here nor to be fetched: a shallow clone, or a force push that
        left it to no branch.
        """
        if self._run("cat-file", "-e", f"{before}^{{commit}}").returncode:
            self._run("fetch", "--quiet", "--depth=1", "origin", before)
        found = self._run("diff", "--name-only", "--no-renames", "-z", before, after)
        return None if found.returncode else set(found.stdout.split("\0")) - {""}

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - no shell, and commits are all that is passed on
            ["git", "-C", str(self.checkout), *arguments],  # noqa: S607 - whose git, PATH says
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            check=False,
        )


def _changed(event: Event, git: Git) -> set[str] | None:
    """Return the images that differ from any commit that may have been built before."""
    if event.name != "push" or not event.branch or event.is_first:
        return set()
    found: set[str] = set()
    for before in event.before:
        if (paths := git.changed_paths(before, event.sha)) is None:
            return None
        found |= changed_images(paths)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the plan as JSON; on a runner, hand it to the jobs that follow, too."""
    env = os.environ
    parser = argparse.ArgumentParser(description="Plan which images to build, as JSON.")
    option = parser.add_argument
    option("--event", default=env.get("GITHUB_EVENT_NAME", "workflow_dispatch"), help="its name")
    option("--ref", default=env.get("GITHUB_REF", f"refs/heads/{MAIN}"), help="refs/heads/… or …")
    option("--sha", default=env.get("GITHUB_SHA", "HEAD"), help="the commit to build")
    option("--before", action="append", help="a commit that may be built already; may be repeated")
    option("--image", default=env.get("IMAGE", ""), help="the only one to build")
    option("--repository", default=f"ghcr.io/{env.get('GITHUB_REPOSITORY', 'owner/name')}")
    given = parser.parse_args(arguments)
    before = given.before or env.get("BEFORE", "").split()
    checkout = Path(__file__).resolve().parents[1]
    git = Git(checkout)
    try:
        event = Event(given.event, given.ref, git.commit(given.sha), tuple(before), given.image)
        images = read_images(checkout / "images")
        made = plan(event, images, _changed(event, git), given.repository.lower())
    except PlanError as error:
        sys.stderr.write(f"plan: {error}\n")
        return 1
    sys.stdout.write(json.dumps(made, indent=2) + "\n")
    if file := env.get("GITHUB_OUTPUT"):
        with Path(file).open("a", encoding="utf-8") as output:
            output.write(outputs(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
