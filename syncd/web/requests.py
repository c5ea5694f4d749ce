"""What a caller of the API sends in a body: JSON, read and checked once, where it enters.

A body that is not as described raises RequestError, which is answered with 400 and its reason.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar

from aiohttp import web
from pydantic import AfterValidator, Field, Strict

from syncd.errors import RequestError
from syncd.oci import Reference
from syncd.targets import Credentials, ReferenceText, RequestModel
from syncd.web.bodies import BODIES


class SyncRequest(RequestModel):
    """The references to look at; without any, every watched image is looked at."""

    _refusal: ClassVar[str] = "nothing can be synced like this"

    ref: Annotated[
        Reference | None,
        ReferenceText(),
        Field(description="One reference to look at, before those of refs."),
    ] = None
    refs: Annotated[
        tuple[Annotated[Reference, ReferenceText()], ...],
        Field(
            min_length=1,
            max_length=1000,
            description="What to look at. A watched repository without a tag means all its watched "
            "tags. A reference that is named twice is looked at once.",
        ),
        Strict(False),  # a list of JSON is kept as a tuple
    ] = ()
    each: Annotated[
        bool,
        Field(
            description="Whether the watched tags of repositories are listed now, and each has a "
            "job of its own in the answer."
        ),
    ] = False
    dry_run: Annotated[
        bool, Field(description="Whether the answer tells how jobs would end, and none is made.")
    ] = False

    @property
    def references(self) -> list[Reference]:
        """The references of both keys, in the order in which they are named."""
        return [*([self.ref] if self.ref else []), *self.refs]


class ResolveRequest(RequestModel):
    """An image whose volume ids are wanted, and what opens it in its registry."""

    _refusal: ClassVar[str] = "nothing can be resolved like this"

    ref: Annotated[
        Reference,
        ReferenceText(),
        AfterValidator(Reference.with_default_tag),
        Field(description="The reference; without a tag or digest, latest."),
    ]
    pull: Annotated[
        bool,
        Field(description="Whether to fetch the image first if it is not cached; needs sync."),
    ] = False
    node: Annotated[
        str | None,
        Field(description="Of several platforms, the one that runs there; else on any node."),
    ] = None
    credentials: Annotated[
        Credentials | None,
        Field(
            description="What opens the image in its registry, where this host is not to be asked."
        ),
    ] = None


class PruneRequest(RequestModel):
    """What may be deleted: surplus versions, or what is left of tags that are gone."""

    _refusal: ClassVar[str] = "nothing can be pruned like this"

    gone: Annotated[
        bool,
        Field(description="Whether it is what the registry lost, and what is not watched."),
    ] = False
    older_than: Annotated[
        int, Field(ge=0, le=10**9, description="With gone: for how many seconds it has to be gone.")
    ] = 0
    dry_run: Annotated[bool, Field(description="Whether nothing is deleted.")] = False


class VerifyRequest(RequestModel):
    """What is compared; without a reference, everything published."""

    _refusal: ClassVar[str] = "nothing can be verified like this"

    ref: Annotated[
        Reference | None,
        ReferenceText(),
        Field(description="The reference; without a tag or digest, its repository."),
    ] = None


class PinRequest(RequestModel):
    """A published template, and whether retention is to spare it."""

    _refusal: ClassVar[str] = "nothing can be pinned like this"

    volume: Annotated[
        str, Field(min_length=1, max_length=512, description="The volume id, STORAGE:vztmpl/NAME.")
    ]
    pinned: bool = True


async def json_object(request: web.Request) -> dict[str, Any]:
    """Read a JSON object, empty where no body was sent; raise RequestError for any other body.

    An HTTPError tells why a body was not read.

    The Content-Type may be any: `curl --data` names a form's.  Only its charset counts.
    """
    if not request.can_read_body:
        return {}
    try:
        async with request.app[BODIES].read(request) as read:
            body = json.loads(read.decode(request.charset or "utf-8"))
    except (ValueError, LookupError, RecursionError) as exc:  # the charset may be any word
        raise RequestError(f"the body is not JSON: {exc!s:.100}") from exc
    if not isinstance(body, dict):
        raise RequestError("the body is not a JSON object")
    return body
