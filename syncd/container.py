"""A container to be made from an image: what is asked for, and what became of it.

Pure values, checked once at the edge.  The bounds are those of the parameters of
`POST /nodes/{node}/lxc` in the official description of the Proxmox VE API.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails

from syncd.errors import InvalidReferenceError, RequestError
from syncd.manifest import Image
from syncd.reference import Reference

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_STORAGE = r"^[A-Za-z][A-Za-z0-9._-]*[A-Za-z0-9]$"
_ENV = re.compile(r"\w+=[^\x00-\x08\x0a-\x1f\x7f]*", re.ASCII)
_COMMAND = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]+")
INIT = "/sbin/init"
"""What a container runs unless it is told otherwise."""

Tag = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_+.-]*$")]
Key = Annotated[str, Field(pattern=r"^[^\r\n]+$", max_length=16_384)]


class ContainerRequest(BaseModel):
    """What somebody wants: everything but the host name may be left out.

    `memory` and `swap` are in MiB; `storage` and `size`, in GiB, are the root file system's.
    Without `node` the online one with the most free memory is taken; `storage`, `bridge` and
    `pool` default to the target's.  `net0` replaces the whole line that is made of the bridge.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    hostname: Annotated[
        str,
        Field(
            pattern=rf"^{_LABEL}(?:\.{_LABEL})*$",
            max_length=255,
            description="a host name: letters, digits and hyphens, in parts joined by dots",
        ),
    ]
    node: Annotated[str | None, Field(pattern=rf"^{_LABEL}$", description="the name of a node")] = (
        None
    )
    vmid: Annotated[int | None, Field(ge=100, le=999_999_999)] = None
    cores: Annotated[int, Field(ge=1, le=8192)] = 1
    memory: Annotated[int, Field(ge=16)] = 512
    swap: Annotated[int | None, Field(ge=0)] = None
    storage: Annotated[str | None, Field(pattern=_STORAGE, description="the name of a storage")] = (
        None
    )
    size: Annotated[int, Field(ge=1)] = 8
    bridge: Annotated[
        str | None, Field(pattern=r"^[-_.A-Za-z0-9]+$", description="the name of a bridge")
    ] = None
    net0: Annotated[
        str | None,
        Field(pattern=r"^name=[^\s]+$", description="like name=eth0,bridge=vmbr0,ip=dhcp"),
    ] = None
    unprivileged: bool = True
    features: Annotated[
        str | None,
        Field(pattern=r"^[a-z_]+=[^\s,]+(,[a-z_]+=[^\s,]+)*$", description="like nesting=1"),
    ] = None
    tags: Annotated[
        tuple[Tag, ...], Field(description="a tag: letters, digits and _ + . -, no sign first")
    ] = ()
    ssh_keys: Annotated[tuple[Key, ...], Field(description="one line of a public key")] = ()
    pool: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+){0,2}$", description="the name of a pool"
        ),
    ] = None
    start: bool = False

    @field_validator("net0")
    @classmethod
    def _one_network(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("bridge") is not None:
            raise ValueError("give bridge or net0, not both")
        return value

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> Self:
        """Check what was asked for; raise RequestError with every fault."""
        try:
            return cls.model_validate(dict(fields))
        except ValidationError as exc:
            faults = "; ".join(
                f"{'.'.join(map(str, error['loc']))}: {cls._fault(error)}"
                for error in exc.errors(include_url=False)
            )
            raise RequestError(f"the container cannot be made like this: {faults}") from exc

    @classmethod
    def _fault(cls, error: ErrorDetails) -> str:
        """Say what is wrong with a value: what it should be, where a pattern alone would not."""
        if error["type"] != "string_pattern_mismatch":
            return error["msg"].removeprefix("Value error, ")
        return f"{error['input']!r:.80} is not {cls.model_fields[str(error['loc'][0])].description}"


def _reference(value: object) -> Reference:
    try:
        return Reference.parse(value if isinstance(value, str) else "").with_default_tag()
    except InvalidReferenceError as exc:
        raise ValueError(str(exc)) from exc


class Order(ContainerRequest):
    """A container to be made from an image: `ref`, as its tag is now.

    `target` is the name of one that publishes into a cluster; it may be left out when the image
    goes to only one.
    """

    ref: Annotated[Reference, PlainValidator(_reference)]
    target: str | None = None


def public_keys(text: str) -> list[str]:
    """Return the keys of a file like authorized_keys; raise RequestError for a private one."""
    if "PRIVATE KEY-----" in text:
        raise RequestError(
            "that is a private key, which belongs on no server",
            "give the file of the public one: its name ends in .pub",
        )
    return [line for line in map(str.strip, text.splitlines()) if line and line[0] != "#"]


@dataclass(frozen=True, slots=True)
class Container:
    """A container as it was made; `warnings` are sentences for whoever asked for it."""

    vmid: int
    node: str
    hostname: str
    volume: str
    ostype: str
    running: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Startup:
    """How an image wants to be run, in the words of Proxmox VE's `entrypoint` and `env`.

    `env` is parted by NUL.  Either is empty where the image says nothing, or nothing else than
    what every container does.
    """

    entrypoint: str = ""
    env: str = ""
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, image: Image) -> Self:
        """Read an image's config as Proxmox VE reads that of an OCI archive."""
        command = [*_words(image.runtime.get("Entrypoint")), *_words(image.runtime.get("Cmd"))]
        entrypoint = shlex.join(command)
        warnings = []
        if entrypoint == INIT:
            entrypoint = ""
        if entrypoint and not _COMMAND.fullmatch(entrypoint):
            warnings.append("the image's entrypoint has control characters and was left out")
            entrypoint = ""
        kept = []
        for entry in _words(image.runtime.get("Env")):
            if _ENV.fullmatch(entry):
                kept.append(entry)
            else:
                name = entry.partition("=")[0]
                warnings.append(f"the image's variable {name!r:.80} has no form for Proxmox VE")
        return cls(entrypoint, "\0".join(kept), tuple(warnings))


def _words(value: object) -> Sequence[str]:
    """Return a list of strings of a config; what is something else is passed over."""
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []
