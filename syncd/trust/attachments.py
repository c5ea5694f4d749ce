"""The signatures of an image in its registry, wherever cosign puts them.

Three places: manifests that refer to the image's manifest (OCI 1.1, or the tag `sha256-HEX` where
a registry cannot list them), the tag `sha256-HEX.sig`, and `sha256-HEX.att` for attestations.
Nothing that lies there is believed here.  Whoever may push can attach any number of things, so that
only the first are looked at.

Sources: https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md, "Storage", and
BUNDLE_SPEC.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol, TypeVar

from syncd.errors import EvidenceError, ImageError, NotFoundError, RegistryError
from syncd.oci import OCI_MANIFEST, Descriptor, Digest, Reference, Repository, parse_json
from syncd.trust.claim import SIGNATURE
from syncd.trust.evidence import BUNDLE, DSSE_ENVELOPE, SIMPLE_SIGNING, Evidence, of_layer

LOOKED_AT_MAX = 100
"""Signatures of one manifest that are looked at."""

_SIGNATURE_ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"
_PREDICATE = "dev.sigstore.bundle.predicateType"
_LAYERS = (SIMPLE_SIGNING, DSSE_ENVELOPE)

T = TypeVar("T")


class Begin(Protocol):
    """Begins to ask for something; what is returned gives the answer, or raises."""

    def __call__(self, ask: Callable[[], T], /) -> Callable[[], T]:
        """Begin with `ask`."""


def when_needed(ask: Callable[[], T]) -> Callable[[], T]:
    """Ask only when the answer is wanted."""
    return ask


class Attachments:
    """The signatures of one manifest; `unread` tells of those that nobody could read.

    `beyond` counts what was not looked at, since there is too much.  The places are asked what they
    have as `begin` has it.
    """

    def __init__(
        self,
        repository: Repository,
        name: Reference,
        subject: Digest,
        begin: Begin = when_needed,
    ) -> None:
        self._repository = repository
        self._name = name
        self._subject = subject
        self._begin = begin
        self._left = LOOKED_AT_MAX
        self.unread: list[str] = []
        self.beyond = 0

    def found(self, predicate: str = SIGNATURE) -> Iterator[Evidence]:
        """Give the signatures, one request or two for each; those for `predicate` come first.

        Raise RegistryUnavailableError when the registry does not answer; anything else that is
        wrong with one of them keeps nobody from the others.
        """
        referrers = self._begin(partial(self._repository.referrers, self._subject))
        tags = [
            self._name.with_tag(f"{self._subject.algorithm}-{self._subject.encoded}.{suffix}")
            for suffix in (("sig",) if predicate == SIGNATURE else ("sig", "att"))
        ]
        tagged = [(tag, self._begin(partial(self._repository.tagged, tag))) for tag in tags]
        return self._found(predicate, referrers, tagged)

    def _found(
        self,
        predicate: str,
        referrers: Callable[[], list[Descriptor]],
        tagged: list[tuple[Reference, Callable[[], bytes]]],
    ) -> Iterator[Evidence]:
        yield from self._referrers(predicate, referrers)
        for tag, read in tagged:
            yield from self._tagged(f"tag {tag.tag}", read)

    def _referrers(
        self, predicate: str, referrers: Callable[[], list[Descriptor]]
    ) -> Iterator[Evidence]:
        try:
            listed = referrers()
        except (RegistryError, ImageError) as exc:
            self._note("the list of referrers", exc)
            return
        candidates = [entry for entry in listed if _may_sign(entry)]
        candidates.sort(key=lambda entry: _rank(entry, predicate))
        for entry in candidates:
            place = f"referrer {entry.digest}"
            if self._left <= 0:
                self.beyond += 1
                continue
            try:
                fields = parse_json(self._repository.document(entry), place)
                subject = fields.get("subject")
                named = subject.get("digest") if isinstance(subject, dict) else None
                if named != str(self._subject):
                    raise EvidenceError(f"refers to {named or 'nothing'!s:.100}, not to this image")
                layers = _layers(fields, place)
                if not layers:
                    raise EvidenceError("is empty")
            except (RegistryError, ImageError) as exc:
                self._counts()
                self._note(place, exc)
                continue
            yield from self._of_layers(place, layers)

    def _tagged(self, place: str, read: Callable[[], bytes]) -> Iterator[Evidence]:
        try:
            layers = _layers(parse_json(read(), place), place)
        except NotFoundError:
            return
        except (RegistryError, ImageError) as exc:
            self._note(place, exc)
            return
        yield from self._of_layers(place, layers)

    def _of_layers(self, place: str, layers: list[Descriptor]) -> Iterator[Evidence]:
        for layer in reversed(layers):  # cosign appends: what was signed last stands last
            if not self._counts():
                continue
            if not layer.media_type.startswith(BUNDLE) and layer.media_type not in _LAYERS:
                self._note(place, EvidenceError(f"has a layer of type {layer.media_type!r:.100}"))
                continue
            try:
                content = self._repository.document(layer)
                yield of_layer(place, layer.media_type, content, dict(layer.annotations))
            except (RegistryError, ImageError) as exc:
                self._note(place, exc)

    def _counts(self) -> bool:
        """Count one signature; tell whether it is to be looked at."""
        self.beyond += self._left <= 0
        self._left -= 1
        return self._left >= 0

    def _note(self, place: str, exc: ImageError | RegistryError) -> None:
        """Keep what is wrong; raise it where trying again may help."""
        if exc.temporary:
            raise exc
        is_ours = isinstance(exc, EvidenceError)
        self.unread.append(f"{place} {exc.what}" if is_ours else f"{place}: {exc.what}")


def _may_sign(entry: Descriptor) -> bool:
    """Tell whether a referrer may be a signature; some registries leave the type out."""
    kind = entry.artifact_type
    return kind.startswith(BUNDLE) or kind in ("", _SIGNATURE_ARTIFACT)


def _rank(entry: Descriptor, predicate: str) -> int:
    """Order what the list says of itself, which decides nothing else."""
    said = dict(entry.annotations).get(_PREDICATE)
    return 0 if said == predicate else 1 if said is None else 2


def _layers(fields: dict[str, Any], place: str) -> list[Descriptor]:
    layers = fields.get("layers")
    if fields.get("mediaType", OCI_MANIFEST) != OCI_MANIFEST or not isinstance(layers, list):
        raise EvidenceError("is no manifest of signatures")
    return [Descriptor.parse(layer, f"{place}.layers[{i}]") for i, layer in enumerate(layers)]
