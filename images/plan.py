"""Decide which images to build, in which order, on what, and under which tags.

What an image builds on, `folder.py` reads off its Dockerfile; the workflow gives the build each
neighbour's digest as a named build context, in the place of the reference that stands for it.

In doubt about what changed, everything is built: an image too many costs minutes, one too few
distributes what is no longer in the repository.  The decisions do no I/O; `Git` is the one door to
the history.  Standard library only, for a bare runner, or in the repository's root:

    python3 -m images.plan --event push --ref refs/heads/mine --before main
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.folder import Image, PlanError, read_images
from images.tags import MAIN, RELEASE, Event, earlier, tags

WEEKLY = "0 23 * * 0"
"""When everything is built anew, in cron's words and UTC; the workflow's trigger says the same."""

LEVELS = 4
"""How long a chain of images may be: GitHub cannot make jobs, so the workflow has one per level."""

_UNKNOWN = "unknown"


def levels(images: Mapping[str, Image], chosen: Collection[str]) -> list[list[str]]:
    """Return the chosen images' names in levels: each builds on earlier levels' images only.

    Raise PlanError for a circle, or more than LEVELS levels.
    """
    waiting = set(chosen)
    found: list[list[str]] = []
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

    `changed` holds the images that a push to an existing branch or a pull request changed; None
    says that nobody knows.  Raise PlanError for an event or an image that is not known.
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
    if event.name == RELEASE:
        if event.latest_from == RELEASE:
            return everything, f"{event.tag} is released, and releases are the latest"
        return set(), f"{event.tag} is built as a tag, and {MAIN} is the latest"
    if event.name == "pull_request":
        chosen, reason = _choose_changed(images, changed)
        if event.pushes:
            return chosen, reason
        held = {name for name in chosen if not chosen.isdisjoint(images[name].parents.values())}
        return chosen - held, f"{reason}, after the merge: nothing is pushed before"
    if event.name != "push":
        raise PlanError(f"no plan for the event {event.name!r}: see the workflow's triggers")
    if event.tag:
        return everything, f"{event.tag} is a tag"
    if event.is_first:
        return everything, f"nothing has been built from {event.branch} yet"
    return _choose_changed(images, changed)


def _choose_changed(
    images: Mapping[str, Image], changed: Collection[str] | None
) -> tuple[set[str], str]:
    if changed is None:
        return set(images), "the commit to compare with is not to be had: anything may have changed"
    if not (chosen := with_descendants(images, changed)):
        return set(), "no image changed"
    return chosen, f"changed: {', '.join(sorted(changed))}, and what builds on it"


def changed_images(paths: Collection[str], images: Mapping[str, Image]) -> set[str]:
    """Return the images that see some of the paths, and the folders of those that are no more."""
    parts = (path.split("/") for path in paths)
    folders = {part[1] for part in parts if part[0] == "images" and len(part) > 2}
    return folders | {name for name, one in images.items() if any(map(one.sees, paths))}


def plan(
    event: Event,
    images: Mapping[str, Image],
    changed: Collection[str] | None,
    repository: str,
    git_tags: Collection[str] = (),
) -> dict[str, Any]:
    """Return the whole plan, ready for JSON: the reason, and the levels' images with their tags.

    `repository` is where the images' own repositories lie, such as `ghcr.io/owner/name`.  What an
    image builds on is the one that this run builds, whatever its tags say by then, where `built`
    is true; else the first of the `tags` that exists: of the same branch or tag, or the latest.
    `is_base` tells the one that the image is based on from those that it takes files from.
    """
    levels(images, images)
    chosen, reason = choose(event, images, changed)
    own, older = tags(event, git_tags), earlier(event, git_tags)

    def entry(name: str) -> dict[str, Any]:
        parents = [
            {
                "context": key,
                "name": to,
                "repository": f"{repository}/{to}",
                "built": to in chosen,
                "is_base": key == images[name].base,
                "tags": own[:1] if to in chosen else older,
            }
            for key, to in sorted(images[name].parents.items())
        ]
        return {
            "name": name,
            "context": images[name].context,
            "tags": [f"{repository}/{name}:{tag}" for tag in own],
            "parents": parents,
            "push": event.pushes,
        }

    return {
        "reason": reason,
        "levels": [[entry(name) for name in level] for level in levels(images, chosen)],
    }


def outputs(made: Mapping[str, Any]) -> str:
    """Return the plan as GITHUB_OUTPUT wants it: each `level-N` as a JSON list on one line."""
    filled = [*made["levels"], *([[]] * (LEVELS - len(made["levels"])))]
    return "".join(f"level-{number}={json.dumps(level)}\n" for number, level in enumerate(filled))


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

    def origin(self) -> str:
        """Return OWNER/NAME of the remote that the checkout came from, or nothing."""
        found = re.search(
            r"[:/]([^/:]+/[^/]+?)(\.git)?/?$",
            self._run("remote", "get-url", "origin").stdout.strip(),
        )
        return found[1] if found else ""

    def tags(self) -> set[str]:
        """Return the names of the git tags."""
        return set(self._run("tag", "--list").stdout.split("\n")) - {""}

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


def _changed(event: Event, images: Mapping[str, Image], git: Git) -> set[str] | None:
    """Return the images that differ from any commit that may have been built before."""
    if event.name not in ("push", "pull_request") or event.tag:
        return set()
    if event.is_first or _UNKNOWN in event.before:
        return None
    found: set[str] = set()
    for before in event.before:
        if (paths := git.changed_paths(before, event.sha)) is None:
            return None
        found |= changed_images(paths, images)
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
    checkout = Path(__file__).resolve().parents[1]
    git = Git(checkout)
    own = f"ghcr.io/{env.get('GITHUB_REPOSITORY') or git.origin() or 'owner/name'}"
    option("--repository", default=own, help="where the images lie, such as ghcr.io/owner/name")
    option("--base", default=env.get("GITHUB_BASE_REF", ""), help="what a pull request is for")
    latest_from = env.get("LATEST_FROM") or MAIN
    option("--latest-from", default=latest_from, help=f"{MAIN} or {RELEASE}: whose is latest")
    option("--no-push", action="store_true", default=env.get("PUSH") == "false", help="only try")
    given = parser.parse_args(arguments)
    repository = given.repository.lower()
    try:
        if given.latest_from not in (MAIN, RELEASE):
            raise PlanError(f"LATEST_FROM is {given.latest_from!r}: set {MAIN} or {RELEASE}")
        event = Event(
            name=given.event,
            ref=given.ref,
            sha=git.commit(given.sha),
            before=tuple(given.before or env.get("BEFORE", "").split()),
            image=given.image,
            base=given.base,
            latest_from=given.latest_from,
            pushes=not given.no_push,
        )
        images = read_images(checkout / "images", repository)
        made = plan(event, images, _changed(event, images, git), repository, git.tags())
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
