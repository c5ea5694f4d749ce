"""What only HTTP answers with, as types: the source of these answers in the API's description."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from syncd.sync import (
    ConditionView,
    EndView,
    ExaminedView,
    JobView,
    ListedContainerView,
    PrunedView,
    TemplateView,
    VerifiedView,
    VolumeId,
)

_EXACT = ConfigDict(extra="forbid")


@with_config(_EXACT)
class ErrorAnswer(TypedDict):
    """Why a request is not answered as it was meant."""

    error: Annotated[str, Field(description="What happened, where, and what to do.")]


@with_config(_EXACT)
class JobsAnswer(TypedDict):
    """Several jobs."""

    jobs: list[JobView]


@with_config(_EXACT)
class SubmittedAnswer(TypedDict):
    """The jobs that look at what was asked for."""

    jobs: list[JobView]
    failed: Annotated[
        list[EndView],
        Field(description="With each: the repositories whose tags could not all be listed."),
    ]


@with_config(_EXACT)
class ForeseenAnswer(TypedDict):
    """How jobs would end that were not made."""

    ends: list[EndView]


@with_config(_EXACT)
class PrunedAnswer(TypedDict):
    """What was deleted, or would be."""

    pruned: list[PrunedView]
    spared: Annotated[
        list[PrunedView],
        Field(description="What is left of tags that are gone only because it is pinned."),
    ]
    warnings: Annotated[tuple[str, ...], Field(description="What could not be deleted, and why.")]


@with_config(_EXACT)
class VerifiedAnswer(TypedDict):
    """What published files were found to be, and who signed the image that was asked for."""

    verified: list[VerifiedView]
    images: list[ExaminedView]


@with_config(_EXACT)
class PinnedAnswer(TypedDict):
    """A template that retention spares, or does not."""

    volume: VolumeId
    pinned: bool


@with_config(_EXACT)
class DaemonAnswer(TypedDict):
    """The daemon that answers."""

    version: str
    pid: Annotated[int, Field(ge=1, description="The process.")]
    uid: Annotated[int, Field(ge=0, description="The user that it runs as.")]
    state: Annotated[str, Field(description="The directory of its state.")]
    config: Annotated[
        str | None, Field(description="Its configuration's file; null for the embedded default.")
    ]


@with_config(_EXACT)
class CheckView(TypedDict):
    """One thing that was looked at."""

    ok: bool
    subject: Annotated[str, Field(description="What was looked at.")]
    detail: Annotated[str, Field(description="What was found, and what to do where it is bad.")]


@with_config(_EXACT)
class CheckedAnswer(TypedDict):
    """What of the service is usable and what is not."""

    results: list[CheckView]


@with_config(_EXACT)
class WatchedAnswer(TypedDict):
    """An image of the configuration."""

    repository: str
    tags: tuple[Annotated[str, Field(description="A tag, or a rule such as re:PATTERN.")], ...]
    platform: str
    keep: Annotated[int, Field(ge=1, description="Versions kept for each tag and target.")]


@with_config(_EXACT)
class ImagesAnswer(TypedDict):
    """What is watched, what is true of each tag of it, and every published template."""

    watched: list[WatchedAnswer]
    conditions: list[ConditionView]
    templates: list[TemplateView]


@with_config(_EXACT)
class ContainersAnswer(TypedDict):
    """The containers that syncd made."""

    containers: list[ListedContainerView]


@with_config(_EXACT)
class ResolvedAnswer(TypedDict):
    """Where an image lies."""

    reference: Annotated[str, Field(description="The image's reference, with its tag.")]
    volumes: tuple[VolumeId, ...]


@with_config(_EXACT)
class HealthAnswer(TypedDict):
    """A process that answers."""

    status: Literal["ok"]
    version: str


@with_config(_EXACT)
class ReadinessAnswer(TypedDict):
    """A process that can read its ledger."""

    status: Literal["ready"]
    busy: Annotated[int, Field(ge=0, description="References with a job that waits or runs.")]


@with_config(_EXACT)
class PongAnswer(TypedDict):
    """The answer to a ping."""

    pong: Literal[True]


@with_config(_EXACT)
class AcceptedAnswer(TypedDict):
    """A delivery that leads to jobs."""

    jobs: Annotated[
        list[str], Field(description="Ids of the jobs that look at the repositories again.")
    ]
    repeated: Annotated[
        NotRequired[Literal[True]], Field(description="Set where the delivery came before.")
    ]


@with_config(_EXACT)
class IgnoredAnswer(TypedDict):
    """A delivery that leads to nothing."""

    ignored: Annotated[str, Field(description="Why the delivery leads to nothing.")]
