"""What `syncd.reference` promises."""

import pytest

from syncd.errors import InvalidReferenceError
from syncd.reference import Digest, Platform, Reference

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag"),
    [
        (
            "ghcr.io/mieweb/opensource-server/base:latest",
            "ghcr.io",
            "mieweb/opensource-server/base",
            "latest",
        ),
        ("127.0.0.1:5000/base", "127.0.0.1:5000", "base", None),
        ("localhost/base:v1.2_3-x", "localhost", "base", "v1.2_3-x"),
        ("[::1]:5000/a/b:c", "[::1]:5000", "a/b", "c"),
        ("debian:13", "docker.io", "library/debian", "13"),
        ("owner/image", "docker.io", "owner/image", None),
    ],
)
def test_parts(text: str, registry: str, repository: str, tag: str | None) -> None:
    """A reference parts into registry, repository and tag as everywhere in the field."""
    reference = Reference.parse(text)
    assert (reference.registry, reference.repository, reference.tag) == (registry, repository, tag)


@pytest.mark.parametrize(
    "text",
    ["ghcr.io/o/i", "ghcr.io/o/i:t", f"ghcr.io/o/i@sha256:{HEX}", f"ghcr.io/o/i:t@sha256:{HEX}"],
)
def test_round_trip(text: str) -> None:
    """Parsing and printing round-trip."""
    assert str(Reference.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ghcr.io/",
        "ghcr.io/Upper/x",
        "ghcr.io/o/i:",
        "ghcr.io/o/i:a b",
        "ghcr.io/o/i@sha256:12",
        f"ghcr.io/o/i@md5:{HEX}",
        "ghcr.io/../x",
        "http://ghcr.io/o/i",
        "ghcr.io/o/i\n",
        "ghcr.io/" + "a" * 300,
    ],
)
def test_refused(text: str) -> None:
    """What breaks the grammar is refused with a hint of how to write it."""
    with pytest.raises(InvalidReferenceError, match="write"):
        Reference.parse(text)


def test_digest_round_trip() -> None:
    """A digest parses, prints and computes."""
    assert str(Digest.parse(f"sha256:{HEX}")) == f"sha256:{HEX}"
    assert Digest.of(b"").encoded.startswith("e3b0c44298fc")


def test_platform_aliases() -> None:
    """Variants that add nothing do not make a platform another one."""
    assert Platform.parse("linux/arm64/v8") == Platform.parse("linux/arm64")
    assert str(Platform.parse("linux/arm/7")) == "linux/arm/v7"
    with pytest.raises(InvalidReferenceError):
        Platform.parse("linux")
