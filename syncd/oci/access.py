"""What is asked of a registry, and what its client has to know of its settings.

The configuration fulfils `RegistryAccess`; so does whoever uses syncd as a library.  `Repository`
is what the package `registry` fulfils, so that who only asks need not load an HTTP client.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from syncd.oci.manifest import Descriptor, Reader, Source
from syncd.oci.range_reader import Range
from syncd.oci.reference import Digest, Reference


class RegistryAccess(Protocol):
    """How to speak to one registry."""

    @property
    def host(self) -> str:
        """The registry's host, with a port if it has one."""

    @property
    def username(self) -> str | None:
        """The login, or None for anonymous access."""

    @property
    def plain_http(self) -> bool:
        """Whether to speak HTTP."""

    @property
    def ca_file(self) -> Path | None:
        """Who signed the registry's certificate; None for the public authorities."""

    def credentials(self) -> tuple[str, str] | None:
        """Return username and password as they are now; None means anonymous."""


class Repository(Source, Protocol):
    """One repository of a registry, as a source of images.  Safe to use from several threads."""

    def resolve(self, reference: Reference) -> Descriptor:
        """Return the descriptor of what a tag or digest means now.

        Raise NotFoundError, RegistryUnavailableError or RegistryError.
        """

    def tagged(self, reference: Reference) -> bytes:
        """Return the manifest or index that a tag means now; nothing says that it is right.

        Raise as `resolve`, and ImageError for what is neither, or is too large.
        """

    def ranges(self, wanted: Descriptor, ranges: Sequence[Range]) -> Reader:
        """Open ranges of a blob, which ascend, as one stream; not verified.

        Raise NoRangesError where the registry does not answer with these bytes, OneRangeError where
        it does not answer several ranges at once, and may be asked for one; else as `resolve`.
        """

    def tags(self) -> list[str]:
        """Return all tags of the repository; raise as `resolve`."""

    def referrers(self, subject: Digest) -> list[Descriptor]:
        """Return what the registry says refers to a manifest; raise as `resolve`."""

    def mistrust(self, blob: Descriptor, *, whole: bool = False) -> bool:
        """Ask a mirror no more for ranges of a blob, of which it gave wrong ones.

        With `whole` it gave the blob, and is asked for that no more.  Return whether it is worth it
        to ask again, since others may be asked now.
        """

    def vouch(self, blob: Descriptor, *, whole: bool = False) -> None:
        """Have nobody ask for a while who gave these bytes wrong, if others gave them since."""

    def settle(self) -> None:
        """Mistrust nobody any more: what was wrong was so for one image."""


class Unmirrored:
    """What a repository without mirrors does about wrong bytes: there are no others to ask."""

    def mistrust(self, blob: Descriptor, *, whole: bool = False) -> bool:  # noqa: ARG002 - see Repository
        """Return False."""
        return False

    def vouch(self, blob: Descriptor, *, whole: bool = False) -> None:
        """Do nothing."""

    def settle(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class AnonymousAccess:
    """Access to a public registry, by HTTPS unless `plain_http` is set."""

    host: str
    plain_http: bool = False
    username: None = None
    ca_file: None = None

    def credentials(self) -> None:
        """Return None: nobody logs in."""
