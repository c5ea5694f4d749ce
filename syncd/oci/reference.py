"""Names of images: references, digests and platforms, parsed once at the edge.

`Reference.parse` and `str` round-trip.  Nothing here touches a network: a reference is what
somebody wrote, never what a registry currently says it means.

Grammar: https://github.com/distribution/reference/blob/main/reference.go and, for digests,
https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from typing import Self

from syncd.errors import InvalidReferenceError

PORT_PATTERN = (
    "(?:6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"
)
"""A regular expression that matches the ports of TCP, 1 to 65535 (RFC 9293, section 3.1)."""
_REGISTRY = re.compile(
    rf"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::{PORT_PATTERN})?"
)
_REPOSITORY = re.compile(
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
}
_IMPLIED = {("arm64", "v8"), ("arm64", "v8.0"), ("amd64", "v1")}
_ATTACHMENT = re.compile(r"sha(?:256-[0-9a-f]{64}|512-[0-9a-f]{64,})(?:[.-]|\Z)")
_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
GITHUBS_REGISTRY = "ghcr.io"
"""The registry whose passwords are tokens of GitHub, and whose pushes GitHub's webhooks tell."""
FOREIGN_TRANSPORTS = (
    "containers-storage",
    "docker-daemon",
    "ostree",
    "sif",
    "tarball",
    "atomic",
)
"""Where skopeo finds images and syncd does not
(https://github.com/containers/image/blob/main/docs/containers-transports.5.md)."""
_ON_DISK = ("oci", "oci-archive", "docker-archive", "dir")
_LONGEST_REPOSITORY = 255


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A content address such as `sha256:…`: an algorithm and its lower-case hex."""

    algorithm: str
    encoded: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `algorithm:hex`; raise InvalidReferenceError unless it is a sha256 or sha512."""
        algorithm, _, encoded = text.partition(":")
        if len(encoded) != _HEX_LENGTH.get(algorithm) or not re.fullmatch("[0-9a-f]*", encoded):
            raise InvalidReferenceError(
                f"{text[:160]!r} is not a digest",
                "write sha256: and 64, or sha512: and 128, lower-case hex digits",
            )
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> Self:
        """Return the digest of `content`."""
        return cls(algorithm, hashlib.new(algorithm, content).hexdigest())

    def hasher(self) -> hashlib._Hash:
        """Return a fresh hash object of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}"


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """An image's name: registry, repository, and a tag, a digest, both or neither.

    With a digest the tag is only a label: the digest decides.  With neither, the reference
    names the repository as a whole.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `[registry/]repository[:tag][@digest]`.

        As everywhere in the field, a first part without a dot, a colon or the name `localhost`
        is not a registry but belongs to `docker.io`, whose images of one part are in `library`.
        A registry's name is a host's, so its case does not count, and Docker Hub's other names
        mean `docker.io`
        (https://github.com/distribution/reference/blob/main/normalize.go, `splitDockerDomain`).
        Raise InvalidReferenceError.
        """
        name, at, encoded = text.partition("@")
        digest = Digest.parse(encoded) if at else None
        name, tag = _split_tag(name)
        first, slash, rest = name.partition("/")
        if slash and ("." in first or ":" in first or first == "localhost"):
            registry, repository = first.lower(), rest
        else:
            registry, repository = "docker.io", name
        if not _REGISTRY.fullmatch(registry):
            raise _invalid(text, f"{registry!r} is not a registry host")
        if registry in _DOCKER_HUB:
            registry = "docker.io"
            repository = repository if "/" in repository else f"library/{repository}"
        if not _REPOSITORY.fullmatch(repository) or len(repository) > _LONGEST_REPOSITORY:
            raise _invalid(
                text, f"{repository!r} is not a repository (lower case, a-z 0-9 . _ - /)"
            )
        if tag is not None and not is_tag(tag):
            raise _invalid(text, f"{tag!r} is not a tag (at most 128 of A-Z a-z 0-9 . _ -)")
        return cls(registry, repository, tag, digest)

    @classmethod
    def typed(cls, text: str) -> Self:
        """Read what a person typed for an image of a registry; raise InvalidReferenceError.

        `docker-daemon:foo` follows the grammar, too, but Docker Hub was not meant.
        """
        transport, colon, rest = text.partition(":")
        host = re.match(r"[0-9]{1,5}/", rest)
        if colon and transport in (*FOREIGN_TRANSPORTS, *_ON_DISK) and not host:
            raise InvalidReferenceError(
                f"{text[:300]!r} is no image of a registry",
                f"push it first: skopeo copy {transport}:... docker://REGISTRY/REPOSITORY:TAG",
            )
        return cls.parse(text)

    @property
    def name(self) -> str:
        """The registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def namespace(self) -> str:
        """All of the repository but its last part; empty when it has only one."""
        return self.repository.rpartition("/")[0]

    @property
    def image(self) -> str:
        """The last part of the repository."""
        return self.repository.rpartition("/")[2]

    def with_tag(self, tag: str) -> Self:
        """Return the same repository's reference with this tag and no digest."""
        return replace(self, tag=tag, digest=None)

    def with_default_tag(self) -> Self:
        """Return a reference to one image: `latest` where neither tag nor digest is given."""
        return self if self.tag or self.digest else self.with_tag("latest")

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def _split_tag(name: str) -> tuple[str, str | None]:
    """Part `repository:tag`, leaving a registry's port alone."""
    head, colon, tail = name.rpartition(":")
    return (head, tail) if colon and "/" not in tail else (name, None)


def is_tag(text: str) -> bool:
    """Tell whether a text is a tag (distribution-spec, "Pulling manifests")."""
    return _TAG.fullmatch(text) is not None


def is_attachment(tag: str) -> bool:
    """Tell whether a tag is made of a digest, to attach signatures and the like to an image.

    Sources: https://github.com/opencontainers/distribution-spec/blob/main/spec.md, "Referrers Tag
    Schema"; https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md
    """
    return _ATTACHMENT.match(tag) is not None


def _invalid(text: str, why: str) -> InvalidReferenceError:
    """Return the error of a text that is no reference, with a hint for what is often pasted."""
    hint = "write it like ghcr.io/owner/image:tag"
    scheme = re.match(r"\s*([A-Za-z][A-Za-z0-9+.-]*://)", text)
    if scheme is not None:
        hint = f"write it without {scheme[1]}, like ghcr.io/owner/image:tag"
    elif re.search(r"\s", text):
        hint = "write it without blanks, like ghcr.io/owner/image:tag"
    elif text != text.lower() and _REPOSITORY.fullmatch(_path_of(text).lower()):
        hint = f"write the repository in lower case: {_path_of(text).lower()}"
    return InvalidReferenceError(f"{text[:300]!r} is not an image reference: {why}", hint)


def _path_of(text: str) -> str:
    """Return the part of a reference that must be in lower case, about."""
    return _split_tag(text.partition("@")[0])[0].rpartition(":")[2].partition("/")[2][:300]


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """What an image runs on, in Go's words: `linux/amd64`, `linux/arm/v7`.

    Variants that add nothing are dropped, so that equal platforms compare equal
    (https://github.com/containerd/platforms, `normalizeArch`).
    """

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `os/architecture[/variant]`; raise InvalidReferenceError."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(re.fullmatch(r"[a-z0-9._-]+", p) for p in parts):
            raise InvalidReferenceError(
                f"{text[:80]!r} is not a platform", "write it like linux/amd64 or linux/arm/v7"
            )
        return cls.normal(*parts)

    @classmethod
    def normal(cls, os: str, architecture: str, variant: str = "") -> Self:
        """Return the platform under its common name."""
        os, architecture, variant = os.lower(), architecture.lower(), variant.lower()
        os = {"macos": "darwin"}.get(os, os)
        implied_variant = {"armhf": "v7", "armel": "v6"}.get(architecture)
        if implied_variant:
            architecture, variant = "arm", variant or implied_variant
        architecture = _ARCHITECTURES.get(architecture, architecture)
        if architecture in ("arm", "arm64") and re.fullmatch(r"[0-9](\.[0-9])?", variant):
            variant = f"v{variant}"
        if (architecture, variant) in _IMPLIED:
            variant = ""
        if architecture == "arm":
            variant = variant or "v7"
        return cls(os, architecture, variant)

    def distance(self, other: Platform) -> int | None:
        """Return how far below this platform an image's platform is; None where it cannot run.

        0 is the same; a higher variant runs what is for a lower variant of its architecture
        (https://github.com/containerd/platforms/blob/main/compare.go, `platformVector`).
        """
        if (self.os, self.architecture) != (other.os, other.architecture):
            return None
        if self.variant == other.variant:
            return 0
        own, theirs = self._level, other._level
        return own - theirs if own is not None and theirs is not None and own > theirs else None

    @property
    def _level(self) -> int | None:
        """How high the variant is, ten for each whole number; None where variants have no order."""
        variant = self.variant or {"amd64": "v1", "arm64": "v8"}.get(self.architecture, "")
        known = re.fullmatch(r"v([0-9])(?:\.([0-9]))?", variant)
        if known is None or self.architecture not in ("amd64", "arm", "arm64"):
            return None
        return 10 * int(known[1]) + int(known[2] or 0)

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))
