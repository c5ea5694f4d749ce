"""What `syncd check` finds out about the mirrors of registries.

A mirror that does not answer costs no job, since its registry is asked then, so nobody else would
notice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from syncd.config import Config
from syncd.errors import SyncdError
from syncd.oci import Reference
from syncd.oci.registry import IMPATIENT, Registry
from syncd.targets import CheckResult


def mirror_results(config: Config) -> Iterator[CheckResult]:
    """Ask each mirror for one watched image of its registry, by digest, as a job would."""
    for settings in config.registry:
        for location, access in config.mirrors_of(settings.host):
            subject = f"mirror {location} of {settings.host}"
            wanted = _example(config, settings.host)
            if wanted is None:
                yield CheckResult(True, subject, "not asked: no tag there is watched by its name")
                continue
            bounds = config.limits.bounds()
            try:
                top = Registry(wanted, settings, bounds).resolve(wanted)
                there = replace(location.reference(wanted), digest=top.digest)
                Registry(there, access, bounds, timeouts=IMPATIENT).resolve(there)
            except SyncdError as exc:
                yield CheckResult(False, subject, f"{exc}; the registry is asked instead")
            else:
                yield CheckResult(True, subject, f"has {wanted}")


def _example(config: Config, host: str) -> Reference | None:
    """Return a watched tag of a registry that is given by its name, or None."""
    for image in config.image:
        if image.reference.registry == host and image.fixed_tags:
            return image.reference.with_tag(image.fixed_tags[0])
    return None
