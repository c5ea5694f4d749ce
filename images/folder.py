"""The images of a folder, each with what it builds on and the files that its build sees.

An image is a folder `images/NAME` with a Dockerfile; nothing else lists the images.  It builds on a
neighbour when its build uses `localhost/NEIGHBOUR`, which is so on a developer's machine too, or
the neighbour's name in this repository's registry, whatever tag or digest follows.  A reference
that may be meant for a neighbour, and is none, is refused: it would go stale without a word.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from images import dockerfile
from images.dockerfile import DockerfileError, Reference

LOCAL = "localhost/"
"""What a neighbour's name follows in a Dockerfile."""


class PlanError(Exception):
    """There is no plan; the message says in one sentence where the fault is and what to do."""


@dataclass(frozen=True)
class Image:
    """An image.

    `parents` holds the neighbours it builds on by the reference that stands for each in its build,
    variables put in; `base` is the reference that its last stage is based on, or nothing; `context`
    is the folder that its build sees, from the repository's root.
    """

    name: str
    parents: Mapping[str, str] = field(default_factory=dict)
    context: str = ""
    base: str = ""

    def sees(self, path: str) -> bool:
        """Whether a file, named from the repository's root, is of the image or of its context."""
        folders = (f"images/{self.name}", self.context or f"images/{self.name}")
        return any(folder == "." or path.startswith(f"{folder}/") for folder in folders)


def read_images(folder: Path, repository: str) -> dict[str, Image]:
    """Return the images below `folder`, by name.

    `repository` is where their own repositories lie, such as `ghcr.io/owner/name`, in lower case.
    Raise PlanError for an image that the workflow could not build as it is meant.
    """
    files = {file.parent.name: file for file in sorted(folder.glob("*/Dockerfile"))}
    return {
        name: parse_image(name, file.read_text(encoding="utf-8"), files, repository)
        for name, file in files.items()
    }


def parse_image(name: str, text: str, neighbours: Collection[str], repository: str) -> Image:
    """Return the image that a Dockerfile describes, among the names of all images.

    Raise PlanError for a name that no registry takes, a context outside the repository, and
    whatever may be meant for a neighbour but cannot be replaced by this run's build of it.
    """
    if not re.fullmatch("[a-z0-9]+([._-][a-z0-9]+)*", name):
        raise PlanError(f"images/{name}: registries want lower-case names; rename the folder")
    own = f"images/{name}"
    parents: dict[str, str] = {}
    try:
        context = posixpath.normpath(posixpath.join(own, dockerfile.context(text)))
        if context.startswith(("/", "..")):
            raise PlanError(
                f"{own}/Dockerfile: its context {context} is outside the repository: name a folder "
                f"in it"
            )
        for reference in dockerfile.references(text):
            parent = _neighbour(reference, {*neighbours} - {name}, repository)
            if parent:
                parents[reference.text] = parent
    except DockerfileError as error:
        raise PlanError(f"{own}/Dockerfile:{error.line}: {error}") from error
    return Image(name, parents, context, dockerfile.base(text))


def _neighbour(reference: Reference, neighbours: Collection[str], repository: str) -> str:
    """Return the neighbour that a reference means, or nothing; raise DockerfileError in doubt."""
    text, line = reference.text, reference.line
    named, _, digest = text.partition("@")
    path = re.sub(":[^/:]*$", "", re.sub("^([^/:]+):443/", r"\1/", named))
    if path != path.lower():
        raise DockerfileError(
            line, f"{text}: registries take lower case only: write {path.lower()}, and no OWNER"
        )
    for place in (LOCAL, f"{repository}/"):
        if path.startswith(place):
            name = path.removeprefix(place)
            if name not in neighbours and digest and place != LOCAL:
                return ""
            if name not in neighbours:
                raise DockerfileError(
                    line,
                    f"builds on {text}, but there is no other images/{name}: build on another "
                    f"image, or remove this one too",
                )
            if reference.instruction in ("ONBUILD", "SYNTAX"):
                raise DockerfileError(
                    line,
                    f"{text} cannot be replaced by this run's build in {reference.instruction}: "
                    f"use it in a FROM, COPY or RUN of the image that needs it",
                )
            return name
    elsewhere, _, last = path.rpartition("/")
    if last not in neighbours or digest:
        return ""
    if not elsewhere:
        raise DockerfileError(
            line,
            f"{text} is the Docker Hub's, not images/{last}: write {LOCAL}{last}, or "
            f"docker.io/library/{text} if the Hub's is meant",
        )
    registry, _, rest = repository.partition("/")
    if re.fullmatch(rf"{re.escape(registry)}/.+/{re.escape(rest.rpartition('/')[2])}", elsewhere):
        raise DockerfileError(
            line,
            f"{text} is another owner's, not images/{last}: write {LOCAL}{last}, or add the "
            f"digest if the other's is meant",
        )
    return ""
