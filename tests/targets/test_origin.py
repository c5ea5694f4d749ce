"""What `targets.origin` promises: a description tells the image that a container was made from."""

from __future__ import annotations

import pytest

from syncd.oci.reference import Reference
from syncd.targets.origin import Origin

DIGEST = f"sha256:{'a' * 64}"
IMAGE = f"ghcr.io/owner/image:latest@{DIGEST}"
OTHER = f"ghcr.io/owner/image:latest@sha256:{'b' * 64}"


@pytest.mark.parametrize("image", [IMAGE, f"localhost:5000/image@{DIGEST}", f"debian:13@{DIGEST}"])
@pytest.mark.parametrize("mark", ["", "0123-abc_D"])
@pytest.mark.parametrize("text", ["", "Web server\nof the office", "two\n\nparagraphs\n\n"])
def test_round_trip(image: str, mark: str, text: str) -> None:
    """What is written is read again, below the text that a person wrote."""
    origin = Origin(Reference.parse(image), mark)
    description = origin.ending(text)
    assert Origin.parse(description) == origin
    assert description.splitlines()[-1] == f"syncd: {Reference.parse(image)}"
    assert description.startswith(text.rstrip())
    assert description.count("syncd: ") == 1


def test_exact_lines() -> None:
    """The lines are a contract: other programs and older containers have them, too."""
    origin = Origin(Reference.parse(IMAGE), "42")
    assert origin.ending("mine") == f"mine\n\nsyncd-request: 42\nsyncd: {IMAGE}"
    assert Origin(Reference.parse(IMAGE)).ending("") == f"syncd: {IMAGE}"


def test_replaced() -> None:
    """A description that has an origin already gets the new origin in place of the old."""
    old = Origin(Reference.parse(IMAGE), "1").ending("mine")
    new = Origin(Reference.parse(OTHER), "2")
    assert new.ending(old) == f"mine\n\nsyncd-request: 2\nsyncd: {OTHER}"


@pytest.mark.parametrize(
    ("description", "image"),
    [
        ("", None),
        ("made by hand", None),
        ("syncd: not a reference", None),
        ("syncd: ghcr.io/owner/image:latest", None),
        (f"see syncd: {IMAGE}", None),
        (f"syncd: {IMAGE}\n", IMAGE),
        (f"syncd: {IMAGE}\r\nadded by a person", IMAGE),
        (f"syncd: {IMAGE}\nsyncd: {OTHER}", OTHER),
        (f"syncd: {IMAGE}\nsyncd: broken@", IMAGE),
    ],
)
def test_foreign(description: str, image: str | None) -> None:
    """A description by others has no origin; what people add around an origin does no harm."""
    found = Origin.parse(description)
    assert (found and str(found.image)) == image


def test_tagged() -> None:
    """The tag alone is what a newer image is looked for under."""
    assert str(Origin(Reference.parse(IMAGE)).tagged) == "ghcr.io/owner/image:latest"
    bare = Reference.parse(f"ghcr.io/owner/image@{DIGEST}")
    assert Origin(bare).tagged == bare


@pytest.mark.parametrize("mark", ["a b", "a\nb", "x" * 65])
def test_bad_mark(mark: str) -> None:
    """A mark that could not be read again is refused, and so is an image without a digest."""
    with pytest.raises(ValueError, match="is not the mark of a request"):
        Origin(Reference.parse(IMAGE), mark)
    with pytest.raises(ValueError, match="has no digest"):
        Origin(Reference.parse("ghcr.io/owner/image:latest"))
