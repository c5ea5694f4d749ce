"""The last step to a template: a finished file is published in one target, and written down.

The ledger knows of a file before the target does, so that a crash loses no file.  A file that lies
in the target under the name already, and that this ledger did not make, is never written down as
made: it is proven, by its record or its bytes, or it is in the way, and it is never overwritten or
deleted.  A file that this
ledger did make, and that was cut or changed since, is deleted and published anew.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import structlog

from syncd import __version__
from syncd.errors import PublishError, WrongFileError
from syncd.files import paced_digest
from syncd.formats import Format
from syncd.oci import Digest, Image
from syncd.sync.context import SyncContext
from syncd.sync.ledger import Ledger
from syncd.sync.presence import Held
from syncd.sync.proof import Proof, ProofState
from syncd.sync.provenance import json_lines
from syncd.sync.tally import Step
from syncd.sync.template import Template
from syncd.sync.template_cache import CachedTemplate
from syncd.sync.vouched_rows import VouchedImage
from syncd.targets import (
    ReadableTarget,
    RecordingTarget,
    Target,
    TemplateRecord,
    Volume,
    file_name,
)

log = structlog.stdlib.get_logger()


class Publisher:
    """Publishes finished files.  Blocking; safe to use from several threads."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def adopt(
        self, context: SyncContext, target: Target, image: Image, form: Format
    ) -> tuple[Held, tuple[str, ...]] | None:
        """Prove a file that somebody else put there by its record, if it has one; else None.

        Return how the target holds it, and the record's sentences on what a container will lack.
        The record has to be this image's, and the file to have the record's size everywhere, and
        the record's digest where this host reads it.  A strict image is always converted, since
        only that tells whether it is suitable.  Raise PublishError when the target cannot be asked.
        """
        name = file_name(context.settings.name, context.reference, image, form)
        if context.settings.strict or not isinstance(target, RecordingTarget):
            return None
        if self._ledger.made(target.name, name) or self._ledger.proofs.of(target.name, name):
            return None  # it is ours, or known to be good or bad
        lines = log.bind(target=target.name, template=name)
        try:
            record = target.record(name)
        except PublishError as exc:
            lines.warning("record not used", error=str(exc))
            return None
        path = target.local(name)
        if record is None or path is None or target.missing(name, record.size):
            return None
        wanted = (image.manifest_digest, image.config_digest, context.platform, form, name)
        told = (record.manifest_digest, record.config_digest, record.platform, record.format)
        if (*told, record.name) != wanted:
            lines.warning("record not used", error="it is of another image")
            return None
        digest, pause = record.file_digest, context.progress.pause
        try:
            encoded = paced_digest(path, digest.algorithm, pause=pause)
        except OSError as exc:
            raise PublishError(f"{path} cannot be read: {exc.strerror}") from exc
        if encoded != digest.encoded:
            lines.warning("record not used", error="the template has other bytes")
            return None
        self._prove(target, name, record.size, digest)
        found = [volume.volid for volume in target.volumes() if volume.name == name]
        lines.info("proven by its record", volumes=found)
        return Held(tuple(dict.fromkeys(found)), None, by_name=True), record.warnings

    def put(self, context: SyncContext, target: Target, image: Image, file: CachedTemplate) -> Held:
        """Ensure that a target holds the file under the image's name; return how it does.

        Raise WrongFileError when another file has the name, which this ledger did not make; else
        as `Target.publish`.
        """
        name = file_name(context.settings.name, context.reference, image, file.format)
        earlier = self._ledger.made(target.name, name)
        is_foreign = earlier is None and any(volume.name == name for volume in target.volumes())
        template = _described(context, target, image, file, name)
        if earlier is not None:
            private = template.private and earlier.private
            template = replace(template, pinned=earlier.pinned, private=private)
        if not is_foreign:
            self._ledger.intend(template)
            if context.settings.provenance:
                self._put_beside(target, template)
        with self._ledger.tally.timed(Step.PUBLISH):
            placed = self._placed(context, target, template, file, earlier)
        volumes = tuple(dict.fromkeys(volume.volid for volume in placed))
        self._prove(target, name, template.size, file.digest)
        if is_foreign:
            log.info("proven", volumes=volumes, target=target.name)
            return Held(volumes, None, by_name=True)
        template = replace(template, volumes=volumes)
        self._ledger.record(template)
        if isinstance(target, RecordingTarget):
            try:
                target.put_record(_recorded(template, file.warnings))
            except PublishError as exc:  # nothing depends on it here
                log.warning("record not written", volumes=volumes, error=str(exc))
        return Held(volumes, template)

    def _put_beside(self, target: Target, template: Template) -> None:
        """Put what the image says of itself beside its template, before anybody sees that."""
        brought = self._ledger.attestations.of(
            VouchedImage.of(template.reference, template.digest, template.manifest_digest)
        )
        if not brought:
            return
        if not isinstance(target, ReadableTarget) or not target.put_beside(
            template.name, json_lines(brought)
        ):
            log.warning("attestations not put beside", target=target.name, template=template.name)

    def _prove(self, target: Target, name: str, size: int, digest: Digest) -> None:
        proof = Proof(target.name, name, size, digest, ProofState.OK, datetime.now(UTC))
        self._ledger.proofs.put(proof)

    def _placed(
        self,
        context: SyncContext,
        target: Target,
        template: Template,
        file: CachedTemplate,
        earlier: Template | None,
    ) -> list[Volume]:
        """Publish the file; what `earlier` was and is not any more makes room for it, once."""
        try:
            return target.publish(file.path, template.name, file.digest, context.progress)
        except WrongFileError as exc:
            if earlier is None:
                raise
            log.warning("published anew", volumes=exc.volumes, reason=exc.what)
            for volume in target.volumes():
                if (volume.volid, volume.node) in exc.volumes:
                    target.delete(volume)
            return target.publish(file.path, template.name, file.digest, context.progress)


def _described(
    context: SyncContext,
    target: Target,
    image: Image,
    file: CachedTemplate,
    name: str,
) -> Template:
    """Return the ledger's row of a file that is about to be published."""
    return Template(
        name=name,
        target=target.name,
        reference=context.reference,
        format=file.format,
        platform=context.platform,
        digest=image.digest,
        manifest_digest=image.manifest_digest,
        config_digest=image.config_digest,
        diff_ids=tuple(layer.diff_id for layer in image.layers),
        file_digest=file.digest,
        size=file.path.stat().st_size,
        created=datetime.now(UTC),
        volumes=(),
        syncd_version=__version__,
        private=context.is_private,
    )


def _recorded(template: Template, warnings: tuple[str, ...]) -> TemplateRecord:
    """Return what the file beside a published template tells of it."""
    return TemplateRecord(
        name=template.name,
        reference=template.reference,
        platform=template.platform,
        format=template.format,
        digest=template.digest,
        manifest_digest=template.manifest_digest,
        config_digest=template.config_digest,
        diff_ids=template.diff_ids,
        size=template.size,
        file_digest=template.file_digest,
        created=template.created,
        syncd_version=template.syncd_version,
        warnings=warnings,
    )
