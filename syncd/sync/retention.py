"""Which versions of a tag may go, and their deletion.

Only what the ledger says syncd made is ever deleted; never the newest versions, a pinned one, one
that something is being made from, or one that a condition names as current.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from syncd.errors import PublishError
from syncd.oci import Reference
from syncd.sync.context import SyncContext
from syncd.sync.ledger import Ledger
from syncd.sync.template import Template
from syncd.targets import Target

log = structlog.stdlib.get_logger()


def surplus(
    versions: Sequence[Template], keep: int, in_use: Collection[str] = ()
) -> list[Template]:
    """Return the versions of one tag on one target that retention lets go, oldest first.

    `versions` come newest first, as the ledger orders them; their times do not count.  Never the
    newest `keep` (at least one: the last good version), nor a pinned one, nor one whose volume ids
    are among those `in_use`.
    """
    return [
        version
        for version in reversed(versions[max(keep, 1) :])
        if not version.pinned and not set(version.volumes) & set(in_use)
    ]


@dataclass(frozen=True, slots=True)
class Retained:
    """What became of surplus versions: which are gone, and which a target refused to delete.

    `spared` are those of a gone tag that stay only because they are pinned.
    """

    gone: tuple[Template, ...] = ()
    refused: tuple[tuple[Template, PublishError], ...] = ()
    spared: tuple[Template, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence for each refusal."""
        return tuple(
            f"{' '.join(template.volumes)} was not deleted: {error}"
            for template, error in self.refused
        )


class Retention:
    """Deletes surplus versions.  Blocking; safe to use from several threads."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._in_use: Counter[str] = Counter()

    @contextmanager
    def sparing(self, volumes: Iterable[str]) -> Iterator[None]:
        """Delete none of these volumes for as long as something is made from them.

        Enter and leave it in one event loop.
        """
        used = Counter(volumes)
        self._in_use = self._in_use + used
        try:
            yield
        finally:
            self._in_use = self._in_use - used

    def apply(self, context: SyncContext, *, dry_run: bool = False) -> Retained:
        """Ensure that the surplus versions of this reference are gone; return what became of them.

        Those of other platforms that are configured do not count; those of platforms that are
        configured no more do.

        A file that another reference means too is only struck from the ledger for this one.  A
        target that refuses is told in the result: the new version is published all the same.
        """
        gone: list[Template] = []
        refused: list[tuple[Template, PublishError]] = []
        for target in context.targets:
            versions = [
                version
                for version in self._ledger.templates(context.reference, target.name)
                if version.platform == context.platform
                or version.platform not in context.settings.platforms
            ]
            shared = {
                other.name
                for other in self._ledger.templates(target=target.name)
                if other.reference != context.reference
            }
            current = self._ledger.conditions.current(target.name)
            spared = {*self._in_use, *current.pop(context.reference, ())}
            others = frozenset().union(*current.values())
            for template in surplus(versions, context.settings.keep, spared):
                if template.name in shared:
                    if not dry_run:
                        self._ledger.forget(target.name, template.name, context.reference)
                    continue
                if others.intersection(template.volumes):
                    continue
                try:
                    if not dry_run:
                        self._delete(target, template)
                except PublishError as exc:
                    log.warning("not deleted", volumes=template.volumes, error=str(exc))
                    refused.append((template, exc))
                else:
                    gone.append(template)
        return Retained(tuple(gone), tuple(refused))

    def reap(
        self,
        target: Target,
        reference: Reference,
        versions: Iterable[Template],
        *,
        dry_run: bool = False,
    ) -> Retained:
        """Ensure that versions of a reference are gone that no more is watched, or no more there.

        Pinned versions stay, and so does what something is made from or another reference means.
        """
        gone: list[Template] = []
        refused: list[tuple[Template, PublishError]] = []
        spared: list[Template] = []
        current = self._ledger.conditions.current(target.name)
        current.pop(reference, None)
        needed = {*self._in_use, *frozenset().union(*current.values())}
        rows = self._ledger.templates(target=target.name)
        shared = {row.name for row in rows if row.reference != reference}
        for template in versions:
            if template.name in shared:
                if not dry_run and not template.pinned:
                    self._ledger.forget(target.name, template.name, reference)
                continue
            if needed.intersection(template.volumes):
                continue
            if template.pinned:
                spared.append(template)
                continue
            try:
                if not dry_run:
                    self._delete(target, template)
                gone.append(template)
            except PublishError as exc:
                log.warning("not deleted", volumes=template.volumes, error=str(exc))
                refused.append((template, exc))
        return Retained(tuple(gone), tuple(refused), tuple(spared))

    def _delete(self, target: Target, template: Template) -> None:
        """Ensure that a template is gone from a target, everywhere; raise PublishError."""
        for volume in target.volumes():
            if volume.volid in template.volumes:
                target.delete(volume)
        self._ledger.forget(template.target, template.name)
        log.info("deleted", volumes=template.volumes)
