"""Names of template files, and the volume ids that Proxmox VE derives from the names.

Source: `PVE::Storage::Plugin`, which turns every byte outside `[A-Za-z0-9_.-]` into `_`.  From
pve-manager 9.2.10 on the wizard offers a template whose name ends in `_ARCH` only for nodes of that
architecture; the words are those of `arch` of `POST /nodes/{node}/lxc`.
"""

from __future__ import annotations

import re
import string

from syncd.errors import ConfigError, PublishError
from syncd.formats import Format
from syncd.oci import Image, Platform, Reference

DEFAULT_NAME = "{registry}_{namespace}_{image}_{tag}_{config12}"
"""The name under which the web UI of opensource-server looks for a template."""

_NAME_MAX = 255
_FIELDS = ("registry", "namespace", "image", "tag", "config12", "digest12", "platform")
_ARCHITECTURES = {"386": "i386", "arm": "armhf"}
_UNCLEAN = re.compile(r"[^A-Za-z0-9_.-]")


def check_pattern(pattern: str) -> str:
    """Return a name pattern that `file_name` can use.

    Raise ConfigError for a pattern that is malformed, has an unknown field, or has no digest.
    """
    try:
        fields = [field[1:] for field in string.Formatter().parse(pattern) if field[1] is not None]
    except ValueError as exc:
        raise ConfigError(f"the name pattern {pattern!r} is malformed: {exc}") from exc
    if any(layout or conversion for _, layout, conversion in fields):
        raise ConfigError(f"the name pattern {pattern!r} may have only names between its braces")
    names = {name for name, _, _ in fields if name is not None}
    unknown = names - set(_FIELDS)
    if unknown:
        raise ConfigError(
            f"the name pattern {pattern!r} has unknown fields: {', '.join(sorted(unknown))}",
            hint=f"there are: {', '.join(_FIELDS)}",
        )
    if not names & {"config12", "digest12"}:
        raise ConfigError(
            f"the name pattern {pattern!r} has no digest, so a new version would need to "
            "overwrite the old one",
            hint="put {config12} or {digest12} into it",
        )
    return pattern


def file_name(pattern: str, reference: Reference, image: Image, form: Format) -> str:
    """Return the file name of an image's template; raise PublishError when the name is too long.

    The name has only characters that Proxmox VE keeps, so that the file is listed under the name
    with which it is published.  It ends in the architecture unless that is amd64, for which the web
    UI's name is kept.  A repository without a namespace has an empty one, so that two `_`
    follow each other in the default name, as in that of the web UI.
    """
    tag = reference.tag or (reference.digest or image.digest).encoded[:12]
    filled = pattern.format(
        registry=reference.registry,
        namespace=reference.namespace,
        image=reference.image,
        tag=tag,
        config12=image.config_digest.encoded[:12],
        digest12=image.manifest_digest.encoded[:12],
        platform=image.platform,
    )
    name = _UNCLEAN.sub("_", filled).lstrip(".")
    architecture = architecture_of(image.platform)
    if architecture != "amd64" and not name.endswith(f"_{architecture}"):
        name += f"_{architecture}"
    name += form.suffix
    if len(name) > _NAME_MAX:
        raise PublishError(
            f"the template name for {reference} has {len(name)} characters, "
            f"more than the {_NAME_MAX} of a file name",
            "configure a shorter name pattern",
        )
    return name


def volume_id(storage: str, name: str) -> str:
    """Return the volume id of a template: `STORAGE:vztmpl/NAME`."""
    return f"{storage}:vztmpl/{name}"


def architecture_of(platform: Platform) -> str:
    """Return what Proxmox VE calls a platform's architecture."""
    return _ARCHITECTURES.get(platform.architecture, platform.architecture)
