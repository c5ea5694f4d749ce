"""A replacement: a newer image under a container, as it was asked for, and how far it is.

Pure values.  A replacement is in the ledger before each of its steps.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from syncd.errors import SyncdError
from syncd.oci import Reference
from syncd.sync.readiness import PATTERN, Readiness
from syncd.targets import ReferenceText, RequestModel, RootSwap, SwapStep


class ReplacementState(StrEnum):
    """Where a replacement stands.

    `open` and `returning` ones are under way, or were broken off; `replaced` ones still have the
    old root; `closed` ones have lost it, and `undone` ones are as they were.
    """

    OPEN = "open"
    RETURNING = "returning"
    REPLACED = "replaced"
    UNDONE = "undone"
    CLOSED = "closed"


UNFINISHED = (ReplacementState.OPEN, ReplacementState.RETURNING)


class SwapOptions(RequestModel):
    """How a root is replaced; every field may be left out."""

    _refusal: ClassVar[str] = "the container cannot be replaced like this"

    target: Annotated[
        str | None,
        Field(description="The target whose cluster has the container; left out, it is searched."),
    ] = None
    wait_for: Annotated[
        str | None,
        Field(
            pattern=PATTERN,
            title="running, address, or http:PORT/PATH",
            description="When the container is ready; left out, when it has an address, or runs "
            "where none is configured.",
        ),
    ] = None
    timeout: Annotated[
        int,
        Field(ge=1, le=3600, description="Seconds to wait for that; then the old root returns."),
    ] = 120
    keep: Annotated[
        int | None,
        Field(
            ge=0,
            le=365 * 86400,
            description="Seconds after which the old root is destroyed; left out, it is kept.",
        ),
    ] = None
    snapshot: Annotated[
        bool,
        Field(
            description="Whether to take a snapshot of the container first; refused where a "
            "storage of its volumes cannot."
        ),
    ] = False
    dry_run: Annotated[bool, Field(description="Whether to tell the steps, and do none.")] = False


class ReplaceOptions(SwapOptions):
    """How a newer image comes under a container; every field may be left out."""

    ref: Annotated[
        Reference | None,
        ReferenceText(),
        AfterValidator(lambda value: value.with_default_tag() if value else None),
        Field(
            description="The image, as its tag is now; left out, the tag that the container's "
            "description names."
        ),
    ] = None
    side_by_side: Annotated[
        bool,
        Field(
            description="Whether to make a new container with the options of this one beside it, "
            "instead. Data volumes and a static address are not taken over."
        ),
    ] = False


class BehindOptions(SwapOptions):
    """Which containers get the newer image of a tag, and how."""

    ref: Annotated[
        Reference,
        ReferenceText(),
        AfterValidator(lambda value: value.with_default_tag()),
        Field(description="The tag; each container that runs an older image of it is meant."),
    ]


@dataclass(frozen=True, slots=True)
class Replacement:
    """One replacement in the ledger; `keep` is how many seconds the old root outlives the swap."""

    target: str
    swap: RootSwap
    step: SwapStep = SwapStep.STOP
    state: ReplacementState = ReplacementState.OPEN
    readiness: Readiness = field(default_factory=Readiness)
    keep: int | None = None
    ended: datetime | None = None
    reason: str = ""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def is_open(self) -> bool:
        """Whether the replacement is under way, or was broken off and is not ended yet."""
        return self.state in UNFINISHED

    @property
    def due(self) -> datetime | None:
        """When the old root may be destroyed; None where it is kept, or gone."""
        if self.state is not ReplacementState.REPLACED or self.keep is None or self.ended is None:
            return None
        return self.ended + timedelta(seconds=self.keep)

    def end(self, state: ReplacementState) -> Replacement:
        """Return the replacement as it ended now."""
        return replace(self, state=state, ended=datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class SwapWishes:
    """What is asked for of a replacement: as `SwapOptions`, and what the command line may add.

    `carry` are the paths to carry over from the old root; None for the SSH host keys, where the
    host can.
    """

    readiness: Readiness
    keep: int | None
    dry_run: bool
    snapshot: bool
    carry: tuple[str, ...] | None

    @classmethod
    def of(
        cls, options: SwapOptions, wait_for: str | None, carry: tuple[str, ...] | None
    ) -> SwapWishes:
        """Take `wait_for` in place of the options'; raise RequestError for what is none."""
        readiness = Readiness.parse(wait_for or options.wait_for or "", options.timeout)
        return cls(readiness, options.keep, options.dry_run, options.snapshot, carry)


@dataclass(frozen=True, slots=True)
class Replaced:
    """A container that has the image now, or with `done` false would get it like this.

    `swap` is None where the container had the image already.  `warnings` are sentences.
    """

    vmid: int
    node: str
    image: str
    target: str
    swap: RootSwap | None
    done: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReplacedBehind:
    """What became of the containers behind a tag: replaced ones, and the rest after a failure.

    `failed` is the VMID of the container that ended the row with `error`, `left` are those that
    were not begun.
    """

    replaced: tuple[Replaced, ...] = ()
    failed: int | None = None
    error: SyncdError | None = None
    left: tuple[int, ...] = ()
