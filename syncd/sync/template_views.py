"""Templates as JSON, with what is known of their images: who vouched, what they say of themselves.

As in `views`, the types are also the source of the API's description.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated

from pydantic import Field, with_config
from typing_extensions import TypedDict  # pydantic reads typing's own only since Python 3.12

from syncd.formats import Format
from syncd.sync.attestation_rows import KeptAttestation
from syncd.sync.ledger import Ledger
from syncd.sync.template import Template
from syncd.sync.view_types import EXACT, DigestText, Moment, VolumeId
from syncd.sync.vouched_rows import VouchedImage
from syncd.sync.vouching import Examined
from syncd.trust import Voucher


@with_config(EXACT)
class VoucherView(TypedDict):
    """A verified signature of an image."""

    what: Annotated[str, Field(description="A signature, or an attestation of a type.")]
    form: Annotated[str, Field(description="In which form it lies in the registry.")]
    place: Annotated[str, Field(description="Where it lies there.")]
    digest: Annotated[DigestText, Field(description="What it is of: the index, or the manifest.")]
    identity: Annotated[str | None, Field(description="Who signed; null where a key did.")]
    issuer: Annotated[str | None, Field(description="Who vouches for the identity.")]
    key: Annotated[str | None, Field(description="The SHA-256 of the key that signed.")]
    log_index: Annotated[int | None, Field(description="The entry in the transparency log.")]
    time: Annotated[Moment | None, Field(description="When the log saw the signature.")]


@with_config(EXACT)
class AttestationView(TypedDict):
    """What an image says of itself: its SBOM, or how it was built."""

    predicate: Annotated[str, Field(description="The type of what is said.")]
    place: Annotated[str, Field(description="Where it lay in the registry.")]
    size: Annotated[int, Field(ge=0, description="Bytes of the document.")]


@with_config(EXACT)
class TemplateView(TypedDict):
    """A published template and its provenance."""

    reference: Annotated[str, Field(description="The image's reference.")]
    target: Annotated[str, Field(description="The target's name in the configuration.")]
    volumes: tuple[VolumeId, ...]
    name: Annotated[str, Field(description="The file's name.")]
    format: Format
    platform: Annotated[str, Field(description="OS/ARCH or OS/ARCH/VARIANT.")]
    digest: Annotated[DigestText, Field(description="What the tag pointed at.")]
    manifest_digest: Annotated[DigestText, Field(description="The platform's manifest.")]
    config_digest: Annotated[DigestText, Field(description="The platform's config.")]
    diff_ids: Annotated[tuple[DigestText, ...], Field(description="The layers, oldest first.")]
    file_digest: Annotated[DigestText, Field(description="The file's own digest.")]
    size: Annotated[int, Field(ge=0, description="Bytes of the file.")]
    created: Moment
    pinned: Annotated[bool, Field(description="Whether retention spares the template.")]
    syncd_version: str
    attestations: Annotated[
        tuple[AttestationView, ...],
        Field(description="What the image brought; kept as it was, and not verified."),
    ]
    vouchers: Annotated[
        tuple[VoucherView, ...],
        Field(description="The signatures with which the image passed its policy, if it has one."),
    ]


def voucher_json(voucher: Voucher) -> VoucherView:
    """Return a voucher as JSON."""
    return {
        "what": voucher.what,
        "form": voucher.form,
        "place": voucher.place,
        "digest": voucher.digest,
        "identity": voucher.identity or None,
        "issuer": voucher.issuer or None,
        "key": voucher.key or None,
        "log_index": voucher.log_index,
        "time": voucher.time.isoformat() if voucher.time else None,
    }


def anybody(_: Template) -> bool:
    """Tell of any template."""
    return True


def templates_json(
    ledger: Ledger, told: Callable[[Template], bool] = anybody
) -> list[TemplateView]:
    """Return the published templates that are `told`, each with what vouched for its image."""
    vouched, brought = ledger.vouched.all(), ledger.attestations.all()
    found = []
    for row in filter(told, ledger.templates()):
        image = VouchedImage.of(row.reference, row.digest, row.manifest_digest)
        found.append(_template_json(row, vouched.get(image, ()), brought.get(image, ())))
    return found


def _template_json(
    template: Template, vouchers: Iterable[Voucher], brought: Iterable[KeptAttestation]
) -> TemplateView:
    """Return a template as JSON, with its provenance."""
    return {
        "reference": str(template.reference),
        "target": template.target,
        "volumes": template.volumes,
        "name": template.name,
        "format": template.format,
        "platform": str(template.platform),
        "digest": str(template.digest),
        "manifest_digest": str(template.manifest_digest),
        "config_digest": str(template.config_digest),
        "diff_ids": tuple(map(str, template.diff_ids)),
        "file_digest": str(template.file_digest),
        "size": template.size,
        "created": template.created.isoformat(),
        "pinned": template.pinned,
        "syncd_version": template.syncd_version,
        "attestations": tuple(
            {"predicate": one.predicate, "place": one.place, "size": one.size} for one in brought
        ),
        "vouchers": tuple(map(voucher_json, vouchers)),
    }


@with_config(EXACT)
class SignatureView(TypedDict):
    """A signature or an attestation that was found, and what it is worth."""

    place: Annotated[str | None, Field(description="Where it lies in the registry.")]
    voucher: VoucherView | None
    fault: Annotated[str | None, Field(description="What is wrong; null for a good one.")]


@with_config(EXACT)
class ExaminedView(TypedDict):
    """Who signed an image, and whether it passes its policy."""

    reference: Annotated[str, Field(description="The image's reference.")]
    digest: Annotated[DigestText | None, Field(description="What the reference means now.")]
    wanted: Annotated[str | None, Field(description="Who has to sign; null for nobody.")]
    trusted: Annotated[
        bool | None, Field(description="Whether it passes; null where nobody has to sign.")
    ]
    fault: Annotated[str | None, Field(description="Why it does not pass, or what is not known.")]
    vouchers: Annotated[tuple[VoucherView, ...], Field(description="With what it passes.")]
    signatures: tuple[SignatureView, ...]


def examined_json(examined: Examined) -> ExaminedView:
    """Return as JSON who signed an image; `trusted` is null where nobody has to."""
    return {
        "reference": str(examined.reference),
        "digest": str(examined.digest) if examined.digest else None,
        "wanted": str(examined.policy) if examined.policy else None,
        "trusted": not examined.fault if examined.policy else None,
        "fault": examined.fault or None,
        "vouchers": tuple(map(voucher_json, examined.vouchers)),
        "signatures": tuple(
            {
                "place": one.place or None,
                "voucher": voucher_json(one.voucher) if one.voucher else None,
                "fault": one.fault or None,
            }
            for one in examined.testimonies
        ),
    }
