"""What `syncd check` finds out: secrets, registries and targets, without changing anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from syncd.errors import SyncdError
from syncd.parts import targets_of
from syncd.reference import Reference
from syncd.registry import Registry
from syncd.settings import Config, ImageSettings
from syncd.template import Finding

# The check is typed in a shell; the secrets may be credentials, which the service alone is given.
_SERVICE = "{} answers 503, unless systemd gives the service its credential"


def findings(config: Config) -> list[Finding]:
    """Return everything that was looked at, good and bad."""
    found = [*_secrets(config)]
    for image in config.image:
        found += _tags(config, image)
    for target in targets_of(config).values():
        found += target.check()
    return found


def _secrets(config: Config) -> Iterator[Finding]:
    server = config.server
    yield _tried("webhook secret", _there, server.webhook_secret, _SERVICE.format("/webhooks"))
    yield _tried("API token", _there, server.api_token, _SERVICE.format("/api"))
    for registry in config.registry:
        if registry.username:
            yield _tried(f"registry {registry.host}", _there, registry.credentials, "anonymous")


def _tags(config: Config, image: ImageSettings) -> Iterator[Finding]:
    """Resolve every tag that is given by name, one HEAD each, and count those by pattern."""
    for tag in image.fixed_tags:
        reference = image.reference.with_tag(tag)
        yield _tried(f"image {reference}", _digest, config, reference)
    if image.has_patterns:
        yield _tried(f"image {image.repository}, tags by pattern", _matching, config, image)


def _tried(subject: str, act: Callable[..., str], *arguments: object) -> Finding:
    try:
        return Finding(True, subject, act(*arguments))
    except SyncdError as exc:
        return Finding(False, subject, str(exc))


def _there(read: Callable[[], object], without: str) -> str:
    return "readable" if read() else f"not configured: {without}"


def _digest(config: Config, reference: Reference) -> str:
    registry = Registry(reference, config.registry_for(reference.registry), config.limits.bounds())
    return str(registry.resolve(reference).digest)


def _matching(config: Config, image: ImageSettings) -> str:
    registry = Registry(
        image.reference, config.registry_for(image.reference.registry), config.limits.bounds()
    )
    return f"{sum(map(image.watches, registry.tags()))} of the registry's tags are watched"
