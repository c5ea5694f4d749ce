"""What can be configured: the tables and keys of the configuration, with their defaults.

Unknown keys are refused.  Secrets are only ever named, by file, and read when they are needed; none
is part of a value that could be printed or logged.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ByteSize,
    Field,
    StrictBool,
    model_validator,
)

from syncd.config import secret
from syncd.config.fields import (
    Rate,
    SpanOrOff,
    check_platforms,
    check_repository,
    cron_line,
    one_or_several,
    parsed,
    registry_host,
)
from syncd.config.github_settings import GitHubSettings
from syncd.config.logins import login
from syncd.config.notify_settings import Event, NotifySettings
from syncd.config.paths import STATE, StatePaths
from syncd.config.section import Section as _Section
from syncd.config.sender_settings import SenderSettings
from syncd.config.server_settings import ServerSettings
from syncd.config.tag_rules import TagRules, check_tag, check_tags
from syncd.config.target_settings import (
    TARGET_NAME,
    DirectoryTargetSettings,
    TargetSettings,
)
from syncd.config.verify import Verify, policy_of
from syncd.limits import Limits
from syncd.oci import MirrorLocation, Platform, Reference, is_attachment
from syncd.targets import DEFAULT_NAME, ContainerOptions, check_pattern
from syncd.trust import Policy


class StateSettings(_Section):
    """Where syncd keeps what it must remember."""

    directory: Path = STATE
    cache_max: ByteSize = ByteSize(20 << 30)
    reserve: ByteSize = ByteSize(256 << 20)

    @property
    def paths(self) -> StatePaths:
        """Where everything below the directory lies."""
        return StatePaths(self.directory)


class ScheduleSettings(_Section):
    """What happens without anybody asking; times in UTC."""

    weekly: Annotated[str, AfterValidator(cron_line)] = "30 23 * * sun"
    sweep: SpanOrOff = timedelta(hours=1)
    verify: SpanOrOff = timedelta(days=30)


class WorkerSettings(_Section):
    """How much happens at a time."""

    jobs: Annotated[int, Field(ge=1, le=32)] = 2


class RegistrySettings(_Section):
    """How to speak to one registry."""

    host: Annotated[str, AfterValidator(registry_host)]
    username: str | None = None
    password_file: Path | None = None
    plain_http: bool = False
    ca_file: Path | None = None
    mirrors: Annotated[
        tuple[Annotated[str, parsed(MirrorLocation.parse)], ...], Field(max_length=8)
    ] = ()
    mirror_tags: StrictBool = False

    @model_validator(mode="after")
    def _both_or_none(self) -> RegistrySettings:
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password_file go together")
        return self

    def credentials(self) -> tuple[str, str] | None:
        """Return username and password as they are now; None means anonymous.

        Without a `username` they are those that `docker login` or `podman login` left here.
        """
        if self.username is None:
            return login(self.host)
        password = secret.read(self.password_file)
        return (self.username, password) if password is not None else None


class ImageSettings(_Section):
    """One watched repository."""

    repository: Annotated[str, parsed(check_repository)]
    tags: Annotated[
        tuple[Annotated[str, AfterValidator(check_tag)], ...],
        AfterValidator(check_tags),
    ] = ("latest",)
    platform: Annotated[
        tuple[str, ...],
        Field(min_length=1, max_length=8),
        BeforeValidator(one_or_several),
        AfterValidator(check_platforms),
    ] = ("linux/amd64",)
    format: Literal["auto", "rootfs", "oci"] = "auto"
    compression_level: Annotated[int, Field(ge=1, le=19)] = 3
    partial: Literal["auto", "never"] = "auto"
    keep: Annotated[int, Field(ge=1, le=1000)] = 2
    gone: SpanOrOff = None
    strict: bool = False
    name: Annotated[str, parsed(check_pattern)] = DEFAULT_NAME
    targets: tuple[str, ...] | None = None
    notify: frozenset[Event] | None = None
    provenance: StrictBool = False
    require: Literal["any", "all"] = "any"
    verify: Verify = ()

    @property
    def policy(self) -> Policy | None:
        """Who has to vouch for the image, or None."""
        return policy_of(self.verify, require_all=self.require == "all")

    @property
    def reference(self) -> Reference:
        """The repository as a reference without tag."""
        return Reference.parse(self.repository)

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """The platforms whose images are wanted; a container is made of the first that fits."""
        return tuple(map(Platform.parse, self.platform))

    @property
    def rules(self) -> TagRules:
        """What the tags are chosen by."""
        return TagRules.parse(self.tags)

    @property
    def fixed_tags(self) -> tuple[str, ...]:
        """The tags that are given by name."""
        return self.rules.names

    @property
    def patterns(self) -> tuple[str, ...]:
        """The rules for what a registry lists, as they are written."""
        return tuple(tag for tag in self.tags if tag not in self.fixed_tags)

    @property
    def has_patterns(self) -> bool:
        """Whether the registry must be asked which tags there are."""
        return bool(self.rules.takes)

    def watches(self, tag: str) -> bool:
        """Tell whether a tag is watched, by name or, if it is one of the newest, by pattern."""
        return tag in self.fixed_tags or self.rules.meet(tag)

    def idle_patterns(self, tags: Iterable[str]) -> tuple[str, ...]:
        """Return the patterns that match none of a registry's tags."""
        known = [tag for tag in tags if not is_attachment(tag)]
        return tuple(one.text for one in self.rules.takes if not any(map(one.meets, known)))


class ProfileSettings(ContainerOptions):
    """Options that several containers share, under a name; see `ContainerOptions`."""

    name: Annotated[str, TARGET_NAME]


class LimitSettings(_Section):
    """Bounds on what images and registries may ask of this machine; see `syncd.limits`."""

    document: ByteSize = ByteSize(Limits().document.maximum)
    layers: Annotated[int, Field(ge=1)] = Limits().layers.maximum
    entries: Annotated[int, Field(ge=1)] = Limits().entries.maximum
    path: Annotated[int, Field(ge=256, le=65535)] = Limits().path.maximum
    header: ByteSize = ByteSize(Limits().header.maximum)
    metadata: ByteSize = ByteSize(Limits().metadata.maximum)
    unpacked: ByteSize = ByteSize(Limits().unpacked.maximum)
    memory: Annotated[ByteSize, Field(ge=128 << 20)] = ByteSize(Limits().memory.maximum)
    tags: Annotated[int, Field(ge=1)] = 2000
    slowest: Rate = ByteSize(16 << 10)

    def bounds(self) -> Limits:
        """Return the bounds of an image as the ground floor knows them."""
        bounds = self.model_dump(exclude={"slowest", "tags"})
        return Limits(**{key: int(value) for key, value in bounds.items()})


class Config(_Section):
    """The whole configuration."""

    server: ServerSettings = ServerSettings()
    state: StateSettings = StateSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    worker: WorkerSettings = WorkerSettings()
    limits: LimitSettings = LimitSettings()
    notify: NotifySettings = NotifySettings()
    github: GitHubSettings = GitHubSettings()
    sender: tuple[SenderSettings, ...] = ()
    registry: tuple[RegistrySettings, ...] = ()
    image: tuple[ImageSettings, ...] = ()
    target: tuple[TargetSettings, ...] = ()
    profile: tuple[ProfileSettings, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        names = [target.name for target in self.target]
        if twice := _repeated(names):
            raise ValueError(f"targets share a name: {', '.join(twice)}")
        if twice := _repeated([registry.host for registry in self.registry]):
            raise ValueError(f"registries share a host: {', '.join(twice)}")
        if twice := _repeated([profile.name for profile in self.profile]):
            raise ValueError(f"profiles share a name: {', '.join(twice)}")
        for image in self.image:
            if unknown := sorted(set(image.targets or ()) - set(names)):
                raise ValueError(
                    f"image {image.repository} names unknown targets: {', '.join(unknown)}"
                )
        if twice := _repeated([tag for image in self.image for tag in _watched(image)]):
            raise ValueError(
                f"images share a tag, of which only the first would be served: {', '.join(twice)}; "
                "write one [[image]] with all of its platforms and targets"
            )
        folders = [
            str(target.path.resolve())
            for target in self.target
            if isinstance(target, DirectoryTargetSettings)
        ]
        if twice := _repeated(folders):
            raise ValueError(f"targets share a folder: {', '.join(twice)}")
        if self.image and not self.target:
            raise ValueError("images are watched but there is no [[target]] to publish them to")
        return self

    @property
    def socket(self) -> Path:
        """Where commands reach the daemon of this state: a Unix socket, as an absolute path."""
        return self.server.socket or self.state.paths.socket

    def senders_of(self, kind: str) -> list[SenderSettings]:
        """Return the senders of a type; none may call where there are none."""
        return [sender for sender in self.sender if sender.type == kind]

    def names_host(self, host: str) -> bool:
        """Tell whether a registry is named here, by a table of its own or by what is watched."""
        return any(settings.host == host for settings in self.registry) or any(
            image.reference.registry == host for image in self.image
        )

    def registry_for(self, host: str) -> RegistrySettings:
        """Return the settings of a registry; anonymous HTTPS where none are given."""
        for settings in self.registry:
            if settings.host == host:
                return settings
        return RegistrySettings(host=host)

    def mirrors_of(self, host: str) -> list[tuple[MirrorLocation, RegistrySettings]]:
        """Return a registry's mirrors with the settings for each, in the order of asking.

        The URL of a mirror says whether it speaks HTTP; its login and CA are those of a table of
        its own, never those of the registry.
        """
        locations = map(MirrorLocation.parse, self.registry_for(host).mirrors)
        return [
            (
                location,
                self.registry_for(location.host).model_copy(
                    update={"plain_http": location.plain_http}
                ),
            )
            for location in locations
        ]

    def images_of(self, reference: Reference) -> list[ImageSettings]:
        """Return the watched images of a reference's repository."""
        return [image for image in self.image if image.reference.name == reference.name]

    def image_for(self, reference: Reference) -> ImageSettings:
        """Return how to treat a reference: as it is watched, or by default.

        A tag that is not watched needs the same signatures as the repository's watched ones.
        """
        if watching := self.watching(reference):
            return watching
        signed = next((image for image in self.images_of(reference) if image.verify), None)
        same = {"verify": signed.verify, "require": signed.require} if signed else {}
        return ImageSettings(repository=reference.name).model_copy(update=same)

    def watching(self, reference: Reference) -> ImageSettings | None:
        """Return the image that watches a reference, or None."""
        for image in self.images_of(reference):
            if reference.tag is None or image.watches(reference.tag):
                return image
        return None

    def watches_by_pattern(self, reference: Reference) -> bool:
        """Tell whether a tag is watched, and that only since a pattern matches it."""
        images = self.images_of(reference)
        tag = None if reference.digest else reference.tag
        return (
            tag is not None
            and any(image.watches(tag) for image in images)
            and not any(tag in image.fixed_tags for image in images)
        )


def _watched(image: ImageSettings) -> set[str]:
    """Return what no other image may watch, too: each name, and all rules together."""
    rules = {" ".join(image.patterns)} if image.patterns else set()
    return {f"{image.reference}:{tag}" for tag in {*image.fixed_tags, *rules}}


def _repeated(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
