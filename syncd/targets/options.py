"""The options of a container: what the web UI sets, named as Proxmox VE names it.

Pure values, checked once, where they enter: in the body of a request, in the options of a command,
and in a profile of the configuration.  The bounds are those of the parameters of
`POST /nodes/{node}/lxc` in the official description of the Proxmox VE API.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    Strict,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema

from syncd.targets import property_string as lines
from syncd.targets.request import PatternText, RequestModel, whole_number

_KEYS = {
    "net": r"^net(?:3[01]|[12]?[0-9])$",
    "mp": r"^mp(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])$",
}
"""The keys of interfaces and mount points: as many as Proxmox VE has names for."""
_VARIABLE = r"^[A-Za-z0-9_]+$"
_TEXT = r"^[^\x00-\x08\x0a-\x1f\x7f]*$"
_LONGEST = 16_384

Tag = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_+.-]*$")]
Key = Annotated[str, Field(pattern=r"^[^\r\n]+$", max_length=_LONGEST)]
Network = Annotated[
    str,
    PatternText(
        lines.NETWORK,
        "like name=eth0,bridge=vmbr0,ip=dhcp",
        "The whole line of an interface; net0 stands in place of bridge.",
    ),
]
Mount = Annotated[
    str,
    PatternText(
        lines.MOUNT,
        "like local-zfs:8,mp=/srv: a storage and GiB, or a path that root binds",
        "A mount point: a new volume, or a path on the node, which root@pam alone may bind.",
    ),
]
Features = Annotated[
    str,
    PatternText(
        lines.FEATURES,
        "like nesting=1",
        "What the container may do; API tokens may set nesting alone. Left out, nesting=1 where "
        "the image starts an init.",
    ),
]
Variable = Annotated[str, Field(pattern=_VARIABLE)]
Value = Annotated[str, Field(pattern=_TEXT, max_length=_LONGEST)]
Whole = BeforeValidator(whole_number)
LIST = Strict(False)  # a list of JSON is kept as a tuple


class ContainerOptions(RequestModel):
    """Every option that several containers can share; each may be left out.

    `memory` and `swap` are in MiB; `storage` and `size`, in GiB, are the root file system's.
    `networks` and `mounts` are written as the keys net0 to net31 and mp0 to mp255.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "not": {
                "properties": {"bridge": {"type": "string"}, "net0": {"type": "string"}},
                "required": ["bridge", "net0"],
            }
        }
    )

    node: Annotated[
        str | None,
        Field(
            pattern=rf"^{lines.LABEL}$",
            title="the name of a node",
            description="Left out, the online node with the most free memory that has the "
            "template.",
        ),
    ] = None
    cores: Annotated[int, Field(ge=1, le=8192), Whole] = 1
    cpulimit: Annotated[
        float | None,
        Field(
            ge=0, le=8192, allow_inf_nan=False, description="CPUs' time a second; 0 is no limit."
        ),
    ] = None
    memory: Annotated[int, Field(ge=16, description="MiB."), Whole] = 512
    swap: Annotated[
        int | None,
        Field(ge=0, description="MiB; left out, the default of Proxmox VE."),
        Whole,
    ] = None
    storage: Annotated[
        str | None,
        Field(
            pattern=rf"^{lines.STORAGE}$",
            title="the name of a storage",
            description="The root file system's storage; left out, the target's rootfs_storage, "
            "or the one with the most free space.",
        ),
    ] = None
    size: Annotated[int, Field(ge=1, description="GiB of the root file system."), Whole] = 8
    mounts: dict[str, Mount] = Field(alias="mp[n]", default_factory=dict)
    bridge: Annotated[
        str | None,
        Field(
            pattern=r"^[-_.A-Za-z0-9]+$",
            title="the name of a bridge",
            description="The bridge of an interface eth0 with DHCP; left out, the target's.",
        ),
    ] = None
    networks: dict[str, Network] = Field(alias="net[n]", default_factory=dict)
    nameserver: (
        Annotated[str, PatternText(lines.NAMESERVERS, "addresses of DNS servers, parted by blanks")]
        | None
    ) = None
    searchdomain: (
        Annotated[str, PatternText(lines.DOMAINS, "names of domains, parted by blanks")] | None
    ) = None
    entrypoint: Annotated[
        str | None,
        Field(
            pattern=r"^[^\x00-\x08\x0a-\x1f\x7f]+$",
            max_length=_LONGEST,
            title="a command in one line",
            description="What runs as init, with its arguments; left out, what the image says.",
        ),
    ] = None
    env: dict[Variable, Value] = Field(
        default_factory=dict,
        title="a variable: letters, digits and _, its value without control characters",
        json_schema_extra={"additionalProperties": False},
        description="Variables of what runs as init, added to the image's own.",
    )
    ostype: Annotated[
        Literal["debian", "devuan", "ubuntu", "centos", "fedora", "opensuse", "archlinux",
                "alpine", "gentoo", "nixos", "unmanaged"] | None,
        Field(description="The distribution; left out, what Proxmox VE recognises."),
    ] = None  # fmt: skip
    cmode: Annotated[
        Literal["shell", "console", "tty"] | None,
        Field(description="What the console shows; left out, what fits the image."),
    ] = None
    unprivileged: bool = True
    features: Features | None = None
    onboot: Annotated[
        bool | None, Field(description="Whether the container starts with its node.")
    ] = None
    startup: Annotated[str, PatternText(lines.STARTUP, "like order=1,up=30,down=60")] | None = None
    protection: Annotated[
        bool | None, Field(description="Whether the container is guarded against removal.")
    ] = None
    timezone: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9+_-]+(?:/[A-Za-z0-9+_-]+)*$",
            title="host, or a time zone like Europe/Berlin",
        ),
    ] = None
    hookscript: Annotated[
        str | None,
        Field(
            pattern=rf"^{lines.STORAGE}:snippets/[!-~]+$",
            title="like local:snippets/hook.sh",
            description="A script of the node; root@pam alone may set it.",
        ),
    ] = None
    description: Annotated[
        str | None,
        Field(
            pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$",
            max_length=7000,
            title="text",
            description="Notes in Markdown; syncd adds a line that names the image.",
        ),
    ] = None
    tags: Annotated[
        tuple[Tag, ...], Field(title="a tag: letters, digits and _ + . -, no sign first"), LIST
    ] = ()
    ssh_keys: Annotated[
        tuple[Key, ...],
        Field(
            title="one line of a public key",
            description="Public keys that root may log in with, each one line.",
        ),
        LIST,
    ] = ()
    pool: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+){0,2}$",
            title="the name of a pool",
            description="Left out, the target's.",
        ),
    ] = None
    start: Annotated[bool, Field(description="Whether to start the container at once.")] = False

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, fields: object) -> object:
        """Gather the numbered keys, of which null is the same as none."""
        if not isinstance(fields, Mapping):
            return fields
        gathered: dict[str, Any] = {}
        for key, value in fields.items():
            kind = kind_of(key)
            if key in ("net[n]", "mp[n]"):
                raise ValueError(f"write {key} with a number, like {key.replace('[n]', '0')}")
            if kind is None:
                gathered[key] = value
            elif value is not None:
                gathered.setdefault(f"{kind}[n]", {})[key] = value
        return gathered

    @field_validator("networks")
    @classmethod
    def _one_network(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        if "net0" in value and info.data.get("bridge") is not None:
            raise ValueError("give bridge or net0, not both")
        return value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the JSON schema, in which the numbered keys are patterns of keys."""
        described = handler(schema)
        whole = handler.resolve_ref_schema(described)
        properties = whole["properties"]
        for kind, pattern in _KEYS.items():
            line = properties.pop(f"{kind}[n]")["additionalProperties"]
            line = {"anyOf": [line, {"type": "null"}]}
            whole.setdefault("patternProperties", {})[pattern] = line
        return described

    @classmethod
    def _place(cls, keys: Sequence[str | int]) -> str:
        """Return a fault's key as it was written: `net1` is kept in `networks`."""
        told = keys[1:] if len(keys) > 1 and str(keys[0]).endswith("[n]") else keys
        return super()._place([key for key in told if key != "[key]"]).replace("[n]", "")

    def over(self, profile: ContainerOptions) -> Self:
        """Return these options, completed by those of a profile where these say nothing.

        Of variables, interfaces and mount points each counts by itself.
        """
        own = {name for name in self.model_fields_set if getattr(self, name) is not None}
        update = {name: getattr(profile, name) for name in profile.model_fields_set - own}
        for name in ("env", "networks", "mounts"):
            update[name] = {**getattr(profile, name), **getattr(self, name)}
        if self.bridge is not None:
            update["networks"].pop("net0", None)
        if "net0" in self.networks:
            update["bridge"] = None
        return self.model_copy(update=update)


def kind_of(key: object) -> str | None:
    """Return net or mp for a key like net0 or mp12; None for another key."""
    for kind, pattern in _KEYS.items():
        if isinstance(key, str) and re.fullmatch(pattern, key):
            return kind
    return None
