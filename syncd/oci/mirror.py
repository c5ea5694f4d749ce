"""Where a mirror of a registry lies: a URL, below which the registry's repositories are found.

A mirror that serves several registries has a folder for each (Harbor's proxy projects, zot's
`destination`): the URL's path stands before the repository's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from syncd.errors import InvalidReferenceError
from syncd.oci.reference import Reference

_HINT = "write https://HOST[:PORT] or https://HOST[:PORT]/FOLDER"


@dataclass(frozen=True, slots=True)
class MirrorLocation:
    """A mirror: its host, with a port if it has one, the folder there, and whether it is HTTP."""

    host: str
    folder: str = ""
    plain_http: bool = False

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read a mirror's URL; raise InvalidReferenceError, which does not tell a login in it."""
        scheme, _, rest = url.partition("://")
        host, _, folder = rest.rstrip("/").partition("/")
        try:
            place = Reference.parse(f"{host}/{folder or 'any'}")
        except InvalidReferenceError:
            place = None
        if (
            scheme not in ("http", "https")
            or place is None
            or (place.registry, place.repository) != (host.lower(), folder or "any")
        ):
            shown = f"{scheme}://{rest.rpartition('@')[2]}"
            raise InvalidReferenceError(f"{shown[:160]!r} is no mirror's URL", _HINT)
        return cls(place.registry, folder, scheme == "http")

    def reference(self, name: Reference) -> Reference:
        """Return the repository, as the mirror has it, of a repository of the registry.

        Raise InvalidReferenceError where the two names together are too long.
        """
        folder = f"{self.folder}/" if self.folder else ""
        return Reference.parse(f"{self.host}/{folder}{name.repository}")

    def __str__(self) -> str:
        folder = f"/{self.folder}" if self.folder else ""
        return f"{'http' if self.plain_http else 'https'}://{self.host}{folder}"
