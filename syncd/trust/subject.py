"""The image that is to be trusted."""

from __future__ import annotations

from dataclasses import dataclass

from syncd.oci import Digest, Reference, Repository


@dataclass(frozen=True, slots=True)
class Subject:
    """An image that is to be trusted: by which name, where, and by which digests.

    `digests` are those of its index and of its platform's manifest, or only of the manifest.
    """

    reference: Reference
    repository: Repository
    digests: tuple[Digest, ...]
