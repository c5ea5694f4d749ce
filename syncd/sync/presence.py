"""Whether an image is published: one question, asked before, while and after a job.

What a target lists decides, together with what the ledger knows of it: a file that is listed with
another size than the ledger says does not count, and neither does one that syncd meant to publish
and did not finish, one that was found changed, or one of an image that has yet to pass its policy.
A file that this ledger did not make counts only after a job has proven it: its name and size are
known to anybody.  Asking changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from syncd.errors import PublishError, TrustError
from syncd.oci import Descriptor, Digest, Image
from syncd.sync.conditions import Current, Failed, Finding, Missing
from syncd.sync.context import SyncContext
from syncd.sync.ledger import Ledger
from syncd.sync.proof import ProofState
from syncd.sync.template import Template
from syncd.sync.vouched_rows import VouchedImage
from syncd.targets import Target, file_name


@dataclass(frozen=True, slots=True)
class Held:
    """How one target holds an image: under these volume ids.

    `template` is the ledger's row; None for a proven file that somebody else put there.
    `finished` is false while the ledger only says that syncd meant to publish the file.  `by_name`
    tells that the file was found by its name, so that the ledger does not know yet that the tag
    means it.  `surpassed` tells that the tag has meant another template since.
    """

    volumes: tuple[str, ...]
    template: Template | None = None
    finished: bool = True
    by_name: bool = False
    surpassed: bool = False


@dataclass(frozen=True, slots=True)
class Presence:
    """Where an image lies: by the target's name how it is held there, or None."""

    digest: Digest
    targets: dict[str, Held | None]

    @property
    def everywhere(self) -> bool:
        """Whether every target holds the image, finished."""
        return all(held is not None and held.finished for held in self.targets.values())

    @property
    def volumes(self) -> tuple[str, ...]:
        """The volume ids, when the image is everywhere; else none."""
        if not self.everywhere:
            return ()
        return tuple(volid for held in self.targets.values() if held for volid in held.volumes)

    @property
    def findings(self) -> dict[str, Finding]:
        """What this means for the conditions of the reference, by the target's name."""
        return {
            name: Current(self.digest, held.volumes)
            if held is not None and held.finished
            else Missing(self.digest)
            for name, held in self.targets.items()
        }


class PresenceQuery:
    """Asks targets and the ledger.  Blocking; safe to use from several threads."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def ask(self, context: SyncContext, top: Descriptor, image: Image | None = None) -> Presence:
        """Return where the image lies that `top` describes; raise PublishError.

        Without `image`, whose documents cost requests, only what the ledger made is found; with
        it proven files of the image's name are found too, whoever put them there.
        """
        return Presence(
            top.digest,
            {target.name: self.ask_one(context, target, top, image) for target in context.targets},
        )

    def ask_one(
        self, context: SyncContext, target: Target, top: Descriptor, image: Image | None
    ) -> Held | None:
        """Return how one target holds the image, or None; raise PublishError."""
        held = self._by_digest(context, target, top)
        if held is None and image is not None:
            held = self._by_name(context, target, image)
        return held

    def look(self, context: SyncContext, top: Descriptor) -> dict[str, Finding]:
        """Return what is found in each target, by its name, as far as the ledger knows.

        A target that cannot be asked is a finding, too.  Where all targets hold the image, the
        ledger learns that the reference means it.
        """
        findings: dict[str, Finding] = {}
        holdings: list[Held] = []
        for target in context.targets:
            try:
                held = self.ask_one(context, target, top, None)
            except (PublishError, TrustError) as exc:
                findings[target.name] = Failed.of(exc)
                continue
            if held is None or not held.finished:
                findings[target.name] = Missing(top.digest)
            else:
                findings[target.name] = Current(top.digest, held.volumes)
                holdings.append(held)
        if len(holdings) == len(context.targets):
            self.learn(context, top, holdings)
        return findings

    def learn(self, context: SyncContext, top: Descriptor, held: Iterable[Held]) -> None:
        """Write down that the reference means these templates now, so that retention spares them.

        A file that syncd did not make stays out of the ledger, and so out of retention's reach.
        """
        for holding in held:
            template, now = holding.template, datetime.now(UTC)
            if template is None:
                continue
            if holding.by_name:
                known = replace(
                    template,
                    reference=context.reference,
                    platform=context.platform,
                    digest=top.digest,
                    created=now,
                    volumes=holding.volumes,
                    private=context.is_private,
                )
                self._ledger.record(known)
            elif holding.surpassed:
                self._ledger.record(replace(template, created=now))

    def _by_digest(self, context: SyncContext, target: Target, top: Descriptor) -> Held | None:
        """Find a template of this very digest; by digest it may lie there under any tag."""
        reference = context.reference
        wanted = (reference.name, context.format_for(target))
        known_as = None if reference.digest else reference
        known = self._ledger.templates(known_as, target.name)
        for age, template in enumerate(t for t in known if t.platform == context.platform):
            same = (template.reference.name, template.format) == wanted
            same &= top.digest in (template.digest, template.manifest_digest)
            same = same and self._is_vouched(context, top.digest, template.manifest_digest)
            if same and self._counts(target, template.name, template.size):
                surpassed = known_as is not None and age > 0
                return Held(template.volumes, template, surpassed=surpassed)
        return None

    def _by_name(self, context: SyncContext, target: Target, image: Image) -> Held | None:
        """Find a file of the image's name that syncd made, or that a job has proven."""
        template_format = context.format_for(target)
        name = file_name(context.settings.name, context.reference, image, template_format)
        template = self._ledger.made(target.name, name)
        known = template or self._ledger.proofs.of(target.name, name)
        if known is None or not self._counts(target, name, known.size):
            return None
        if template and template.private and template.reference.name != context.reference.name:
            return None  # names of files leave out what tells some repositories apart
        if not self._is_vouched(context, image.digest, image.manifest_digest):
            return None
        volumes = tuple(dict.fromkeys(v.volid for v in target.volumes() if v.name == name))
        published = any(row.name == name for row in self._ledger.templates(target=target.name))
        return Held(volumes, template, finished=template is None or published, by_name=True)

    def _is_vouched(self, context: SyncContext, digest: Digest, manifest: Digest) -> bool:
        """Tell whether an image passed the policy as it is now, or needs nobody's word."""
        policy = context.settings.policy
        image = VouchedImage.of(context.reference, digest, manifest)
        return policy is None or self._ledger.vouched.passed(image, policy.fingerprint())

    def _counts(self, target: Target, name: str, size: int) -> bool:
        """Tell whether the target lists the file with its size, and nobody found it changed."""
        proof = self._ledger.proofs.of(target.name, name)
        if proof is not None and proof.state is not ProofState.OK:
            return False
        return not target.missing(name, size)
