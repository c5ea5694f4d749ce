"""What upkeep did or found, as JSON: how references ended, what was deleted, what was compared.

As in `syncd.sync.views`, the types are the source of the API's description.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, with_config
from typing_extensions import TypedDict

from syncd.oci import Reference
from syncd.sync.job import Outcome, Result
from syncd.sync.proof import ProofState
from syncd.sync.template import Template
from syncd.sync.verification import Compared, Verified
from syncd.sync.view_types import EXACT, DigestText, VolumeId


@with_config(EXACT)
class EndView(TypedDict):
    """How a job for a reference ended, or would end."""

    reference: str
    outcome: Annotated[Result | Literal["would be published"], Field(description="How it ends.")]
    message: Annotated[str | None, Field(description="One sentence on the end.")]
    volumes: Annotated[tuple[VolumeId, ...], Field(description="Where the template is.")]


def end_json(reference: Reference, outcome: Outcome | None) -> EndView:
    """Return as JSON how a reference ended; None stands for one that would be published."""
    return {
        "reference": str(reference),
        "outcome": outcome.result if outcome else "would be published",
        "message": outcome.message if outcome else None,
        "volumes": outcome.volumes if outcome else (),
    }


@with_config(EXACT)
class PrunedView(TypedDict):
    """A template that was deleted, or would be, or that was spared."""

    target: Annotated[str, Field(description="The target's name in the configuration.")]
    volumes: tuple[VolumeId, ...]


def pruned_json(template: Template) -> PrunedView:
    """Return a template that was deleted or spared as JSON."""
    return {"target": template.target, "volumes": template.volumes}


@with_config(EXACT)
class VerifiedView(TypedDict):
    """What a published file was found to be."""

    state: ProofState
    reference: Annotated[
        str | None,
        Field(description="The image's reference; null for a file that this ledger did not make."),
    ]
    target: Annotated[str, Field(description="The target's name in the configuration.")]
    volumes: tuple[VolumeId, ...]
    name: Annotated[str, Field(description="The file's name.")]
    size: Annotated[int, Field(ge=0, description="Bytes that the file has to have.")]
    file_digest: Annotated[DigestText, Field(description="The digest that the file has to have.")]
    compared: Annotated[Compared, Field(description="What was compared with the ledger.")]
    detail: Annotated[str | None, Field(description="What is wrong; null for a good file.")]


def verified_json(verified: Verified) -> VerifiedView:
    """Return as JSON what a published template was found to be."""
    template = verified.template
    return {
        "state": verified.state,
        "reference": str(template.reference) if template.reference else None,
        "target": template.target,
        "volumes": template.volumes,
        "name": template.name,
        "size": template.size,
        "file_digest": str(template.file_digest),
        "compared": verified.compared,
        "detail": verified.detail or None,
    }
