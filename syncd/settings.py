"""What can be configured: the tables and keys of the configuration, with their defaults.

Unknown keys are refused.  Secrets are only ever named, by file, and read when they are needed; none
is part of a value that could be printed or logged.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    model_validator,
)

from syncd import secret
from syncd.cron import trigger
from syncd.errors import ConfigError, SyncdError
from syncd.limits import Limits
from syncd.reference import Platform, Reference
from syncd.template import DEFAULT_NAME, check_pattern

_SPAN = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def _span(value: object) -> object:
    """Read a span like `90s`, `1h` or `1h30m`."""
    if not isinstance(value, str):
        return value
    match = _SPAN.fullmatch(value)
    if not value or not match:
        raise ValueError("write a span of time like 90s, 5m, 1h or 1h30m")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    try:
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError as exc:
        raise ValueError("this span of time is beyond measure") from exc


def _off(value: object) -> object:
    return None if value == "off" else _span(value)


def _parsed(parse: Any) -> AfterValidator:
    """Make a validator of a parser that raises our own errors."""

    def check(value: str) -> str:
        try:
            parse(value)
        except SyncdError as exc:
            raise ValueError(str(exc)) from exc
        return value

    return AfterValidator(check)


def _repository(value: str) -> None:
    reference = Reference.parse(value)
    if reference.tag or reference.digest:
        raise ConfigError("the repository carries a tag or digest", hint="list tags under tags")


def _tag(value: str) -> str:
    if value.startswith("re:"):
        try:
            re.compile(value[3:])
        except re.error as exc:
            raise ValueError(f"not a regular expression: {exc}") from exc
    else:
        try:
            Reference.parse(f"localhost/image:{value}")
        except SyncdError as exc:
            raise ValueError(str(exc)) from exc
    return value


def _cron_line(value: str) -> str:
    trigger(value)
    return value


def _address(value: str) -> str:
    """Check that the port is one: the pattern has seen to the rest."""
    if int(value.rpartition(":")[2]) > 65535:
        raise ValueError("the port is beyond 65535")
    return value


Span = Annotated[timedelta, BeforeValidator(_span)]
SpanOrOff = Annotated[timedelta | None, BeforeValidator(_off)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(_Section):
    """The listening socket and its secrets."""

    listen: Annotated[
        str,
        Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[^:\s]+):[0-9]{1,5}$"),
        AfterValidator(_address),
    ] = "127.0.0.1:8750"
    webhook_secret_file: Path | None = None
    api_token_file: Path | None = None
    settle: Span = timedelta(seconds=2)

    def webhook_secret(self) -> str | None:
        """Return the secret that GitHub signs with, or None when there is none."""
        return secret.read(self.webhook_secret_file, "webhook-secret")

    def api_token(self) -> str | None:
        """Return the bearer token of the API, or None when there is none."""
        return secret.read(self.api_token_file, "api-token")


class StateSettings(_Section):
    """Where syncd keeps what it must remember."""

    directory: Path = Path("/var/lib/syncd")
    cache_max: ByteSize = ByteSize(20 << 30)


class ScheduleSettings(_Section):
    """What happens without anybody asking; times in UTC."""

    weekly: Annotated[str, AfterValidator(_cron_line)] = "30 23 * * sun"
    sweep: SpanOrOff = timedelta(hours=1)


class WorkerSettings(_Section):
    """How much happens at a time."""

    jobs: Annotated[int, Field(ge=1, le=32)] = 2


class RegistrySettings(_Section):
    """How to speak to one registry."""

    host: Annotated[str, _parsed(lambda host: Reference.parse(f"{host}/x"))]
    username: str | None = None
    password_file: Path | None = None
    plain_http: bool = False
    ca_file: Path | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> RegistrySettings:
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password_file go together")
        return self

    def credentials(self) -> tuple[str, str] | None:
        """Return username and password, read from its file now; None means anonymous."""
        password = secret.read(self.password_file)
        return (self.username, password) if self.username and password is not None else None


class ImageSettings(_Section):
    """One watched repository."""

    repository: Annotated[str, _parsed(_repository)]
    tags: Annotated[tuple[Annotated[str, AfterValidator(_tag)], ...], Field(min_length=1)] = (
        "latest",
    )
    platform: Annotated[str, _parsed(Platform.parse)] = "linux/amd64"
    format: Literal["auto", "rootfs", "oci"] = "auto"
    compression_level: Annotated[int, Field(ge=1, le=19)] = 3
    keep: Annotated[int, Field(ge=1, le=1000)] = 2
    name: Annotated[str, _parsed(check_pattern)] = DEFAULT_NAME
    targets: tuple[str, ...] | None = None

    @property
    def reference(self) -> Reference:
        """The repository as a reference without tag."""
        return Reference.parse(self.repository)

    @property
    def fixed_tags(self) -> tuple[str, ...]:
        """The tags that are given by name."""
        return tuple(tag for tag in self.tags if not tag.startswith("re:"))

    @property
    def has_patterns(self) -> bool:
        """Whether the registry must be asked which tags there are."""
        return len(self.fixed_tags) < len(self.tags)

    def watches(self, tag: str) -> bool:
        """Tell whether a tag is watched, by name or by pattern."""
        return any(
            re.search(watched[3:], tag) if watched.startswith("re:") else watched == tag
            for watched in self.tags
        )


_TARGET_NAME = Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,62}$")


class DirectoryTargetSettings(_Section):
    """A folder laid out as a PVE `dir` storage."""

    name: Annotated[str, _TARGET_NAME]
    type: Literal["directory"]
    path: Path


class ProxmoxTargetSettings(_Section):
    """A storage of a Proxmox VE cluster."""

    name: Annotated[str, _TARGET_NAME]
    type: Literal["proxmox"]
    endpoints: tuple[Annotated[str, Field(pattern=r"^https://[^/\s]+$")], ...] = ()
    token_id: Annotated[str | None, Field(pattern=r"^[^@!\s]+@[^@!\s]+![^@!\s]+$")] = None
    token_secret_file: Path | None = None
    ca_file: Path | None = None
    fingerprint: Annotated[str | None, Field(pattern=r"^([0-9A-Fa-f]{2}:){31}[0-9A-Fa-f]{2}$")] = (
        None
    )
    storage: str | None = None
    publish: Literal["upload", "path"] = "upload"
    bridge: Annotated[str, Field(pattern=r"^[-_.A-Za-z0-9]+$")] = "vmbr0"
    rootfs_storage: str | None = None
    pool: str | None = None

    @model_validator(mode="after")
    def _reachable(self) -> ProxmoxTargetSettings:
        if self.endpoints and not (self.token_id and self.token_secret_file):
            raise ValueError("endpoints need token_id and token_secret_file")
        if self.ca_file and self.fingerprint:
            raise ValueError("give ca_file or fingerprint, not both")
        return self

    def token_secret(self) -> str | None:
        """Return the API token's secret, read from its file now."""
        return secret.read(self.token_secret_file)


TargetSettings = Annotated[
    DirectoryTargetSettings | ProxmoxTargetSettings, Field(discriminator="type")
]


class LimitSettings(_Section):
    """Bounds on what an image may ask; see `syncd.limits`."""

    document: ByteSize = ByteSize(Limits().document)
    layers: Annotated[int, Field(ge=1)] = Limits().layers
    entries: Annotated[int, Field(ge=1)] = Limits().entries
    path: Annotated[int, Field(ge=256, le=65535)] = Limits().path
    header: ByteSize = ByteSize(Limits().header)
    metadata: ByteSize = ByteSize(Limits().metadata)
    unpacked: ByteSize = ByteSize(Limits().unpacked)

    def bounds(self) -> Limits:
        """Return the bounds as the ground floor knows them."""
        return Limits(**{key: int(value) for key, value in self.model_dump().items()})


class NotifySettings(_Section):
    """Whom to tell; the file holds one Apprise URL a line (https://github.com/caronc/apprise)."""

    urls_file: Path | None = None
    on: frozenset[Literal["published", "unchanged", "failed"]] = frozenset({"failed"})

    def urls(self) -> list[str]:
        """Return the Apprise URLs, read from their file now: they carry passwords."""
        lines = map(str.strip, (secret.read(self.urls_file, "notify-urls") or "").splitlines())
        return [line for line in lines if line and not line.startswith("#")]


class Config(_Section):
    """The whole configuration."""

    server: ServerSettings = ServerSettings()
    state: StateSettings = StateSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    worker: WorkerSettings = WorkerSettings()
    limits: LimitSettings = LimitSettings()
    notify: NotifySettings = NotifySettings()
    registry: tuple[RegistrySettings, ...] = ()
    image: tuple[ImageSettings, ...] = ()
    target: tuple[TargetSettings, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        names = [target.name for target in self.target]
        if twice := _repeated(names):
            raise ValueError(f"targets share a name: {', '.join(twice)}")
        if twice := _repeated([registry.host for registry in self.registry]):
            raise ValueError(f"registries share a host: {', '.join(twice)}")
        for image in self.image:
            if unknown := sorted(set(image.targets or ()) - set(names)):
                raise ValueError(
                    f"image {image.repository} names unknown targets: {', '.join(unknown)}"
                )
        if self.image and not self.target:
            raise ValueError("images are watched but there is no [[target]] to publish them to")
        return self

    def registry_for(self, host: str) -> RegistrySettings:
        """Return the settings of a registry; anonymous HTTPS where none are given."""
        for settings in self.registry:
            if settings.host == host:
                return settings
        return RegistrySettings(host=host)

    def images_of(self, reference: Reference) -> list[ImageSettings]:
        """Return the watched images of a reference's repository."""
        return [image for image in self.image if image.reference.name == reference.name]

    def image_for(self, reference: Reference) -> ImageSettings:
        """Return how to treat a reference: as it is watched, or by default."""
        for image in self.images_of(reference):
            if reference.tag is None or image.watches(reference.tag):
                return image
        return ImageSettings(repository=reference.name)


def _repeated(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
