"""What `oci.reference` promises."""

import pytest

from syncd.errors import InvalidReferenceError
from syncd.oci.reference import Digest, Platform, Reference

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
        ("docker.io/debian", "docker.io", "library/debian", None),
        ("docker.io/owner/image:v1", "docker.io", "owner/image", "v1"),
        ("index.docker.io/debian:13", "docker.io", "library/debian", "13"),
        ("registry-1.docker.io/owner/image", "docker.io", "owner/image", None),
        ("Docker.IO/debian", "docker.io", "library/debian", None),
        ("GHCR.io/o/i:Tag", "ghcr.io", "o/i", "Tag"),
        ("[FE80::1]:5000/a", "[fe80::1]:5000", "a", None),
        ("docker.io.example.com/debian", "docker.io.example.com", "debian", None),
        ("docker.io:443/debian", "docker.io:443", "debian", None),
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


@pytest.mark.parametrize(
    "text", ["docker-daemon:foo", "containers-storage:localhost/x:y", "oci:dir", "dir:/x", "dir:"]
)
def test_typed_transport(text: str) -> None:
    """What is elsewhere than in a registry is refused by name, and Docker Hub is not asked."""
    with pytest.raises(InvalidReferenceError, match=f"{text}' is no image of a registry; push it"):
        Reference.typed(text)


def test_typed() -> None:
    """A registry may be called like a transport, and so may a repository."""
    for text in ("dir:5000/owner/image:tag", "oci", "owner/oci:tag", "sif/image"):
        assert Reference.typed(text) == Reference.parse(text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("https://ghcr.io/o/i", "write it without https://"),
        ("http://localhost:5000/o/i:t", "write it without http://"),
        ("docker://ghcr.io/o/i", "write it without docker://"),
        (" oci+ssh://x/y", "write it without oci"),
        ("ghcr.io/o/i ", "write it without blanks"),
        ("\tghcr.io/o/i", "write it without blanks"),
        ("ghcr.io/o/i: latest", "write it without blanks"),
        ("ghcr.io/Owner/Image:Tag", "lower case: owner/image$"),
        ("ghcr.io./o/i", "'ghcr.io.' is not a registry host"),
        ("ghcr.io:/o/i", "'ghcr.io:' is not a registry host"),
        ("ghcr.io:port/o/i", "'ghcr.io:port' is not a registry host"),
        ("ghcr.io:65536/o/i", "'ghcr.io:65536' is not a registry host"),
        ("ghcr.io:0/o/i", "'ghcr.io:0' is not a registry host"),
        ("ghcr.io:443000/o/i", "is not a registry host"),
        ("ghcr.io//o/i", "is not a repository"),
        ("ghcr.io/o/i/", "is not a repository"),
        ("docker.io/" + "a" * 250, "is not a repository"),
    ],
)
def test_pasted(text: str, hint: str) -> None:
    """What is often pasted with a name, or written into it, is named in the hint."""
    with pytest.raises(InvalidReferenceError, match=hint):
        Reference.parse(text)


def test_digest_round_trip() -> None:
    """A digest parses, prints and computes."""
    assert str(Digest.parse(f"sha256:{HEX}")) == f"sha256:{HEX}"
    assert Digest.of(b"").encoded.startswith("e3b0c44298fc")


def test_platform_aliases() -> None:
    """Variants that add nothing do not make a platform another one."""
    assert Platform.parse("linux/arm64/v8") == Platform.parse("linux/arm64")
    assert str(Platform.parse("linux/arm/7")) == "linux/arm/v7"
    assert str(Platform.normal("Linux", "armel")) == "linux/arm/v6"
    assert str(Platform.normal("linux", "i686")) == "linux/386"
    with pytest.raises(InvalidReferenceError):
        Platform.parse("linux")
