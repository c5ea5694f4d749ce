"""Whether what was published is still there, and still the same: asked file by file.

A storage's disk flips bits, a node loses power while it copies, and people delete files.  Where
this host can read a published file, the file is digested; elsewhere the listing tells its size, and
nothing else can be known.  What was found is written down, so that a bad file does not count as
published any more: the next sweep has it published anew.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import structlog

from syncd.errors import PublishError, UnpublishedError
from syncd.files import paced_digest
from syncd.oci import Digest, Reference
from syncd.progress import Pause, Silence, Stoppable
from syncd.sync.context import Running
from syncd.sync.executors import Executors
from syncd.sync.ledger import Ledger
from syncd.sync.proof import Proof, ProofState
from syncd.sync.template import Template
from syncd.sync.template_views import anybody
from syncd.targets import Target

Compared = Literal["digest", "size", "nothing"]

log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True)
class ForeignTemplate:
    """A file that this ledger did not make, and that a job has proven to be a template."""

    target: str
    name: str
    volumes: tuple[str, ...]
    size: int
    file_digest: Digest
    reference: None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """What a published template was found to be, by comparing its digest, its size or nothing.

    `detail` is a sentence on what is wrong; it is empty for a good file.
    """

    template: Template | ForeignTemplate
    state: ProofState
    compared: Compared
    detail: str = ""


class Verifier:
    """Compares published files with the ledger, off the event loop that it lives in."""

    def __init__(
        self, ledger: Ledger, running: Running, executors: Executors, stopping: threading.Event
    ) -> None:
        self._ledger = ledger
        self._running = running
        self._executors = executors
        self._stopping = stopping

    async def published(self) -> list[Template | ForeignTemplate]:
        """Return the templates of the configured targets, each file once, foreign ones last.

        Of a target that cannot be asked, only what this ledger made is among them.
        """
        return await self._executors.tidying.run(self._published)

    async def verify(
        self, template: Template | ForeignTemplate, rate: int | None = None
    ) -> Verified:
        """Return what a published template is now, and write that down.

        A file is read at `rate` bytes a second at most, or as fast as can be.  A target that cannot
        be asked is told as unreadable, and nothing is written down: that says nothing about the
        file.  Raise PublishError when the target is not configured.
        """
        target = self._running.targets.get(template.target)
        if target is None:
            raise PublishError(f"target {template.target!r} of {template.name} is not configured")
        pause = Stoppable(Silence(), self._stopping).pause
        found = await self._executors.tidying.run(self._verify, target, template, rate, pause)
        if found.state is not ProofState.OK:
            log.warning(
                "published file is bad",
                volumes=template.volumes,
                state=found.state,
                detail=found.detail,
            )
        return found

    async def verify_published(
        self, wanted: Reference | None, told: Callable[[Template], bool] = anybody
    ) -> list[Verified]:
        """Compare the published templates of a reference, or all, with what they have to be.

        A reference without tag and digest stands for its repository.  Each file is compared once.
        What a job has proven of files that this ledger did not make belongs to no reference, but to
        all.  Only what is `told` is among it.  Raise UnpublishedError when syncd published nothing
        of the reference.
        """
        files = [
            template
            for template in await self.published()
            if (isinstance(template, ForeignTemplate) or told(template))
            and (
                wanted is None
                or template.reference == wanted
                or (
                    template.reference is not None
                    and template.reference.name == wanted.name
                    and not wanted.tag
                    and not wanted.digest
                )
            )
        ]
        if wanted is not None and not files:
            raise UnpublishedError(
                f"syncd published no template of {wanted}", "syncd status names them"
            )
        return [await self.verify(template) for template in files]

    async def verify_due(self, every: timedelta, rate: int) -> None:
        """Verify each template that nobody verified for so long, one after the other."""
        for template in await self._executors.tidying.run(self._due, every):
            await self.verify(template, rate)

    def _verify(
        self, target: Target, template: Template | ForeignTemplate, rate: int | None, pause: Pause
    ) -> Verified:
        try:
            found = self._compare(target, template, rate, pause)
        except PublishError as exc:
            return Verified(template, ProofState.UNREADABLE, "nothing", str(exc))
        self._ledger.proofs.put(
            Proof(
                target.name,
                template.name,
                template.size,
                template.file_digest,
                found.state,
                datetime.now(UTC),
            )
        )
        return found

    def _due(self, every: timedelta) -> list[Template | ForeignTemplate]:
        """Return the templates that nobody verified for so long."""
        now, found = datetime.now(UTC), []
        for template in self._published():
            proof = self._ledger.proofs.of(template.target, template.name)
            if proof is None or now - proof.at >= every:
                found.append(template)
        return found

    def _published(self) -> list[Template | ForeignTemplate]:
        targets = self._running.targets
        rows = self._ledger.templates()
        files = {(row.target, row.name): row for row in rows if row.target in targets}
        return [*files.values(), *(one for it in targets.values() for one in self._foreign(it))]

    def _foreign(self, target: Target) -> list[ForeignTemplate]:
        """Return the proven files of a target that it still lists: what is gone was not ours."""
        proven = {proof.name: proof for proof in self._ledger.proofs.foreign(target.name)}
        if not proven:
            return []
        listed: dict[str, list[str]] = {}
        try:
            for volume in target.volumes():
                listed.setdefault(volume.name, []).append(volume.volid)
        except PublishError as exc:
            log.warning("foreign templates not listed", target=target.name, error=str(exc))
        return [
            ForeignTemplate(
                target.name, name, tuple(dict.fromkeys(volids)), proof.size, proof.file_digest
            )
            for name, volids in listed.items()
            if (proof := proven.get(name))
        ]

    @staticmethod
    def _compare(
        target: Target, template: Template | ForeignTemplate, rate: int | None, pause: Pause
    ) -> Verified:
        """Return what a template is now; raise PublishError when the target cannot be asked."""
        listed = [volume for volume in target.volumes() if volume.name == template.name]
        for volume in listed:
            if volume.size != template.size:
                detail = f"{volume.size} bytes, not {template.size}"
                where = f" on {volume.node}" if volume.node else ""
                return Verified(template, ProofState.CUT, "size", detail + where)
        absent = target.missing(template.name, template.size)
        if absent or not listed:
            detail = f"not listed by {', '.join(absent) or target.name}"
            return Verified(template, ProofState.GONE, "size", detail)
        path = target.local(template.name)
        if path is None:
            return Verified(template, ProofState.OK, "size")
        digest = template.file_digest
        try:
            encoded = paced_digest(path, digest.algorithm, rate, pause)
        except OSError as exc:
            detail = f"{path} cannot be read: {exc.strerror}"
            return Verified(template, ProofState.UNREADABLE, "size", detail)
        if encoded != digest.encoded:
            detail = f"{path} has other bytes than were published"
            return Verified(template, ProofState.CHANGED, "digest", detail)
        return Verified(template, ProofState.OK, "digest")
