"""What a registry says refers to a manifest: signatures, attestations, and the like.

A list is only a list: it may name what is not there, be of a wrong type, or leave things out.  What
it names is judged by whoever reads it.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md, "Listing Referrers"
and "Referrers Tag Schema"
"""

from __future__ import annotations

from collections.abc import Iterable

from syncd.errors import ImageError, NotFoundError, RegistryError
from syncd.oci.document import MANIFEST_TYPES, parse_json
from syncd.oci.manifest import Descriptor
from syncd.oci.reference import Digest

REFERRERS_MAX = 10_000
"""Entries of a list that are read; what comes behind them is not looked at."""
PAGES_MAX = 100


def fallback_tag(subject: Digest) -> str:
    """Return the tag that lists a manifest's referrers where the registry itself does not."""
    return f"{subject.algorithm}-{subject.encoded}"


def entries(pages: Iterable[bytes], tagged: Iterable[bytes], place: str) -> list[Descriptor]:
    """Return the manifests that a list names, each once: by its pages, or by what is tagged.

    The tag counts where the registry has no list, or an empty one: it may have learnt to list
    after the tag was written.  Raise as reading does, but for a list that is not there; raise
    ImageError for what is no list.
    """
    try:
        found = _named(pages, place)
    except (RegistryError, ImageError) as exc:
        if exc.temporary:
            raise
        found = []
    if found:
        return found
    try:
        return _named(tagged, place)
    except NotFoundError:
        return []


def _named(pages: Iterable[bytes], place: str) -> list[Descriptor]:
    """Return the manifests that pages name; an entry that is no descriptor is passed over."""
    found: dict[Digest, Descriptor] = {}
    read = 0
    for page in pages:
        listed = parse_json(page, place).get("manifests")
        if not isinstance(listed, list):
            raise ImageError(f"{place} are not an index")
        for entry in listed[: REFERRERS_MAX - read]:
            try:
                descriptor = Descriptor.parse(entry, place)
            except ImageError:
                continue
            if descriptor.media_type in MANIFEST_TYPES:
                found.setdefault(descriptor.digest, descriptor)
        read += len(listed)
        if read >= REFERRERS_MAX:
            break
    return list(found.values())
