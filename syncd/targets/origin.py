"""Where a container comes from, as the lines with which syncd ends the container's description.

Proxmox VE keeps nothing of the image that a container was made from.  The description is the only
text of a container that a person and an API token may write and that moves with the container, so
syncd writes the image there, as its last line: `syncd: REFERENCE@MANIFEST_DIGEST`.  A line
`syncd-request: MARK` before it tells which request the container answers.  People may write before
and after these lines.  Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from syncd.errors import InvalidReferenceError
from syncd.oci import Reference

LONGEST_MARK = 64
"""Characters of the mark of a request."""
_IMAGE = "syncd: "
_REQUEST = "syncd-request: "
_MARK = re.compile(rf"[A-Za-z0-9_-]{{1,{LONGEST_MARK}}}")


@dataclass(frozen=True, slots=True)
class Origin:
    """An image that a container was made from, and the mark of the request for the container.

    `image` has the digest of the platform's manifest, and the tag that was asked for, if any.
    `mark` is empty where the request is not known.
    """

    image: Reference
    mark: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError for an image without a digest, and for a mark that is no such word."""
        if self.image.digest is None:
            raise ValueError(f"{self.image} has no digest")
        if self.mark and not _MARK.fullmatch(self.mark):
            raise ValueError(f"{self.mark!r:.80} is not the mark of a request")

    @property
    def tagged(self) -> Reference:
        """The image by its tag alone, whose meaning may have changed; without a tag, `image`."""
        return self.image.with_tag(self.image.tag) if self.image.tag else self.image

    @classmethod
    def parse(cls, description: str) -> Self | None:
        """Read a container's description; None where syncd did not write the image into it.

        Of several lines the last counts, since syncd writes its lines at the end.
        """
        found, mark = None, ""
        for line in map(str.strip, description.splitlines()):
            if line.startswith(_IMAGE):
                found = _image(line.removeprefix(_IMAGE)) or found
            elif line.startswith(_REQUEST) and _MARK.fullmatch(line.removeprefix(_REQUEST)):
                mark = line.removeprefix(_REQUEST)
        return None if found is None else cls(found, mark)

    def ending(self, text: str) -> str:
        """Return a description that begins with `text` and ends with this origin.

        An origin that `text` contains is left out, so that a container has one origin only.
        """
        own = [
            line
            for line in text.rstrip().splitlines()
            if not line.strip().startswith((_IMAGE, _REQUEST))
        ]
        while own and not own[-1].strip():
            own.pop()
        marks = [f"{_REQUEST}{self.mark}"] if self.mark else []
        # An empty line ends a paragraph of Markdown, as which the web UI shows a description.
        return "\n".join([*own, *([""] if own else []), *marks, f"{_IMAGE}{self.image}"])


def _image(text: str) -> Reference | None:
    """Return the reference that a line names, with its digest, or None."""
    try:
        image = Reference.parse(text)
    except InvalidReferenceError:
        return None
    return image if image.digest else None
