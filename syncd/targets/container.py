"""A container to be made from an image: what is asked for, and what became of it.

Pure values, checked once, where they enter.  The bounds are those of the parameters of
`POST /nodes/{node}/lxc` in the official description of the Proxmox VE API.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, SecretStr

from syncd.errors import RequestError
from syncd.oci import Image, Reference, is_init
from syncd.targets.credentials import Credentials
from syncd.targets.options import ContainerOptions, Whole
from syncd.targets.origin import Origin
from syncd.targets.property_string import DOMAIN
from syncd.targets.request import ReferenceText, SecretText

_NAME = re.compile(r"\w+", re.ASCII)  # of a variable, as the description has it
INIT = "/sbin/init"
"""What a container runs unless it is told otherwise."""


class ContainerSpec(ContainerOptions):
    """What is asked of Proxmox VE for one container: the options, and what is its own."""

    _refusal: ClassVar[str] = "the container cannot be made like this"

    hostname: Annotated[
        str,
        Field(
            pattern=rf"^{DOMAIN}$",
            max_length=255,
            title="a host name: letters, digits and hyphens, in parts joined by dots",
        ),
    ]
    vmid: Annotated[
        int | None,
        Field(ge=100, le=999_999_999, description="Left out, the next free number."),
        Whole,
    ] = None
    password: (
        Annotated[SecretStr, SecretText(5, 1024, "Root's password in the container, never logged.")]
        | None
    ) = None


class ContainerRequest(ContainerSpec):
    """A container to be made from an image, in a cluster that the image is published in."""

    ref: Annotated[
        Reference,
        ReferenceText(),
        AfterValidator(Reference.with_default_tag),
        Field(description="The image, as its tag is now; without a tag or digest, latest."),
    ]
    profile: Annotated[
        str | None,
        Field(
            description="The name of a [[profile]] of the configuration, whose options count where "
            "the request says nothing."
        ),
    ] = None
    target: Annotated[
        str | None,
        Field(
            description="The target whose cluster the container is made in; needed when the image "
            "goes to several clusters."
        ),
    ] = None
    credentials: Annotated[
        Credentials | None,
        Field(
            description="What opens the image in its registry, where this host is not to be asked."
        ),
    ] = None


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
    """A container as it was made; `warnings` are sentences for the caller who asked for it."""

    vmid: int
    node: str
    hostname: str
    volume: str
    ostype: str
    running: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundContainer:
    """A container that exists: where, and which image it was made from.

    `origin` is None where syncd did not make the container, and where its configuration cannot be
    read; `fault` then says why.  `lock` is what Proxmox VE does with it just now, else empty.
    `arch` is what it is configured to run.
    """

    vmid: int
    node: str
    hostname: str
    running: bool
    origin: Origin | None
    lock: str = ""
    fault: str = ""
    arch: str = ""


@dataclass(frozen=True, slots=True)
class Startup:
    """How an image wants to be run, as the options `entrypoint` and `env` of Proxmox VE.

    NUL separates the variables of `env`.  An option is empty where the image says nothing, or says
    what every container does anyway.
    """

    entrypoint: str = ""
    env: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def starts_init(self) -> bool:
        """Whether the container runs an init, which starts the services of the distribution."""
        try:
            command = shlex.split(self.entrypoint)
        except ValueError:  # a quotation mark without its partner
            command = self.entrypoint.split()
        return is_init(command or [INIT])

    @classmethod
    def of(cls, image: Image) -> Self:
        """Read an image's config as Proxmox VE reads that of an OCI archive.

        No field of the config has a control character: `syncd.oci` refuses such an image.
        """
        runtime = image.runtime
        entrypoint = shlex.join([*runtime.get("Entrypoint", ()), *runtime.get("Cmd", ())])
        kept, warnings = [], []
        for entry in runtime.get("Env", ()):
            name, equals, _ = entry.partition("=")
            if equals and _NAME.fullmatch(name):
                kept.append(entry)
            else:
                warnings.append(f"the image's variable {name!r:.80} has no form for Proxmox VE")
        return cls("" if entrypoint == INIT else entrypoint, "\0".join(kept), tuple(warnings))
